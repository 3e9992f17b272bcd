//! One side of a connection, read by messages.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use super::{PATIENCE, Record};

/// One side of a connection, read by messages.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    /// TLS, if it is spoken.
    pub(crate) session: Option<Box<rustls::Connection>>,
    buffer: Vec<u8>,
    pub(super) record: Option<Record>,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub(crate) trailers: String,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    pub(crate) fn field<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let mut values = self.fields(name);
        let first = values.next();
        assert!(
            values.next().is_none(),
            "more than one {name}: {}",
            self.head
        );
        first
    }

    pub(crate) fn fields<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.split("\r\n").skip(1).filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Pieces of one byte, and behind the first [`BY_BYTES`] of a size that fits no line's.
fn slowly(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (first, rest) = bytes.split_at(bytes.len().min(BY_BYTES));
    first.chunks(1).chain(rest.chunks(251))
}

/// How much of a message is sent byte by byte.
const BY_BYTES: usize = 512;

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            session: None,
            buffer: Vec::new(),
            record: None,
        }
    }

    /// Reads once.
    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.session {
            None => self.stream.read(piece),
            Some(session) => loop {
                match session.reader().read(piece) {
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
                session.read_tls(&mut self.stream)?;
                let processed = session.process_new_packets();
                while session.wants_write() {
                    session.write_tls(&mut self.stream)?;
                }
                processed.map_err(std::io::Error::other)?;
            },
        }
    }

    pub(crate) fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).unwrap())
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// As [`Wire::send`], to somebody who may have closed already.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        match &mut self.session {
            None => self.stream.write_all(bytes),
            Some(session) => {
                while session.is_handshaking() {
                    session.complete_io(&mut self.stream)?;
                }
                for piece in bytes.chunks(32 << 10) {
                    session.writer().write_all(piece)?;
                    while session.wants_write() {
                        session.write_tls(&mut self.stream)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// As [`Wire::send_slowly`], to somebody who may have closed already.
    pub(crate) fn try_send_slowly(&mut self, bytes: impl AsRef<[u8]>) {
        for piece in slowly(bytes.as_ref()) {
            if self.try_send(piece).is_err() {
                return;
            }
            thread::yield_now();
        }
    }

    /// As [`Wire::send`], one byte a segment; of something long only the beginning, since each piece
    /// costs as much time as others on a busy machine take at a turn.
    pub(crate) fn send_slowly(&mut self, bytes: impl AsRef<[u8]>) {
        for piece in slowly(bytes.as_ref()) {
            self.send(piece);
            thread::yield_now();
        }
    }

    /// Reads once; `false` at the end.
    pub(crate) fn fill(&mut self) -> bool {
        let mut piece = vec![0; 65_536];
        let n = self
            .read(&mut piece)
            .unwrap_or_else(|e| panic!("read: {e}"));
        if let Some(record) = &self.record {
            record.lock().unwrap().extend_from_slice(&piece[..n]);
        }
        self.buffer.extend_from_slice(&piece[..n]);
        n > 0
    }

    pub(crate) fn take(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n {
            assert!(
                self.fill(),
                "ended after {:?}",
                self.buffer.escape_ascii().to_string()
            );
        }
        self.buffer.drain(..n).collect()
    }

    /// So many bytes; none if the connection ends before, however it does.
    pub(crate) fn try_take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < n {
            let mut piece = vec![0; 65_536];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&piece[..n]),
                Err(error) => {
                    let late = error.kind() == std::io::ErrorKind::WouldBlock;
                    assert!(!late, "nothing came");
                    return None;
                }
            }
        }
        Some(self.buffer.drain(..n).collect())
    }

    pub(crate) fn take_until(&mut self, end: &str) -> String {
        loop {
            let found = self
                .buffer
                .windows(end.len())
                .position(|w| w == end.as_bytes());
            if let Some(at) = found {
                return String::from_utf8(self.take(at + end.len())).unwrap();
            }
            assert!(
                self.fill(),
                "ended after {:?}",
                self.buffer.escape_ascii().to_string()
            );
        }
    }

    /// Everything up to the end; an error such as a reset is the end too, and is told.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, std::io::Result<()>) {
        let mut rest = std::mem::take(&mut self.buffer);
        let mut piece = vec![0; 65_536];
        loop {
            match self.read(&mut piece) {
                Ok(0) => return (rest, Ok(())),
                Ok(n) => rest.extend_from_slice(&piece[..n]),
                Err(error) => return (rest, Err(error)),
            }
        }
    }

    /// The connection was closed in good order, with nothing more said.
    pub(crate) fn assert_closed(&mut self) {
        let (rest, result) = self.rest();
        result.unwrap();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    pub(crate) fn head(&mut self) -> String {
        self.take_until("\r\n\r\n")
    }

    /// A request with its body.
    pub(crate) fn request(&mut self) -> Message {
        let head = self.head();
        self.body(head, false)
    }

    /// A response with its body; `bodiless`: to HEAD.
    pub(crate) fn response_to(&mut self, bodiless: bool) -> Message {
        let head = self.head();
        let status: u16 = head[9..12].parse().unwrap();
        if bodiless || matches!(status, 100..=199 | 204 | 304) {
            return Message {
                head,
                body: Vec::new(),
                trailers: String::new(),
            };
        }
        self.body(head, true)
    }

    pub(crate) fn response(&mut self) -> Message {
        self.response_to(false)
    }

    pub(crate) fn body(&mut self, head: String, to_end: bool) -> Message {
        let mut message = Message {
            head,
            body: Vec::new(),
            trailers: String::new(),
        };
        if message.field("transfer-encoding").is_some() {
            loop {
                let line = self.take_until("\r\n");
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                if size == 0 {
                    loop {
                        let line = self.take_until("\r\n");
                        if line == "\r\n" {
                            return message;
                        }
                        message.trailers += &line;
                    }
                }
                message.body.extend(self.take(size));
                assert_eq!(self.take(2), b"\r\n");
            }
        }
        let length = message.field("content-length").map(|n| n.parse().unwrap());
        match length {
            Some(length) => message.body = self.take(length),
            None if to_end => message.body = self.rest().0,
            None => {}
        }
        message
    }

    pub(crate) fn close_sending(&mut self) {
        if let Some(session) = &mut self.session {
            session.send_close_notify();
            while session.wants_write() {
                session.write_tls(&mut self.stream).unwrap();
            }
        }
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Whether another message begins.
    pub(crate) fn peek(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let mut piece = vec![0; 65_536];
        let Ok(n) = self.read(&mut piece) else {
            return false;
        };
        if let Some(record) = &self.record {
            record.lock().unwrap().extend_from_slice(&piece[..n]);
        }
        self.buffer.extend_from_slice(&piece[..n]);
        n > 0
    }
}
