# SPDX-License-Identifier: MIT
"""The agent's SSH client against a relay that is the stranger: what a server may ask of it."""
import base64
import contextlib
import hashlib
import socket
import struct
import threading

import pytest
from stranger import (ADJUST, CLOSE, CONFIRMATION, DATA, EOF, FAILURE, GLOBAL, OPEN, OPEN_FAILURE,
                      SUCCESS, Stranger, string, u32)

clause = pytest.mark.clause
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PROHIBITED, UNKNOWN_TYPE = 1, 3


class FalseRelay:
    """Answers the upgrade of an agent, and hands what its SSH client says to a stranger."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}"
        self.inner, self.outer = socket.socketpair()
        self.buffer = b""
        self.lock = threading.Lock()

    def accept(self):
        """The stranger at the other end, a server."""
        self.listener.settimeout(30)
        self.ws, _ = self.listener.accept()
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        key = fields["Sec-WebSocket-Key"] + GUID
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.ws.sendall((f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
                         f"Sec-WebSocket-Protocol: culvert.v1\r\nCulvert-Link: {'5a' * 16}\r\n\r\n")
                        .encode())
        self.ws.settimeout(None)
        for run in (self._up, self._down):
            threading.Thread(target=run, daemon=True).start()
        return Stranger(self.outer, False)

    def _fill(self):
        data = self.ws.recv(65536)
        if not data:
            raise OSError("over")
        self.buffer += data

    def _take(self, count):
        while len(self.buffer) < count:
            self._fill()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def _up(self):
        with contextlib.suppress(OSError):
            while True:
                first, size = self._take(2)
                size &= 0x7f
                if size >= 126:
                    size = int.from_bytes(self._take(2 if size == 126 else 8), "big")
                mask = self._take(4)
                data = self._take(size)
                mask = (mask * (size // 4 + 1))[:size]
                data = int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")
                data = data.to_bytes(size, "big")
                if first == 0x82:
                    self.inner.sendall(data)
                elif first == 0x89:
                    self._frame(0x8a, data)  # control messages of the link are for nobody here
        with contextlib.suppress(OSError):
            self.inner.shutdown(socket.SHUT_RDWR)

    def _down(self):
        with contextlib.suppress(OSError):
            while data := self.inner.recv(60000):
                self._frame(0x82, data)

    def _frame(self, first, data):
        size = len(data)
        head = (struct.pack("!BB", first, size) if size < 126 else
                struct.pack("!BBH", first, 126, size))
        with self.lock:
            self.ws.sendall(head + data)

    def close(self):
        for each in (self.listener, self.inner, self.outer, getattr(self, "ws", None)):
            if each:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()


@pytest.fixture
def agent(world):
    """(peer, service): an agent that has published `home` at the stranger's."""
    service = world.service()
    relay = FalseRelay()
    world.cleanups.append(relay.close)
    world.agent("http", None, service.port, url=relay.url, token="not.a.token", ready=False)
    peer = relay.accept()
    peer.hello()
    peer.follow()
    peer.authenticate()
    forwarded = False
    while not forwarded:
        reader = peer.expect(GLOBAL)
        name, wants = reader.string(), reader.u8()
        forwarded = name == b"tcpip-forward"
        if forwarded:
            assert (reader.string(), reader.u32()) == (b"home", 80)
        if wants:
            peer.send(SUCCESS)
    return peer, service


def open_forwarded(peer, name, port=80, number=7):
    peer.send(OPEN, string("forwarded-tcpip"), u32(number, 1 << 20, 32768), string(name), u32(port),
              string("127.0.0.1"), u32(4711))


@clause("4254:7.2-1")
@pytest.mark.parametrize("name, port", [("other", 80), ("", 80), ("home", 81), ("home", 0),
                                        ("HOME", 80), ("127.0.0.1", 22), ("home.", 80)])
def test_what_was_not_asked_for_is_refused(agent, name, port):
    peer, service = agent
    open_forwarded(peer, name, port)
    assert peer.expect(OPEN_FAILURE, GLOBAL).u32() == 7
    peer.ping(GLOBAL)
    assert not service.requests


@clause("4254:7.2-1", "4254:5.3-2")
def test_what_was_asked_for_reaches_the_service(agent):
    peer, _ = agent
    open_forwarded(peer, "home")
    reader = peer.expect(CONFIRMATION, GLOBAL)
    assert reader.u32() == 7
    theirs = reader.u32()
    peer.send(DATA, u32(theirs), string("GET /x HTTP/1.1\r\nHost: x\r\n\r\n"))
    data = b""
    while not data.startswith(b"HTTP/1.1 200"):
        reader = peer.expect(DATA, ADJUST, GLOBAL)
        assert reader.u32() == 7
        data += reader.string()
    peer.send(CLOSE, u32(theirs))
    assert peer.expect(CLOSE, DATA, EOF, ADJUST, GLOBAL).u32() == 7
    peer.ping(GLOBAL)
    assert peer.seen.count(CLOSE) == 1


@clause("4254:6.1-1", "4254:7.2-2", "4254:5.1-1")
@pytest.mark.parametrize("kind, rest, reason", [
    ("session", b"", UNKNOWN_TYPE), ("x11", string("x") + u32(1), UNKNOWN_TYPE),
    ("auth-agent@openssh.com", b"", UNKNOWN_TYPE),
    ("direct-tcpip", string("127.0.0.1") + u32(22) + string("x") + u32(1), PROHIBITED)])
def test_nothing_else_is_opened_towards_an_agent(agent, kind, rest, reason):
    peer, _ = agent
    peer.send(OPEN, string(kind), u32(7, 1 << 20, 32768), rest)
    reader = peer.expect(OPEN_FAILURE, GLOBAL)
    assert (reader.u32(), reader.u32()) == (7, reason)
    peer.ping(GLOBAL)


@clause("4254:4-1")
@pytest.mark.parametrize("name", ["tcpip-forward", "cancel-tcpip-forward", "x@culvert",
                                  "tunnel@culvert", "x@example.com"])
def test_an_agent_grants_no_request_of_a_server(agent, name):
    peer, _ = agent
    for _ in range(3):
        peer.send(GLOBAL, string(name), b"\1", string("home"), u32(80))
        peer.expect(FAILURE, GLOBAL)
    peer.ping(GLOBAL)
