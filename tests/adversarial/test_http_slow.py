# SPDX-License-Identifier: MIT
"""Row 15: a thousand heads, bodies and readers that take for ever. Each is closed by a deadline,
whether it stands still or moves just enough to look alive."""
import contextlib
import resource
import selectors
import time

import pytest
from attack import IS_SANITIZED, SLACK
from culvert import wait_for

COUNT = 1000
LIMIT_S = 2
# From the last of them having begun; the machine may be busy.
GRACE_S = 4 * SLACK
SLOW_TIMES = 10
TRICKLE_S = 0.3
PEAK_KIB = (600 if IS_SANITIZED else 64) * 1024


@pytest.fixture(scope="module", autouse=True)
def descriptors():
    """Both sides of a thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


@pytest.fixture(scope="module")
def target(make_target):
    target = make_target(env={
        "CULVERT_LIMITS_HEADER_TIMEOUT": f"{LIMIT_S}s",
        "CULVERT_LIMITS_BODY_IDLE_TIMEOUT": f"{LIMIT_S}s",
        "CULVERT_LIMITS_KEEPALIVE_TIMEOUT": f"{LIMIT_S}s"})
    return target


@pytest.fixture(scope="module")
def quick(make_target):
    """Ten times a second is what a slow one has (docs/configuration.md)."""
    target = make_target(env={"CULVERT_LIMITS_BODY_IDLE_TIMEOUT": "1s",
                              "CULVERT_LIMITS_KEEPALIVE_TIMEOUT": f"{LIMIT_S}s"})
    target.service.on("/large", large)
    return target


def large(conn, request):
    with contextlib.suppress(Exception):
        conn.reply(body=b"x" * 3_000_000)
    return True


class Crowd:
    """Many connections that are moved on together until each is closed by the other side."""

    def __init__(self, target, first, receive_buffer=None, count=COUNT):
        self.clients = {}
        self.seen = {}  # the first bytes that each got
        for number in range(count):
            client = target.client(receive_buffer=receive_buffer)
            client.send(first)
            client.sock.setblocking(False)
            self.clients[number] = client

    def _read(self, number, most):
        try:
            data = self.clients[number].sock.recv(most)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.seen[number] = (self.seen.get(number, b"") + data)[:100]
        else:
            self.clients.pop(number).close()

    def read_all(self, most):
        for number in list(self.clients):
            self._read(number, most)

    def wait_closed(self, timeout, drip=None):
        """Sends what drip() says on each, every TRICKLE_S."""
        end = time.monotonic() + timeout
        while self.clients:
            assert time.monotonic() < end, f"{len(self.clients)} are still open"
            started = time.monotonic()
            with selectors.DefaultSelector() as selector:
                for number, client in self.clients.items():
                    selector.register(client.sock, selectors.EVENT_READ, number)
                for key, _ in selector.select(TRICKLE_S):
                    self._read(key.data, 65536)
            data = drip() if drip else b""
            for client in self.clients.values() if data else ():
                with contextlib.suppress(OSError):
                    client.sock.send(data)
            time.sleep(max(0, TRICKLE_S - (time.monotonic() - started)))

    def statuses(self):
        return {data.split(b" ")[1] if data.startswith(b"HTTP/1.1 ") else data
                for data in self.seen.values()}


@pytest.mark.parametrize("is_dripping", [False, True], ids=["still", "dripping"])
@pytest.mark.parametrize("first, statuses", [
    (b"", {b"408"}), (b"GET /t/home/x HTTP/1.1\r\nHost: h\r\nX: y", {b"408"}),
    (b"\r\n", {b"408", b"400"})], ids=["nothing", "fields", "empty line"])
def test_row_15_slow_heads(target, first, statuses, is_dripping):
    if is_dripping and len(first) < 4:
        first += b"X" * (not first.endswith(b"\n"))
    with target.attack(peak_kib=PEAK_KIB):
        crowd = Crowd(target, first)
        crowd.wait_closed(LIMIT_S + GRACE_S, (lambda: b"X") if is_dripping else None)
        assert crowd.statuses() <= statuses, crowd.statuses()


@pytest.mark.parametrize("framing, drip", [
    ("Content-Length: 1000000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")],
    ids=["length", "chunked"])
def test_row_15_slow_bodies(target, framing, drip):
    """All but those that find a stream or a place in the queue are refused at once."""
    with target.attack(peak_kib=PEAK_KIB):
        crowd = Crowd(target, body(target, framing) + drip)
        # Those that wait for a stream have their time once they get one, or none at all.
        crowd.wait_closed(3 * LIMIT_S + GRACE_S)
        assert crowd.statuses() <= {b"408", b"429", b"503", b"504"}, crowd.statuses()
        assert b"408" in crowd.statuses()
        wait_for(lambda: all(c.closed_at for c in target.service.connections
                             if b"POST /x" in c.raw), 5, "abort of the streams")


def body(target, framing):
    return f"POST /t/home/x HTTP/1.1\r\nHost: h\r\n{target.auth()}{framing}\r\n\r\n".encode()


def test_row_15_bodies_that_drip(quick):
    """A byte now and then is no sign of life for ever; a kilobyte now and then is."""
    with quick.attack(peak_kib=PEAK_KIB):
        alive = quick.client()
        alive.send(body(quick, "Content-Length: 100000"))
        started = time.monotonic()
        crowd = Crowd(quick, body(quick, "Content-Length: 1000000") + b"x", count=200)

        def drip():
            alive.send(b"y" * 200)
            return b"x"
        crowd.wait_closed(SLOW_TIMES * 1 + LIMIT_S + GRACE_S, drip)
        assert time.monotonic() - started > 4, "slow is not idle"
        assert b"408" in crowd.statuses()
        alive.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            alive.sock.recv(1)
        alive.close()


def wait_let_go(target, timeout, crowd, pace=0):
    """What the kernels hold is theirs: closed is what the relay has let go of."""
    end = time.monotonic() + timeout
    while target.counters()["connections"] > 3:
        assert time.monotonic() < end, f"{target.counters()} still"
        if pace:
            crowd.read_all(pace)
        time.sleep(TRICKLE_S)
    for client in crowd.clients.values():
        client.close()


def test_row_15_readers_that_read_nothing(quick):
    first = f"GET /t/home/large HTTP/1.1\r\nHost: h\r\n{quick.auth()}\r\n".encode()
    with quick.attack(peak_kib=2 * PEAK_KIB):
        crowd = Crowd(quick, first, receive_buffer=4096)
        assert quick.counters()["connections"] > COUNT / 2
        wait_let_go(quick, 3 * SLOW_TIMES + GRACE_S, crowd)


def test_row_15_readers_that_read_hardly_anything(quick):
    """As many as there are streams, each a kilobyte a second of an answer that never ends."""
    def endless(conn, request):
        with contextlib.suppress(Exception):
            conn.start_chunked()
            while True:
                conn.chunk(b"x" * 65536)
        return False
    quick.service.on("/endless", endless)
    first = f"GET /t/home/endless HTTP/1.1\r\nHost: h\r\n{quick.auth()}\r\n".encode()
    with quick.attack(peak_kib=PEAK_KIB):
        crowd = Crowd(quick, first, receive_buffer=2048, count=10)
        wait_let_go(quick, SLOW_TIMES + LIMIT_S + GRACE_S, crowd, pace=450)
