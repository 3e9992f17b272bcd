use std::time::Instant;

use cardea_registry_api::{Plugin, Service};
use proptest::prelude::*;

use super::{
    memory::{Kept, forbids},
    *,
};
use crate::{
    fixtures::{World, instance, name, route},
    http1::{request::Method, response::ResponseHead},
    plugin::{Scratch, Stage, asked::Headers},
};

fn plugin(toml: &str) -> Plugin {
    let plugin: Plugin = toml::from_str(toml).unwrap();
    plugin.check().unwrap();
    plugin
}

fn body(toml: &str) -> cardea_registry_api::Fallback {
    let body: cardea_registry_api::Fallback = toml::from_str(toml).unwrap();
    body.check().unwrap();
    body
}

/// Two services with an instance each, a route to the first, and plugins.
fn world(plugins: &[&str]) -> World {
    let service: Service =
        toml::from_str("name = \"cart\"\n[groups]\ngray = { version = \"2\" }\n").unwrap();
    let mut world = World::with(service, &[100]);
    world.instance(instance("spare", 7, 100));
    world.route(route("shop", "h", "/shop", "cart"));
    for toml in plugins {
        world.plugin(plugin(toml));
    }
    world.publish(Instant::now());
    world
}

/// Whether a request is covered by the route's fallback, and what it has.
fn covered<T>(
    world: &World,
    asked: Asked<'_>,
    headers: &[(&str, &str)],
    see: impl FnOnce(&Fallback) -> T,
) -> Option<T> {
    let list: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let asked = Asked {
        path: b"/shop/x",
        headers: Headers::List(&list),
        ..asked
    };
    let table = world.shared.table_full().unwrap();
    let chain = table.route(b"h", b"/shop/x").unwrap().chain.as_ref()?;
    let mut scratch = Scratch::default();
    let decision = chain.decide(&asked, &table, 0, &mut scratch, Mode::Real);
    assert!(decision.said.is_empty(), "nothing has gone wrong yet");
    let mut scratch = Scratch::default();
    let asking = chain.decide(&asked, &table, 0, &mut scratch, Mode::Asking);
    let said: Vec<_> = asking.said.each(chain).map(|(_, said)| said).collect();
    assert_eq!(said.contains(&"covered"), asking.fallback.is_some());
    decision.fallback.map(see)
}

/// Another route comes with its service, its policy and those plugins that say how a request goes on.
#[test]
fn another_route_follows_its_object_and_its_plugins() {
    let rescue = "name = \"f\"\nroute = \"shop\"\n[fallback]\nroute = \"other\"\n";
    let mut world = world(&[
        rescue,
        "name = \"w\"\nroute = \"other\"\n[rewrite.response]\nremove = [\"x-theirs\"]\n",
        "name = \"o\"\nroute = \"other\"\n[override]\nattempts = 0\n",
        "name = \"r\"\nroute = \"other\"\n[respond]\nstatus = 418\n",
        "name = \"g\"\nroute = \"other\"\n[fallback]\nroute = \"shop\"\n",
    ]);
    let see = |world: &World| {
        let table = world.shared.table_full().unwrap();
        let chain = table.route(b"h", b"/shop/x").unwrap().chain.clone();
        let Stage::Fallback(fallback) = &chain.unwrap().stages[0] else {
            panic!("it is the first stage");
        };
        fallback.clone()
    };
    assert!(see(&world).elsewhere.is_none(), "it is not there");
    world.route(route("other", "other.test", "/spare", "spare"));
    world.publish(Instant::now());
    let fallback = see(&world);
    let gone = [&b"x-theirs"[..], HEADER.as_bytes()].map(Box::from).into();
    assert_eq!(fallback.gone, gone);
    let to = fallback.elsewhere.unwrap();
    assert_eq!(to.way(), Way::Route);
    let table = world.shared.table_full().unwrap();
    let upstream = table.upstream_at(to.slot).unwrap();
    assert_eq!(upstream.service().as_str(), "spare");
    assert_eq!(upstream.policy().retries.attempts, 0);
    let other = to.route.unwrap();
    assert_eq!(
        (other.host.as_deref(), &*other.prefix),
        (Some("other.test"), "/spare")
    );
    let chain = other.chain.unwrap();
    assert_eq!(chain.stages.len(), 1, "it rewrites");

    world.route(route("other", "*.test", "/", "cart"));
    world.publish(Instant::now());
    let to = see(&world).elsewhere.unwrap();
    let table = world.shared.table_full().unwrap();
    let upstream = table.upstream_at(to.slot).unwrap();
    assert_eq!(upstream.service().as_str(), "cart");
    assert_eq!(to.route.unwrap().host, None);
    // A plugin that has to be there, and that nobody here knows: the route would refuse.
    let later = "name = \"x\"\nroute = \"other\"\nrequired = true\n[later]\n";
    world.plugin(toml::from_str(later).unwrap());
    world.publish(Instant::now());
    assert!(see(&world).elsewhere.is_none());
    // No route stands in for itself.
    let own = rescue
        .replace("route = \"shop\"\n", "")
        .replace("other", "shop");
    world.plugin(plugin(&own));
    world.publish(Instant::now());
    assert!(see(&world).elsewhere.is_none());
}

#[test]
fn requests_are_covered_by_method_condition_and_protocol() {
    let method = |method: &'static [u8]| Asked {
        method,
        ..Asked::default()
    };
    let grpc = ("content-type", "application/grpc+proto");
    let plain = "name = \"f\"\n[fallback]\nbody = \"b\"\n";
    let posts = "name = \"f\"\n[fallback]\nbody = \"b\"\nmethods = [\"POST\"]\n";
    let some = "name = \"f\"\n[fallback]\nbody = \"b\"\n\
                [fallback.when]\nkey = \"header:x-user\"\nis = [\"u1\"]\n";
    let calls = "name = \"f\"\n[fallback]\nservice = \"spare\"\ngrpc = true\n";
    let none: [(&str, &str); 0] = [];
    for (toml, asked, headers, covers) in [
        (plain, method(b"GET"), &none[..], true),
        (plain, method(b"HEAD"), &none, true),
        (plain, method(b"POST"), &none, false),
        (plain, method(b"get"), &none, false),
        (plain, method(b"GET"), &[("upgrade", "websocket")], false),
        (posts, method(b"POST"), &none, true),
        (posts, method(b"GET"), &none, false),
        (posts, method(b"POST"), &[grpc], false),
        (some, method(b"GET"), &[("x-user", "u1")], true),
        (some, method(b"GET"), &[("x-user", "u2")], false),
        (calls, method(b"POST"), &[grpc], true),
        (calls, method(b"POST"), &none, false),
        (calls, method(b"GET"), &none, true),
    ] {
        let found = covered(&world(&[toml]), asked, headers, |_| ()).is_some();
        let asked = String::from_utf8_lossy(asked.method).into_owned();
        assert_eq!(found, covers, "{toml} {asked} {headers:?}");
    }
}

#[test]
fn each_trigger_is_answered_for_as_configured() {
    use FallbackCause::{Break, Limit, Timeout, Unreachable};
    let all = [Unreachable, Timeout, Limit, Break].map(Trigger::Cause);
    let plain = world(&["name = \"f\"\n[fallback]\nbody = \"b\"\n"]);
    let few = world(&[
        "name = \"f\"\n[fallback]\nbody = \"b\"\nstatuses = [404]\ncauses = [\"limit\"]\n",
    ]);
    let statuses = [404, 429, 500, 501, 502, 503, 504, 505].map(Trigger::Status);
    let answered = |world: &World| {
        let triggers = all.iter().chain(&statuses);
        covered(world, Asked::default(), &[], |fallback| {
            let for_them = triggers.filter(|trigger| fallback.answers_for(**trigger));
            for_them.copied().collect::<Vec<_>>()
        })
        .unwrap()
    };
    let mut expected = all.to_vec();
    expected.extend([500, 502, 503, 504].map(Trigger::Status));
    assert_eq!(answered(&plain), expected);
    let expected = [Trigger::Cause(Limit), Trigger::Status(404)];
    assert_eq!(answered(&few), expected);
    // Refusals that are the request's own fault are nobody's to hide.
    for (refusal, cause) in [
        (refusal::ALL_FAILED, Some(Unreachable)),
        (refusal::NO_PEER, Some(Unreachable)),
        (refusal::TIMED_OUT, Some(Timeout)),
        (refusal::TOO_MANY_REQUESTS, Some(Limit)),
        (refusal::FORBIDDEN, None),
        (refusal::BODY_TOO_LARGE, None),
        (refusal::HEAD_TIMEOUT, None),
        (refusal::METHOD_NOT_ALLOWED, None),
        (refusal::PLUGIN_UNKNOWN, None),
        (Refusal::bad("a body"), None),
    ] {
        assert_eq!(
            Trigger::of(&refusal),
            cause.map(Trigger::Cause),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_stored_body_follows_its_object_and_a_target_its_service() {
    let mut world = world(&[
        "name = \"f\"\nroute = \"shop\"\n[fallback]\nbody = \"b\"\nservice = \"spare\"\nprefix = \"/\"\n",
        "name = \"w\"\n[rewrite.response]\nremove = [\"x-inner\"]\n",
    ]);
    let table = world.shared.table_full().unwrap();
    let see = |world: &World| {
        let table = world.shared.table_full().unwrap();
        let chain = table
            .route(b"h", b"/shop/x")
            .unwrap()
            .chain
            .clone()
            .unwrap();
        let Stage::Fallback(fallback) = &chain.stages[0] else {
            panic!("it is the first stage");
        };
        let stored = fallback.stored.clone();
        let stored = stored.map(|s| (s.status, s.body.as_bytes().to_vec()));
        (
            stored,
            fallback.elsewhere.as_ref().unwrap().slot,
            fallback.gone.clone(),
        )
    };
    let (stored, slot, gone) = see(&world);
    assert_eq!(stored, None);
    assert_eq!(table.upstream_at(slot).unwrap().service().as_str(), "spare");
    assert_eq!(
        gone,
        [&b"x-inner"[..], HEADER.as_bytes()].map(Box::from).into()
    );
    let mut put = |toml: &str| {
        let object = crate::table::objects::Object::Fallback(Arc::new(body(toml)));
        world.objects.set(object, &mut world.dirty);
        world.publish(Instant::now());
        see(&world).0.unwrap()
    };
    assert_eq!(put("name = \"b\"\nbody = \"YQ==\"\n"), (200, b"a".to_vec()));
    assert_eq!(
        put("name = \"b\"\nbody = \"Yg==\"\nstatus = 503\n"),
        (503, b"b".to_vec())
    );
    world.plugin(plugin(
        "name = \"f\"\n[fallback]\nbody = \"b\"\nstatus = 404\ngroup = \"gray\"\n",
    ));
    world.publish(Instant::now());
    let (stored, slot, _) = see(&world);
    assert_eq!(stored.unwrap().0, 404);
    let table = world.shared.table_full().unwrap();
    let group = table.upstream_at(slot).unwrap();
    assert_eq!(
        (group.service().as_str(), group.is_whole()),
        ("cart", false)
    );
    let key = crate::table::objects::Key::Fallback(name("b"));
    world.objects.remove(&key, &mut world.dirty);
    world.publish(Instant::now());
    assert_eq!(see(&world).0, None);
}

fn memory(toml: &str) -> Arc<Memory> {
    Memory::new(&toml::from_str(toml).unwrap())
}

fn key(memory: &Memory, asked: Asked<'_>, headers: &[(&str, &str)]) -> Option<Vec<u8>> {
    let list: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let asked = Asked {
        headers: Headers::List(&list),
        ..asked
    };
    let mut key = Vec::new();
    memory.key(&asked, "", &mut key).then_some(key)
}

#[test]
fn what_makes_another_request_is_in_the_key() {
    let plain = Asked {
        host: b"Svc.local",
        query: b"q=1&page=2",
        ..Asked::default()
    };
    let other_query = Asked {
        query: b"q=1&page=3",
        ..plain
    };
    let memory_of = memory("query = [\"q\"]\nheaders = [\"Accept-Language\"]\n");
    let whole = memory("");
    let of = |asked| key(&memory_of, asked, &[("accept-language", "de")]).unwrap();
    assert_eq!(of(plain), of(other_query));
    assert_ne!(key(&whole, plain, &[]), key(&whole, other_query, &[]));
    assert_ne!(
        of(plain),
        key(&memory_of, plain, &[("accept-language", "en")]).unwrap()
    );
    assert_ne!(of(plain), key(&memory_of, plain, &[]).unwrap());
    for (same, other) in [
        (
            true,
            Asked {
                method: b"HEAD",
                ..plain
            },
        ),
        (
            true,
            Asked {
                host: b"svc.LOCAL",
                ..plain
            },
        ),
        (
            false,
            Asked {
                host: b"svc.other",
                ..plain
            },
        ),
        (
            false,
            Asked {
                path: b"/x",
                ..plain
            },
        ),
        (
            false,
            Asked {
                method: b"QUERY",
                ..plain
            },
        ),
        (
            false,
            Asked {
                scheme: "https",
                ..plain
            },
        ),
    ] {
        assert_eq!(of(plain) == of(other), same, "{other:?}");
    }
    // What is for one caller has no key, unless it was asked for; then the caller is in it.
    let basic = [("authorization", "Basic x")];
    assert_eq!(key(&whole, plain, &basic), None);
    let mut out = Vec::new();
    assert!(!whole.key(&plain, "Subject=x", &mut out));
    let private = memory("private = true\n");
    let keys = [
        key(&private, plain, &[]),
        key(&private, plain, &basic),
        key(&private, plain, &[("authorization", "Basic y")]),
        key(&private, plain, &[("cookie", "u=1")]),
    ];
    for (i, one) in keys.iter().enumerate() {
        assert!(one.is_some() && !keys[..i].contains(one), "{i}");
    }
}

#[test]
fn only_answers_for_everybody_are_taken() {
    let head = |text: &str| {
        let text = format!("HTTP/1.1 {text}\r\n\r\n");
        let mut head = ResponseHead::default();
        assert!(
            head.parse(text.as_bytes(), 0, text.len(), Method::Get)
                .unwrap()
        );
        (text, head)
    };
    let fine = "200 OK\r\nContent-Length: 2";
    for (policy, text, takes) in [
        ("", fine.to_owned(), true),
        ("", "204 No Content".to_owned(), true),
        ("", "200 OK\r\nTransfer-Encoding: chunked".to_owned(), true),
        ("", "200 OK".to_owned(), false),
        ("", "206 Partial\r\nContent-Length: 2".to_owned(), false),
        ("", "302 Found\r\nContent-Length: 0".to_owned(), false),
        ("", "404 Not Found\r\nContent-Length: 2".to_owned(), false),
        ("size = 1", fine.to_owned(), false),
        (
            "",
            format!("{fine}\r\nCache-Control: public, max-age=9"),
            true,
        ),
        (
            "",
            format!("{fine}\r\nCache-Control: max-age=1, PRIVATE"),
            false,
        ),
        ("", format!("{fine}\r\nCache-Control: private=\"x\""), false),
        (
            "",
            format!("{fine}\r\nCache-Control: a\r\nCache-Control: no-store"),
            false,
        ),
        (
            "private = true",
            format!("{fine}\r\nCache-Control: no-store"),
            true,
        ),
        ("", format!("{fine}\r\nSet-Cookie: a=b"), false),
        ("private = true", format!("{fine}\r\nSet-Cookie: a=b"), true),
        ("", format!("{fine}\r\nVary: Accept-Encoding"), true),
        ("", format!("{fine}\r\nVary: Accept-Language"), false),
        (
            "headers = [\"accept-language\"]",
            format!("{fine}\r\nVary: Accept-Language, Accept-Encoding"),
            true,
        ),
        ("", format!("{fine}\r\nVary: *"), false),
        ("", format!("{fine}\r\nVary: Cookie"), false),
        ("private = true", format!("{fine}\r\nVary: Cookie"), true),
        ("", format!("{fine}\r\nContent-Encoding: gzip"), false),
        (
            "headers = [\"accept-encoding\"]",
            format!("{fine}\r\nContent-Encoding: gzip"),
            true,
        ),
        ("", format!("{fine}\r\n{HEADER}: limit"), false),
    ] {
        let (raw, head) = head(&text);
        assert_eq!(
            memory(policy).takes(raw.as_bytes(), &head),
            takes,
            "{policy} {text}"
        );
    }
    assert!(!forbids(b"max-age=10, no-cache, s-maxage=1"));
    assert!(forbids(b"max-age=10,No-Store"));
}

#[test]
fn what_is_too_old_or_too_young_is_told_by_the_clock_handed_in() {
    let second = 1_000_000_000;
    let memory = memory("ttl = \"10s\"\n");
    let kept = |at| Kept {
        status: 200,
        lines: Vec::new(),
        body: b"x".to_vec(),
        at,
    };
    assert!(memory.get(b"k", 0).is_none() && !memory.is_young(b"k", 0));
    memory.put(b"k"[..].into(), kept(5 * second));
    assert!(memory.is_young(b"k", 6 * second - 1));
    assert!(!memory.is_young(b"k", 6 * second));
    assert!(memory.get(b"k", 15 * second - 1).is_some());
    assert!(memory.get(b"k", 15 * second).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// However many requests of whatever size there are, the memory is bounded.
    #[test]
    fn memory_is_bounded(sizes in prop::collection::vec(1_usize..60_000, 50..300)) {
        let memory = memory("memory = 262144\nsize = 32768\n");
        for (i, size) in sizes.iter().enumerate() {
            let kept = Kept { status: 200, lines: Vec::new(), body: vec![0; *size], at: 0 };
            memory.put(i.to_string().into_bytes().into(), kept);
        }
        let (held, most) = memory.held();
        prop_assert!(held <= most, "{held}");
        // Not only by its own account.
        let there = |i: &usize| memory.get(i.to_string().as_bytes(), 0).is_some();
        let bytes: usize = (0..sizes.len()).filter(there).map(|i| sizes[i]).sum();
        prop_assert!(bytes as u64 <= most, "{bytes}");
        // What is too large for itself is not there.
        prop_assert!((0..sizes.len()).filter(there).all(|i| sizes[i] <= 32_768));
    }

    /// No two requests that differ in a part have one key, wherever one part ends and the next begins.
    #[test]
    fn keys_are_unambiguous(text in "[a-c]{0,3}", a in (0_usize..4, 0_usize..4), b in (0_usize..4, 0_usize..4)) {
        let memory = memory("query = []\nheaders = [\"x\"]\n");
        let parts = |(one, two): (usize, usize)| {
            let (one, two) = (one.min(text.len()), two.min(text.len()));
            let (one, two) = (one.min(two), one.max(two));
            [&text[..one], &text[one..two], &text[two..]]
        };
        let of = |[host, path, x]: [&str; 3]| {
            let asked = Asked { host: host.as_bytes(), path: path.as_bytes(), ..Asked::default() };
            key(&memory, asked, &[("x", x)]).unwrap()
        };
        let (a, b) = (parts(a), parts(b));
        prop_assert_eq!(of(a) == of(b), a == b);
    }
}
