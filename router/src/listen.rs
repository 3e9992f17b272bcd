//! The listening sockets: one share of the traffic address for each worker.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted, for each share; the system may cap it lower.
const BACKLOG: i32 = 4096;

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
    (0..workers.max(1))
        .map(|_| {
            let share = socket(bound)?;
            share.set_reuse_port(true)?;
            share.bind(&bound.into())?;
            share.listen(BACKLOG)?;
            Ok(share.into())
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_one_address_and_a_taken_port_is_an_error() {
        let shares = shares(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
        let address = shares[0].local_addr().unwrap();
        assert!(shares.iter().all(|s| s.local_addr().unwrap() == address));
        let error = super::shares(address, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
