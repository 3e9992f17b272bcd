//! The seeded corpus (`fuzz/corpus`), pieces of it put together, and damage done to it. Seeds are
//! fixed: a failure comes again.

use std::{fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use super::*;

/// More with `CARDEA_FUZZ_CASES`, for a night.
fn cases(least: u32) -> u32 {
    let wanted = std::env::var("CARDEA_FUZZ_CASES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(least)
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut files: Vec<_> = fs::read_dir(dir.join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Pieces that messages are made of, and that break them.
const PIECES: &[&str] = &[
    "GET ",
    "POST ",
    "OPTIONS ",
    "/",
    "*",
    "/a?b",
    "http://h",
    " HTTP/1.1",
    " HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    ":",
    ": ",
    " ",
    "\t",
    ",",
    ";",
    "\0",
    "\u{7f}",
    "Host: h\r\n",
    "host:H:80\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:\tChunked \r\n",
    "Connection: upgrade\r\n",
    "Connection: close, x\r\n",
    "Upgrade: websocket\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "X: \u{e4}\r\n",
    "X_Y: \r\n",
    "X-Forwarded-For: 1.1.1.1\r\n",
    "TE: trailers\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 204\r\n",
    "HTTP/1.0 304 \r\n",
    "HTTP/1.1 101 S\r\n",
    "HTTP/1.1 100 C\r\n",
    "0\r\n",
    "1\r\na\r\n",
    "3;x=y\r\nabc\r\n",
    "A\r\n0123456789\r\n",
    "00\r\n",
    "fffffffffffffffff",
    "T: v\r\n",
    "Content_Length: 1\r\n",
    "Date: d\r\n",
];

/// A message of the corpus with pieces put in, bytes changed, taken out or said twice.
fn damaged(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(|p| p.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    let change = (any::<proptest::sample::Index>(), 0_usize..4, piece);
    (proptest::sample::select(corpus), vec(change, 0..4)).prop_map(|(mut text, changes)| {
        for (at, out, piece) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + out).min(text.len());
            drop(text.splice(at..end, piece));
        }
        text
    })
}

fn holds(target: &str, check: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|bytes| check(bytes));
    let config = Config {
        cases: cases(4000),
        failure_persistence: None,
        ..Config::default()
    };
    let pieces = vec(proptest::sample::select(PIECES), 0..12)
        .prop_map(|pieces| pieces.concat().into_bytes());
    let bytes = prop_oneof![
        4 => damaged(corpus),
        2 => pieces,
        1 => vec(any::<u8>(), 0..200),
    ];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    TestRunner::new_with_rng(config, rng)
        .run(&bytes, |bytes| {
            check(&bytes);
            Ok(())
        })
        .unwrap();
}

#[test]
fn request_heads() {
    holds("request_head", request_head);
}

#[test]
fn response_heads() {
    holds("response_head", response_head);
}

#[test]
fn chunked_bodies() {
    holds("chunked_body", chunked_body);
}

#[test]
fn proxy_headers() {
    holds("proxy_header", proxy_header);
}
