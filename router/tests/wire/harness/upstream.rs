//! Upstreams that follow a script and record.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use rand::RngExt as _;
use socket2::{Domain, Type};

use super::{Record, Wire};

/// An upstream: a script runs for each connection, and every byte that arrives is kept.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    records: Arc<Mutex<Vec<Record>>>,
    gone: Arc<AtomicBool>,
}

impl Upstream {
    /// `script` gets the connection and its number, from 0.
    pub(crate) fn start(script: impl Fn(Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            records: Arc::default(),
            gone: Arc::default(),
        };
        let (connections, records) = (upstream.connections.clone(), upstream.records.clone());
        let (gone, script) = (upstream.gone.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if gone.load(Ordering::SeqCst) {
                    return;
                }
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let record = Record::default();
                records.lock().unwrap().push(record.clone());
                let mut wire = Wire::new(stream.unwrap());
                // Whoever tests the router gives up first, never the peer.
                wire.stream.set_read_timeout(None).unwrap();
                wire.stream.set_write_timeout(None).unwrap();
                wire.record = Some(record);
                let script = script.clone();
                thread::spawn(move || script(wire, number));
            }
        });
        upstream
    }

    /// Answers every request with these bytes, on as many connections and requests as come.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |mut wire, _| {
            while wire.peek() {
                wire.request();
                wire.send(&answer);
            }
        })
    }

    /// Bytes that arrived so far, by connection.
    pub(crate) fn seen(&self) -> Vec<String> {
        let records = self.records.lock().unwrap();
        let text = |r: &Record| String::from_utf8_lossy(&r.lock().unwrap()).into();
        records.iter().map(text).collect()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The number of times that this text arrived.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.seen()
            .iter()
            .map(|seen| seen.matches(text).count())
            .sum()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// An address that refuses connections. It stays taken, for else the next upstream might get it.
pub(crate) fn refusing() -> SocketAddr {
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// An address for a program that has to be told one: below the ports that the kernel gives out.
pub(crate) fn free() -> SocketAddr {
    let ports = std::iter::repeat_with(|| rand::rng().random_range(12_000..32_000));
    ports
        .map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .unwrap()
}
