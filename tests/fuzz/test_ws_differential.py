# SPDX-License-Identifier: MIT
"""The same random frames to three WebSocket servers that echo: ours (tests/peers/ws_echo),
python3-websockets and npm's ws. What they take for messages, what they answer to pings, and the code
with which they close must agree, or differ in a way that DIFFERENCES explains.

A sequence is made from a seed, so a failure names all that is needed to see it again:
    pytest tests/fuzz/test_ws_differential.py -k 'seed and 17'
"""
import asyncio
import random
import struct
import subprocess
import threading
import zlib

import pytest

from culvert import PEERS, ROOT
from npm import node_environment

WS_ECHO = PEERS / "ws_echo"
INTEROP = ROOT / "tests" / "interop"
pytestmark = pytest.mark.skipif(not WS_ECHO.exists(), reason=f"{WS_ECHO} is not built")

# Sequences in each of the tests of a run, and in the long one.
SHORT, LONG, BATCHES = 60, 4000, 5

TEXTS = [b"", b"Hello", "κόσμε €𝄞".encode(), b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf",
         b"\xe2\x82", b"\xac!", b"\xff"]
CODES = [0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013,
         1014, 1015, 1016, 2999, 3000, 3999, 4000, 4999, 5000, 65535]


class Script:
    """Frames, and what in them the peers are known to read in different ways."""

    def __init__(self, seed):
        rng = self.rng = random.Random(seed)
        self.deflate = rng.random() < .4
        self.frames = []
        self.flags = set()
        self.is_open = False
        for _ in range(rng.randint(1, 8)):
            self.add_one()
        self.frames.append(self.frame(0x88, struct.pack("!H", 1000)))

    def frame(self, first, payload, form=0, masked=True):
        mask = self.rng.randbytes(4)
        bit = 0x80 if masked else 0
        size = len(payload)
        if form == 64 or size > 65535:
            head = struct.pack("!BBQ", first, bit | 127, size)
        elif form == 16 or size > 125:
            head = struct.pack("!BBH", first, bit | 126, size)
        else:
            head = bytes([first, bit | size])
        if not masked:
            return head + payload
        return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))

    def payload(self):
        rng = self.rng
        if rng.random() < .7:
            return rng.choice(TEXTS)
        return rng.randbytes(rng.choice((1, 124, 125, 126, 127, 1000, 70000)))

    def compressed(self, payload):
        rng = self.rng
        how = rng.random()
        packer = zlib.compressobj(rng.choice((1, 6, 9)), zlib.DEFLATED, -15)
        data = packer.compress(payload)
        if how < .1:
            return data + packer.flush(zlib.Z_FINISH)
        data += packer.flush(zlib.Z_SYNC_FLUSH)
        if how < .85:
            return data[:-4]
        self.flags.add("damaged")
        return rng.randbytes(rng.randint(0, 20)) if how < .93 else data[:-4][:len(data) // 2]

    def add_one(self):
        rng = self.rng
        kind = rng.choices(("good", "control", "close", "any", "broken"), (10, 4, 1, 1, 1))[0]
        if kind == "good":
            self.add_message()
        elif kind == "control":
            self.frames.append(self.frame(rng.choice((0x89, 0x8A)), rng.randbytes(rng.randint(0, 125))))
        elif kind == "close":
            body = struct.pack("!H", rng.choice(CODES)) + rng.choice(TEXTS)
            self.frames.append(self.frame(0x88, body[:rng.choice((0, 1, 2, 99, 99))]))
        elif kind == "any":
            first = rng.randrange(256)
            if first & 0x40:  # noise for what is compressed
                self.flags.add("damaged")
            self.frames.append(self.frame(first, self.payload()[:200]))
        else:
            form = rng.choice((0, 16, 64))
            payload = self.payload()[:100]
            if form:
                self.flags.add("long form")
            self.frames.append(self.frame(rng.choice((0x81, 0x82, 0x89)), payload, form,
                                          masked=bool(form)))

    def add_message(self):
        rng = self.rng
        payload = self.payload()
        first, pieces = rng.choice((1, 2)), [payload]
        if self.deflate and rng.random() < .6:
            payload = self.compressed(payload)
            first |= 0x40
        if rng.random() < .5:
            cuts = sorted(rng.randint(0, len(payload)) for _ in range(rng.randint(1, 3)))
            pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)])]
        else:
            pieces = [payload]
        for n, piece in enumerate(pieces):
            last = 0x80 if n == len(pieces) - 1 else 0
            self.frames.append(self.frame((0 if n else first) | last, piece))
            if not last and rng.random() < .3:
                self.frames.append(self.frame(0x89, b"between"))


# ---- what a server made of it ----

class Heard:
    def __init__(self):
        self.messages = []
        self.pongs = []
        self.code = "none"  # of its Close; None: without a code

    def take(self, first, payload, kinds, deflated):
        opcode = first & 15
        if opcode == 8:
            self.code = struct.unpack("!H", payload[:2])[0] if payload else None
        elif opcode == 10:
            self.pongs.append(payload)
        elif opcode in (0, 1, 2):
            if opcode:
                kinds[:] = [opcode, bool(first & 0x40), b""]
            kinds[2] += payload
            if first & 0x80:
                data = deflated.decompress(kinds[2] + b"\0\0\xff\xff") if kinds[1] else kinds[2]
                self.messages.append((kinds[0], data))


async def visit(port, script):
    """Sends the script, reads to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if script.deflate else ""
    writer.write(("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
                  f"{extension}\r\n").encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head.split(b"\r\n")[0], head
    assert (b"permessage-deflate" in head) == script.deflate, head
    heard, kinds, deflated = Heard(), [], zlib.decompressobj(-15)
    writer.write(b"".join(script.frames))
    try:
        while True:
            first, size = await reader.readexactly(2)
            if size == 126:
                size = struct.unpack("!H", await reader.readexactly(2))[0]
            elif size == 127:
                size = struct.unpack("!Q", await reader.readexactly(8))[0]
            heard.take(first, await reader.readexactly(size), kinds, deflated)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()
    return heard


# ---- where they differ, and why ----

# Our code for a fault → other codes that peers have for the same, with the reason.
OTHER_CODES = {
    1002: {
        # RFC 7692 names no code for data that cannot be inflated; ws takes the one for bad payload,
        # python3-websockets the one for a fault of its own.
        "damaged": {1007, 1011},
        # RFC 6455 does not say which comes first of two faults in one message.
        "any": {1007, 1009},
    },
    # Text that is both damaged and no UTF-8.
    1007: {"damaged": {1002, 1011}, "any": {1002}},
}


def explain(script, ours, theirs, who):
    """None when they agree; else the name of the difference, or a complaint."""
    same_end = ours.code == theirs.code
    if same_end and ours.messages == theirs.messages and ours.pongs == theirs.pongs:
        return None
    failed = ours.code in (1002, 1007, 1008, 1009)
    if "long form" in script.flags and ours.code == 1002:
        # RFC 6455 §5.2: "the minimal number of bytes MUST be used"; neither of them looks.
        return "a length that is not in its shortest form is accepted"
    if failed and ours.messages[:len(theirs.messages)] == theirs.messages and \
            ours.pongs[:len(theirs.pongs)] == theirs.pongs:
        if same_end:
            return "what came before a fault is not all answered"
        others = OTHER_CODES.get(ours.code, {})
        if theirs.code in others.get("any", ()) or \
                ("damaged" in script.flags and theirs.code in others.get("damaged", ())):
            return "another code for the same fault"
        if theirs.code == "none":
            return "the connection ends without a Close"
    if "damaged" in script.flags and ours.code in (1002, 1007):
        # RFC 7692 §7.2.1: a message ends with an empty block. They take what zlib has by then, and
        # read the next message from where that left it.
        return "compressed data that ends inside a block is taken"
    if "damaged" in script.flags and not failed and theirs.code in (1002, 1007, 1011) and \
            ours.messages[:len(theirs.messages)] == theirs.messages:
        # Some send no byte at all for an empty message; we bear with it, they lose their place.
        return "a compressed message without a byte is taken by us alone"
    is_shorter, n = len(theirs.messages) < len(ours.messages), min(map(len, (
        theirs.messages, ours.messages)))
    if ours.code == 1007 and theirs.messages[:n] == ours.messages[:n] and \
            (who == "websockets" or not is_shorter):
        # §8.1 lets a peer wait for the end of the message; the Close comes first. In
        # python3-websockets it overtakes echoes as well.
        return "bad UTF-8 is noticed only when the message is complete"
    if not failed and theirs.code == ours.code and theirs.messages == \
            ours.messages[:len(theirs.messages)]:
        return "a Close overtakes the echo of what came before it"
    if not failed and ours.code is None and theirs.code in (1000, 1005):
        return "an empty Close is answered with a code"
    if ours.code in (1012, 1013, 1014) and theirs.code == 1002:
        return "codes that IANA has added since are refused"
    return f"!! {who}"


# ---- the servers ----

class Node:
    def __init__(self, env):
        self.process = subprocess.Popen(["node", INTEROP / "ws_peer.js", "echo"], env=env,
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.communicate()


class Ours(Node):
    def __init__(self):
        self.process = subprocess.Popen([WS_ECHO, "server", "--listen", "127.0.0.1:0"],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rpartition(":")[2])


class Websockets:
    """python3-websockets in a thread of its own."""

    def __init__(self):
        import logging

        import websockets
        logging.getLogger("websockets").setLevel(logging.CRITICAL)
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)

        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        async def start():
            return await websockets.serve(echo, "127.0.0.1", 0, max_size=1 << 25, close_timeout=2)
        self.server = self.loop.run_until_complete(start())
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def close(self):
        async def stop():
            self.server.close()
            await self.server.wait_closed()
        asyncio.run_coroutine_threadsafe(stop(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def peers(shared):
    started = []
    try:
        for make in (Ours, Websockets, lambda: Node(node_environment(shared))):
            started.append(make())
        yield dict(zip(("ours", "websockets", "ws"), (peer.port for peer in started)))
    finally:
        for peer in started:
            peer.close()


def compare(peers, seeds):
    async def all_of(seed):
        script = Script(seed)
        heard = await asyncio.wait_for(
            asyncio.gather(*(visit(port, script) for port in peers.values())), 60)
        return script, dict(zip(peers, heard))

    async def run():
        return [(seed, *await all_of(seed)) for seed in seeds]
    explained, wrong = {}, []
    for seed, script, heard in asyncio.run(run()):
        ours = heard.pop("ours")
        assert ours.code != "none", f"seed {seed}: ours ended without a Close"
        for who, theirs in heard.items():
            why = explain(script, ours, theirs, who)
            if why is None:
                continue
            if why.startswith("!!"):
                wrong.append(f"seed {seed}, {who}: closes {ours.code} and {theirs.code}, "
                             f"messages {summary(ours)} and {summary(theirs)}, pongs "
                             f"{len(ours.pongs)} and {len(theirs.pongs)}; {sorted(script.flags)} "
                             f"{[frame[:16].hex() for frame in script.frames]}")
            explained.setdefault((who, why), []).append(seed)
    for (who, why), found in sorted(explained.items()):
        print(f"{who}: {why}: {len(found)} of {len(seeds)}")
    assert not wrong, "\n".join(wrong)


def summary(heard):
    return [(kind, len(data)) for kind, data in heard.messages]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_three_servers_read_the_same(peers, batch):
    compare(peers, range(batch * SHORT, (batch + 1) * SHORT))


@pytest.mark.long
@pytest.mark.parametrize("batch", range(BATCHES))
def test_three_servers_read_the_same_for_long(peers, batch):
    compare(peers, range(1_000_000 + batch * LONG, 1_000_000 + (batch + 1) * LONG))
