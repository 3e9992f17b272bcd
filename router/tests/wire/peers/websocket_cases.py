"""What the Autobahn fuzzing client sends, class by class, to an echo service (`websockets`): straight
to it, and through the router. What the service says must be the same, byte for byte.

Says `listening PORT` when the service is there, reads the router's address, and prints a line for
each class that held. The first difference ends it.
"""

import asyncio
import logging
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
import socket
import threading

import websockets

PATIENCE = 120
TEXT, BINARY, CLOSE, PING, PONG, FIN = 1, 2, 8, 9, 10, 0x80
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GOODBYE = struct.pack("!H", 1000)


def mask(payload, key=b"\x37\xfa\x21\x3d"):
    n = len(payload)
    pad = key * (n // 4 + 1)
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(pad[:n], "big")
    return key + mixed.to_bytes(n, "big")


def frame(first, payload=b"", masked=True):
    n, bit = len(payload), 0x80 if masked else 0
    if n < 126:
        head = bytes([first, bit | n])
    elif n < 65536:
        head = bytes([first, bit | 126]) + struct.pack("!H", n)
    else:
        head = bytes([first, bit | 127]) + struct.pack("!Q", n)
    return head + (mask(payload) if masked else payload)


def fragments(kind, payload, size, between=b""):
    pieces = [payload[i : i + size] for i in range(0, len(payload), size)] or [b""]
    out = []
    for i, piece in enumerate(pieces):
        last = FIN if i + 1 == len(pieces) else 0
        out.append(frame(last | (kind if i == 0 else 0), piece))
        out.append(between if not last else b"")
    return b"".join(out)


VALID = ["", "Hello-\u00b5@\u00df\u00f6\u00e4", "\u03ba\u1f79\u03c3\u03bc\u03b5", "\U0010ffff\ufffe\u0000"]
INVALID = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xf4\x90\x80\x80",
    b"\x80",
    b"\xbf",
    b"\x80\xbf\x80\xbf",
    b"\xc0 \xc1 ",
    b"\xf5\x80\x80\x80",
    b"\xfe\xff",
    b"\xc0\xaf",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xf0\x9f",
]


def count(said):
    """How many whole frames these bytes are."""
    n, at = 0, 0
    while len(said) >= at + 2:
        size, at = said[at + 1] & 0x7F, at + 2
        if size > 125:
            width = 2 if size == 126 else 8
            size, at = int.from_bytes(said[at : at + width], "big"), at + width
        at += size
        if len(said) < at:
            break
        n += 1
    return n


def cases():
    """(class, parts, step). A part is bytes, sent in pieces of `step`, and the frames that must have
    been heard before the next one: what a service still says behind a close depends on the moment."""
    for name, data, step in singles():
        answers = 0
        parts = []
        for part in data if isinstance(data, list) else [data]:
            said, more = part if isinstance(part, tuple) else (part, 0)
            answers += more
            parts.append((said, answers))
        yield name, parts, step


def singles():
    end = frame(FIN | CLOSE, GOODBYE)

    def echoed(data, frames=1, then=end):
        """With what is sent behind so many frames of an answer: echoes, pongs, or a close."""
        return [(data, frames), then]

    for kind in (TEXT, BINARY):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            for step in (1 << 20, 997):
                yield "1 sizes", echoed(frame(FIN | kind, b"*" * size)), step
    yield "1 sizes, chopped", echoed(frame(FIN | TEXT, b"*" * 300)), 1
    for size in (0, 1, 125):
        yield "2 pings", echoed(frame(FIN | PING, b"\xfe" * size)), 1 << 20
        yield "2 pings", echoed(frame(FIN | PING, b"\xfe" * size)), 1
        yield "2 pongs", echoed(frame(FIN | PONG, b"x" * size) + frame(FIN | PING, b"y")), 1 << 20
    yield "2 a ping too large", echoed(frame(FIN | PING, b"*" * 126)), 1 << 20
    yield "2 ten pings", echoed(b"".join(frame(FIN | PING, b"%d" % i) for i in range(10)), 10), 3
    for bits in range(1, 8):
        bad = frame(FIN | bits << 4 | TEXT, b"x")
        yield "3 reserved bits", echoed(bad), 1 << 20
        yield "3 reserved bits", echoed(frame(FIN | TEXT, b"good"), 1, bad + frame(FIN | PING) + end), 1
        yield "3 reserved bits", echoed(frame(FIN | bits << 4 | PING, b"x")), 1 << 20
    for opcode in (*range(3, 8), *range(11, 16)):
        yield "4 opcodes", echoed(frame(FIN | TEXT, b"good"), 1, frame(FIN | opcode, b"x") + end), 1 << 20
        yield "4 opcodes", echoed(frame(opcode)), 1
    whole = b"fragmented text"
    for size in (1, 7, 14):
        for between in (b"", frame(FIN | PING, b"between"), frame(FIN | PONG, b"between")):
            for step in (1 << 20, 1):
                pieces = -(-len(whole) // size)
                answers = 1 + (pieces - 1) * between.startswith(bytes([FIN | PING]))
                yield "5 fragments", echoed(fragments(TEXT, whole, size, between), answers), step
    yield "5 a fragmented ping", echoed(frame(PING, b"a") + frame(FIN, b"b")), 1 << 20
    yield "5 a continuation of nothing", echoed(frame(FIN, b"x")), 1 << 20
    yield "5 a continuation of nothing", echoed(frame(FIN | TEXT, b"x"), 1, frame(0, b"y") + end), 1
    yield "5 a message within one", echoed(frame(TEXT, b"a") + frame(FIN | TEXT, b"b")), 1 << 20
    for text in VALID:
        data = text.encode()
        yield "6 UTF-8", echoed(frame(FIN | TEXT, data)), 1 << 20
        yield "6 UTF-8", echoed(fragments(TEXT, data, 1)), 1
    for data in INVALID:
        yield "6 broken UTF-8", echoed(frame(FIN | TEXT, data)), 1 << 20
        yield "6 broken UTF-8", echoed(fragments(TEXT, data, 1)), 1
    yield "7 close", end, 1
    yield "7 close twice", end + end, 1 << 20
    yield "7 a ping behind the close", end + frame(FIN | PING, b"x"), 1 << 20
    yield "7 a message behind the close", end + frame(FIN | TEXT, b"x"), 1 << 20
    yield "7 close within a message", frame(TEXT, b"a") + end + frame(FIN, b"b"), 1 << 20
    yield "7 close without a code", frame(FIN | CLOSE), 1 << 20
    yield "7 half a code", frame(FIN | CLOSE, b"\x03"), 1 << 20
    yield "7 a long reason", frame(FIN | CLOSE, GOODBYE + b"*" * 123), 1 << 20
    yield "7 too long a reason", frame(FIN | CLOSE, GOODBYE + b"*" * 124), 1 << 20
    yield "7 a broken reason", frame(FIN | CLOSE, GOODBYE + INVALID[0]), 1 << 20
    codes = (0, 999, *range(1000, 1016), 1016, 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535)
    for code in codes:
        yield "7 codes", frame(FIN | CLOSE, struct.pack("!H", code) + b"why"), 1 << 20
    for size in (1 << 18, 1 << 20, 1 << 24):
        yield "9 large", echoed(frame(FIN | BINARY, b"*" * size)), 1 << 20
    yield "9 large, in fragments", echoed(fragments(BINARY, b"*" * (1 << 22), 65536)), 1 << 20
    yield "9 large, chopped", echoed(frame(FIN | TEXT, b"*" * (1 << 20))), 2048
    yield "9 many", echoed(b"".join(frame(FIN | TEXT, b"*" * 64) for _ in range(1000)), 1000), 1 << 20
    yield "10 fragments by themselves", echoed(fragments(TEXT, b"*" * 65536, 1300)), 1300
    yield "not masked", echoed(frame(FIN | TEXT, b"x", masked=False)), 1 << 20
    yield "a length without sense", b"\x82\xff\xff" + b"\xff" * 7 + end, 1 << 20


EXTENSIONS = [
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=99, permessage-deflate",
    "x-unknown; a=1",
]


def compressed():
    import zlib

    for extension in EXTENSIONS:
        for size in (1, 64, 4096, 1 << 17):
            deflate = zlib.compressobj(6, zlib.DEFLATED, -12)
            out = b""
            for i in range(5):
                text = (b"%d {\"a\": [1, 2, 3]} " % i) * (size // 20 + 1)
                packed = deflate.compress(text[:size]) + deflate.flush(zlib.Z_SYNC_FLUSH)
                out += frame(FIN | 0x40 | TEXT, packed[:-4])
            yield extension, [(out, 5), (frame(FIN | CLOSE, GOODBYE), 5)], 1 << 16
    broken = frame(FIN | 0x40 | TEXT, b"no deflate") + frame(FIN | CLOSE, GOODBYE)
    yield EXTENSIONS[0], [(broken, 0)], 1


def converse(address, parts, step, extension=None):
    """Everything that is heard, from the answer's head on."""
    lines = [
        "GET /echo HTTP/1.1",
        "Host: h.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: " + KEY,
        "Sec-WebSocket-Version: 13",
    ]
    if extension:
        lines.append("Sec-WebSocket-Extensions: " + extension)
    with socket.create_connection(address, PATIENCE) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn.sendall("\r\n".join([*lines, "", ""]).encode())
        heard = b""
        while b"\r\n\r\n" not in heard:
            piece = conn.recv(65536)
            assert piece, heard
            heard += piece
        head, said = heard.split(b"\r\n\r\n", 1)
        said = bytearray(said)
        changed = threading.Condition()
        open_still = True

        def send():
            try:
                for data, answers in parts:
                    for i in range(0, len(data), step):
                        conn.sendall(data[i : i + step])
                    with changed:
                        changed.wait_for(lambda: not open_still or count(said) >= answers, PATIENCE)
            except OSError:
                pass  # It has hung up: what it said before is what counts.

        sending = threading.Thread(target=send)
        sending.start()
        try:
            while piece := conn.recv(1 << 18):
                with changed:
                    said += piece
                    changed.notify()
        except ConnectionResetError:
            pass
        with changed:
            open_still = False
            changed.notify()
        sending.join()
    names = (b"sec-websocket-extensions", b"sec-websocket-accept")
    fields = [line.strip() for line in head.split(b"\r\n") if line.lower().startswith(names)]
    status = head.split(b" ", 2)[1]
    return status, sorted(f.lower() if f.lower().startswith(names[0]) else f for f in fields), bytes(said)


def compare(name, direct, router, parts, step, extension=None):
    want = converse(direct, parts, step, extension)
    got = converse(router, parts, step, extension)
    if want != got:
        print("FAILED", name, step, repr(want)[:300], repr(got)[:300], flush=True)
        return None
    return name


def serve(ready):
    async def echo(peer):
        async for message in peer:
            await peer.send(message)

    async def run():
        server = await websockets.serve(echo, "127.0.0.1", 0, max_size=1 << 26, close_timeout=PATIENCE)
        ready.append(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().create_future()

    asyncio.run(run())


def main():
    logging.disable(logging.CRITICAL)
    ready = []
    threading.Thread(target=serve, args=(ready,), daemon=True).start()
    while not ready:
        pass
    print("listening", ready[0], flush=True)
    host, port = sys.stdin.readline().split()[1].rsplit(":", 1)
    direct, router = ("127.0.0.1", ready[0]), (host, int(port))
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(compare, name, direct, router, parts, step) for name, parts, step in cases()]
        jobs += [
            pool.submit(compare, "12 " + extension, direct, router, parts, step, extension)
            for extension, parts, step in compressed()
        ]
        held = [job.result() for job in jobs]
    for name in sorted(set(filter(None, held))):
        print("ok", name, held.count(name), flush=True)
    if None in held:
        sys.exit(1)
    print("done", len(held), flush=True)


main()
