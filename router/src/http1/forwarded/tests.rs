use proptest::prelude::*;

use super::*;
use cardea_registry_api::network::Network;

fn trusted() -> Networks {
    let texts = ["10.0.0.0/8", "fd00::/8"];
    texts
        .iter()
        .map(|t| t.parse::<Network>().unwrap())
        .collect()
}

fn read(fields: &str) -> (Believed, String) {
    let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let mut head = RequestHead::default();
    assert!(
        head.parse(text.as_bytes(), 0, text.len()).unwrap(),
        "{text}"
    );
    let believed = Believed::read(&head, text.as_bytes(), &trusted());
    let mut chain = Vec::new();
    believed.append_chain(&mut chain, &head, text.as_bytes());
    (believed, String::from_utf8(chain).unwrap())
}

fn client(fields: &str) -> Option<String> {
    read(fields).0.client.map(|c| c.ip.to_string())
}

#[test]
fn the_client_is_the_last_that_is_no_proxy_of_ours() {
    for (chain, want) in [
        ("", None),
        (",", None),
        ("1.1.1.1", Some("1.1.1.1")),
        ("6.6.6.6, 1.1.1.1", Some("1.1.1.1")),
        ("6.6.6.6, 1.1.1.1,10.0.0.1, 10.2.0.1", Some("1.1.1.1")),
        ("10.0.0.1, 10.0.0.2", Some("10.0.0.1")),
        ("6.6.6.6, unknown, 10.0.0.2", Some("10.0.0.2")),
        ("6.6.6.6, unknown", None),
        ("6.6.6.6, 1.1.1.1:80", Some("1.1.1.1")),
        ("2001:db8::7, fd00::1", Some("2001:db8::7")),
        ("[2001:db8::7]:443", Some("2001:db8::7")),
        ("[2001:db8::7]", Some("2001:db8::7")),
        ("::ffff:1.1.1.1", Some("1.1.1.1")),
        ("6.6.6.6, 1.1.1.1:", None),
        ("6.6.6.6, [2001:db8::7", None),
        ("6.6.6.6, 1.1.1.256", None),
        ("6.6.6.6, 1.1.1.1:port", None),
        ("6.6.6.6, \u{e9}", None),
    ] {
        let got = client(&format!("X-Forwarded-For: {chain}\r\n"));
        assert_eq!(got.as_deref(), want, "{chain}");
    }
}

#[test]
fn fields_of_one_name_are_one_list() {
    let got = client("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 10.0.0.1\r\n");
    assert_eq!(got.as_deref(), Some("1.1.1.1"));
    let got = client("X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 1.1.1.1\r\n");
    assert_eq!(got.as_deref(), Some("1.1.1.1"));
}

#[test]
fn schemes_and_hosts_are_checked() {
    for (fields, scheme, host) in [
        ("X-Forwarded-Proto: https\r\n", Some("https"), false),
        ("X-Forwarded-Proto: http, WSS\r\n", Some("wss"), false),
        ("X-Forwarded-Proto: gopher\r\n", None, false),
        ("X-Forwarded-Host: a.b:1\r\n", None, true),
        ("X-Forwarded-Host: a, b\r\n", None, false),
        (
            "X-Forwarded-Host: a\r\nX-Forwarded-Host: b\r\n",
            None,
            false,
        ),
        ("X-Forwarded-Host: a/b\r\n", None, false),
        ("Forwarded: proto=https;host=h\r\n", Some("https"), true),
        (
            "Forwarded: ;;proto=https;host=\"h:1\";\r\n",
            Some("https"),
            true,
        ),
        ("Forwarded: host=\"h/\"\r\n", None, false),
    ] {
        let (believed, _) = read(fields);
        let got = (believed.scheme, believed.host.is_some());
        assert_eq!(got, (scheme, host), "{fields}");
    }
}

#[test]
fn a_malformed_forwarded_says_nothing() {
    for value in [
        "for",
        "=1.1.1.1",
        "for=",
        "for=\"1.1.1.1",
        "for=1.1.1.1:80",
        "for=1.1.1.1;for=2.2.2.2",
        "for =1.1.1.1",
        "for=\"1.1.1.1\\\"\"",
        "for=1.1.1.1 proto=http",
        "for=1.1.1.1,,=",
    ] {
        let (believed, chain) = read(&format!("Forwarded: for=9.9.9.9,{value}\r\n"));
        assert!(
            believed.client.is_none() && chain.is_empty(),
            "{value}: {chain}"
        );
    }
}

proptest! {
    /// Whatever a client writes before what our proxies add, it is not who it says it is.
    #[test]
    fn nobody_speaks_for_others(said in "[ -~]{0,60}", own in any::<[u8; 4]>(), proxies in 0_usize..4) {
        let own = std::net::Ipv4Addr::from(own);
        prop_assume!(!trusted().contains(own.into()));
        let tail = ", 10.0.0.7".repeat(proxies);
        let want = Some(own.to_string());
        let got = client(&format!("X-Forwarded-For: {said}, {own}{tail}\r\n"));
        prop_assert_eq!(&got, &want);
        let got = client(&format!("X-Forwarded-For: {said}\r\nX-Forwarded-For: {own}{tail}\r\n"));
        prop_assert_eq!(&got, &want);
    }

    #[test]
    fn any_forwarded_is_read_without_harm(value in "[ -~]{0,80}") {
        let (_, chain) = read(&format!("Forwarded: {value}\r\n"));
        prop_assert!(chain.bytes().all(|b| b.is_ascii_hexdigit() || b".:, unkow".contains(&b)));
    }

    #[test]
    fn forwarded_and_its_older_form_agree(hops in proptest::collection::vec(any::<[u8; 4]>(), 1..6)) {
        let hops: Vec<String> =
            hops.iter().map(|hop| std::net::Ipv4Addr::from(*hop).to_string()).collect();
        let older = format!("X-Forwarded-For: {}\r\n", hops.join(", "));
        let newer = format!("Forwarded: for={}\r\n", hops.join(", for="));
        prop_assert_eq!(client(&older), client(&newer));
        prop_assert_eq!(read(&older).1, read(&newer).1);
    }
}
