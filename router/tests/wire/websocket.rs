//! WebSocket frames through a tunnel: the classes of cases that the Autobahn suite sends, valid and
//! not. The router looks at none of it, so what arrives at the peer, and what it says back, are the
//! client's bytes exactly, as if no router were there.

use crate::harness::{Setup, Upstream, Wire};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const COMPRESSED: u8 = 0x40;

/// A masked frame, its first byte as given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 + u8::try_from(n).unwrap()),
        n @ 126..65_536 => {
            frame.push(0x80 + 126);
            frame.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            frame.push(0x80 + 127);
            frame.extend((n as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    frame
}

fn fragments(first: u8, payload: &[u8], size: usize) -> Vec<u8> {
    let pieces: Vec<_> = payload.chunks(size).collect();
    let mut out = Vec::new();
    for (at, piece) in pieces.iter().enumerate() {
        let fin = if at + 1 == pieces.len() { FIN } else { 0 };
        out.extend(frame(fin | if at == 0 { first } else { 0 }, piece));
        // A ping may come between fragments.
        out.extend(frame(FIN | PING, b"between"));
    }
    out
}

pub(crate) fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let sized = |n: usize| vec![b'*'; n];
    let mut cases = Vec::new();
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        cases.push(("1: sizes", frame(FIN | TEXT, &sized(size))));
        cases.push(("1: sizes", frame(FIN | BINARY, &sized(size))));
    }
    for size in [0, 1, 125, 126] {
        cases.push(("2: pings", frame(FIN | PING, &sized(size))));
        cases.push(("2: pongs nobody asked for", frame(FIN | PONG, &sized(size))));
    }
    for reserved in [0x10, 0x20, 0x40, 0x70] {
        cases.push(("3: reserved bits", frame(FIN | reserved | TEXT, b"x")));
    }
    for opcode in (3..8).chain(11..16) {
        cases.push(("4: reserved opcodes", frame(FIN | opcode, b"x")));
    }
    for size in [1, 7, 1000] {
        cases.push(("5: fragments", fragments(TEXT, &sized(5000), size)));
    }
    cases.push(("5: a continuation of nothing", frame(FIN, b"x")));
    cases.push(("5: a fragmented ping", frame(PING, b"x")));
    for text in [
        &b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"[..],
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf\xfe\xff",
        b"\xf0\x9f",
    ] {
        cases.push(("6: UTF-8, sound and not", frame(FIN | TEXT, text)));
        cases.push(("6: UTF-8 in fragments", fragments(TEXT, text, 1)));
    }
    cases.push(("7: close without a code", frame(FIN | CLOSE, b"")));
    cases.push(("7: close with half a code", frame(FIN | CLOSE, b"\x03")));
    for code in [
        0_u16, 999, 1000, 1001, 1004, 1005, 1006, 1011, 1016, 2999, 3000, 4999, 65_535,
    ] {
        let payload = [&code.to_be_bytes()[..], b"why\xff"].concat();
        let after = frame(FIN | TEXT, b"after the close");
        cases.push((
            "7: close codes",
            [frame(FIN | CLOSE, &payload), after].concat(),
        ));
    }
    cases.push(("9: 16 MiB", frame(FIN | BINARY, &sized(16 << 20))));
    cases.push((
        "9: 16 MiB in fragments",
        fragments(BINARY, &sized(16 << 20), 65_536),
    ));
    for payload in [
        &b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..],
        b"\x00",
        b"not deflate",
    ] {
        cases.push(("12: compressed", frame(FIN | COMPRESSED | TEXT, payload)));
    }
    cases.push((
        "a length beyond sense",
        vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff],
    ));
    cases.push(("not masked", vec![0x81, 1, b'x']));
    cases
}

/// Answers the handshake, then says back each byte that comes.
fn echo() -> Upstream {
    Upstream::start(|mut wire, _| {
        let head = wire.head();
        assert!(head.contains("Sec-WebSocket-Extensions: permessage-deflate"));
        wire.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: y\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        );
        let mut to = wire.stream.try_clone().unwrap();
        std::io::copy(&mut wire.stream, &mut to).unwrap();
        wire.close_sending();
    })
}

fn say(client: &mut Wire, bytes: &[u8], step: usize) -> Vec<u8> {
    client.send(UPGRADE);
    assert!(
        client
            .head()
            .contains("Sec-WebSocket-Extensions: permessage-deflate\r\n")
    );
    let mut sender = Wire::new(client.stream.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            bytes.chunks(step).for_each(|piece| sender.send(piece));
            sender.close_sending();
        });
        let (said, end) = client.rest();
        end.unwrap();
        said
    })
}

#[test]
fn frames_of_every_kind_pass_untouched() {
    let upstream = echo();
    let router = Setup::new(&[&upstream]).start();
    for (class, bytes) in cases() {
        let steps: &[usize] = if bytes.len() > 1000 {
            &[65_536]
        } else {
            &[1, 1000]
        };
        for step in steps {
            let said = say(&mut router.client(), &bytes, *step);
            assert!(
                said == bytes,
                "{class}: {} of {} bytes",
                said.len(),
                bytes.len()
            );
        }
    }
    let direct = say(
        &mut Wire::connect(upstream.address),
        &frame(FIN | TEXT, b"x"),
        1,
    );
    assert_eq!(direct, frame(FIN | TEXT, b"x"));
}
