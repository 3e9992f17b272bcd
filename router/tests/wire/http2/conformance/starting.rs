//! How a connection begins: RFC 9113, 3.3 and 3.4 (RFC 7540, 3.4 and 3.5).

use super::*;
use crate::harness::OK;

#[test]
fn a_wrong_preface_is_no_connection() {
    let upstream = Upstream::answering(OK);
    let router = Setup::new(&[&upstream]).start();
    for wrong in [
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "PRI * HTTP/2.0\r\nHost: h\r\n\r\n",
    ] {
        let mut wire = Wire::connect(router.address);
        wire.send(wrong);
        while wire.frame().is_some() {}
    }
    // The preface may come in pieces; and HTTP/1 is not taken for it.
    let mut wire = Wire::connect(router.address);
    wire.send_slowly(PREFACE);
    wire.send_slowly(frame(SETTINGS, 0, 0, []));
    wire.assert_alive();
    assert_eq!(
        router.ask("PRI / HTTP/1.1\r\nHost: h\r\n\r\n").status(),
        200
    );
    assert_eq!(router.ask("PRI * HTTP/3.0\r\n\r\n").status(), 505);
    // Only a new connection can begin so.
    let mut client = router.client();
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    client.response();
    client.send(PREFACE);
    assert_eq!(client.response().status(), 505);
    // Asking for an upgrade is not answered with one.
    let upgrade = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                   Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    assert_eq!(router.ask(upgrade).status(), 200);
    assert_eq!(upstream.count("h2c"), 0);
    assert_eq!(upstream.count("HTTP2-Settings"), 0);
}
