//! What a plugin's decision costs, by kind.

use std::{hint::black_box, net::IpAddr, sync::Arc, time::Instant};

use cardea_registry_api::{Plugin, Route, Service};

use super::{Tables, instance, name, report};
use crate::{
    plugin::{
        Mode, Scratch, Token,
        asked::{Asked, Headers},
    },
    table::objects::Object,
};

/// One of each kind as JSON; none refuses anything.
const PLUGINS: [(&str, &str); 12] = [
    ("restrict", r#""restrict":{"methods":["GET"],"head":8192}"#),
    ("limit, one for all", r#""limit":{"rate":10000000}"#),
    (
        "limit by a header, and at a time",
        r#""limit":{"rate":10000000,"concurrent":100000,"key":"header:x-user"}"#,
    ),
    (
        "limit by a claim, divided",
        r#""limit":{"rate":10000000,"key":"jwt:sub","count":"divided"}"#,
    ),
    ("break", r#""break":{"slow":"10s"}"#),
    (
        "break, adaptive",
        r#""break":{"adaptive":{"initial":1000,"min":1000}}"#,
    ),
    ("lanes, untagged", r#""lanes":{}"#),
    (
        "lanes, tagged",
        r#""lanes":{"entry":[{"lane":"gray","when":{"key":"header:x-user","is":["u17"]}}]}"#,
    ),
    (
        "ab, two variants by hash",
        r#""ab":{"experiments":[{"name":"page","key":"header:x-user","request_header":"x-variant","variants":[{"name":"a"},{"name":"b"}]}]}"#,
    ),
    ("blue_green", r#""blue_green":{"live":"green"}"#),
    (
        "gray, a whitelist and a share",
        r#""gray":{"rules":[{"group":"green","when":{"key":"header:x-user","is":["u1"]}},{"group":"green","when":{"key":"header:x-user","percent":5}}]}"#,
    ),
    (
        "rewrite, prefix and a header",
        r#""rewrite":{"prefix":"/v2","request":{"set":{"x-route":"${route}"}}}"#,
    ),
];

/// Prints the price of each kind.
pub(super) fn decide() {
    for (title, policy) in PLUGINS {
        one(title, policy);
    }
    // As many rules as may be, none of which holds.
    let rule = r#"{"group":"green","when":{"key":"header:x-user","ends_with":["x"]}}"#;
    let rules = vec![rule; 10_000].join(",");
    one(
        "gray, 10,000 rules",
        &format!(r#""gray":{{"rules":[{rules}]}}"#),
    );
}

fn one(title: &str, policy: &str) {
    let mut tables = Tables::default();
    let mut service = Service::named(name("s"));
    for group in ["blue", "green"] {
        let selector = [("version".to_owned(), group.to_owned())];
        service.groups.insert(name(group), selector.into());
    }
    tables.set(Object::Service(Arc::new(service)));
    for number in 0..8 {
        let mut one = instance("s", number);
        ["blue", "green"][number % 2].clone_into(&mut one.version);
        tables.set(Object::Instance(Arc::new(one)));
    }
    tables.set(Object::Route(Arc::new(Route {
        id: name("r"),
        host: "h".parse().expect("a host"),
        prefix: "/shop".parse().expect("a prefix"),
        service: name("s"),
    })));
    let plugin: Plugin =
        serde_json::from_str(&format!(r#"{{"name":"p",{policy}}}"#)).expect("a plugin");
    plugin.check().expect("a sound one");
    tables.set(Object::Plugin(Arc::new(plugin), None));
    let table = tables.publish();
    let entry = table.route(b"h", b"/shop").expect("a route");
    let chain = entry.chain.as_ref().expect("a chain");
    let headers: Vec<(String, String)> = [
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("x-user", "u17"),
        (
            "authorization",
            "Bearer e30.eyJzdWIiOiJ1MSIsImlhdCI6MTd9.c2ln",
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let client = IpAddr::from([10, 0, 0, 1]);
    let mut scratch = Scratch::default();
    let rounds = if policy.len() > 10_000 {
        2_000
    } else {
        1_000_000
    };
    let began = Instant::now();
    for number in 0..rounds {
        let token = Token::default();
        let asked = Asked {
            method: b"GET",
            host: b"h",
            path: b"/shop/cart/17",
            query: b"",
            headers: Headers::List(&headers),
            client,
            client_text: b"10.0.0.1",
            caller: client,
            trusted: false,
            token: Some(&token),
            scheme: "http",
            request_id: b"bench",
            head: 200,
            body: Some(0),
            has_body: false,
            lot: number.into(),
        };
        scratch.clear();
        let now = 3_600_000_000_000 + u64::from(number) * 1000;
        let mut decision = chain.decide(black_box(&asked), &table, now, &mut scratch, Mode::Real);
        if let Some(ticket) = &mut decision.ticket {
            ticket.answered(
                200,
                crate::plugin::Call::No,
                std::time::Duration::from_millis(1),
                now,
            );
        }
        black_box(decision.slot);
    }
    report(&format!("plugin, {title}"), rounds, began.elapsed());
}
