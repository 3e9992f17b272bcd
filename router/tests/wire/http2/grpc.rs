//! gRPC through the router: the four kinds of calls over raw HTTP/2, so that every header, trailer
//! and status is seen as it is.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};

use super::{
    client::{Answer, Client, read, send_all, soon},
    peer::{Call, Peer},
    secure::{setup as secure_setup, speaking},
};
use crate::{
    harness::{Running, Setup, until},
    tls::authority::Authority,
};

/// A message in its frame.
fn message(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap();
    [&[0][..], &len.to_be_bytes(), content].concat()
}

/// The messages of a stream, one by one.
struct Messages {
    body: RecvStream,
    buffer: Vec<u8>,
}

impl Messages {
    fn new(body: RecvStream) -> Self {
        let buffer = Vec::new();
        Self { body, buffer }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, h2::Error> {
        loop {
            if let Some((head, rest)) = self.buffer.split_at_checked(5) {
                let len = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
                if rest.len() >= len {
                    let message = rest[..len].to_vec();
                    self.buffer.drain(..5 + len);
                    return Ok(Some(message));
                }
            }
            let Some(piece) = self.body.data().await else {
                assert!(self.buffer.is_empty(), "half a message");
                return Ok(None);
            };
            let piece = piece?;
            self.body.flow_control().release_capacity(piece.len())?;
            self.buffer.extend_from_slice(&piece);
        }
    }
}

fn head() -> Response<()> {
    Response::builder()
        .header("content-type", "application/grpc")
        .header("initial-bin", "AAECAw")
        .body(())
        .unwrap()
}

fn status(code: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    trailers.insert("trailing-bin", HeaderValue::from_static("//79"));
    trailers
}

async fn say(stream: &mut SendStream<Bytes>, content: &[u8]) {
    let mut rest = Bytes::from(message(content));
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(n)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else {
            return;
        };
        let piece = rest.split_to(n.min(rest.len()));
        if stream.send_data(piece, false).is_err() {
            return;
        }
    }
}

async fn serve(call: Call, resets: Arc<Mutex<Vec<Reason>>>) {
    let path = call.path().to_owned();
    let Call {
        body, mut respond, ..
    } = call;
    let mut messages = Messages::new(body);
    match path.as_str() {
        "/t.Test/Fails" => {
            let mut answer = head();
            answer.headers_mut().insert("grpc-status", 5.into());
            let text = HeaderValue::from_static("no%20such%20thing");
            answer.headers_mut().insert("grpc-message", text);
            respond.send_response(answer, true).unwrap();
        }
        "/t.Test/Unavailable" => {
            let mut stream = respond.send_response(head(), false).unwrap();
            stream.send_trailers(status(14)).unwrap();
        }
        "/t.Test/Never" => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            resets.lock().unwrap().push(reason.unwrap());
        }
        // Each message is answered by as many as it has bytes, with the whole at the end: all four
        // kinds of calls.
        _ => {
            let mut stream = respond.send_response(head(), false).unwrap();
            let mut whole = Vec::new();
            while let Ok(Some(content)) = messages.next().await {
                if path == "/t.Test/Bidi" {
                    say(&mut stream, &content).await;
                }
                whole.extend(content);
            }
            if path == "/t.Test/ServerStream" {
                for piece in whole.chunks(3) {
                    say(&mut stream, piece).await;
                }
            }
            if matches!(path.as_str(), "/t.Test/Unary" | "/t.Test/ClientStream") {
                say(&mut stream, &whole).await;
            }
            let _ = stream.send_trailers(status(0));
        }
    }
}

struct Site {
    router: Running,
    peer: Peer,
    resets: Arc<Mutex<Vec<Reason>>>,
}

fn site(policy: &str) -> Site {
    let resets = Arc::<Mutex<Vec<Reason>>>::default();
    let resetting = resets.clone();
    let peer = Peer::start(move |call| Box::pin(serve(call, resetting.clone())));
    let router = Setup::new(&[])
        .service(&format!("protocol = \"h2c\"\n{policy}"))
        .peer(peer.address)
        .start();
    Site {
        router,
        peer,
        resets,
    }
}

/// The same with TLS between router and service.
fn secure_site() -> Site {
    let ca = Authority::new("ca");
    let resets = Arc::<Mutex<Vec<Reason>>>::default();
    let resetting = resets.clone();
    let peer = Peer::secure(
        speaking(&ca.sign(&["127.0.0.1"]), &[b"h2"]),
        h2::server::Builder::new().initial_window_size(1 << 20),
        move |call| Box::pin(serve(call, resetting.clone())),
    );
    Site {
        router: secure_setup(&[&peer], &ca, "").start(),
        peer,
        resets,
    }
}

fn call(method: &str) -> Request<()> {
    Request::builder()
        .method("POST")
        .uri(format!("http://t.example/t.Test/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "grpc-test/1")
        .header("x-text", "value")
        .header("x-data-bin", "AAECAwQ")
        .body(())
        .unwrap()
}

fn check_ok(answer: &Answer) {
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.field("content-type"), Some("application/grpc"));
    assert_eq!(answer.field("initial-bin"), Some("AAECAw"));
    assert_eq!(answer.field("content-length"), None);
    let trailers = answer.trailers.as_ref().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["trailing-bin"], "//79");
}

#[test]
fn all_four_kinds_of_calls_with_their_metadata() {
    all_four_kinds(&site(""));
}

#[test]
fn all_four_kinds_of_calls_within_tls() {
    all_four_kinds(&secure_site());
}

fn all_four_kinds(site: &Site) {
    let mut client = Client::connect(site.router.address);
    let abc = message(b"abc");
    let many = [message(b"abc"), message(b""), message(b"defg")].concat();
    for (method, sent, got) in [
        ("Unary", &abc, message(b"abc")),
        ("ClientStream", &many, message(b"abcdefg")),
        (
            "ServerStream",
            &many,
            [message(b"abc"), message(b"def"), message(b"g")].concat(),
        ),
        ("Bidi", &many, many.clone()),
    ] {
        let answer = client.ask(call(method), sent);
        check_ok(&answer);
        assert_eq!(answer.body, got, "{method}");
    }
    let heads = site.peer.heads();
    for head in &heads {
        for (name, value) in call("Unary").headers() {
            assert_eq!(head.headers().get(name), Some(value), "{name}");
        }
    }
    assert_eq!(heads[0].uri().authority().unwrap(), "t.example");
    assert_eq!(site.peer.connections(), 1);
}

#[test]
fn a_conversation_goes_back_and_forth() {
    let site = site("");
    let mut client = Client::connect(site.router.address);
    let (answer, mut stream) = client.open(call("Bidi"), false);
    client.runtime.block_on(async {
        // The service answers its head before it hears anything.
        let answer = soon(answer).await.unwrap();
        let mut messages = Messages::new(answer.into_body());
        for i in 0..200_u8 {
            let content = vec![i; usize::from(i)];
            soon(say(&mut stream, &content)).await;
            assert_eq!(soon(messages.next()).await.unwrap(), Some(content));
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(soon(messages.next()).await.unwrap(), None);
        let trailers = soon(messages.body.trailers()).await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    });
}

#[test]
fn messages_of_20_mib_pass_both_ways() {
    let site = site("");
    let mut client = Client::connect(site.router.address);
    let large: Vec<u8> = (0..20_usize << 20)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect();
    for method in ["Unary", "Bidi"] {
        let answer = client.ask(call(method), &message(&large));
        check_ok(&answer);
        assert!(answer.body == message(&large), "{method}");
    }
}

#[test]
fn a_call_that_fails_at_once_stays_headers_only() {
    let site = site("");
    let mut client = Client::connect(site.router.address);
    let (answer, _) = client.open(call("Fails"), true);
    client.runtime.block_on(async {
        let answer = soon(answer).await.unwrap();
        assert!(answer.body().is_end_stream());
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["grpc-status"], "5");
        assert_eq!(answer.headers()["grpc-message"], "no%20such%20thing");
        assert!(!answer.headers().contains_key("content-length"));
    });
}

#[test]
fn cancelling_reaches_the_service() {
    let site = site("");
    let mut client = Client::connect(site.router.address);
    let (answer, mut stream) = client.open(call("Never"), false);
    until("asked", || site.peer.heads().len() == 1);
    stream.send_reset(Reason::CANCEL);
    drop((answer, stream));
    until("cancelled", || site.resets.lock().unwrap().len() == 1);
    assert_eq!(site.resets.lock().unwrap()[0], Reason::CANCEL);
    assert_eq!(site.router.log(1)[0]["error"], "client_gone");
    assert_eq!(
        site.router.metric("cardea_router_upstream_errors_total{"),
        None
    );
    check_ok(&client.ask(call("Unary"), &message(b"x")));
}

#[test]
fn a_deadline_is_passed_on_and_kept_and_marks_nobody() {
    let site = site("");
    let mut client = Client::connect(site.router.address);
    let mut late = call("Never");
    let deadline = HeaderValue::from_static("2000m");
    late.headers_mut().insert("grpc-timeout", deadline);
    let begun = Instant::now();
    let answer = client.ask(late, &message(b"x"));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(answer.field("grpc-status"), Some("4"));
    assert_eq!(site.peer.heads()[0].headers()["grpc-timeout"], "2000m");
    until("cancelled", || site.resets.lock().unwrap().len() == 1);
    assert_eq!(
        site.router.metric("cardea_router_upstream_errors_total{"),
        None
    );
}

#[test]
fn the_routers_own_errors_are_grpc_statuses() {
    fn refused(router: &Running, request: Request<()>, body: &[u8], want: &str) {
        let mut client = Client::connect(router.address);
        let (answer, stream) = client.open(request, false);
        client.runtime.block_on(async {
            let sending = tokio::spawn(send_all(stream, message(body), None, false));
            let answer = soon(answer).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["content-type"], "application/grpc");
            assert_eq!(answer.headers()["grpc-status"], want);
            assert!(!answer.headers()["grpc-message"].is_empty());
            assert!(!answer.headers().contains_key("content-length"));
            assert!(answer.body().is_end_stream(), "one block of headers");
            sending.abort();
        });
    }
    let nobody = Setup::new(&[]).service("protocol = \"h2c\"").start();
    refused(&nobody, call("Unary"), b"x", "14");
    assert_eq!(nobody.log(1)[0]["status"], 503);
    let dead = Setup::new(&[])
        .service("protocol = \"h2c\"")
        .peer(crate::harness::refusing())
        .start();
    refused(&dead, call("Unary"), b"x", "14");
    let site = site("timeouts = { first_byte = \"100ms\" }\nretries = { attempts = 0 }");
    refused(&site.router, call("Never"), b"x", "4");
    let small = Setup::new(&[])
        .service("protocol = \"h2c\"")
        .peer(site.peer.address)
        .config(|c| c.limits.body = Some(1000))
        .start();
    refused(&small, call("Bidi"), &[0; 5000], "8");
    let mut nowhere = call("Unary");
    *nowhere.uri_mut() = "http://t.example/a/%2e%2e/b".parse().unwrap();
    refused(&small, nowhere, b"x", "13");
    // Anybody else's are what they were.
    let mut json = call("Unary");
    json.headers_mut().insert(
        "content-type",
        HeaderValue::from_static("application/grpc-web"),
    );
    let mut client = Client::connect(nobody.address);
    assert_eq!(client.ask(json, b"x").status(), 503);
}

#[test]
fn statuses_mark_a_peer_if_the_policy_says_so() {
    let two = |policy: &str| {
        let site = site(policy);
        (Client::connect(site.router.address), site)
    };
    let (mut client, site) = two("");
    for method in ["Unavailable", "Fails", "Unavailable"] {
        client.ask(call(method), &message(b"x"));
    }
    assert_eq!(
        site.router.metric("cardea_router_upstream_errors_total{"),
        None
    );
    let (mut client, site) = two("health = { grpc_statuses = [5, 14] }");
    for method in ["Unavailable", "Fails", "Unary"] {
        client.ask(call(method), &message(b"x"));
    }
    let peers = {
        let mut wire = crate::harness::Wire::connect(site.router.admin);
        wire.send("GET /v1/peers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        String::from_utf8(wire.response().body).unwrap()
    };
    assert!(peers.contains("\"failures\":2"), "{peers}");
}

/// Both kinds of errors, in the head and in the trailer, open a breaker that names their statuses.
#[test]
fn statuses_open_a_breaker_if_it_says_so() {
    let peer = Peer::start(|call| Box::pin(serve(call, Arc::default())));
    let router = |named: &str| {
        Setup::new(&[])
            .service("protocol = \"h2c\"\nhealth = { max_fails = 0 }")
            .peer(peer.address)
            .tables(&format!(
                "[[plugin]]\nname = \"b\"\nservice = \"s\"\n[plugin.break]\nmin_requests = 4\n\
                 errors = 100\nopen = \"1h\"\n{named}\n"
            ))
            .start()
    };
    let opened = |router: &Running| {
        router
            .metric("cardea_router_breaker_opened_total{")
            .unwrap_or_default()
    };
    let calls = ["Unavailable", "Fails", "Unavailable", "Fails"];
    let quiet = router("");
    let mut client = Client::connect(quiet.address);
    for method in calls {
        client.ask(call(method), &message(b"x"));
    }
    assert_eq!(client.ask(call("Unary"), &message(b"x")).status(), 200);
    assert!(opened(&quiet) < 0.5, "{}", quiet.metrics());

    let named = router("grpc_statuses = [5, 14]");
    let mut client = Client::connect(named.address);
    for method in calls {
        client.ask(call(method), &message(b"x"));
    }
    until("it opens", || opened(&named) > 0.5);
    let asked = peer.heads().len();
    let refused = client.ask(call("Unary"), &message(b"x"));
    assert_eq!(refused.field("grpc-status"), Some("14"));
    assert_eq!(peer.heads().len(), asked, "nobody was asked");
}

#[test]
fn a_stream_that_breaks_off_is_no_success() {
    let peer = Peer::start(|mut call| {
        Box::pin(async move {
            let mut stream = call.answer(head(), false);
            say(&mut stream, b"half").await;
            // The message has gone out before the reset.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        })
    });
    let router = Setup::new(&[])
        .service("protocol = \"h2c\"")
        .peer(peer.address)
        .start();
    let mut client = Client::connect(router.address);
    let (answer, _) = client.open(call("Unary"), true);
    client.runtime.block_on(async {
        let error = soon(read(answer)).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn grpc_goes_to_http1_services_in_chunks() {
    // What an HTTP/1.1 service makes of it is its own affair: nothing is lost on the way.
    let upstream = crate::harness::Upstream::start(|mut wire, _| {
        while wire.peek() {
            let asked = wire.request();
            wire.send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n");
            wire.send(format!("{:x}\r\n", asked.body.len()));
            wire.send(&asked.body);
            wire.send("\r\n0\r\ngrpc-status: 0\r\n\r\n");
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = Client::connect(router.address);
    let answer = client.ask(call("Unary"), &message(b"abc"));
    assert_eq!(answer.body, message(b"abc"));
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}
