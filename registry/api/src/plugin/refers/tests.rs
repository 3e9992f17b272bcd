use super::*;
use crate::manifest::Manifest;

const SITE: &str = r#"
    [[service]]
    name = "search"
    groups = { gray = { version = "v2" } }
    [[service]]
    name = "shop"
    [[route]]
    id = "search"
    host = "search"
    service = "search"
    [[route]]
    id = "shop"
    host = "shop"
    service = "shop"
    [[route]]
    id = "shop-2"
    host = "shop-2"
    service = "shop"
"#;

fn site(more: &str) -> Manifest {
    Manifest::from_toml(&format!("{SITE}{more}")).unwrap()
}

fn said(plugin: &str) -> String {
    let world = site(&format!("[[plugin]]\nname = \"p\"\n{plugin}"));
    match check(&world.plugins[0], &world) {
        Ok(()) => String::new(),
        Err(invalid) => invalid.to_string(),
    }
}

#[test]
fn what_a_plugin_names_has_to_be_there() {
    let gray = |bound: &str, group: &str| {
        said(&format!(
            "{bound}\n[[plugin.gray.rules]]\ngroup = \"gray\"\n[[plugin.gray.rules]]\ngroup = \"{group}\""
        ))
    };
    for (bound, group, want) in [
        ("service = \"search\"", "gray", ""),
        ("route = \"search\"", "baseline", ""),
        ("", "gray", ""),
        ("cluster = \"any\"", "gray", ""),
        (
            "service = \"search\"",
            "grey",
            "gray.rules[1].group: service `search` has no group `grey`; did you mean `gray`?",
        ),
        (
            "route = \"shop\"",
            "baseline",
            "gray.rules[0].group: service `shop` has no group `gray`; give it in the service's \
             `groups` first",
        ),
        (
            "service = \"serch\"",
            "gray",
            "service: there is no service `serch`; did you mean `search`?",
        ),
        (
            "route = \"nowhere\"",
            "gray",
            "route: there is no route `nowhere`: create it first",
        ),
        (
            "",
            "blue",
            "gray.rules[1].group: no service has a group `blue`: give one in `groups` first",
        ),
    ] {
        assert_eq!(gray(bound, group), want, "{bound} {group}");
    }
    assert_eq!(
        said("[plugin.fallback]\nbody = \"sorry\"\nservice = \"shp\""),
        "fallback.body: there is no fallback `sorry`: create it first; \
         fallback.service: there is no service `shp`; did you mean `shop`?"
    );
    let ab = said(
        "service = \"shop\"\n[[plugin.ab.experiments]]\nname = \"e\"\nkey = \"client\"\n\
         variants = [{ name = \"a\" }, { name = \"b\", group = \"v2\" }]",
    );
    assert!(
        ab.starts_with("ab.experiments[0].variants[1].group: service `shop` has no group `v2`"),
        "{ab}"
    );
}

#[test]
fn a_plugin_knows_where_it_names_what() {
    let world = site("[[plugin]]\nname = \"p\"\nroute = \"shop\"\n[plugin.respond]");
    let plugin = &world.plugins[0];
    let shop: Name = "shop".parse().unwrap();
    assert_eq!(plugin.names(Thing::Route, &shop).as_deref(), Some("route"));
    assert_eq!(plugin.names(Thing::Service, &shop), None);
}

#[test]
fn two_services_do_not_rescue_each_other() {
    let rescue = |from: &str, to: &str| {
        format!(
            "[[plugin]]\nname = \"{from}\"\nservice = \"{from}\"\n[plugin.fallback]\nservice = \"{to}\"\n"
        )
    };
    let one = rescue("search", "shop");
    site(&one).check_complete().unwrap();
    let both = site(&format!("{one}{}", rescue("shop", "search")));
    let error = both.check_complete().unwrap_err().errors.remove(0);
    assert_eq!(error.field, "plugin[1].fallback.service");
    assert!(error.message.starts_with("leads back"), "{}", error.message);
}

#[test]
fn a_route_that_rescues_is_there_and_is_not_rescued_by_whom_it_rescues() {
    assert_eq!(
        said("route = \"search\"\n[plugin.fallback]\nroute = \"shp\""),
        "fallback.route: there is no route `shp`; did you mean `shop`?"
    );
    let rescue = |from: &str, to: &str| {
        format!(
            "[[plugin]]\nname = \"{from}\"\nroute = \"{from}\"\n[plugin.fallback]\nroute = \"{to}\"\n"
        )
    };
    let one = rescue("search", "shop");
    let world = site(&one);
    world.check_complete().unwrap();
    let (shop, plugin) = ("shop".parse().unwrap(), &world.plugins[0]);
    let at = plugin.names(Thing::Route, &shop);
    assert_eq!(at.as_deref(), Some("fallback.route"));
    let line = format!("{one}{}", rescue("shop", "shop-2"));
    site(&line).check_complete().unwrap();
    for back in ["shop", "search"] {
        let both = site(&format!("{one}{}", rescue("shop", back)));
        let error = both.check_complete().unwrap_err().errors.remove(0);
        assert!(error.message.starts_with("leads back"), "{}", error.message);
        assert_eq!(error.field, "plugin[1].fallback.route");
    }
}

/// What rescues all others is not rescued by itself; what it rescues does not rescue it.
#[test]
fn a_fallback_of_everything_leaves_out_whom_it_asks() {
    let globe = |to: &str| format!("[[plugin]]\nname = \"all\"\n[plugin.fallback]\n{to}\n");
    let narrow = |bound: &str, to: &str| {
        format!("[[plugin]]\nname = \"own\"\n{bound}\n[plugin.fallback]\n{to}\n")
    };
    let looped = |plugins: &str| site(plugins).check_complete().is_err();
    let (to_shop, as_shop) = ("service = \"shop\"", "route = \"shop\"");
    for to in [to_shop, as_shop] {
        assert!(!looped(&globe(to)), "{to}");
        // Bound to whom it asks, it can only be a mistake.
        assert!(looped(&narrow("service = \"shop\"", to)), "{to}");
        // Two that rescue each other, by whatever binding.
        let back = narrow("service = \"shop\"", "service = \"search\"");
        assert!(looped(&format!("{}{back}", globe(to))), "{to}");
    }
    let aside = narrow("service = \"search\"", as_shop);
    assert!(!looped(&format!("{}{aside}", globe(to_shop))));
    // A copy of everything to one service is a copy of its own requests, too.
    assert!(looped(
        "[[plugin]]\nname = \"m\"\n[plugin.mirror]\nservice = \"shop\"\n"
    ));
}

/// What leads on is handed in, so that this holds whichever kinds do.
fn around(plugins: &str, leads: &[(&str, Place<'_>)]) -> Option<(String, String)> {
    let world = site(plugins);
    let leading: Vec<Leading<'_>> = leads
        .iter()
        .map(|(name, place)| {
            let mut plugins = world.plugins.iter();
            let plugin = plugins.find(|one| one.name.as_str() == *name).unwrap();
            Leading {
                plugin,
                kind: plugin.kind().unwrap(),
                leads: vec![(At::new("at", [0, 0]), *place)],
            }
        })
        .collect();
    loop_among(&leading, &world).map(|found| (found.plugin.to_string(), found.why))
}

#[test]
fn nothing_leads_back() {
    let (search, shop): (Name, Name) = ("search".parse().unwrap(), "shop".parse().unwrap());
    let second: Name = "shop-2".parse().unwrap();
    let bound = |name: &str, bound: &str| {
        format!("[[plugin]]\nname = \"{name}\"\n{bound}\n[plugin.respond]\n")
    };
    let a = bound("a", "service = \"search\"");
    let b = bound("b", "route = \"shop\"");
    let globe = bound("g", "");
    let to_shop = ("a", Place::Service(&shop));
    let (back, other) = (("b", Place::Route(&search)), ("b", Place::Route(&second)));

    assert_eq!(around(&a, &[to_shop]), None);
    assert_eq!(around(&format!("{a}{b}"), &[to_shop, other]), None);
    let (plugin, why) = around(&format!("{a}{b}"), &[to_shop, back]).unwrap();
    assert_eq!(plugin, "b");
    assert_eq!(
        why,
        "leads back to where it began: route `search` → service `shop` → route `search`; name \
         another one"
    );
    // Another route of the service does not go through `b`.
    let second_route = ("a", Place::Route(&second));
    assert_eq!(around(&format!("{a}{b}"), &[second_route, back]), None);
    // The globe's reaches where it leads to, unless something narrower stands there.
    let to_search = ("g", Place::Route(&search));
    assert!(around(&globe, &[to_search]).is_some());
    let narrow = format!("{globe}{a}");
    assert!(around(&narrow, &[to_search, to_shop]).is_some());
    let quiet = ("a", Place::Route(&second));
    let apart = format!("{narrow}{}", bound("c", "service = \"shop\""));
    let end = ("c", Place::Route(&second));
    assert!(around(&apart, &[to_search, quiet, end]).is_some());
    // Kinds are apart: a copy is not mirrored because its answer has a fallback.
    let kinds = format!(
        "{a}[[plugin]]\nname = \"b\"\nroute = \"shop\"\n[plugin.restrict]\nmethods = [\"GET\"]\n"
    );
    assert_eq!(around(&kinds, &[to_shop, back]), None);
}
