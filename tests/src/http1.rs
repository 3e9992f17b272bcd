//! A plain HTTP/1.1 client connection that sees exactly how the other side ended it.

mod dial;

use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{timeout, timeout_at},
};

pub use dial::{Dial, Stream};

/// How far an exchange had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Connecting.
    Connect,
    /// Agreeing on TLS.
    Handshake,
    /// Sending the request.
    Send,
    /// Nothing of the answer was there yet.
    BeforeAnswer,
    /// Within the answer's head.
    InHead,
    /// Within the answer's body.
    InBody,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The connection was refused.
    Refused,
    /// A reset.
    Reset(Stage),
    /// The other side closed the connection.
    Closed(Stage),
    /// Too late.
    Timeout(Stage),
    /// Another error of the socket.
    Io(Stage, String),
    /// Not HTTP.
    Malformed(String),
}

impl Failure {
    /// The kind, for counting.
    pub fn kind(&self) -> String {
        match self {
            Self::Refused => "connection refused".to_owned(),
            Self::Reset(stage) => format!("reset ({stage:?})"),
            Self::Closed(stage) => format!("closed ({stage:?})"),
            Self::Timeout(stage) => format!("timeout ({stage:?})"),
            Self::Io(stage, error) => format!("{error} ({stage:?})"),
            Self::Malformed(_) => "malformed answer".to_owned(),
        }
    }

    fn io(stage: Stage, error: &std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset(stage),
            ErrorKind::UnexpectedEof => Self::Closed(stage),
            _ => Self::Io(stage, error.to_string()),
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, without chunk framing.
    pub body: Vec<u8>,
    /// Whether the connection can be used again.
    pub keep_alive: bool,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A connection, kept alive between requests.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr, limit: Duration) -> Result<Self, Failure> {
        Self::dial(address, &Dial::default(), limit).await
    }

    /// Connects in this manner.
    pub async fn dial(address: SocketAddr, dial: &Dial, limit: Duration) -> Result<Self, Failure> {
        let mut stage = Stage::Connect;
        let stream = match timeout(limit, dial.connect(address, &mut stage)).await {
            Ok(connected) => connected.map_err(|e| Failure::io(stage, &e))?,
            Err(_) => return Err(Failure::Timeout(stage)),
        };
        Ok(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Sends a whole request and reads the whole answer.
    pub async fn exchange(&mut self, request: &[u8], limit: Duration) -> Result<Response, Failure> {
        let end = tokio::time::Instant::from_std(Instant::now() + limit);
        let send = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        timeout_at(end, send)
            .await
            .map_err(|_| Failure::Timeout(Stage::Send))?
            .map_err(|e| Failure::io(Stage::Send, &e))?;
        let mut stage = Stage::BeforeAnswer;
        match timeout_at(end, self.read_response(&mut stage)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Timeout(stage)),
        }
    }

    async fn fill(&mut self, stage: Stage) -> Result<usize, Failure> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Err(Failure::Closed(stage)),
            Ok(read) => Ok(read),
            Err(e) => Err(Failure::io(stage, &e)),
        }
    }

    async fn read_response(&mut self, stage: &mut Stage) -> Result<Response, Failure> {
        loop {
            if !self.buffer.is_empty() {
                *stage = Stage::InHead;
                if let Some((mut response, used, body)) = parse_head(&self.buffer)? {
                    self.buffer.drain(..used);
                    if (100..200).contains(&response.status) && response.status != 101 {
                        continue;
                    }
                    *stage = Stage::InBody;
                    self.read_body(&mut response, body).await?;
                    return Ok(response);
                }
            }
            self.fill(*stage).await?;
        }
    }

    async fn read_body(&mut self, response: &mut Response, body: Body) -> Result<(), Failure> {
        match body {
            Body::Length(length) => {
                while self.buffer.len() < length {
                    self.fill(Stage::InBody).await?;
                }
                response.body = self.buffer.drain(..length).collect();
            }
            Body::UntilClose => {
                response.keep_alive = false;
                loop {
                    match self.fill(Stage::InBody).await {
                        Ok(_) => {}
                        Err(Failure::Closed(_)) => break,
                        Err(e) => return Err(e),
                    }
                }
                response.body = std::mem::take(&mut self.buffer);
            }
            Body::Chunked => loop {
                let line = self.line().await?;
                let text = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(text, 16)
                    .map_err(|_| Failure::Malformed(format!("chunk size `{line}`")))?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    break;
                }
                while self.buffer.len() < size + 2 {
                    self.fill(Stage::InBody).await?;
                }
                response.body.extend(self.buffer.drain(..size));
                self.buffer.drain(..2);
            },
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map_err(|e| Failure::Malformed(e.to_string()));
            }
            self.fill(Stage::InBody).await?;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Length(usize),
    Chunked,
    UntilClose,
}

fn parse_head(buffer: &[u8]) -> Result<Option<(Response, usize, Body)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let used = match head.parse(buffer) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(e) => return Err(Failure::Malformed(e.to_string())),
    };
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|header| {
            (
                header.name.to_ascii_lowercase(),
                String::from_utf8_lossy(header.value).into_owned(),
            )
        })
        .collect();
    let status = head.code.unwrap_or_default();
    let find = |name: &str| {
        headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.to_ascii_lowercase())
    };
    let keep_alive =
        head.version == Some(1) && !find("connection").is_some_and(|value| value.contains("close"));
    let body = if status == 101 || status == 204 || status == 304 || status < 200 {
        Body::Length(0)
    } else if find("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        Body::Chunked
    } else if let Some(length) = find("content-length") {
        let length = length
            .trim()
            .parse()
            .map_err(|_| Failure::Malformed(format!("content-length `{length}`")))?;
        Body::Length(length)
    } else {
        Body::UntilClose
    };
    let response = Response {
        status,
        headers,
        body: Vec::new(),
        keep_alive,
    };
    Ok(Some((response, used, body)))
}

/// One request on a connection of its own.
pub async fn once(
    address: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
) -> Result<Response, Failure> {
    let limit = Duration::from_secs(10);
    let mut connection = Connection::open(address, limit).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    connection.exchange(request.as_bytes(), limit).await
}

/// A GET on a connection of its own.
pub async fn get(address: SocketAddr, host: &str, path: &str) -> Result<Response, Failure> {
    once(address, "GET", host, path).await
}
