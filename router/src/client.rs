//! Who is at the other end of a connection: what is logged, limited, hashed and told to services.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

/// An address as text, in place: a request must not allocate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddressText {
    bytes: [u8; LONGEST],
    len: u8,
}

/// The longest text of an address without a port.
const LONGEST: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255".len();

impl AddressText {
    /// As it stands in `X-Forwarded-For`: an IPv4 address that came mapped is one.
    pub(crate) fn of(ip: IpAddr) -> Self {
        let mut bytes = [0; LONGEST];
        let mut rest = &mut bytes[..];
        let fits = write!(rest, "{}", ip.to_canonical()).is_ok();
        let left = rest.len();
        let len = if fits { LONGEST - left } else { 0 };
        Self {
            bytes,
            len: u8::try_from(len).unwrap_or(0),
        }
    }

    /// The text.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// Whose requests these are.
    pub(crate) address: SocketAddr,
    /// The address as text.
    pub(crate) text: AddressText,
    /// The connection's own other end, if a proxy named another one.
    pub(crate) via: Option<SocketAddr>,
    /// It is a proxy of ours: what it says about its clients is believed.
    pub(crate) trusted: bool,
}

impl Client {
    /// The end of a connection from `address`.
    pub(crate) fn new(address: SocketAddr, trusted: bool) -> Self {
        // An IPv4 client of a socket for both families is one of IPv4.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Self {
            address,
            text: AddressText::of(address.ip()),
            via: None,
            trusted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_addresses() {
        for (address, text) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("255.255.255.255", "255.255.255.255"),
            ("::1", "::1"),
            (
                "1111:2222:3333:4444:5555:6666:7777:8888",
                "1111:2222:3333:4444:5555:6666:7777:8888",
            ),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            assert_eq!(AddressText::of(ip).as_bytes(), text.as_bytes());
        }
    }
}
