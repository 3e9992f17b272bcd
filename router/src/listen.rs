//! The listening sockets: those of the traffic address, which the workers share, and the admin
//! port's. They are bound here, or inherited: from a service manager that opened them before the
//! router started, or from the router that this one takes over from.
//!
//! A socket that was inherited is never closed while it may have connections in its queue: all are
//! served, and where the workers are more than the sockets, further shares are opened.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    sync::{Mutex, PoisonError},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::upgrade::UPGRADE;

/// Connections that wait to be accepted, for each share; the system may cap it lower.
const BACKLOG: i32 = 4096;

/// What traffic sockets are called where sockets are named.
pub(crate) const TRAFFIC: &str = "traffic";
/// What the sockets of the port where TLS is spoken are called.
pub(crate) const TRAFFIC_TLS: &str = "traffic-tls";
/// What the admin port's socket is called.
pub(crate) const ADMIN: &str = "admin";

/// A listening socket that was open before this router started.
#[derive(Debug)]
pub struct Passed {
    /// What it is for: `traffic`, `admin`; with another name, its port says so.
    pub name: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// Sockets that were open before this router started.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    tcp: Vec<(String, SocketAddr, TcpListener)>,
    /// Where the router that is taken over from was asked.
    upgrade: Option<UnixListener>,
}

impl Inherited {
    /// Takes them in; the error names what is no listening TCP socket.
    pub(crate) fn new(passed: Vec<Passed>) -> Result<Self, String> {
        let mut inherited = Self::default();
        for passed in passed {
            let socket = Socket::from(passed.socket);
            let wrong = |why: String| format!("the socket `{}` {why}", passed.name);
            let address = socket.local_addr().map_err(|e| wrong(e.to_string()))?;
            if !socket.is_listener().unwrap_or(false) {
                return Err(wrong("does not listen".to_owned()));
            }
            let ready = socket.set_nonblocking(true);
            ready.map_err(|e| wrong(e.to_string()))?;
            match address.as_socket() {
                Some(address) => inherited.tcp.push((passed.name, address, socket.into())),
                None if passed.name == UPGRADE => inherited.upgrade = Some(socket.into()),
                None => return Err(wrong("has no IP address".to_owned())),
            }
        }
        Ok(inherited)
    }

    /// Takes out the socket at which processes ask to take over.
    pub(crate) fn take_upgrade(&mut self) -> Option<UnixListener> {
        self.upgrade.take()
    }

    /// Takes out the sockets that `role` is to serve at `address`. A service manager's socket is
    /// known by its port: the unit file says on which address it listens.
    pub(crate) fn take(&mut self, role: &str, address: SocketAddr) -> Vec<TcpListener> {
        let roles = [TRAFFIC, TRAFFIC_TLS, ADMIN];
        let fits = |(name, at, _): &mut (String, SocketAddr, TcpListener)| match address.port() {
            0 => name == role,
            port => at.port() == port && (name == role || !roles.contains(&name.as_str())),
        };
        let taken = self.tcp.extract_if(.., fits);
        taken.map(|(.., listener)| listener).collect()
    }

    /// What nobody took.
    pub(crate) fn left(&self) -> Vec<SocketAddr> {
        self.tcp.iter().map(|(_, address, _)| *address).collect()
    }
}

/// Binds `address` once for each of `workers`; the kernel spreads connections over the shares.
pub(crate) fn shares(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // Two sockets that both set SO_REUSEPORT share an address in silence. The first bind is made
    // without it, so that a port taken by another program is an error.
    let probe = socket(address)?;
    probe.bind(&address.into())?;
    let bound = probe
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("the bound address is no IP address"))?;
    drop(probe);
    (0..workers.max(1)).map(|_| share(bound)).collect()
}

fn share(address: SocketAddr) -> io::Result<TcpListener> {
    let share = socket(address)?;
    share.set_reuse_port(true)?;
    share.bind(&address.into())?;
    share.listen(BACKLOG)?;
    Ok(share.into())
}

/// Opens as many further shares of inherited sockets as it takes for the workers to have equally
/// many. From then on the kernel gives connections to the new ones: accept at once.
pub(crate) fn top_up(sockets: &mut Vec<TcpListener>, workers: usize) {
    let mut opened = Vec::new();
    for (address, group) in by_address(sockets) {
        let is_share = |socket: &&TcpListener| SockRef::from(*socket).reuse_port().unwrap_or(false);
        if !group.iter().all(is_share) {
            continue;
        }
        let more: io::Result<Vec<_>> = (0..missing(group.len(), workers))
            .map(|_| share(address))
            .collect();
        match more {
            Ok(more) => opened.extend(more),
            // They are all shared by all workers then.
            Err(error) => tracing::info!(%address, %error, "no further shares of this address"),
        }
    }
    sockets.extend(opened);
}

/// How many more sockets are needed so that each worker has equally many.
fn missing(have: usize, workers: usize) -> usize {
    (workers - have % workers) % workers
}

/// Gives each worker its sockets: equally many where that comes out even, otherwise all to each.
/// Sockets of different addresses never stand in for one another.
pub(crate) fn deal(sockets: &[TcpListener], workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    let mut hands: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    for group in by_address(sockets).values() {
        let even = missing(group.len(), workers) == 0;
        for (number, socket) in group.iter().enumerate() {
            for (worker, hand) in hands.iter_mut().enumerate() {
                if !even || number % workers == worker {
                    hand.push(socket.try_clone()?);
                }
            }
        }
    }
    Ok(hands)
}

fn by_address(sockets: &[TcpListener]) -> BTreeMap<SocketAddr, Vec<&TcpListener>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for socket in sockets {
        if let Ok(address) = socket.local_addr() {
            groups.entry(address).or_default().push(socket);
        }
    }
    groups
}

/// Binds the admin address.
pub(crate) fn single(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Every socket a router listens at, kept to be handed to the next process.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Option<Vec<Passed>>>);

impl Held {
    /// Keeps these.
    pub(crate) fn keep(&self, sockets: Vec<Passed>) {
        *self.lock() = Some(sockets);
    }

    /// Lets go of them: a socket that is held here would go on to queue connections when everybody
    /// else has closed it.
    pub(crate) fn close(&self) {
        *self.lock() = None;
    }

    /// Another handle of each; none: they are closed, or cannot be handed over.
    pub(crate) fn copies(&self) -> Option<io::Result<Vec<Passed>>> {
        let copy = |passed: &Passed| {
            Ok(Passed {
                name: passed.name.clone(),
                socket: passed.socket.try_clone()?,
            })
        };
        let held = self.lock();
        Some(held.as_ref()?.iter().map(copy).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Passed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
