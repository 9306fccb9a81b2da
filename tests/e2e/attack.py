# SPDX-License-Identifier: MIT
"""What every attack is measured against: another user's requests go on meanwhile, and memory,
descriptors and tunnels of the relay are back where they were afterwards."""
import contextlib
import os
import socket
import struct
import threading
import time

from client import Client
from culvert import BIN, SANITIZER, wait_for

# Sanitizers keep freed memory for a while.
IS_SANITIZED = b"__asan_init" in BIN.read_bytes() or b"__tsan_init" in BIN.read_bytes() \
    if BIN.exists() else False
RSS_KIB = 200 * 1024 if IS_SANITIZED else 30 * 1024
SLOW_S = 5  # the machine may be busy with other tests; a bystander that is held waits for longer

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
           ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")]


class Bystander:
    """Bob, who uses his own tunnel all the time."""

    def __init__(self, relay, token):
        self.relay = relay
        self.token = token
        self.times = []
        self.faults = []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.is_over.is_set():
            started = time.monotonic()
            try:
                with Client(self.relay.port) as client:
                    for number in range(5):
                        body = b"bob %d" % number
                        client.request("POST", "/t/mine/x", self.token, body=body)
                        response = client.response()
                        if response is None or response.status != 200 or response.body != body:
                            self.faults.append(response)
                            break
            except Exception as error:  # noqa: BLE001 - reported at the end
                self.faults.append(repr(error))
            self.times.append(time.monotonic() - started)
            time.sleep(0.01)

    def stop(self):
        self.is_over.set()
        self.thread.join(30)
        assert not self.faults, f"the bystander was hurt: {self.faults[:3]}"
        assert self.times and max(self.times) < SLOW_S, f"the bystander waited {max(self.times)} s"


class Target:
    """A relay with bob's tunnel `mine` on it, and one `home` of alice for who wants it."""

    def __init__(self, world, home=True, agent_args=(), **relay):
        self.world = world
        self.relay = world.relay(**relay)
        self.bobs = world.service()
        self.service = world.service()
        self.bob_agent = world.http(self.relay, self.bobs.port, name="mine", sub="bob")
        self.agent = world.http(self.relay, self.service.port, *agent_args) if home else None
        self.token = world.token("alice")
        self.bob = world.token("bob")

    def fetch(self, target="/x", **kw):
        return self.relay.fetch(f"/t/home{target}", self.token, **kw)

    def client(self, **kw):
        return Client(self.relay.port, **kw)

    def auth(self):
        return f"Authorization: Bearer {self.token}\r\n"

    def tunnels(self):
        return self.relay.fetch("/health", host="localhost").json()["tunnels"]

    @contextlib.contextmanager
    def attack(self, rss_kib=RSS_KIB):
        for _ in range(3):
            self.relay.fetch("/t/mine/warm", self.bob)
            if self.agent:
                self.fetch("/warm")
        before = self.relay.descriptors(), self.tunnels(), self.relay.rss_kib()
        agents = [(a, a.descriptors()) for a in (self.agent, self.bob_agent) if a]
        bystander = Bystander(self.relay, self.bob)
        try:
            yield
        finally:
            bystander.stop()
        assert self.relay.process.poll() is None, self.relay.tail()
        assert not any(SANITIZER.search(line) for line in self.relay.lines), self.relay.tail(80)
        wait_for(lambda: self.relay.descriptors() <= before[0] + 2, 15,
                 f"descriptors back at {before[0]} from {self.relay.descriptors()}")
        for agent, count in agents:
            wait_for(lambda a=agent, n=count: a.descriptors() <= n + 10, 15,
                     f"descriptors of {agent.name} back at {count}")
        wait_for(lambda: self.tunnels() == before[1], 10, f"{before[1]} tunnels")
        grown = self.relay.rss_kib() - before[2]
        assert grown < rss_kib, f"the relay grew by {grown} KiB"


def reset(sock):
    """Closes with RST."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def frame(first, payload=b"", mask=b"\1\2\3\4", length=None):
    """One client frame; `length` declares another length than it has."""
    size = len(payload) if length is None else length
    bit = 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not mask:
        return head + payload
    whole = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, whole, strict=False))


def upgrade(target, protocol="culvert.v1", headers=(), **kw):
    """A client whose connection is a link from now on."""
    client = target.client(**kw)
    client.request("GET", "/tunnel", target.token,
                   headers=[*UPGRADE, ("Sec-WebSocket-Protocol", protocol), *headers])
    response = client.head()
    assert response.status == 101, response
    return client


def close_code(client):
    """Reads frames to the end; the code of the Close frame, or None."""
    with contextlib.suppress(TimeoutError, OSError):
        while client.fill():
            pass
    data, code = client.buffer, None
    while len(data) >= 2:
        size, at = data[1] & 0x7f, 2
        if size == 126:
            size, at = struct.unpack("!H", data[2:4])[0], 4
        elif size == 127:
            size, at = struct.unpack("!Q", data[2:10])[0], 10
        if data[0] & 0x0f == 8:
            code = struct.unpack("!H", data[at:at + 2])[0] if size >= 2 else 1005
        data = data[at + size:]
    return code


class Pump:
    """A local port that leads, once, over a link of subprotocol ssh; `deafen` stops reading what
    the relay sends while the other direction goes on."""

    def __init__(self, target):
        self.ws = upgrade(target, "ssh", timeout=None, receive_buffer=4096)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ready = threading.Event()
        self.inner = None
        self.is_deaf = False
        for run in (self._up, self._down):
            threading.Thread(target=run, daemon=True).start()

    def deafen(self):
        self.is_deaf = True

    def close(self):
        reset(self.ws.sock)
        self.listener.close()
        with contextlib.suppress(OSError):
            self.inner.shutdown(socket.SHUT_RDWR)

    def _up(self):
        with contextlib.suppress(OSError):
            self.inner, _ = self.listener.accept()
            self.ready.set()
            while data := self.inner.recv(60000):
                self.ws.send(frame(0x82, data, mask=b"\0\0\0\0"))

    def _take(self, count):
        while len(self.ws.buffer) < count:
            if self.is_deaf or not self.ws.fill():
                raise OSError("over")
        data, self.ws.buffer = self.ws.buffer[:count], self.ws.buffer[count:]
        return data

    def _down(self):
        self.ready.wait(10)
        with contextlib.suppress(OSError):
            while True:
                first, size = self._take(2)
                if size == 126:
                    size = struct.unpack("!H", self._take(2))[0]
                elif size == 127:
                    size = struct.unpack("!Q", self._take(8))[0]
                data = self._take(size)
                if first == 0x82:
                    self.inner.sendall(data)
                elif first == 0x88:
                    break
        if not self.is_deaf:
            self.close()


def environment(target, token=None):
    return ["/usr/bin/env", f"CULVERT_TOKEN={token or target.token}",
            f"CULVERT_STATE_DIR={target.world.state}", f"HOME={os.environ.get('HOME', '/')}"]
