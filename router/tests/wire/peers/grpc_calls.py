"""grpcio on both sides of the router: the service, and the client that asks it.

Says `listening PORT` when the service is there, reads lines `NAME ADDRESS` of routers up to an empty
one, makes every call, and prints a line for each thing that held. The first that does not ends it.
Messages are plain bytes, so nothing has to be generated.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

PATIENCE = 120
cancelled = threading.Event()
deadlines = []


def unary(request, context):
    metadata = context.invocation_metadata()
    sent = [(k, v) for k, v in metadata if k.startswith("x-")]
    context.send_initial_metadata([("x-initial", "1"), ("x-initial-bin", b"\x00\xff\x80")])
    context.set_trailing_metadata(sent)
    return request


def client_stream(requests, context):
    return b"".join(requests)


def server_stream(request, context):
    for i in range(1000):
        yield b"%d" % i


def bidi(requests, context):
    context.send_initial_metadata([("x-initial", "1")])
    for request in requests:
        yield request


def endless(request, context):
    context.add_callback(cancelled.set)
    while context.is_active():
        yield b"tick"
        time.sleep(0.005)


def never(request, context):
    deadlines.append(context.time_remaining())
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(PATIENCE)
    return b""


def status(request, context):
    code = next(c for c in grpc.StatusCode if c.value[0] == int(request))
    context.set_trailing_metadata([("x-trailing", "1")])
    context.abort(code, "because: 100% \u00fc\n")


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Never": grpc.unary_unary_rpc_method_handler(never),
    "Status": grpc.unary_unary_rpc_method_handler(status),
}
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(32), options=LARGE)
    handlers = grpc.method_handlers_generic_handler("t.Test", HANDLERS)
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("listening", port, flush=True)
    return server


def held(name, right, *what):
    if not right:
        print("FAILED", name, *what, flush=True)
        sys.exit(1)
    print("ok", name, flush=True)


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def fails(name, code, call):
    got = code_of(call)
    held(name, got == code, got)


def calls(channel):
    echo = channel.unary_unary("/t.Test/Unary")
    sent = [("x-text", "a, b"), ("x-data-bin", bytes(range(256))), ("x-two", "1"), ("x-two", "2")]
    answer, call = echo.with_call(b"hello", metadata=sent, timeout=PATIENCE)
    initial, trailing = call.initial_metadata(), call.trailing_metadata()
    held("unary", answer == b"hello" and call.code() == grpc.StatusCode.OK)
    held("initial metadata", ("x-initial-bin", b"\x00\xff\x80") in initial, initial)
    came = [(k, v) for k, v in trailing if k in dict(sent)]
    held("metadata there and back", sorted(map(repr, came)) == sorted(map(repr, sent)), came)
    held("an empty message", echo(b"", timeout=PATIENCE) == b"")
    large = bytes(range(256)) * 4096 * 20
    held("20 MiB", echo(large, timeout=PATIENCE) == large)
    packed = echo(b"z" * 100_000, compression=grpc.Compression.Gzip, timeout=PATIENCE)
    held("compression", packed == b"z" * 100_000)
    wide = [("x-wide", "w" * 6000)]
    held("large metadata", echo(b"m", metadata=wide, timeout=PATIENCE) == b"m")

    pieces = [b"%d" % i for i in range(1000)]
    collect = channel.stream_unary("/t.Test/ClientStream")
    held("client stream", collect(iter(pieces), timeout=PATIENCE) == b"".join(pieces))
    stream = channel.unary_stream("/t.Test/ServerStream")
    held("server stream", list(stream(b"", timeout=PATIENCE)) == pieces)

    said, heard = threading.Semaphore(1), []

    def conversation():
        for i in range(200):
            said.acquire()
            yield b"%d" % i

    # Each message is said when the one before has come back.
    for answer in channel.stream_stream("/t.Test/Bidi")(conversation(), timeout=PATIENCE):
        heard.append(answer)
        said.release()
    held("conversation", heard == pieces[:200], len(heard))
    both = channel.stream_stream("/t.Test/Bidi")(iter([large, b"x", large]), timeout=PATIENCE)
    held("20 MiB both ways", list(both) == [large, b"x", large])

    waiting = [echo.future(b"%d" % i, timeout=PATIENCE) for i in range(300)]
    held("300 at a time", [f.result() for f in waiting] == pieces[:300])


def statuses(channel):
    for code in list(grpc.StatusCode)[1:]:
        try:
            channel.unary_unary("/t.Test/Status")(b"%d" % code.value[0], timeout=PATIENCE)
        except grpc.RpcError as error:
            right = error.code() == code and error.details() == "because: 100% \u00fc\n"
            right = right and ("x-trailing", "1") in error.trailing_metadata()
            held("status " + code.name, right, error)
    no_method = channel.unary_unary("/t.Test/Nothing")
    fails("no such method", grpc.StatusCode.UNIMPLEMENTED, lambda: no_method(b"", timeout=PATIENCE))


def endings(channel):
    never_answered = channel.unary_unary("/t.Test/Never")
    fails("deadline", grpc.StatusCode.DEADLINE_EXCEEDED, lambda: never_answered(b"", timeout=0.4))
    held("the service knows the deadline", 0 < deadlines[0] < 1, deadlines)
    ticks = channel.unary_stream("/t.Test/Endless")(b"")
    next(ticks)
    ticks.cancel()
    held("cancel", cancelled.wait(PATIENCE))
    fails("cancelled here", grpc.StatusCode.CANCELLED, lambda: next(ticks))
    after = channel.unary_unary("/t.Test/Unary")(b"after", timeout=PATIENCE)
    held("the connection lives on", after == b"after")


# What a router answers by itself, by the name it is given on stdin.
OWN = {
    "nobody": (grpc.StatusCode.UNAVAILABLE, "Unary"),
    "dead": (grpc.StatusCode.UNAVAILABLE, "Unary"),
    "impatient": (grpc.StatusCode.DEADLINE_EXCEEDED, "Never"),
    "elsewhere": (grpc.StatusCode.UNIMPLEMENTED, "Unary"),
    "small": (grpc.StatusCode.RESOURCE_EXHAUSTED, "Unary"),
    "forbidding": (grpc.StatusCode.PERMISSION_DENIED, "Unary"),
    "odd": (grpc.StatusCode.INTERNAL, "a/../b"),
}


def main():
    server = serve()
    routers = dict(line.split() for line in iter(lambda: sys.stdin.readline().strip(), ""))
    with grpc.insecure_channel(routers.pop("main"), options=LARGE) as channel:
        calls(channel)
        statuses(channel)
        endings(channel)
    for name, address in routers.items():
        code, method = OWN[name]
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary("/t.Test/" + method)
            fails("own: " + name, code, lambda: call(b"x" * 5000, timeout=PATIENCE))
    server.stop(None)
    print("done", flush=True)


main()
