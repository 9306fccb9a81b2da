# SPDX-License-Identifier: MIT
"""The WebSocket engine, as tests/peers/ws_echo links it, against python3-websockets both ways, and
against raw bytes that no library would send."""
import asyncio
import os
import re
import socket
import struct
import subprocess
import time

import pytest

import culvert

websockets = pytest.importorskip("websockets")
from websockets.extensions.permessage_deflate import (  # noqa: E402
    ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory)

WS_ECHO = culvert.PEERS / "ws_echo"
MIB = 1 << 20
pytestmark = pytest.mark.skipif(not WS_ECHO.exists(), reason=f"{WS_ECHO} is not built")


class Echo:
    def __init__(self, *args):
        self.process = subprocess.Popen([WS_ECHO, "server", "--listen", "127.0.0.1:0", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)[1])

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/"

    def rss_kib(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])

    def close(self):
        alive = self.process.poll() is None
        self.process.terminate()
        _, err = self.process.communicate(timeout=10)
        assert alive, f"ws_echo died: {self.process.returncode}\n{err}"
        assert err == ""


@pytest.fixture
def echo(request):
    server = Echo(*getattr(request, "param", ()))
    yield server
    server.close()


def with_flags(*flags):
    return pytest.mark.parametrize("echo", [flags], indirect=True, ids=[" ".join(flags) or "plain"])


def messages():
    yield ""
    yield b""
    yield "hällo €𝄞" * 100
    for size in (1, 125, 126, 127, 65535, 65536, 100_000, MIB):
        yield os.urandom(size)
        yield "x" * size


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


# ---- the server, with a library ----

@pytest.mark.parametrize("deflate", [False, True])
@with_flags("--deflate")
def test_server_echoes_every_size(echo, deflate):
    async def talk():
        async with websockets.connect(echo.url, max_size=None,
                                      compression="deflate" if deflate else None) as ws:
            assert bool(ws.extensions) == deflate
            for message in messages():
                await ws.send(message)
                assert await ws.recv() == message
            await ws.send(["frag", "ments", "", " of one"])
            assert await ws.recv() == "fragments of one"
            await asyncio.wait_for(await ws.ping(b"still there?"), 5)
        assert ws.close_code == 1000
    run(talk())


@with_flags("--deflate")
@pytest.mark.parametrize("server_bits", [None, 9, 12, 15])
@pytest.mark.parametrize("client_bits", [None, 9, 15])
@pytest.mark.parametrize("takeover", range(4))
def test_server_agrees_on_deflate(echo, server_bits, client_bits, takeover):
    factory = ClientPerMessageDeflateFactory(
        server_no_context_takeover=bool(takeover & 1), client_no_context_takeover=bool(takeover & 2),
        server_max_window_bits=server_bits, client_max_window_bits=client_bits or True)

    async def talk():
        async with websockets.connect(echo.url, compression=None, extensions=[factory]) as ws:
            assert len(ws.extensions) == 1
            for message in ("", "again and again " * 1000, "again and again " * 1000, "",
                            os.urandom(100_000)):
                await ws.send(message)
                assert await ws.recv() == message
    run(talk())


@with_flags("--deflate", "--max-message", str(16 * MIB))
def test_server_echoes_16_mib(echo):
    async def talk(compression):
        async with websockets.connect(echo.url, max_size=None, compression=compression) as ws:
            for message in (os.urandom(16 * MIB), "y" * (16 * MIB)):
                await ws.send(message)
                assert await ws.recv() == message
    run(talk(None))
    run(talk("deflate"))


@with_flags("--max-message", str(MIB))
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_server_refuses_more_than_its_limit(echo, compression):
    async def talk():
        async with websockets.connect(echo.url, max_size=None, compression=compression) as ws:
            await ws.send("z" * (MIB + 1))
            with pytest.raises(websockets.ConnectionClosedError):
                await ws.recv()
            assert ws.close_code == 1009
    run(talk())


def test_server_serves_many_at_once(echo):
    async def talk(n):
        async with websockets.connect(echo.url) as ws:
            for i in range(50):
                await ws.send(f"{n}/{i}")
                assert await ws.recv() == f"{n}/{i}"

    async def all_of_them():
        await asyncio.gather(*(talk(n) for n in range(40)))
    run(all_of_them())


def test_server_keeps_order_when_nobody_reads_for_a_while(echo):
    async def talk():
        async with websockets.connect(echo.url, max_queue=None) as ws:
            sent = [os.urandom(50_000) for _ in range(400)]

            async def send():
                for message in sent:
                    await ws.send(message)
            sending = asyncio.create_task(send())
            await asyncio.sleep(0.3)
            for message in sent:
                assert await ws.recv() == message
            await sending
    run(talk())


# ---- the server, with raw bytes ----

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = {"Host": "x", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY,
          "Sec-WebSocket-Version": "13"}


def request(line="GET / HTTP/1.1", **changes):
    fields = FIELDS | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([line, *lines, "", ""]).encode()


def frame(first, payload=b"", mask=b"\1\2\3\4"):
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, bit | len(payload))
    else:
        head = struct.pack("!BBH", first, bit | 126, len(payload))
    if not mask:
        return head + payload
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def exchange(echo, data, timeout=5):
    """Sends and reads to the end, which must come by itself within the time."""
    with socket.create_connection(("127.0.0.1", echo.port), timeout=timeout) as sock:
        sock.sendall(data)
        answer = b""
        while part := sock.recv(65536):
            answer += part
    return answer


def after_101(answer):
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    return rest


@pytest.mark.parametrize("bytes_, status", [
    (request(Sec_WebSocket_Key=None), 400),
    (request(Sec_WebSocket_Key="short"), 400),
    (request(Sec_WebSocket_Version="8"), 426),
    (request(Sec_WebSocket_Version=None), 426),
    (request("POST / HTTP/1.1"), 400),
    (request("GET / HTTP/1.0"), 400),
    (request(Connection=None), 400),
    (request(Upgrade="h2c"), 400),
    (b"nonsense\r\n\r\n", 400),
])
def test_bad_upgrades_are_refused(echo, bytes_, status):
    head = exchange(echo, bytes_)
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert (b"Sec-WebSocket-Version: 13" in head) == (status == 426)


def test_frames_sent_before_the_101_are_kept(echo):
    data = request() + frame(0x81, b"early") + frame(0x88, b"\x03\xe8")
    assert after_101(exchange(echo, data)) == b"\x81\x05early\x88\x02\x03\xe8"


BROKEN = [
    (frame(0x81, b"x", mask=None), 1002),
    (frame(0xC1, b"x"), 1002),
    (frame(0xA1, b"x"), 1002),
    (frame(0x83), 1002),
    (frame(0x8B), 1002),
    (frame(0x09), 1002),
    (frame(0x89, b"x" * 126), 1002),
    (frame(0x80), 1002),
    (frame(0x81, b"\xff"), 1007),
    (frame(0x01, b"\xed\xa0"), 1007),
    (b"\x82\xff\x7f" + b"\xff" * 7, 1009),
    (b"\x82\xff" + b"\xff" * 8, 1002),
    (b"\x82\xff\0\0\0\0\x80\0\0\0", 1009),
    (frame(0x02) + frame(0x00) * 100_000, 1008),
] + [(frame(0x88, struct.pack("!H", bad)), 1002)
     for bad in (0, 999, 1004, 1005, 1006, 1015, 5000)] + [(frame(0x88, b"\x03"), 1002)]


@pytest.mark.parametrize("wire, code", BROKEN,
                         ids=[f"{wire[:10].hex()}-{code}" for wire, code in BROKEN])
def test_broken_rules_close_with_their_code(echo, wire, code):
    before = time.monotonic()
    with socket.create_connection(("127.0.0.1", echo.port), timeout=5) as sock:
        sock.sendall(request())
        try:
            sock.sendall(wire)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a long flood is cut before its end
        answer = b""
        try:
            while part := sock.recv(65536):
                answer += part
        except ConnectionResetError:
            pass
    closing = after_101(answer)
    assert closing[0] == 0x88 and struct.unpack("!H", closing[2:4]) == (code,)
    assert time.monotonic() - before < 5


def test_a_ping_flood_that_is_never_read_is_closed_with_flat_memory(echo):
    ping = frame(0x89, b"p" * 125) * 500
    with socket.create_connection(("127.0.0.1", echo.port), timeout=10) as sock:
        sock.sendall(request())
        time.sleep(0.1)
        before = echo.rss_kib()
        tail = b""
        try:
            for _ in range(2000):
                sock.sendall(ping)
            peak = echo.rss_kib()
            while part := sock.recv(1 << 20):
                tail = (tail + part)[-200:]
            assert b"\x03\xf0too many pings" in tail  # 1008
        except (BrokenPipeError, ConnectionResetError):
            peak = echo.rss_kib()  # cut while we were still sending
        assert peak - before < 4096
    # Somebody else is served as before.
    assert b"\x81\x02ok" in exchange(echo, request() + frame(0x81, b"ok") + frame(0x88))


# ---- the client ----

def drive_client(*flags, extensions=None, compression=None, cases=()):
    """What Autobahn's fuzzing server does, with python3-websockets: returns the visited paths."""
    visited, failures = [], []

    async def handler(ws, path):
        visited.append(path)
        if path == "/getCaseCount":
            await ws.send(str(len(cases)))
        elif path.startswith("/runCase"):
            number = int(re.search(r"case=(\d+)", path)[1])
            try:
                await cases[number - 1](ws)
            except Exception as error:  # reported below, in the test
                failures.append((number, repr(error)))

    async def serve():
        async with websockets.serve(handler, "127.0.0.1", 0, max_size=None, extensions=extensions,
                                    compression=compression) as server:
            port = server.sockets[0].getsockname()[1]
            client = await asyncio.create_subprocess_exec(
                WS_ECHO, "client", "--url", f"ws://127.0.0.1:{port}", "--agent", "me", *flags,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            out, err = await client.communicate()
            return client.returncode, out, err
    code, out, err = run(serve())
    assert failures == []
    assert (code, err) == (0, b"")
    assert out == b"%d cases, 0 refused\n" % len(cases)
    return visited


async def all_sizes(ws):
    for message in messages():
        await ws.send(message)
        assert await ws.recv() == message


async def fragments(ws):
    await ws.send([b"1", b"", b"23"])
    assert await ws.recv() == b"123"
    await asyncio.wait_for(await ws.ping(b"?"), 5)


def test_client_visits_each_case_and_reports():
    visited = drive_client(cases=(all_sizes, fragments))
    assert visited == ["/getCaseCount", "/runCase?case=1&agent=me", "/runCase?case=2&agent=me",
                       "/updateReports?agent=me"]


@pytest.mark.parametrize("server_bits", [None, 9, 15])
@pytest.mark.parametrize("client_bits", [None, 9, 15])
@pytest.mark.parametrize("takeover", range(4))
def test_client_takes_what_the_server_chooses(server_bits, client_bits, takeover):
    async def is_compressed(ws):
        assert len(ws.extensions) == 1
        await all_sizes(ws)
    factory = ServerPerMessageDeflateFactory(
        server_no_context_takeover=bool(takeover & 1), client_no_context_takeover=bool(takeover & 2),
        server_max_window_bits=server_bits, client_max_window_bits=client_bits)
    drive_client("--deflate", extensions=[factory], cases=(is_compressed,))


def test_client_echoes_16_mib():
    async def large(ws):
        message = os.urandom(16 * MIB)
        await ws.send(message)
        assert await ws.recv() == message
    drive_client("--deflate", "--max-message", str(16 * MIB), compression="deflate",
                 cases=(large,))


def test_client_closes_with_1009_over_its_limit():
    async def large(ws):
        await ws.send(b"x" * (MIB + 1))
        with pytest.raises(websockets.ConnectionClosedError):
            await ws.recv()
        assert ws.close_code == 1009
    drive_client("--no-deflate", "--max-message", str(MIB), cases=(large,))
