use super::*;
use crate::strict;

fn read(text: &str) -> Result<Plugin, Vec<String>> {
    let value: serde_json::Value = toml::from_str(text).unwrap();
    strict::from_value::<Plugin>(value)
        .and_then(|plugin| plugin.check().map(|()| plugin))
        .map_err(|invalid| {
            let errors = invalid.errors.into_iter();
            errors
                .map(|e| format!("{}: {}", e.field, e.message))
                .collect()
        })
}

const GRAY: &str = r#"
    name = "search-gray"
    route = "search"
    [[gray.rules]]
    when = { key = "header:x-user", is = ["u1", "u2"] }
    group = "gray"
    [[gray.rules]]
    when = { any = [{ key = "cookie:user", modulo = 100, below = 5 }, { percent = 0.5 }] }
    group = "gray"
"#;

#[test]
fn reads_the_documented_form_and_writes_it_back() {
    let plugin = read(GRAY).unwrap();
    assert_eq!(plugin.kind(), Some(Kind::Gray));
    assert_eq!(plugin.breadth(), Breadth::Route);
    let json = serde_json::to_string(&plugin).unwrap();
    assert_eq!(
        strict::from_json::<Plugin>(json.as_bytes()).unwrap(),
        plugin
    );
}

#[test]
fn names_what_is_wrong() {
    for (text, wants) in [
        (
            GRAY.replace("gray.rules", "grey.rules"),
            "grey: unknown field; did you mean `gray`?",
        ),
        (
            GRAY.replace("modulo = 100, ", ""),
            "gray.rules[1].when.any[0].modulo: `modulo` and `below` go together",
        ),
        (
            GRAY.replace("percent = 0.5", "percent = 100.5"),
            "gray.rules[1].when.any[1].percent: 100.5 is no share",
        ),
        (
            GRAY.replace("key = \"header:x-user\", ", ""),
            "gray.rules[0].when.key: say what is looked at",
        ),
        (
            "name = \"x\"".to_owned(),
            ": has no policy: give it one of `fallback`, `restrict`",
        ),
        (
            format!("{GRAY}\n[respond]\nstatus = 200"),
            "gray: one policy a plugin",
        ),
        (
            "name = \"x\"\nservice = \"a\"\nroute = \"b\"\n[respond]".to_owned(),
            "route: bind it to one of",
        ),
        (
            "name = \"x\"\n[rewrite.request.set]\nHost = \"a\"".to_owned(),
            "rewrite.request.set.Host: `host` is the router's own",
        ),
        (
            "name = \"x\"\n[rewrite.request.set]\nx-a = \"${hots}\"".to_owned(),
            "rewrite.request.set.x-a: `${hots}` is no variable",
        ),
        (
            "name = \"x\"\n[rewrite.path]\nmatches = \"^/a/(.*)$\"\nto = \"/b/${2}\"".to_owned(),
            "rewrite.path.to: the regular expression has only 1 groups",
        ),
        (
            "name = \"x\"\n[rewrite.path]\nmatches = \"(a|b\"\nto = \"/b\"".to_owned(),
            "rewrite.path.matches: no regular expression that can be used",
        ),
        (
            // A bomb: it compiles to more than the limit.
            "name = \"x\"\n[limit]\nrate = 1\nwhen = { key = \"path\", matches = \"(a{999}){999}\" }"
                .to_owned(),
            "limit.when.matches: no regular expression that can be used",
        ),
        (
            "name = \"x\"\n[limit]\nburst = 5".to_owned(),
            "limit.rate: give a `rate`",
        ),
        (
            "name = \"x\"\n[restrict]\nallow = [\"10.0.0.1/8\"]".to_owned(),
            "restrict.allow[0]: `10.0.0.1/8` has bits set behind its prefix: write 10.0.0.0/8",
        ),
    ] {
        let errors = read(&text).unwrap_err();
        assert!(
            errors.iter().any(|error| error.starts_with(wants)),
            "{wants}\n{errors:#?}"
        );
    }
}

/// What is too much is refused before a router sees it: each of these would take its memory or time.
#[test]
fn hostile_sizes_are_refused_by_name() {
    let rules = |count: usize, when: &str| {
        let rule = format!("[[gray.rules]]\ngroup = \"g\"\nwhen = {{ {when} }}\n");
        format!("name = \"x\"\n{}", rule.repeat(count))
    };
    let id = "a".repeat(257);
    let key = "key = \"path\"";
    let many = |count: usize| vec!["\"x\""; count].join(",");
    let deep = format!(
        "{}{key}, present = true{}",
        "not = { ".repeat(9),
        " }".repeat(9)
    );
    for (text, wants) in [
        (
            rules(10_001, "percent = 1"),
            "gray.rules: 1 to 10,000 rules",
        ),
        (
            rules(1, &format!("{key}, is = [\"{id}\"]")),
            "gray.rules[0].when.is[0]: 1 to 256 bytes",
        ),
        (
            rules(1, &format!("{key}, is = [{}]", many(100_001))),
            "gray.rules[0].when.is: at most 100000 values",
        ),
        (
            rules(6, &format!("{key}, is = [{}]", many(100_000))),
            "gray: 600000 values; a plugin has at most 500000",
        ),
        (
            rules(101, &format!("{key}, matches = \"^/a\"")),
            "gray: 101 regular expressions; a plugin has at most 100",
        ),
        (
            rules(
                10_000,
                &format!("any = [{{ {key}, present = true }}, {{ percent = 1 }}]"),
            ),
            "gray: 30000 conditions; a plugin has at most 20000",
        ),
        (rules(1, &deep), "gray.rules[0].when.not"),
        (
            rules(1, &format!("{key}, matches = \"{}\"", "a".repeat(1025))),
            "gray.rules[0].when.matches: a regular expression has 1 to 1024 bytes",
        ),
        (
            rules(1, &format!("{key}, matches = \"(a+)+{{1000}}{{1000}}\"")),
            "gray.rules[0].when.matches: no regular expression that can be used",
        ),
    ] {
        let errors = read(&text).unwrap_err();
        let found = errors.iter().any(|error| error.starts_with(wants));
        assert!(found, "{wants}\n{:#?}", &errors[..errors.len().min(3)]);
    }
    // As many as may be.
    read(&rules(10_000, &format!("{key}, ends_with = [\"7\"]"))).unwrap();
    read(&rules(100, &format!("{key}, matches = \"^/a\""))).unwrap();
}

#[test]
fn new_kinds_name_what_is_wrong() {
    for (text, wants) in [
        (
            "[blue_green]\nlive = \"red\"",
            "blue_green.live: `blue` or `green`",
        ),
        (
            "[blue_green]\nlive = \"a\"\nblue = \"a\"\ngreen = \"a\"",
            "blue_green.green: another",
        ),
        (
            "[blue_green]\nlive = \"blue\"\nrequire_ready = 101",
            "blue_green.require_ready: 101 is no share",
        ),
        (
            "[lanes]\nheader = \"host\"",
            "lanes.header: `host` is the router's own",
        ),
        (
            "[lanes]\nheader = \"Baggage\"",
            "lanes.header: a header of its own",
        ),
        ("[lanes]\nmember = \"a,b\"", "lanes.member: a key"),
        (
            "[lanes]\n[[lanes.entry]]\nlane = \"A\"",
            "lanes.entry[0].lane: `A` is not a name",
        ),
        ("[break]\nerrors = 0", "break.errors: more than 0"),
        (
            "[break]\nwindow = \"10ms\"",
            "break.window: between 1s and 10m",
        ),
        ("[break]\nprobes = 256", "break.probes: 1 to 255"),
        (
            "[break.adaptive]\nmin = 30",
            "break.adaptive.initial: between",
        ),
        (
            "[break]\nslwo = \"1s\"",
            "break.slwo: unknown field; did you mean `slow`?",
        ),
        (
            "[limit]\nrate = 1\ncount = \"global\"",
            "limit.count: unknown variant",
        ),
        (
            "[limit]\nrate = 1\nkey = \"jwt:\"",
            "limit.key: `jwt:` is no hash key",
        ),
    ] {
        let errors = read(&format!("name = \"x\"\n{text}")).unwrap_err();
        let found = errors.iter().any(|error| error.starts_with(wants));
        assert!(found, "{wants}\n{errors:#?}");
    }
    for fine in [
        "[blue_green]\nlive = \"green\"",
        "[lanes]",
        "[break]",
        "[break.adaptive]",
        "[limit]\nrate = 1\ncount = \"divided\"\nkey = \"jwt:sub\"",
    ] {
        let plugin = read(&format!("name = \"x\"\n{fine}")).unwrap();
        let json = serde_json::to_string(&plugin).unwrap();
        assert_eq!(
            strict::from_json::<Plugin>(json.as_bytes()).unwrap(),
            plugin,
            "{fine}"
        );
    }
}

#[test]
fn experiments_of_a_layer_do_not_overlap() {
    let two = |from: u8, to: u8, layer: &str| {
        let experiment = |name: &str, from, to, layer: &str| {
            format!(
                "[[ab.experiments]]\nname = \"{name}\"\nlayer = \"{layer}\"\nfrom = {from}\n\
                 to = {to}\nkey = \"header:x-user\"\n[[ab.experiments.variants]]\nname = \"a\"\n"
            )
        };
        read(&format!(
            "name = \"x\"\n{}{}",
            experiment("one", 0, 50, "page"),
            experiment("two", from, to, layer)
        ))
    };
    assert!(two(50, 100, "page").is_ok());
    assert!(two(0, 100, "ranking").is_ok());
    let errors = two(49, 100, "page").unwrap_err();
    assert_eq!(
        errors,
        ["ab.experiments[1].from: overlaps experiment `one` of the same layer"]
    );
}

#[test]
fn templates_come_back_as_they_were() {
    for text in [
        "",
        "a",
        "$${x}",
        "${host}/a${1}b",
        "https://${host}${path}${query}",
        "a$$",
    ] {
        let template: Template = text.parse().unwrap();
        assert_eq!(template.to_string(), text);
    }
    for bad in ["$", "${", "${x}", "$x", "a\nb", "${header:}", "${10}"] {
        assert!(bad.parse::<Template>().is_err(), "{bad}");
    }
}

#[test]
fn the_narrowest_binding_is_the_greatest() {
    assert!(Breadth::Globe < Breadth::Cluster && Breadth::Service < Breadth::Route);
}
