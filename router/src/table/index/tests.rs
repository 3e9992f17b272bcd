use proptest::prelude::*;

use super::*;
use crate::{
    fixtures::{name, route},
    table::Sought,
};

fn place() -> Place {
    Place {
        index: 0,
        slot: 0,
        chain: None,
        service: name("s"),
    }
}

fn set(index: &mut Index, id: &str, host: &str, prefix: &str) {
    index.set(&Arc::new(route(id, host, prefix, "s")), place());
}

fn found(index: &Index, host: &str, path: &str) -> Option<String> {
    let sought = Sought::new(host.as_bytes());
    let found = index.routes().find(&sought, path.as_bytes());
    found.ok().map(|entry| entry.id.to_string())
}

fn refused(index: &Index) -> Vec<String> {
    index
        .refused()
        .map(|(id, why)| format!("{id}: {why}"))
        .collect()
}

#[test]
fn of_two_that_mean_the_same_the_lowest_id_stands_whenever_it_came() {
    let mut index = Index::default();
    set(&mut index, "b", "h", "/%78");
    assert_eq!(found(&index, "h", "/x").unwrap(), "b");
    set(&mut index, "a", "h", "/x");
    set(&mut index, "c", "h", "/x/");
    assert_eq!(found(&index, "h", "/x").unwrap(), "a");
    assert_eq!(
        refused(&index),
        [
            "b: prefix: route `a` takes host `h` and prefix `/%78` already",
            "c: prefix: route `a` takes host `h` and prefix `/x` already",
        ]
    );
    index.remove(&name("a"));
    assert_eq!(found(&index, "h", "/x").unwrap(), "b");
    index.remove(&name("c"));
    assert_eq!(refused(&index), [""; 0]);
    index.remove(&name("b"));
    assert_eq!(found(&index, "h", "/x"), None);
}

#[test]
fn a_host_may_have_one_route_now_and_several_then() {
    let mut index = Index::default();
    let all = |index: &Index| ["/x", "/y", "/x/z"].map(|path| found(index, "h", path));
    let some = |ids: [&str; 3]| ids.map(|id| (!id.is_empty()).then(|| id.to_owned()));
    set(&mut index, "a", "h", "/x");
    assert_eq!(all(&index), some(["a", "", "a"]));
    set(&mut index, "b", "h", "/y");
    assert_eq!(all(&index), some(["a", "b", "a"]));
    set(&mut index, "c", "h", "/x/z");
    assert_eq!(all(&index), some(["a", "b", "c"]));
    index.remove(&name("a"));
    assert_eq!(all(&index), some(["", "b", "c"]));
    index.remove(&name("b"));
    assert_eq!(all(&index), some(["", "", "c"]));
    set(&mut index, "c", "h", "/y");
    assert_eq!(all(&index), some(["", "c", ""]));
    // Of two that mean the same, now this one stands and then that one.
    set(&mut index, "b", "h", "/y");
    assert_eq!(all(&index), some(["", "b", ""]));
    index.remove(&name("b"));
    assert_eq!(all(&index), some(["", "c", ""]));
    index.remove(&name("c"));
    assert_eq!(all(&index), some(["", "", ""]));
}

#[test]
fn a_route_that_no_request_matches_is_named_until_it_is_another() {
    let mut index = Index::default();
    set(&mut index, "a", "h", "/%2e%2e");
    assert_eq!(refused(&index).len(), 1);
    set(&mut index, "a", "h", "/x");
    assert_eq!(refused(&index), [""; 0]);
    assert_eq!(found(&index, "h", "/x").unwrap(), "a");
}

#[test]
fn prefixes_of_very_many_segments_are_told_apart() {
    let mut index = Index::default();
    let path = |segments: usize| "/a".repeat(segments);
    for segments in [62, 63, 64, 200] {
        set(&mut index, &format!("r{segments}"), "h", &path(segments));
    }
    for (segments, want) in [(61, None), (62, Some("r62")), (63, Some("r63"))] {
        assert_eq!(found(&index, "h", &path(segments)).as_deref(), want);
    }
    for (segments, want) in [(64, "r64"), (199, "r64"), (200, "r200"), (500, "r200")] {
        assert_eq!(found(&index, "h", &path(segments)).unwrap(), want);
    }
    index.remove(&name("r200"));
    index.remove(&name("r63"));
    assert_eq!(found(&index, "h", &path(63)).unwrap(), "r62");
    assert_eq!(found(&index, "h", &path(300)).unwrap(), "r64");
}

#[test]
fn a_host_is_no_suffix_and_no_part_of_a_path() {
    let mut index = Index::default();
    set(&mut index, "exact", "a.b", "/");
    set(&mut index, "below", "*.b", "/");
    set(&mut index, "all", "*", "/b");
    for (host, path, want) in [
        ("a.b", "/b", Some("exact")),
        ("b", "/b", Some("all")),
        ("b", "/", None),
        ("c.b", "/b", Some("below")),
        ("", "/a.b", None),
    ] {
        assert_eq!(found(&index, host, path).as_deref(), want, "{host} {path}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, &'static str, String),
    Remove(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let hosts = prop::sample::select(vec!["a", "b.a", "*.a", "*.b.a", "*"]);
    let segments = prop::sample::select(vec!["a", "b", "%61", "..%2f", "/a"]);
    let prefixes = prop::collection::vec(segments, 0..4);
    let prefixes = prefixes.prop_map(|segments| format!("/{}", segments.join("/")));
    let step = prop_oneof![
        3 => (0..12u8, hosts, prefixes).prop_map(|(id, host, prefix)| Step::Set(id, host, prefix)),
        1 => (0..12u8).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever led to a set of routes, the index over it is the one that is made of it at once.
    #[test]
    fn steps_lead_where_a_fresh_index_leads(steps in steps()) {
        let mut index = Index::default();
        let mut routes = BTreeMap::new();
        for step in steps {
            match step {
                Step::Set(id, host, prefix) => {
                    let id = format!("r{id:02}");
                    if let Ok(prefix) = prefix.parse() {
                        let mut new = route(&id, host, "/", "s");
                        new.prefix = prefix;
                        let new = Arc::new(new);
                        index.set(&new, place());
                        routes.insert(id, new);
                    }
                }
                Step::Remove(id) => {
                    let id = format!("r{id:02}");
                    index.remove(&name(&id));
                    routes.remove(&id);
                }
            }
        }
        let mut fresh = Index::default();
        for route in routes.values() {
            fresh.set(route, place());
        }
        prop_assert_eq!(refused(&index), refused(&fresh));
        prop_assert_eq!(index.routes().len(), fresh.routes().len());
        prop_assert_eq!(&index.depths, &fresh.depths);
        let standing = |index: &Index| {
            let mut all: Vec<_> = index.routes().iter().map(|entry| entry.id.clone()).collect();
            all.sort();
            all
        };
        prop_assert_eq!(standing(&index), standing(&fresh));
        for host in ["a", "b.a", "c.a", "c.b.a", "x"] {
            for path in ["/", "/a", "/b", "/a/a", "/a/b", "/b/a", "/a/b/a", "/c/a", "/b/b/b/b"] {
                let (one, two) = (found(&index, host, path), found(&fresh, host, path));
                prop_assert_eq!(one, two, "{} {}", host, path);
            }
        }
    }
}
