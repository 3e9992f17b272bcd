use proptest::prelude::*;

use super::*;

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut header = V2.to_vec();
    header.extend([command, family]);
    header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
    header.extend(block);
    header
}

/// The addresses of a TCP connection, with extras behind them.
fn addresses(source: SocketAddr, extras: &[(u8, &[u8])]) -> (u8, Vec<u8>) {
    let (family, mut block) = match source.ip() {
        IpAddr::V4(v4) => (0x11, [v4.octets(), [10, 0, 0, 1]].concat()),
        IpAddr::V6(v6) => (0x21, [v6.octets(), [7; 16]].concat()),
    };
    block.extend(source.port().to_be_bytes());
    block.extend([1, 187]);
    for (kind, value) in extras {
        block.push(*kind);
        block.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        block.extend(*value);
    }
    (family, block)
}

/// A version 2 header with its checksum as the last extra.
fn with_checksum(source: SocketAddr, extras: &[(u8, &[u8])]) -> Vec<u8> {
    let extras = [extras, &[(CRC32C, &[0; 4])]].concat();
    let (family, block) = addresses(source, &extras);
    let mut header = v2(0x21, family, &block);
    let crc = !crc32c(!0, &header);
    let at = header.len() - 4;
    header[at..].copy_from_slice(&crc.to_be_bytes());
    header
}

fn v1(source: SocketAddr) -> Vec<u8> {
    let (family, target) = if source.is_ipv4() {
        ("TCP4", "10.0.0.1")
    } else {
        ("TCP6", "::1")
    };
    let (ip, port) = (source.ip(), source.port());
    format!("PROXY {family} {ip} {target} {port} 443\r\n").into_bytes()
}

fn client(header: &[u8]) -> Result<Option<SocketAddr>, BadHeader> {
    match read(header)? {
        Header::Complete { len, client } => {
            assert_eq!(len, header.len(), "{}", header.escape_ascii());
            Ok(client)
        }
        Header::Partial => panic!("partial: {}", header.escape_ascii()),
    }
}

#[test]
fn the_checksum_is_castagnolis() {
    // The check value of the algorithm's catalogue.
    assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
}

#[test]
fn what_is_read_of_version_1() {
    for (line, want) in [
        ("TCP4 192.0.2.1 10.0.0.1 56324 443", Some("192.0.2.1:56324")),
        (
            "TCP4 255.255.255.255 255.255.255.255 65535 65535",
            Some("255.255.255.255:65535"),
        ),
        ("TCP6 2001:db8::1 ::1 1 0", Some("[2001:db8::1]:1")),
        (
            "TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("UNKNOWN", None),
        ("UNKNOWN ffff:: ::1 65535 65535", None),
        ("UNKNOWN \u{1}\u{ff}", None),
    ] {
        let got = client(format!("PROXY {line}\r\n").as_bytes());
        assert_eq!(got, Ok(want.map(|w| w.parse().unwrap())), "{line}");
    }
}

#[test]
fn what_is_refused_of_version_1() {
    for line in [
        "",
        " ",
        "TCP4",
        "TCP4 192.0.2.1 10.0.0.1 1",
        "TCP4 192.0.2.1 10.0.0.1 1 2 3",
        "TCP4  192.0.2.1 10.0.0.1 1 2",
        "TCP4 192.0.2.1 10.0.0.1 1 2 ",
        "TCP4 192.0.2.01 10.0.0.1 1 2",
        "TCP4 192.0.2.256 10.0.0.1 1 2",
        "TCP4 192.0.2.1 10.0.0.x 1 2",
        "TCP4 ::1 ::1 1 2",
        "TCP6 1.1.1.1 1.1.1.1 1 2",
        "TCP4 192.0.2.1 10.0.0.1 65536 2",
        "TCP4 192.0.2.1 10.0.0.1 1 65536",
        "TCP4 192.0.2.1 10.0.0.1 01 2",
        "TCP4 192.0.2.1 10.0.0.1 +1 2",
        "TCP4 192.0.2.1 10.0.0.1  2",
        "TCP4 192.0.2.1 10.0.0.1 1\n2 2",
        "tcp4 192.0.2.1 10.0.0.1 1 2",
        "UDP4 192.0.2.1 10.0.0.1 1 2",
        "UNKNOWNS",
    ] {
        let got = read(format!("PROXY {line}\r\n").as_bytes());
        assert!(
            matches!(got, Err(BadHeader::Malformed(_))),
            "{line}: {got:?}"
        );
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_MAX));
    assert_eq!(read(long.as_bytes()), Err(BadHeader::TooLong));
    assert_eq!(
        read(b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n"),
        Ok(Header::Partial)
    );
}

#[test]
fn what_is_no_header_is_seen_at_the_first_byte() {
    for text in [
        "GET / HTTP/1.1\r\n",
        "P0",
        "PROXY\t",
        "\r\n\r\n\0\r\nQUIT\r",
        "\0",
        "\x16\x03\x01",
    ] {
        assert_eq!(read(text.as_bytes()), Err(BadHeader::Missing), "{text:?}");
    }
}

#[test]
fn what_is_read_of_version_2() {
    let source: SocketAddr = "192.0.2.1:56324".parse().unwrap();
    let (family, block) = addresses(source, &[]);
    assert_eq!(client(&v2(0x21, family, &block)), Ok(Some(source)));
    // A health check of the proxy's, whatever else it says.
    for (family, block) in [
        (0, vec![]),
        (0x11, block.clone()),
        (0x99, vec![1; 40]),
        (0x21, vec![]),
    ] {
        assert_eq!(client(&v2(0x20, family, &block)), Ok(None));
    }
    assert_eq!(client(&v2(0x21, 0, &[])), Ok(None));
    assert_eq!(client(&v2(0x21, 0, &[9; 300])), Ok(None));
    assert_eq!(client(&v2(0x21, 0x31, &[0; 216])), Ok(None));
    let extras: &[(u8, &[u8])] = &[(0x01, b"h2"), (0x04, &[0; 500]), (0x20, b""), (0xe0, b"x")];
    let (family, block) = addresses(source, extras);
    assert_eq!(client(&v2(0x21, family, &block)), Ok(Some(source)));
    assert_eq!(client(&with_checksum(source, extras)), Ok(Some(source)));
    let most = vec![0; MAX_HEADER - V2_FIXED - 12 - 3];
    let (family, block) = addresses(source, &[(0x04, &most)]);
    assert_eq!(client(&v2(0x21, family, &block)), Ok(Some(source)));
}

#[test]
fn what_is_refused_of_version_2() {
    let source: SocketAddr = "192.0.2.1:56324".parse().unwrap();
    let (family, block) = addresses(source, &[]);
    let malformed = |header: &[u8]| {
        let got = read(header);
        assert!(
            matches!(got, Err(BadHeader::Malformed(_))),
            "{}: {got:?}",
            header.escape_ascii()
        );
    };
    for command in [0x00, 0x11, 0x22, 0x2f, 0x31, 0xff] {
        malformed(&v2(command, family, &block));
    }
    for family in [
        0x01, 0x02, 0x10, 0x12, 0x13, 0x20, 0x22, 0x30, 0x32, 0x41, 0xff,
    ] {
        malformed(&v2(0x21, family, &[0; 300]));
    }
    for (family, length) in [(0x11, 11), (0x21, 35), (0x31, 215), (0x11, 0)] {
        malformed(&v2(0x21, family, &vec![0; length]));
    }
    for extra in [
        &[1][..],
        &[1, 0],
        &[1, 0, 1],
        &[1, 0xff, 0xff, 0],
        &[1, 0, 0, 9],
    ] {
        malformed(&v2(0x21, family, &[&block, extra].concat()));
    }
    for extras in [&[(CRC32C, &[0; 3][..])][..], &[(CRC32C, &[0; 5])]] {
        let (family, block) = addresses(source, extras);
        malformed(&v2(0x21, family, &block));
    }
    let mut long = v2(0x21, family, &block);
    long[14..16].copy_from_slice(&4081_u16.to_be_bytes());
    assert_eq!(read(&long), Err(BadHeader::TooLong));
    // A second checksum cannot be right together with the first, so it is refused as such.
    let mut twice = with_checksum(source, &[]);
    twice.extend([CRC32C, 0, 4, 0, 0, 0, 0]);
    let length = u16::try_from(twice.len() - V2_FIXED).unwrap();
    twice[14..16].copy_from_slice(&length.to_be_bytes());
    assert_eq!(read(&twice), Err(BadHeader::Checksum));
}

fn any_source() -> impl Strategy<Value = SocketAddr> {
    let ip = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ];
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    /// Every beginning is partial, the whole is complete, and what follows changes nothing.
    #[test]
    fn any_fragmentation_gives_the_same(
        source in any_source(),
        form in 0..3,
        extra in proptest::collection::vec(any::<u8>(), 0..50),
        after in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let header = match form {
            0 => v1(source),
            1 => with_checksum(source, &[(0xe1, &extra)]),
            _ => {
                let (family, block) = addresses(source, &[(0x05, &extra)]);
                v2(0x21, family, &block)
            }
        };
        for end in 0..header.len() {
            prop_assert_eq!(read(&header[..end]), Ok(Header::Partial));
        }
        let want = Ok(Header::Complete { len: header.len(), client: Some(source) });
        prop_assert_eq!(read(&header), want);
        prop_assert_eq!(read(&[header, after].concat()), want);
    }

    /// A refusal stays one, and a complete header stays as it is, whatever follows.
    #[test]
    fn any_bytes_are_read_without_harm(
        form in 0..3,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..200,
    ) {
        let begin: &[u8] = match form {
            0 => b"",
            1 => V1,
            _ => V2,
        };
        let data = [begin, &bytes].concat();
        let whole = read(&data);
        match read(&data[..cut.min(data.len())]) {
            Ok(Header::Partial) => {}
            settled => prop_assert_eq!(settled, whole),
        }
        if let Ok(Header::Complete { len, .. }) = whole {
            prop_assert!(len <= data.len() && len <= MAX_HEADER);
        }
    }

    #[test]
    fn a_flipped_bit_does_not_pass_the_checksum(source in any_source(), bit in 0_usize..8, at in 16_usize..28) {
        let mut header = with_checksum(source, &[]);
        header[at] ^= 1 << bit;
        prop_assert_eq!(read(&header), Err(BadHeader::Checksum));
    }
}
