//! Large bodies of known length, which go from connection to connection within the kernel.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    bodies::pattern,
    harness::{GET, PATIENCE, Setup, Upstream, Wire, until},
};

fn post(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n")
}

fn head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")
}

/// Sends from a thread of its own, and counts what was taken.
fn sending(client: &Wire, bytes: Vec<u8>) -> (thread::JoinHandle<()>, Arc<AtomicUsize>) {
    let mut sender = Wire::new(client.stream.try_clone().unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let sending = thread::spawn(move || {
        for piece in bytes.chunks(10_007) {
            if sender.try_send(piece).is_err() {
                return;
            }
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    (sending, sent)
}

/// Waits until nothing more is taken: everything that lies between is full.
fn until_stuck(sent: &AtomicUsize) {
    let (mut before, mut since) = (0, Instant::now());
    until("everything is full", || {
        let now = sent.load(Ordering::SeqCst);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        now > 1 << 20 && since.elapsed() > Duration::from_millis(300)
    });
}

#[test]
fn sizes_around_the_limits_come_back_whole_and_the_next_request_is_read() {
    let upstream = Upstream::start(|mut wire, _| {
        while wire.peek() {
            let request = wire.request();
            wire.send(head(request.body.len()));
            wire.send(&request.body);
        }
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    let round = 16 << 10;
    for size in [
        round - 1,
        round,
        round + 1,
        2 * round,
        100 << 10,
        256 << 10,
        (256 << 10) + 1,
        (1 << 20) + 1,
        5_000_000,
    ] {
        let body = pattern(size);
        let mut bytes = post(size).into_bytes();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(GET.as_bytes());
        let (sending, _) = sending(&client, bytes);
        let answer = client.response();
        assert!(answer.body == body, "{size}: {}", answer.body.len());
        assert_eq!(client.response().body, b"");
        sending.join().unwrap();
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn one_who_reads_slowly_gets_everything_and_others_are_served_meanwhile() {
    const SIZE: usize = 24 << 20;
    let (stuck, is_stuck) = mpsc::channel();
    let stuck = std::sync::Mutex::new(stuck);
    let upstream = Upstream::start(move |mut wire, number| {
        while wire.peek() {
            wire.request();
            if number > 0 {
                wire.send(head(2));
                wire.send("ok");
                continue;
            }
            wire.send(head(SIZE));
            let (sending, sent) = sending(&wire, pattern(SIZE));
            until_stuck(&sent);
            stuck.lock().unwrap().send(()).unwrap();
            sending.join().unwrap();
        }
    });
    let router = Setup::new(&[&upstream]).config(|c| c.threads = 1).start();
    let mut slow = router.client();
    slow.send(GET);
    is_stuck.recv_timeout(PATIENCE).unwrap();
    for _ in 0..10 {
        assert_eq!(router.ask(GET).body, b"ok");
    }
    let answer = slow.response();
    assert!(answer.body == pattern(SIZE));
    slow.send(GET);
    assert_eq!(slow.response().status(), 200);
}

#[test]
fn an_answer_that_begins_in_the_middle_of_a_stuck_upload_loses_nothing_of_it() {
    const SIZE: usize = 24 << 20;
    let (answer_now, may_answer) = mpsc::channel::<()>();
    let may_answer = std::sync::Mutex::new(may_answer);
    let upstream = Upstream::start(move |mut wire, _| {
        let request = wire.head();
        assert!(request.starts_with("POST"));
        may_answer.lock().unwrap().recv().unwrap();
        wire.send(head(6));
        wire.send("so ");
        assert!(wire.take(SIZE) == pattern(SIZE));
        wire.send("far");
        wire.peek();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    let mut bytes = post(SIZE).into_bytes();
    bytes.extend(pattern(SIZE));
    let (sending, sent) = sending(&client, bytes);
    until_stuck(&sent);
    answer_now.send(()).unwrap();
    let answer = client.response();
    assert_eq!((answer.status(), &answer.body[..]), (200, &b"so far"[..]));
    sending.join().unwrap();
}

#[test]
fn what_is_cut_off_never_looks_complete_either_way() {
    let (tell, uploaded) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let upstream = Upstream::start(move |mut wire, _| {
        let request = wire.head();
        if request.starts_with("GET") {
            wire.send(head(1 << 20));
            wire.send(pattern(600_000));
            return;
        }
        tell.lock().unwrap().send(wire.rest().0).unwrap();
    });
    let router = Setup::new(&[&upstream]).start();
    let mut client = router.client();
    client.send(GET);
    client.head();
    let (rest, end) = client.rest();
    let late = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!late, "its end was taken for the answer's");
    assert!(rest.len() < 1 << 20 && pattern(600_000).starts_with(&rest));
    let mut client = router.client();
    client.send(post(1 << 20));
    client.send(pattern(600_000));
    client.close_sending();
    let uploaded = uploaded.recv_timeout(PATIENCE).unwrap();
    assert!(uploaded.len() < 1 << 20 && pattern(600_000).starts_with(&uploaded));
    assert_eq!(router.log(2).len(), 2);
}
