# SPDX-License-Identifier: MIT
"""What every attack is measured against: another user's requests go on meanwhile, and memory,
descriptors and tunnels of the relay are back where they were afterwards."""
import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass

from bystander import WAKE_UPS, Bystander, Samples, p99
from client import Broken, Client
from culvert import INSTRUMENTS, SANITIZER, wait_for

# Sanitizers keep up to 256 MiB of freed memory for a while.
IS_SANITIZED = bool(INSTRUMENTS & {"asan", "tsan"})
RSS_KIB = 400 * 1024 if IS_SANITIZED else 30 * 1024
PEAK_KIB = 600 * 1024 if IS_SANITIZED else 100 * 1024
# Of an attack, in a log of level info.
LOG_LINES = 200
LOG_BYTES = 150_000
SLOW_S = 5  # the machine may be busy with other tests; a bystander that is held waits for longer

UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
           ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")]


# What the bystander may notice: three times his quiet p99 or this much more, and what the machine
# does to everybody meanwhile.
FACTOR = 3
FLOOR_S = 0.05
SLACK = 5 if INSTRUMENTS else 1
QUIET_S = 0.25  # as long as this before each attack; all of a target's quiet times count


@dataclass
class Measure:
    """What one attack cost the others."""

    quiet_p99_s: float
    attacked_p99_s: float
    probes: int
    grown_kib: int = 0  # for good
    peak_kib: int = 0  # while it went on
    log_lines: int = 0
    log_bytes: int = 0


class Target:
    """A relay with bob's tunnel `mine` on it, and one `home` of alice for who wants it.

    `world.workers` of 1 makes attacker and bystander share a thread.
    """

    def __init__(self, world, home=True, agent_args=(), ca=None, **relay):
        """`ca` is the authority of a relay with TLS, a file."""
        self.world = world
        self.ca = ca
        env = {"CULVERT_CA_FILE": str(ca)} if ca else None
        tls = {"tls": ssl.create_default_context(cafile=str(ca)), "server_name": "localhost"} \
            if ca else {}
        self.relay = world.relay(**tls, **relay)
        self.bobs = Bystander()
        world.cleanups.append(self.bobs.close)
        self.service = world.service()
        self.bob_agent = world.http(self.relay, self.bobs.service_port, name="mine", sub="bob",
                                    env=env)
        self.agent = world.http(self.relay, self.service.port, *agent_args, env=env) \
            if home else None
        self.token = world.token("alice")
        self.bob = world.token("bob")
        self.admin = world.token("root", "--admin")
        self.quiet = Samples()
        self.measures = []

    def fetch(self, target="/x", **kw):
        return self.relay.fetch(f"/t/home{target}", self.token, **kw)

    def client(self, **kw):
        if self.ca:
            kw = {"tls": self.relay.tls, "server_name": "localhost", **kw}
        return Client(self.relay.port, **kw)

    def auth(self):
        return f"Authorization: Bearer {self.token}\r\n"

    def tunnels(self):
        return self.relay.fetch("/health", host="localhost").json()["tunnels"]

    def counters(self):
        """What the relay has open; the connection that asks is left out."""
        counted = self.relay.fetch("/api/tunnel/diagnostics", self.admin).json()
        counted["connections"] -= 1
        return {name: counted[name]
                for name in ("connections", "requests", "links", "streams", "tunnels")}

    def _watch(self, seconds=None):
        self.bobs.start(self.relay.port, "/t/mine/x", self.bob, self.ca)
        if seconds:
            time.sleep(seconds)
            return self.bobs.stop()
        return None

    @contextlib.contextmanager
    def attack(self, rss_kib=RSS_KIB, peak_kib=PEAK_KIB, log_lines=LOG_LINES,
               log_bytes=LOG_BYTES):
        """Attack inside. Afterwards: bob lost nothing and his p99 is what it was, the relay is as
        it was before, and its log (without what bob's own requests say) grew by no more than that.
        """
        for _ in range(3):
            self.relay.fetch("/t/mine/warm", self.bob)
            if self.agent:
                self.fetch("/warm")
        self.quiet.add(self._watch(QUIET_S))
        agents = [(a, a.descriptors()) for a in (self.agent, self.bob_agent) if a]
        wait_for(lambda: self.counters()["requests"] == 0, 10, "rest before the attack")
        before = self.relay.descriptors(), self.counters(), self.relay.rss_kib()
        self.relay.forget_peak()
        line = len(self.relay.lines)
        self._watch()
        try:
            yield
        finally:
            seen = self.bobs.stop()
        assert self.relay.process.poll() is None, self.relay.tail()
        assert not any(SANITIZER.search(line) for line in self.relay.lines), self.relay.tail(80)
        self._check_back(before, agents)
        with contextlib.suppress(AssertionError):  # measured below
            wait_for(lambda: self.relay.rss_kib() - before[2] < rss_kib, 15)
        log = [text for text in self.relay.lines[line:]
               if '"bob"' not in text and '"mine"' not in text]
        measure = Measure(p99(self.quiet.probe), p99(seen.probe), len(seen.probe),
                          self.relay.rss_kib() - before[2], self.relay.peak_kib() - before[2],
                          len(log), sum(map(len, log)))
        self.measures.append(measure)
        assert not seen.faults, f"the bystander was hurt: {seen.faults[:3]}"
        allowed = WAKE_UPS * seen.noise() + SLACK * max(
            FACTOR * measure.quiet_p99_s, measure.quiet_p99_s + FLOOR_S)
        assert measure.attacked_p99_s <= allowed, f"{measure}, allowed {allowed:.3f} s"
        assert max(seen.probe) < SLOW_S, f"the bystander waited {max(seen.probe):.1f} s"
        assert measure.grown_kib < rss_kib, f"the relay grew by {measure.grown_kib} KiB"
        assert measure.peak_kib < peak_kib, f"the relay grew by {measure.peak_kib} KiB meanwhile"
        if self.relay.level == "info":
            assert measure.log_lines <= log_lines and measure.log_bytes <= log_bytes, (
                measure, log[:5], log[-5:])

    def _check_back(self, before, agents):
        wait_for(lambda: self.relay.descriptors() <= before[0] + 2, 15,
                 f"descriptors back at {before[0]} from {self.relay.descriptors()}")
        for agent, count in agents:
            wait_for(lambda a=agent, n=count: a.descriptors() <= n + 10, 15,
                     f"descriptors of {agent.name} back at {count}")

        def is_back():
            now = self.counters()
            return all(now[name] <= value + (2 if name == "streams" else 0)
                       for name, value in before[1].items())
        try:
            wait_for(is_back, 10)
        except AssertionError:
            raise AssertionError(f"counters {self.counters()}, before {before[1]}") from None


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


class Cases:
    """Many small cases in one test: all are tried, and all that failed are named."""

    def __init__(self):
        self.faults = []
        self.count = 0

    @contextlib.contextmanager
    def case(self, name):
        self.count += 1
        try:
            yield
        except (AssertionError, OSError, Broken, ValueError) as error:
            self.faults.append(f"{name[:60]!r}: {type(error).__name__}: {str(error)[:300]}")

    def check(self):
        assert not self.faults, f"{len(self.faults)} of {self.count} cases:\n" + \
            "\n".join(self.faults[:20])
