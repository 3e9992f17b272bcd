//! The backend's HTTP/1.1 server.

use std::{
    sync::Arc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Mode, State, websocket};

/// Serves until `end`; then takes no more connections, finishes the requests it has, and returns.
pub async fn serve(listener: TcpListener, state: Arc<State>, end: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        tokio::select! {
            () = end.cancelled() => break,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tasks.spawn(connection(stream, state.clone(), end.clone()));
                }
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

struct Request {
    method: String,
    path: String,
    query: String,
    id: String,
    websocket_key: Option<String>,
}

async fn connection(mut stream: TcpStream, state: Arc<State>, end: CancellationToken) {
    drop(stream.set_nodelay(true));
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let request = tokio::select! {
            biased;
            request = read_request(&mut stream, &mut buffer) => request,
            () = end.cancelled(), if buffer.is_empty() => return,
        };
        let Some(request) = request else {
            return;
        };
        if let Some(key) = &request.websocket_key {
            state.count(&request.method, &request.id);
            websocket::serve(stream, key, state);
            return;
        }
        match answer(&mut stream, &state, &request, &end).await {
            Some(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            None => return,
        }
        if end.is_cancelled() && buffer.is_empty() {
            return;
        }
    }
}

/// The answer; none: the connection is over.
async fn answer(
    stream: &mut TcpStream,
    state: &State,
    request: &Request,
    end: &CancellationToken,
) -> Option<Vec<u8>> {
    let number = |name: &str| -> usize {
        let mut pairs = request
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(known, _)| *known == name)
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0)
    };
    match request.path.as_str() {
        "/__stats" => {
            let body = serde_json::to_vec(&state.stats()).ok()?;
            return Some(response(200, &body, end));
        }
        "/__mode" => {
            let set = request
                .query
                .strip_prefix("set=")
                .and_then(|mode| mode.parse().ok());
            let status = if let Some(mode) = set {
                state.set_mode(mode);
                200
            } else {
                400
            };
            return Some(response(status, b"", end));
        }
        _ => {}
    }
    if request.path == "/healthz" {
        state.probes.fetch_add(1, Ordering::SeqCst);
        if Instant::now() < state.ready_at {
            return Some(response(503, b"warming up\n", end));
        }
    } else {
        state.count(&request.method, &request.id);
    }
    match state.mode() {
        Mode::Failing(share) if state.is_to_fail(share) => {
            return Some(response(500, b"told to\n", end));
        }
        Mode::Ok | Mode::Failing(_) => {}
        Mode::Hang => {
            let mut chunk = [0; 1024];
            while let Ok(1..) = stream.read(&mut chunk).await {}
            return None;
        }
        Mode::Status(status) => return Some(response(status, b"told to\n", end)),
        Mode::Reset => {
            drop(socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)));
            return None;
        }
        Mode::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
    }
    match request.path.as_str() {
        "/slow" => {
            let ms = number("ms") as u64;
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        "/big" => return Some(response(200, &vec![b'x'; number("bytes")], end)),
        "/chunked" => return Some(chunked(number("bytes"))),
        _ => {}
    }
    let body = format!("{} {} {}\n", state.name(), request.id, request.method);
    Some(response(200, body.as_bytes(), end))
}

fn response(status: u16, body: &[u8], end: &CancellationToken) -> Vec<u8> {
    let close = if end.is_cancelled() {
        "Connection: close\r\n"
    } else {
        ""
    };
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{close}\r\n",
        body.len()
    );
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn chunked(length: usize) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let body = vec![b'x'; length];
    for chunk in body.chunks(1000) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Reads a request with its body; none at the end of the connection or when it is no HTTP.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let (request, used, body) = loop {
        if let Some(found) = parse(buffer).ok()? {
            break found;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let mut at = used;
    match body {
        Body::Length(length) => {
            while buffer.len() < at + length {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            at += length;
        }
        Body::Chunked => loop {
            let line_end = loop {
                if let Some(found) = buffer[at..].windows(2).position(|w| w == b"\r\n") {
                    break at + found;
                }
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            };
            let size = std::str::from_utf8(&buffer[at..line_end]).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            at = line_end + 2 + size + 2;
            while buffer.len() < at {
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
            if size == 0 {
                break;
            }
        },
    }
    buffer.drain(..at);
    Some(request)
}

enum Body {
    Length(usize),
    Chunked,
}

struct NotHttp;

/// A request's head; none: more bytes are needed.
fn parse(buffer: &[u8]) -> Result<Option<(Request, usize, Body)>, NotHttp> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(used) = head.parse(buffer).map_err(|_| NotHttp)? else {
        return Ok(None);
    };
    let find = |name: &str| {
        let mut all = head.headers.iter();
        all.find(|header| header.name.eq_ignore_ascii_case(name))
            .map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let target = head.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let body = if find("transfer-encoding").is_some() {
        Body::Chunked
    } else {
        let length = find("content-length").unwrap_or_else(|| "0".to_owned());
        Body::Length(length.trim().parse().map_err(|_| NotHttp)?)
    };
    let upgrade = find("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        id: find("x-test-id").unwrap_or_default(),
        websocket_key: upgrade.then(|| find("sec-websocket-key")).flatten(),
    };
    Ok(Some((request, used, body)))
}
