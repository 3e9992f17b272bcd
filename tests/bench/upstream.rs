//! `cardea-bench-upstream [after=MS|bulk] PORT…`: the smallest keep-alive responder: one read, one
//! write, 1 KiB, at once or after some milliseconds; or with `bulk` as many bytes as the path says, with request bodies thrown away.
//!
//! It must cost less than the proxies in front of it, or it is what gets measured.

use std::{io::Write, thread, time::Duration};

use cardea_tests::bulk;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const BODY: usize = 1024;

fn main() -> std::io::Result<()> {
    let mut ports = std::env::args().skip(1).peekable();
    if ports.next_if_eq("bulk").is_some() {
        return bulk_main(ports);
    }
    let after = ports.peek().and_then(|first| first.strip_prefix("after="));
    let after = after.map(|ms| Duration::from_millis(ms.parse().expect("milliseconds")));
    if after.is_some() {
        ports.next();
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(small(after, ports))
}

async fn small(
    after: Option<Duration>,
    ports: impl Iterator<Item = String>,
) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: upstream\r\nDate: Fri, 20 Nov 2026 19:00:00 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: {BODY}\r\n\r\n"
    );
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + BODY, b'x');
    let answer: &'static [u8] = answer.leak();
    let mut listeners = JoinSet::new();
    for port in ports {
        let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
        listeners.spawn(accept(listener, after, answer));
    }
    println!("ready");
    while listeners.join_next().await.is_some() {}
    Ok(())
}

async fn accept(listener: TcpListener, after: Option<Duration>, answer: &'static [u8]) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, after, answer));
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Requests are GETs without a body, sent one after another: their heads end with an empty line.
async fn serve(mut stream: TcpStream, after: Option<Duration>, answer: &'static [u8]) {
    drop(stream.set_nodelay(true));
    let mut buffer = vec![0; 8192];
    let mut used = 0;
    loop {
        match stream.read(&mut buffer[used..]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => used += read,
        }
        if buffer[..used].ends_with(b"\r\n\r\n") {
            used = 0;
            if let Some(after) = after {
                tokio::time::sleep(after).await;
            }
            if stream.write_all(answer).await.is_err() {
                return;
            }
        } else if used == buffer.len() {
            return;
        }
    }
}

/// A thread a connection: nothing here waits for anything else.
fn bulk_main(ports: impl Iterator<Item = String>) -> std::io::Result<()> {
    let mut listeners = Vec::new();
    for port in ports {
        let listener = std::net::TcpListener::bind(format!("127.0.0.1:{port}"))?;
        listeners.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve_bulk(stream));
            }
        }));
    }
    println!("ready");
    for listener in listeners {
        drop(listener.join());
    }
    Ok(())
}

/// Requests come one after another; `/…/N` is answered with N bytes.
fn serve_bulk(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let (head, more) = bulk::read_head(&mut stream)?;
        let length = head
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse().ok())?
            })
            .unwrap_or(0);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let size = target
            .rsplit('/')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
        bulk::skip(&stream, length - more)?;
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        // As servers have it, a short body comes with its head.
        let short = if size <= BODY { size } else { 0 };
        answer.resize(answer.len() + short, b'x');
        stream.write_all(&answer)?;
        bulk::send_bytes(&mut stream, size - short)?;
    }
}
