//! The PROXY protocol, versions 1 and 2: a header before a connection's first byte, in which a proxy
//! that passes bytes on says whose connection it is.
//!
//! Only what can come of a proxy is taken: the header must be there, whole and without doubt, or the
//! connection is refused. Whose headers are read at all is not decided here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The most bytes of a header, with everything a proxy adds to it.
pub const MAX_HEADER: usize = 4096;

const V1: &[u8; 6] = b"PROXY ";
/// With its line end.
const V1_MAX: usize = 107;
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;

/// What has arrived of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Its beginning: all of the bytes belong to it.
    Partial,
    /// All of it.
    Complete {
        /// How many bytes it takes.
        len: usize,
        /// Whose connection it is; none: the proxy's own, such as a health check, or of somebody who
        /// has no address.
        client: Option<SocketAddr>,
    },
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// It begins with something else.
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    /// It is over the limit.
    #[error("the PROXY header is too long")]
    TooLong,
    /// Its checksum is another one.
    #[error("the PROXY header's checksum is wrong")]
    Checksum,
    /// It does not follow the specification.
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

/// Reads a header that `data` begins with.
///
/// # Errors
/// No bytes that may follow can make it a header.
pub fn read(data: &[u8]) -> Result<Header, BadHeader> {
    if begins(data, V2) {
        if data.len() < V2_FIXED {
            return Ok(Header::Partial);
        }
        return read_v2(data);
    }
    if begins(data, V1) {
        return read_v1(data);
    }
    Err(BadHeader::Missing)
}

/// Whether `data` may be the beginning of `signature`, or begins with it.
fn begins(data: &[u8], signature: &[u8]) -> bool {
    data.iter().zip(signature).all(|(a, b)| a == b)
}

fn read_v1(data: &[u8]) -> Result<Header, BadHeader> {
    let window = &data[..data.len().min(V1_MAX)];
    let Some(end) = memchr::memmem::find(window, b"\r\n") else {
        return if data.len() < V1_MAX {
            Ok(Header::Partial)
        } else {
            Err(BadHeader::TooLong)
        };
    };
    let malformed = BadHeader::Malformed;
    let line = data
        .get(V1.len()..end)
        .ok_or(malformed("it has no family"))?;
    let complete = |client| Header::Complete {
        len: end + 2,
        client,
    };
    // What an unknown family is followed by does not matter.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(complete(None));
    }
    let line = std::str::from_utf8(line).map_err(|_| malformed("it is no text"))?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or(malformed("a part is missing"));
    let (family, source, target) = (word()?, word()?, word()?);
    let (source_port, target_port) = (word()?, word()?);
    if words.next().is_some() {
        return Err(malformed("it has too many parts"));
    }
    let address = match family {
        "TCP4" => both::<Ipv4Addr>(source, target).map(IpAddr::V4),
        "TCP6" => both::<Ipv6Addr>(source, target).map(IpAddr::V6),
        _ => return Err(malformed("the family is not TCP4, TCP6 or UNKNOWN")),
    };
    let address = address.ok_or(malformed("an address is wrong"))?;
    let ports = port(source_port).zip(port(target_port));
    let (port, _) = ports.ok_or(malformed("a port is wrong"))?;
    Ok(complete(Some(SocketAddr::new(address, port))))
}

/// The source, if both addresses are right.
fn both<A: std::str::FromStr>(source: &str, target: &str) -> Option<A> {
    let _: A = target.parse().ok()?;
    source.parse().ok()
}

fn port(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let short = digits == "0" || !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain && short)
}

fn read_v2(data: &[u8]) -> Result<Header, BadHeader> {
    let malformed = |why| Err(BadHeader::Malformed(why));
    let local = match data[12] {
        0x20 => true,
        0x21 => false,
        _ => return malformed("version or command is unknown"),
    };
    let len = V2_FIXED + usize::from(u16::from_be_bytes([data[14], data[15]]));
    if len > MAX_HEADER {
        return Err(BadHeader::TooLong);
    }
    // How long the addresses are; whose addresses a TCP connection cannot have are refused.
    let addresses = match data[13] {
        // The proxy's own connection: nothing in the header counts.
        _ if local => None,
        0x00 => None,
        0x11 => Some(12),
        0x21 => Some(36),
        0x31 => Some(216),
        0x12 | 0x22 | 0x32 => return malformed("it tells of datagrams"),
        _ => return malformed("the family or transport is unknown"),
    };
    if addresses.is_some_and(|addresses| len < V2_FIXED + addresses) {
        return malformed("it is too short for its addresses");
    }
    let Some(header) = data.get(..len) else {
        return Ok(Header::Partial);
    };
    let Some(addresses) = addresses else {
        return Ok(Header::Complete { len, client: None });
    };
    let (addresses, _) = header[V2_FIXED..].split_at(addresses);
    check_extras(header, V2_FIXED + addresses.len())?;
    Ok(Header::Complete {
        len,
        client: source(addresses),
    })
}

/// The source among the addresses; a Unix socket's has none.
fn source(addresses: &[u8]) -> Option<SocketAddr> {
    let (ip, ports): (IpAddr, &[u8]) = if let Ok(v4) = <&[u8; 12]>::try_from(addresses) {
        (<[u8; 4]>::try_from(&v4[..4]).ok()?.into(), &v4[8..])
    } else {
        let v6 = <&[u8; 36]>::try_from(addresses).ok()?;
        (<[u8; 16]>::try_from(&v6[..16]).ok()?.into(), &v6[32..])
    };
    let port = u16::from_be_bytes([ports[0], ports[1]]);
    Some(SocketAddr::new(ip, port))
}

/// The kind of an extra that is a checksum.
const CRC32C: u8 = 0x03;

/// Walks over what follows the addresses: type, length, value. The checksum is checked; nothing else
/// is of interest.
fn check_extras(header: &[u8], mut at: usize) -> Result<(), BadHeader> {
    let mut checked = false;
    while at < header.len() {
        let (Some(kind), Some(length)) = (header.get(at), header.get(at + 1..at + 3)) else {
            return Err(BadHeader::Malformed("an extra has no length"));
        };
        let start = at + 3;
        at = start + usize::from(u16::from_be_bytes([length[0], length[1]]));
        let value = header
            .get(start..at)
            .ok_or(BadHeader::Malformed("an extra is longer than the header"))?;
        if *kind != CRC32C {
            continue;
        }
        let given = <[u8; 4]>::try_from(value)
            .map_err(|_| BadHeader::Malformed("a checksum does not have four bytes"))?;
        if std::mem::replace(&mut checked, true) {
            return Err(BadHeader::Malformed("it has more than one checksum"));
        }
        // The checksum is that of the header with zeros in its place.
        let mut crc = crc32c(!0, &header[..start]);
        crc = crc32c(crc, &[0; 4]);
        crc = crc32c(crc, &header[at..]);
        if !crc != u32::from_be_bytes(given) {
            return Err(BadHeader::Checksum);
        }
    }
    Ok(())
}

/// CRC-32C (Castagnoli) over `data`, from what is before it.
fn crc32c(before: u32, data: &[u8]) -> u32 {
    data.iter().fold(before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests;
