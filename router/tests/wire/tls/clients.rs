//! Clients that prove who they are.

use super::{GET, OK, Setup, Upstream, until, with_tls};
use crate::{
    harness::Running,
    tls::authority::{Authority, Client, Pair},
};

const XFCC: &str = "X-Forwarded-Client-Cert";

struct World {
    authority: Authority,
    own: Pair,
    router: Running,
    upstream: Upstream,
}

/// `open.test` asks nobody, `asks.test` asks, `strict.test` insists.
fn world() -> World {
    let authority = Authority::new("ca");
    let clients = Authority::new("clients");
    let own = clients.sign(&["me.test"]);
    let upstream = Upstream::answering(OK);
    let table = |host: &str, auth: &str| {
        let auth = match auth {
            "" => String::new(),
            mode => format!("client_auth = {{ mode = \"{mode}\", ca_file = \"clients.pem\" }}"),
        };
        authority.sign(&[host]).table(host, &auth)
    };
    let router = with_tls(Setup::new(&[&upstream]))
        .file("clients.pem", &clients.pem())
        .tables(&table("open.test", ""))
        .tables(&table("asks.test", "optional"))
        .tables(&table("strict.test", "required"))
        .start();
    World {
        authority,
        own,
        router,
        upstream,
    }
}

impl World {
    /// The status of a request to `host` on a connection to `name`, and what the service saw.
    fn ask(&self, own: Option<&Pair>, name: &str, host: &str) -> Option<(u16, Option<String>)> {
        let client = Client::of(&self.authority, rustls::ALL_VERSIONS, own);
        let mut wire = client.try_connect(self.router.tls(), name).ok()?;
        let id = format!("{name}-{host}-{}", own.is_some());
        // What it says about itself is not believed.
        let sent = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: {id}\r\n{XFCC}: Hash=forged\r\n\r\n"
        );
        wire.try_send(sent).ok()?;
        if !wire.peek() {
            return None;
        }
        let status = wire.response().status();
        let seen = self.upstream.seen().concat();
        let request = seen.split("GET / ").find(|r| r.contains(&id));
        let told = request.and_then(|request| {
            let line = request.lines().find(|l| l.starts_with(XFCC))?;
            Some(line.to_owned())
        });
        Some((status, told))
    }
}

#[test]
fn clients_are_asked_as_their_host_wants() {
    let world = world();
    for (own, host, passes) in [
        (None, "open.test", true),
        (None, "asks.test", true),
        (None, "strict.test", false),
        (Some(&world.own), "open.test", true),
        (Some(&world.own), "asks.test", true),
        (Some(&world.own), "strict.test", true),
    ] {
        let got = world.ask(own, host, host);
        assert_eq!(got.is_some(), passes, "{host}");
        let Some((status, told)) = got else { continue };
        assert_eq!(status, 200);
        let known = own.is_some() && host != "open.test";
        assert_eq!(told.is_some(), known, "{host}: {told:?}");
        if let Some(told) = told {
            assert!(told.starts_with("X-Forwarded-Client-Cert: Hash="), "{told}");
            assert!(told.contains(";DNS=me.test"), "{told}");
        }
    }
    let stranger = Authority::new("strangers").sign(&["me.test"]);
    for host in ["asks.test", "strict.test"] {
        assert_eq!(world.ask(Some(&stranger), host, host), None);
    }
    until("they are counted", || {
        world.router.failed("peer_certificate") == 3
    });
}

#[test]
fn what_one_host_was_shown_does_not_count_for_another() {
    let world = world();
    let own = Some(&world.own);
    for (name, host) in [
        ("open.test", "strict.test"),
        ("open.test", "asks.test"),
        ("asks.test", "strict.test"),
        ("strict.test", "open.test"),
    ] {
        assert_eq!(world.ask(own, name, host).unwrap().0, 421, "{name} {host}");
    }
    let mut plain = world.router.client();
    for (host, status) in [("open.test", 200), ("asks.test", 200), ("strict.test", 421)] {
        plain.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(plain.response().status(), status, "{host}");
    }
    plain.send(GET);
    assert_eq!(plain.response().status(), 200);
}

#[test]
fn http2_is_agreed_on_and_its_streams_know_the_client() {
    let world = world();
    let client = Client::of(&world.authority, rustls::ALL_VERSIONS, Some(&world.own));
    let client = client.asking_for_http2();
    // `GET / HTTP/2` of a host with eleven letters, after the preface and empty settings.
    let ask = |name: &str, host: &str| {
        let mut wire = client.try_connect(world.router.tls(), name).unwrap();
        let agreed = wire
            .session
            .as_ref()
            .unwrap()
            .alpn_protocol()
            .map(<[u8]>::to_vec);
        assert_eq!(agreed.as_deref(), Some(&b"h2"[..]));
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        assert_eq!(host.len(), 11);
        wire.send(b"\0\0\x10\x01\x05\0\0\0\x01\x82\x87\x84\x41\x0b");
        wire.send(host);
        loop {
            let head = wire.take(9);
            let payload = wire.take(usize::from(head[1]) << 8 | usize::from(head[2]));
            if head[3] == 1 {
                return payload;
            }
        }
    };
    // 0x88 is `:status: 200`.
    assert_eq!(ask("strict.test", "strict.test")[0], 0x88);
    assert_eq!(world.upstream.count("X-Forwarded-Client-Cert: Hash="), 1);
    assert_eq!(world.upstream.count("X-Forwarded-Proto: https"), 1);
    let misdirected = ask("open.test", "strict.test");
    assert_ne!(misdirected[0], 0x88);
    assert_eq!(world.upstream.count("GET / "), 1);
}
