//! Plugins of each kind changed under load: no request fails, and the change holds at once.

use std::{
    fmt::Write,
    net::SocketAddr,
    time::{Duration, Instant},
};

use cardea_registry_api::{
    Plugin,
    client::Precondition,
    policy::{Balance, HashKey},
};
use cardea_tests::{
    backend::Backend,
    http1::{Connection, Response},
    load::{Plan, percentile},
    ports,
    site::{SOON, Site},
    wait,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{HOST, Shop, ok, plugin};
use crate::gate;

/// Two forms of a policy between which a request can tell: its header lines, and what shows which form
/// holds.
struct Toggle {
    kind: &'static str,
    forms: [Value; 2],
    host: &'static str,
    headers: &'static str,
    path: String,
    shows: Shows,
    signs: [&'static str; 2],
}

/// What shows which form holds.
enum Shows {
    /// The answer.
    Answer(fn(&Response) -> String),
    /// Which of the asides got a copy.
    Copy,
}

/// Services of one instance each beside the shop, which the load does not ask: `aside-0` and `aside-1`,
/// with a route of the same name each.
struct Asides([Backend; 2]);

impl Asides {
    const NAMES: [&str; 2] = ["aside-0", "aside-1"];

    async fn start(site: &Site) -> Self {
        let mut backends = Vec::new();
        for name in Self::NAMES {
            let backend = Backend::start(name).await;
            site.route(name, name, |_| {}).await;
            site.register(name, name, backend.address()).await;
            backends.push(backend);
        }
        site.settled().await;
        Self(backends.try_into().unwrap())
    }

    fn requests(&self) -> [u64; 2] {
        self.0.each_ref().map(|one| one.state().stats().requests)
    }

    /// Which of them was asked since `before`.
    async fn asked_since(&self, before: [u64; 2]) -> String {
        let asked = || async {
            let now = self.requests();
            let at = (0..2).find(|at| now[*at] > before[*at])?;
            Some(Self::NAMES[at].to_owned())
        };
        wait::until("a copy arrives", SOON, asked).await
    }

    /// Requests to the first one that are not answered, as many as a form of `break` takes at a time.
    async fn hold(&self, router: SocketAddr) -> JoinSet<()> {
        let mut held = JoinSet::new();
        let before = self.requests()[0];
        for _ in 0..HELD {
            held.spawn(async move {
                let mut connection = Connection::open(router, SOON).await.unwrap();
                let request = format!(
                    "GET /slow?ms=600000 HTTP/1.1\r\nHost: {}\r\n\r\n",
                    Self::NAMES[0]
                );
                drop(connection.exchange(request.as_bytes(), SOON * 20).await);
            });
        }
        let all = || async { (self.requests()[0] == before + HELD).then_some(()) };
        wait::until("all are held", SOON, all).await;
        held
    }
}

/// As many as the tighter form of `break` takes at a time: more than the load has connections.
const HELD: u64 = 20;
/// Changes of each kind.
const ROUNDS: usize = 100;

fn status(answer: &Response) -> String {
    answer.status.to_string()
}

/// Which instance answered.
fn who(answer: &Response) -> String {
    answer.text().split(' ').next().unwrap().to_owned()
}

/// A policy of requests with a header that the load does not send.
fn toggle(
    kind: &'static str,
    forms: [Value; 2],
    shows: fn(&Response) -> String,
    signs: [&'static str; 2],
) -> Toggle {
    Toggle {
        kind,
        forms,
        host: HOST,
        headers: "X-Probe: 1\r\n",
        path: "/echo".to_owned(),
        shows: Shows::Answer(shows),
        signs,
    }
}

fn only() -> Value {
    json!({"key": "header:x-probe", "present": true})
}

/// A service of two instances, one of which is not there, and where requests are for that one first:
/// paths decide.
struct Lame {
    path: String,
    _backend: Backend,
}

const LAME: &str = "lame";

impl Lame {
    async fn start(shop: &Shop) -> Self {
        let backend = Backend::start(LAME).await;
        let site = &shop.site;
        site.route(LAME, LAME, |service| {
            service.balance = Balance::Hash(HashKey::Path);
            service.health.max_fails = 0;
        })
        .await;
        let nobody = SocketAddr::from(([127, 0, 0, 1], ports::reserve()));
        site.register(LAME, "nobody", nobody).await;
        site.register(LAME, "somebody", backend.address()).await;
        site.settled().await;
        shop.put(json!({"route": null, "override": {"attempts": 0}}))
            .await;
        for n in 0..100 {
            let path = format!("/{n}");
            if super::ask(site, LAME, "GET", &path, "").await.status == 502 {
                return Self {
                    path,
                    _backend: backend,
                };
            }
        }
        panic!("none of 100 paths is for the instance that is not there");
    }
}

/// Policies whose every change can be seen with a request that the load does not make. `lame` is the
/// path of a request to [`LAME`] that needs a second try.
fn toggles(lame: String) -> Vec<Toggle> {
    let header = |answer: &Response| answer.header("x-mark").unwrap_or_default().to_owned();
    let only = only();
    let mark = |text: &str| json!({"rewrite": {"response": {"set": {"X-Mark": text}}}});
    let variant = |text: &str| {
        json!({"ab": {"experiments": [{"name": "e", "key": "header:x-probe",
            "response_header": "X-Mark", "variants": [{"name": text}]}]}})
    };
    vec![
        toggle(
            "restrict",
            [
                json!({"restrict": {"head": 4096}}),
                json!({"restrict": {"head": 2000}}),
            ],
            status,
            ["200", "431"],
        ),
        toggle(
            "limit",
            [
                json!({"limit": {"rate": 1, "per": "minute", "key": "header:x-nobody"}}),
                json!({"limit": {"rate": 1, "per": "minute", "burst": 1, "key": "header:x-probe"}}),
            ],
            status,
            ["200", "429"],
        ),
        toggle(
            "redirect",
            [301, 302].map(|s| json!({"redirect": {"to": "/x", "status": s, "when": only}})),
            status,
            ["301", "302"],
        ),
        toggle(
            "respond",
            [201, 202].map(|s| json!({"respond": {"status": s, "when": only}})),
            status,
            ["201", "202"],
        ),
        toggle("ab", [variant("a"), variant("b")], header, ["e=a", "e=b"]),
        toggle(
            "gray",
            ["new", "baseline"].map(|g| json!({"gray": {"rules": [{"group": g, "when": only}]}})),
            who,
            ["new", "old"],
        ),
        toggle(
            "rewrite",
            [mark("one"), mark("two")],
            header,
            ["one", "two"],
        ),
        // Whether somebody else is asked when an instance refuses the connection.
        Toggle {
            host: LAME,
            path: lame,
            ..toggle(
                "override",
                [1, 0].map(|more| json!({"route": null, "override": {"attempts": more}})),
                status,
                ["200", "502"],
            )
        },
    ]
}

/// Those that lead requests elsewhere, or copies of them, or hold them back.
fn ways() -> Vec<Toggle> {
    let sides =
        |live: &str| json!({"blue_green": {"blue": "baseline", "green": "new", "live": live}});
    let tagged =
        |lane: &str| json!({"lanes": {"label": "lane", "entry": [{"lane": lane, "when": only()}]}});
    let copied = |to: &str| json!({"mirror": {"service": to, "when": only()}});
    let bounded = |most: u64| json!({"route": null, "break": {"adaptive": {"initial": most, "min": most, "max": most}}});
    vec![
        toggle("lanes", [tagged("b"), tagged("none")], who, ["new", "old"]),
        toggle(
            "blue_green",
            [sides("baseline"), sides("new")],
            who,
            ["old", "new"],
        ),
        Toggle {
            shows: Shows::Copy,
            ..toggle("mirror", Asides::NAMES.map(copied), status, Asides::NAMES)
        },
        // Each service has its own count: that of the load has room with both forms.
        Toggle {
            host: Asides::NAMES[0],
            ..toggle(
                "break",
                [bounded(2 * HELD), bounded(HELD)],
                status,
                ["200", "503"],
            )
        },
        Toggle {
            headers: "X-Limited: 1\r\n",
            ..toggle(
                "fallback",
                [
                    json!({"fallback": {"body": "sorry", "status": 203}}),
                    json!({"fallback": {"route": Asides::NAMES[1]}}),
                ],
                status,
                ["203", "200"],
            )
        },
    ]
}

/// Waits until a request shows that a form holds; how long after `since`.
async fn changed(
    shop: &Shop,
    asides: &Asides,
    toggle: &Toggle,
    form: usize,
    since: Instant,
) -> Duration {
    let mut headers = toggle.headers.to_owned();
    if toggle.kind == "restrict" {
        write!(headers, "X-Long: {}\r\n", "x".repeat(3000)).unwrap();
    }
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n",
        toggle.path, toggle.host
    );
    let router = shop.site.routers[0].traffic();
    let limit = Instant::now() + SOON;
    loop {
        let before = asides.requests();
        let asked = Instant::now();
        let mut connection = Connection::open(router, SOON).await.unwrap();
        let answer = connection.exchange(request.as_bytes(), SOON).await.unwrap();
        let sign = match toggle.shows {
            Shows::Answer(shows) => shows(&answer),
            Shows::Copy => asides.asked_since(before).await,
        };
        // What was asked once the change held shows it; how long the answer took is not its delay.
        if sign == toggle.signs[form] {
            return asked.saturating_duration_since(since);
        }
        assert!(Instant::now() < limit, "{}: still {sign}", toggle.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_under_load_fail_no_request_and_hold_within_milliseconds() {
    let _machine = gate::alone().await;
    let shop = Shop::start("plugin-changes").await;
    let router = shop.site.routers[0].traffic();
    let asides = Asides::start(&shop.site).await;
    let lame = Lame::start(&shop).await;
    let client = shop.site.client();
    // What the fallback stands in for, and what with.
    let limited: Plugin = serde_json::from_value(json!({"name": "q", "service": "shop", "limit": {
        "rate": 1, "per": "minute", "burst": 1, "when": {"key": "header:x-limited", "present": true}}}))
    .unwrap();
    client
        .put_plugin(&limited, Precondition::Any)
        .await
        .unwrap();
    shop.ask("GET", "/", "X-Limited: 1\r\n").await;
    shop.site.scratch.write("sorry.txt", "later");
    ok(&shop.site, &["fallback", "put", "sorry", "sorry.txt"]);
    for toggle in toggles(lame.path.clone()).into_iter().chain(ways()) {
        shop.put(toggle.forms[0].clone()).await;
        let held = match toggle.kind {
            "break" => asides.hold(router).await,
            _ => JoinSet::new(),
        };
        let load = Plan::new(router, HOST, 300.0)
            .connections(8)
            .label(toggle.kind)
            .start();
        load.pass(50, SOON).await;
        let mut delays = Vec::new();
        for round in 1..=ROUNDS {
            let form = round % 2;
            let plugin = plugin(&toggle.forms[form]);
            client.put_plugin(&plugin, Precondition::Any).await.unwrap();
            let answered = Instant::now();
            let delay = changed(&shop, &asides, &toggle, form, answered).await;
            delays.push(u32::try_from(delay.as_micros()).unwrap());
        }
        load.pass(100, SOON).await;
        let report = load.stop().await;
        delays.sort_unstable();
        println!(
            "{:10} {ROUNDS} changes: the API's answer → the changed behaviour p50 {:.2} ms, \
             p99 {:.2} ms (aim 20); {} requests, {} failed",
            toggle.kind,
            percentile(&delays, 500) / 1000.0,
            percentile(&delays, 990) / 1000.0,
            report.sent,
            report.failed
        );
        report.assert_clean();
        drop(held);
    }
}
