"""What the Python `websockets` client sees of a running server.

check.py echo URL...                 against the echo app, each address in turn
check.py broadcast URL               against the broadcast app
check.py drain URL --pid PID         connects, sends SIGTERM to the server, expects 1001
check.py subprotocol URL             against the chat example
check.py bad-wire URL...             the echo checks that fit a wire which loses frames: up to 64 KiB

Every check has a limit of its own, is run on a fresh connection, and prints a line where it
fails. The exit code says whether all of them passed.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

MIB = 1 << 20
SIZES = [1, 125, 126, 127, 65535, 65536, MIB]
PIPELINED = 2000
LIMIT_S = 20
QUIET_S = 0.3


def text_of(size):
    """Exactly `size` bytes of UTF-8, with characters of 1 to 4 bytes where they fit."""
    block = "aé€😀" * 1000
    whole = (block * (size // 10_000 + 1)).encode()[:size].decode(errors="ignore")
    return whole + "x" * (size - len(whole.encode()))


def bytes_of(size):
    return random.Random(size).randbytes(size)


def expect(got, wanted, what):
    if got != wanted:
        short = [repr(v) if len(repr(v)) < 80 else repr(v)[:80] + "..." for v in (got, wanted)]
        raise AssertionError(f"{what}: got {short[0]}, expected {short[1]}")


async def closed_with(ws):
    """Reads until the connection is closed; the close frame that the server sent, if it did."""
    try:
        while True:
            await ws.recv()
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd else None


async def echo_text(url):
    async with connect(url, max_size=None) as ws:
        for size in SIZES:
            await ws.send(text_of(size))
            expect(await ws.recv(), text_of(size), f"text of {size} bytes")


async def echo_binary(url):
    async with connect(url, max_size=None) as ws:
        for size in SIZES:
            await ws.send(bytes_of(size))
            expect(await ws.recv(), bytes_of(size), f"{size} bytes")


async def echo_empty(url):
    async with connect(url) as ws:
        for message in ["", b""]:
            await ws.send(message)
            expect(await ws.recv(), message, "empty message")


async def echo_fragmented(url):
    async with connect(url, max_size=None) as ws:
        letters = list(text_of(3000))
        await ws.send(letters)
        expect(await ws.recv(), "".join(letters), "3000 text fragments")
        parts = [bytes_of(65536 + i) for i in range(15)]
        await ws.send(parts)
        expect(await ws.recv(), b"".join(parts), "15 binary fragments")


async def ping_between_fragments(url):
    async with connect(url) as ws:
        answered = []

        async def parts():
            yield "before "
            pong = await ws.ping(b"between")
            await pong
            answered.append(True)
            yield "after"

        await ws.send(parts())
        expect(await ws.recv(), "before after", "message around a ping")
        expect(answered, [True], "ping answered before the message ended")


async def pipelined(url):
    sizes = [random.Random(i).choice([1, 20, 125, 126, 1000, 4000]) for i in range(PIPELINED)]
    async with connect(url, max_size=None) as ws:

        async def send_all():
            for size in sizes:
                await ws.send(bytes_of(size))

        sending = asyncio.create_task(send_all())
        for number, size in enumerate(sizes):
            expect(await ws.recv(), bytes_of(size), f"message {number} of {len(sizes)}")
        await sending


async def ping_answered(url):
    async with connect(url, ping_interval=None) as ws:
        for payload in [b"", b"x", bytes_of(125)]:
            await (await ws.ping(payload))


async def unsolicited_pong_ignored(url):
    async with connect(url) as ws:
        await ws.pong(b"nobody asked")
        await ws.send("still here")
        expect(await ws.recv(), "still here", "message after a pong")


async def close_echoed(url):
    for code, reason in [(1000, ""), (1000, "done"), (1001, "leaving"), (3001, "é" * 61)]:
        async with connect(url) as ws:
            await ws.close(code, reason)
            end = ws.protocol.close_rcvd
            expect(end and end.code, code, "echoed close code")
            # RFC 6455 §5.5.1: the code is echoed; the reason need not be, but ours does.
            expect(end.reason, reason, "echoed close reason")


async def too_big_refused(url):
    end = None
    try:
        async with connect(url, max_size=None) as ws:
            try:
                await ws.send(bytes(MIB + 1))
            except ConnectionClosed:
                pass  # refused on the header, before all of it was written
            end = await closed_with(ws)
    except AttributeError:
        # Leaving closes once more. Python 3.11's asyncio fails to abort a transport that was
        # closed with output left, as it is where the server's windows are small.
        pass
    expect(end and end[0], 1009, "close code after 1 MiB + 1")


async def too_big_in_fragments_refused(url):
    async with connect(url, max_size=None) as ws:
        try:
            await ws.send([bytes(MIB // 2), bytes(MIB // 2), b"x"])
        except ConnectionClosed:
            pass
        end = await closed_with(ws)
        expect(end and end[0], 1009, "close code after fragments of 1 MiB + 1")


async def invalid_utf8_refused(url):
    for bad in [b"\xff\xfe", b"ok \xc0\xaf", b"\xed\xa0\x80", b"cut \xe2\x82"]:
        async with connect(url) as ws:
            await ws.send(bad, text=True)
            end = await closed_with(ws)
            expect(end and end[0], 1007, f"close code after text {bad}")


async def path_and_query_accepted(url):
    for path in ["/", "/a/b%20c", "/room?name=x&y=%C3%A9&z", "/?" + "q" * 2000]:
        async with connect(url + path) as ws:
            await ws.send(path)
            expect(await ws.recv(), path, "message on that path")


async def compression_offered(url):
    """The client offers permessage-deflate by default; what is not agreed must not be used."""
    async with connect(url, compression="deflate") as ws:
        await ws.send("a" * 1000)
        expect(await ws.recv(), "a" * 1000, "message after the offer")


async def others_receive(url):
    async with connect(url) as one, connect(url) as two, connect(url) as three:
        await one.send("from one")
        for ws in (two, three):
            expect(await ws.recv(), "from one", "what the others receive")
        await two.send(b"from two")
        for ws in (one, three):
            expect(await ws.recv(), b"from two", "what the others receive")
        await quiet([one, two, three])


async def quiet(clients):
    """Nothing more arrives: the sender is not told its own words, nobody hears a thing twice."""

    async def one(ws):
        try:
            message = await asyncio.wait_for(ws.recv(), QUIET_S)
        except asyncio.TimeoutError:
            return
        raise AssertionError(f"received too much: {message!r:.80}")

    await asyncio.gather(*(one(ws) for ws in clients))


async def all_workers_receive(url):
    """40 connections are spread over the workers; all but the sender get each message once."""
    clients = await asyncio.gather(*(connect(url) for _ in range(40)))
    try:
        senders = range(0, 40, 7)
        rounds = 5
        for turn in range(rounds):
            await asyncio.gather(*(clients[i].send(f"{i}:{turn}") for i in senders))

        async def take(i, ws):
            wanted = [s for s in senders if s != i]
            heard = [await ws.recv() for _ in range(len(wanted) * rounds)]
            for s in wanted:
                mine = [m for m in heard if m.startswith(f"{s}:")]
                expect(mine, [f"{s}:{t}" for t in range(rounds)], f"client {i} from {s}")

        await asyncio.gather(*(take(i, ws) for i, ws in enumerate(clients)))
        await quiet(clients)
    finally:
        await asyncio.gather(*(ws.close() for ws in clients))


async def large_broadcast(url):
    async with connect(url, max_size=None) as one, connect(url, max_size=None) as two:
        await one.send(bytes_of(MIB))
        expect(await two.recv(), bytes_of(MIB), "broadcast of 1 MiB")


async def drain(url, pid):
    clients = await asyncio.gather(*(connect(url) for _ in range(8)))
    await clients[0].send("warm")
    expect(await clients[0].recv(), "warm", "echo before the drain")
    os.kill(pid, signal.SIGTERM)
    ends = await asyncio.gather(*(closed_with(ws) for ws in clients))
    expect([end and end[0] for end in ends], [1001] * len(clients), "close codes at the drain")


async def subprotocol(url):
    async with connect(url, subprotocols=["nope", "chat.v1"]) as ws:
        expect(ws.subprotocol, "chat.v1", "chosen subprotocol")


ECHO = [
    echo_text,
    echo_binary,
    echo_empty,
    echo_fragmented,
    ping_between_fragments,
    pipelined,
    ping_answered,
    unsolicited_pong_ignored,
    close_echoed,
    too_big_refused,
    too_big_in_fragments_refused,
    invalid_utf8_refused,
    path_and_query_accepted,
    compression_offered,
]
# A lost frame may cost its sender a second: less is sent, and there is more time for it.
BAD_WIRE = [
    echo_text,
    echo_binary,
    echo_empty,
    ping_between_fragments,
    pipelined,
    ping_answered,
    close_echoed,
    invalid_utf8_refused,
    path_and_query_accepted,
]
BROADCAST = [others_receive, all_workers_receive, large_broadcast]


async def run(checks):
    """Runs (name, coroutine) pairs one after the other; the number that failed."""
    failed = 0
    for name, check in checks:
        try:
            await asyncio.wait_for(check, LIMIT_S)
        except asyncio.TimeoutError:
            failed += 1
            print(f"FAIL {name}: nothing after {LIMIT_S} s")
        except Exception as error:  # whatever the client raises is this check's failure
            failed += 1
            print(f"FAIL {name}: {type(error).__name__}: {error}")
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["echo", "broadcast", "drain", "subprotocol", "bad-wire"])
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--pid", type=int)
    args = parser.parse_args()

    if args.mode == "bad-wire":
        global PIPELINED, LIMIT_S
        SIZES.remove(MIB)
        PIPELINED, LIMIT_S = 100, 60

    def named(check, url, *more):
        return f"{check.__name__} {urlsplit(url).netloc}", check(url, *more)

    first = args.urls[0]
    checks = {
        "echo": lambda: [named(check, url) for url in args.urls for check in ECHO],
        "bad-wire": lambda: [named(check, url) for url in args.urls for check in BAD_WIRE],
        "broadcast": lambda: [named(check, first) for check in BROADCAST],
        "drain": lambda: [named(drain, first, args.pid)],
        "subprotocol": lambda: [named(subprotocol, first)],
    }[args.mode]()
    failed = asyncio.run(run(checks))
    print(f"python {args.mode}: {len(checks) - failed} of {len(checks)} checks passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
