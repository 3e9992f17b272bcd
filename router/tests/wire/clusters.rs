//! Requests that leave their cluster: by weights, when it fails, and through other clusters' routers.

use std::net::SocketAddr;

use crate::harness::{GET, Running, Setup, Upstream, refusing};

const HOP: &str = "x-cardea-hop";

fn named(name: &str) -> Upstream {
    Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
        name.len()
    ))
}

fn traffic(cluster: &str, more: &str) -> String {
    format!("[[traffic]]\ncluster = \"{cluster}\"\n{more}\n")
}

/// Who answered so many requests, one after the other.
fn answers(router: &Running, count: usize) -> (usize, usize) {
    let mut client = router.client();
    let mut found = (0, 0);
    for _ in 0..count {
        client.send(GET);
        let answer = client.response();
        assert_eq!(answer.status(), 200);
        match &answer.body[..] {
            b"home" => found.0 += 1,
            b"away" => found.1 += 1,
            other => panic!("{other:?}"),
        }
    }
    found
}

#[test]
fn weights_move_requests_exactly_and_it_is_logged_and_counted() {
    let (home, away) = (named("home"), named("away"));
    let router = Setup::new(&[&home])
        .labelled(&away, "cluster = \"b\"")
        .tables(&traffic("default", "weights = { default = 70, b = 30 }"))
        .start();
    let (at_home, gone) = answers(&router, 1000);
    assert!((gone.abs_diff(300)) <= 10, "{at_home} {gone}");
    let counted = "cardea_router_cluster_requests_total{cluster=\"default\",route=\"r\",service=\"s\",to=\"b\"}";
    router.comes_to(counted, f64::from(u32::try_from(gone).unwrap()));
    let log = router.log(1000);
    let to = |cluster: &str| log.iter().filter(|line| line["cluster"] == cluster).count();
    assert_eq!((to("default"), to("b")), (at_home, gone));
    assert!(
        away.seen()
            .iter()
            .all(|seen| !seen.to_ascii_lowercase().contains(HOP))
    );
    // A plain edit, and all of it goes: from the next request on.
    router.edit(|text| text.replace("default = 70, b = 30", "default = 0, b = 100"));
    assert_eq!(answers(&router, 200), (0, 200));
    router.edit(|text| text.replace("default = 0, b = 100", "default = 100, b = 0"));
    assert_eq!(answers(&router, 200), (200, 0));
}

#[test]
fn a_service_of_its_own_mind_and_a_target_that_lacks_it() {
    let (home, away) = (named("home"), named("away"));
    let router = Setup::new(&[&home])
        .labelled(&away, "cluster = \"b\"")
        .tables(&traffic("default", "weights = { c = 100 }"))
        .start();
    // Nobody is refused for a cluster that has nobody.
    assert_eq!(answers(&router, 50), (50, 0));
    let narrower = traffic("default", "service = \"s\"\nweights = { b = 1 }");
    router.edit(|text| text + &narrower);
    assert_eq!(answers(&router, 50), (0, 50));
    router.edit(|text| text.replace(&narrower, ""));
    assert_eq!(answers(&router, 50), (50, 0));
}

#[test]
fn a_dead_cluster_costs_no_request() {
    let away = named("away");
    let mut setup = Setup::new(&[]).labelled(&away, "cluster = \"b\"");
    for _ in 0..5 {
        setup = setup.peer(refusing());
    }
    let failover = "[traffic.failover]\norder = [\"b\"]";
    let router = setup.tables(&traffic("default", failover)).start();
    // Three tries: the last of them leaves the cluster, before all of its peers are marked.
    assert_eq!(answers(&router, 200), (0, 200));
    router.comes_to("cardea_router_upstream_errors_total{", 15.0);
}

#[test]
fn requests_to_a_gateway_say_where_they_come_from_and_others_do_not() {
    let (home, gateway) = (named("home"), named("away"));
    let cluster = format!(
        "[[cluster]]\nname = \"b\"\ngateway = [\"{}\"]\n",
        gateway.address
    );
    let router = Setup::new(&[&home])
        .tables(&cluster)
        .tables(&traffic(
            "default",
            "weights = { b = 100 }\nfailover = { order = [\"default\"] }",
        ))
        .start();
    // A stranger's word on it goes nowhere, and keeps the request from leaving through a gateway.
    let stranger = "GET / HTTP/1.1\r\nHost: h\r\nX-Cardea-Hop: z\r\nX_Cardea_Hop: y\r\n\r\n";
    assert_eq!(router.ask(stranger).body, b"home");
    let seen = home.seen().remove(0).to_ascii_lowercase();
    assert!(!seen.contains("hop"), "{seen}");
    assert_eq!(router.ask(GET).body, b"away");
    let post = "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(router.ask(post).body, b"away");
    let seen = gateway.seen();
    assert!(
        seen[0].starts_with("GET / HTTP/1.1\r\nX-Cardea-Hop: default\r\n"),
        "{seen:?}"
    );
    let posted = seen.last().unwrap();
    assert!(
        posted.contains("X-Cardea-Hop: default\r\n") && posted.ends_with("abc"),
        "{posted}"
    );
}

#[test]
fn a_request_that_comes_back_from_a_dead_gateway_says_nothing_any_more() {
    let home = named("home");
    let cluster = format!(
        "[[cluster]]\nname = \"b\"\ngateway = [\"{}\"]\n",
        refusing()
    );
    let router = Setup::new(&[&home])
        .tables(&cluster)
        .tables(&traffic(
            "default",
            "weights = { b = 100 }\nfailover = { order = [\"default\"] }",
        ))
        .start();
    let put = "PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(router.ask(put).body, b"home");
    let seen = home.seen().remove(0);
    assert!(
        seen.starts_with("PUT /x HTTP/1.1\r\nHost: h\r\n") && seen.ends_with("\r\n\r\nabc"),
        "{seen}"
    );
    assert!(!seen.contains("Cardea"), "{seen}");
}

/// A router of a cluster that sends everything to another one's routers at this address.
fn pointing(
    cluster: &str,
    other: &str,
    at: SocketAddr,
    peers: &[&Upstream],
    trusts: bool,
) -> Running {
    let tables = format!(
        "[[cluster]]\nname = \"{other}\"\ngateway = [\"{at}\"]\n{}",
        traffic(cluster, &format!("weights = {{ {other} = 100 }}"))
    );
    Setup::new(peers)
        .service("retries = { attempts = 0 }\nhealth = { max_fails = 0 }")
        .tables(&tables)
        .config(|config| {
            config.cluster = cluster.parse().unwrap();
            if trusts {
                config.trusted_proxies = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
            }
        })
        .start()
}

#[test]
fn two_routers_that_point_at_each_other_never_send_a_request_to_and_fro() {
    for trusts in [false, true] {
        let (home, away) = (named("home"), named("away"));
        let nowhere = refusing();
        let b = pointing("b", "a", nowhere, &[&away], trusts);
        let a = pointing("a", "b", b.address, &[&home], trusts);
        b.edit(|text| text.replace(&nowhere.to_string(), &a.address.to_string()));
        assert_eq!(answers(&a, 20), (0, 20), "one step");
        assert_eq!(answers(&b, 20), (20, 0), "one step");
        assert_eq!(
            (a.log(40).len(), b.log(40).len()),
            (40, 40),
            "each request was seen twice"
        );
        // Where nobody is left to answer, that is the answer.
        let none = |text: String| {
            let lines = text.lines().filter(|line| !line.contains("address"));
            lines
                .map(|line| {
                    if line == "[[service.instance]]" {
                        ""
                    } else {
                        line
                    }
                    .to_owned()
                        + "\n"
                })
                .collect()
        };
        a.edit(none);
        b.edit(none);
        assert_eq!(a.ask(GET).status(), 503);
        assert_eq!((a.log(41).len(), b.log(41).len()), (41, 41));
    }
}

#[test]
fn a_cluster_that_is_nobody_s_business_costs_nothing() {
    let (home, away) = (named("home"), named("away"));
    let router = Setup::new(&[&home])
        .labelled(&away, "cluster = \"b\"")
        .start();
    assert_eq!(answers(&router, 50), (50, 0));
    assert_eq!(away.connections(), 0);
    assert_eq!(router.log(1)[0].get("cluster"), None);
}
