//! What happens to a connection before it is served: finding out whose it is, and whether it may
//! stay.

use std::{future::poll_fn, io, net::SocketAddr, task::Poll, time::Duration};

use tokio::{io::ReadBuf, net::TcpStream};

use crate::{
    client::Client,
    proxy_protocol::{self, BadHeader, Header, MAX_HEADER},
    timer::Timer,
    worker::Worker,
};

/// Why a connection is closed before it is served; a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// What it began with is no PROXY header that can be taken.
    ProxyHeader,
    /// Its PROXY header took too long.
    ProxyTimeout,
    /// There are as many connections as there may be, and none is idle.
    Limit,
    /// Its client has as many as it may have.
    ClientLimit,
}

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [
        Self::ProxyHeader,
        Self::ProxyTimeout,
        Self::Limit,
        Self::ClientLimit,
    ];

    /// The label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ProxyHeader => "proxy_header",
            Self::ProxyTimeout => "proxy_timeout",
            Self::Limit => "limit",
            Self::ClientLimit => "client_limit",
        }
    }
}

/// How long a stopping worker waits for a header.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Finds out whose connection it is, in the timer's time; none: it is to be closed.
pub(crate) async fn client(
    worker: &Worker,
    stream: &TcpStream,
    peer: SocketAddr,
    timer: &Timer,
) -> Option<Client> {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if !worker.speaks_proxy_protocol(peer.ip()) {
        return Some(worker.client(peer));
    }
    // Connections from such proxies are fewer than others, and the header's state would make every
    // connection's larger.
    match Box::pin(header(worker, stream, timer)).await {
        Ok(None) => Some(worker.client(peer)),
        Ok(Some(client)) => Some(Client {
            via: Some(peer),
            ..worker.client(client)
        }),
        Err(NoHeader::Gone) => None,
        Err(NoHeader::TimedOut) => {
            let why = "its PROXY header did not arrive in time";
            worker.refuse(Reason::ProxyTimeout, peer, &why);
            None
        }
        Err(NoHeader::Bad(bad)) => {
            worker.refuse(Reason::ProxyHeader, peer, &bad);
            None
        }
    }
}

const ENDED: BadHeader = BadHeader::Malformed("the connection ends within it");

/// Why there is no header.
#[derive(Debug)]
enum NoHeader {
    /// The proxy closed the connection: health checks do.
    Gone,
    TimedOut,
    Bad(BadHeader),
}

/// Takes the header off the stream, and not a byte more: what follows may be for somebody else.
async fn header(
    worker: &Worker,
    stream: &TcpStream,
    timer: &Timer,
) -> Result<Option<SocketAddr>, NoHeader> {
    let mut hurried = false;
    let mut bytes = [0; MAX_HEADER];
    let mut taken = 0;
    loop {
        let seen = poll_fn(|cx| {
            let mut rest = ReadBuf::new(&mut bytes[taken..]);
            if let Poll::Ready(seen) = stream.poll_peek(cx, &mut rest) {
                return Poll::Ready(seen);
            }
            if worker.stopping() && !std::mem::replace(&mut hurried, true) {
                timer.set(LAST_WORD);
            }
            if timer.fired() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            Poll::Pending
        })
        .await;
        let seen = match seen {
            Ok(0) if taken == 0 => return Err(NoHeader::Gone),
            Ok(0) => return Err(NoHeader::Bad(ENDED)),
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(NoHeader::TimedOut);
            }
            Err(_) => return Err(NoHeader::Gone),
        };
        let read = proxy_protocol::read(&bytes[..taken + seen]).map_err(NoHeader::Bad)?;
        let end = match read {
            Header::Partial => taken + seen,
            Header::Complete { len, .. } => len,
        };
        match stream.try_read(&mut bytes[taken..end]) {
            Ok(n) => taken += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(NoHeader::Gone),
        }
        match read {
            Header::Complete { len, client } if taken == len => return Ok(client),
            _ => {}
        }
    }
}
