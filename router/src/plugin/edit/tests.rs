use proptest::prelude::*;

use super::*;
use crate::plugin::asked::Headers;

fn about<'a>(asked: &'a Asked<'a>, segments: usize) -> About<'a> {
    About {
        asked,
        route: "shop",
        service: "cart",
        segments,
    }
}

fn at(path: &str) -> Asked<'_> {
    Asked {
        path: path.as_bytes(),
        query: b"a=1",
        ..Asked::default()
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn templates_say_what_the_request_says() {
    let list = [("x-user".to_owned(), "u1".to_owned())];
    let asked = Asked {
        headers: Headers::List(&list),
        ..at("/api/v1/x")
    };
    let fill = |template: &str| {
        let mut out = Vec::new();
        about(&asked, 2).fill(&template.parse().unwrap(), None, &mut out);
        text(out)
    };
    assert_eq!(
        fill("${scheme}://${host}${path}${query}"),
        "http://svc.local/api/v1/x?a=1"
    );
    assert_eq!(fill("${rest}|${client}|${request_id}"), "/x|127.0.0.1|id");
    assert_eq!(
        fill("${route}/${service}/${header:x-user}/$$"),
        "shop/cart/u1/$"
    );
    assert_eq!(fill("${header:x-none}"), "");
}

#[test]
fn the_prefix_is_replaced_on_segment_boundaries() {
    for (path, segments, prefix, wanted) in [
        ("/api/v1/x/y", 2, "/", "/x/y"),
        ("/api/v1/x/y", 2, "/v2", "/v2/x/y"),
        ("/api/v1", 2, "/", "/"),
        ("/api/v1/", 2, "/new", "/new/"),
        ("/x", 0, "/new", "/new/x"),
        ("/", 0, "/new", "/new/"),
        ("//api//v1//x", 2, "/", "//x"),
        ("/%61pi/x", 1, "/b", "/b/x"),
        ("/api%2Fv1/x", 2, "/", "/x"),
    ] {
        let asked = at(path);
        let mut out = Vec::new();
        write_prefix(prefix, &about(&asked, segments), &mut out);
        assert_eq!(text(out), wanted, "{path} {segments} {prefix}");
    }
}

#[test]
fn paths_are_rewritten_by_regular_expression() {
    let new = NewPath::new(&PathRewrite {
        matches: "^/u/([0-9]+)/(.*)$".to_owned(),
        to: "/users/${2}/of/${1}".parse().unwrap(),
    })
    .unwrap();
    let mut out = Vec::new();
    assert!(new.write(&about(&at("/u/7/cart"), 0), &mut out));
    assert_eq!(text(out), "/users/cart/of/7");
    let mut out = Vec::new();
    assert!(!new.write(&about(&at("/u/x/cart"), 0), &mut out));
    assert!(out.is_empty());
}

#[test]
fn what_is_no_path_is_seen() {
    for (path, fine) in [
        ("/a/b", true),
        ("", false),
        ("a", false),
        ("/a b", false),
        ("/a?b", false),
        ("/a#b", false),
        ("/a/../b", false),
        ("/a\r\n", false),
        ("/%", false),
    ] {
        assert_eq!(is_path(path.as_bytes()), fine, "{path}");
    }
}

proptest! {
    /// What stands before the rest and the rest are the path; the rest begins on a boundary.
    #[test]
    fn the_rest_begins_where_a_segment_ends(path in "(/[a-z%2]{0,3}){0,6}", segments in 0usize..6) {
        let asked = at(&path);
        let rest = about(&asked, segments).rest();
        prop_assert!(path.as_bytes().ends_with(rest));
        prop_assert!(rest.is_empty() || rest.starts_with(b"/") || rest.starts_with(b"%2") || segments == 0 && rest == path.as_bytes());
    }
}
