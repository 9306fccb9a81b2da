# SPDX-License-Identifier: MIT
"""Much data and many streams: whole, fair, and in flat memory."""
import hashlib
import os
import threading
import time

import pytest
from client import Client
from culvert import World, wait_for

MIB = 1 << 20
GIB = 1 << 30
BLOCK = hashlib.sha512(b"culvert").digest() * 4096  # 256 KiB


def send_down(size):
    def route(conn, request):
        conn.read_body(request)
        conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(size // len(BLOCK)):
            conn.send(BLOCK)
    return route


def hash_up(conn, request):
    total, digest = conn.read_body(request, keep=False)
    conn.reply(body=f"{total} {digest}".encode())


def digest_of(size):
    digest = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        digest.update(BLOCK)
    return digest.hexdigest()


SIZES = [pytest.param(256 * MIB, id="256M"), pytest.param(GIB, id="1G", marks=pytest.mark.long)]


@pytest.mark.parametrize("size", SIZES)
def test_down_with_equal_hashes(scene, size):
    home = scene(routes={"/down": send_down(size)})
    digest = hashlib.sha256()
    with home.client(timeout=120) as client:
        client.request("GET", "/t/home/down", home.token)
        response = client.response(keep=False, on_piece=digest.update)
    assert response.is_complete and digest.hexdigest() == digest_of(size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_up_with_equal_hashes(scene, size, chunked):
    home = scene(routes={"/up": hash_up})
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    with home.client(timeout=120) as client:
        client.send(f"POST /t/home/up HTTP/1.1\r\nHost: h\r\n{framing}\r\n"
                    f"Authorization: Bearer {home.token}\r\n\r\n".encode())
        for _ in range(size // len(BLOCK)):
            client.send(b"%x\r\n" % len(BLOCK) + BLOCK + b"\r\n" if chunked else BLOCK)
        if chunked:
            client.send(b"0\r\n\r\n")
        assert client.response().body.decode() == f"{size} {digest_of(size)}"


def test_both_ways_at_once(scene):
    size = 64 * MIB

    def mirror(conn, request):
        """Sends while it reads."""
        down = threading.Thread(target=send_down(size), args=(conn, _NoBody()))
        down.start()
        mirror.seen = conn.read_body(request, keep=False)
        down.join()
    home = scene(routes={"/both": mirror})
    with home.client(timeout=120) as client:
        client.send(f"POST /t/home/both HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n"
                    f"Authorization: Bearer {home.token}\r\n\r\n".encode())

        def upload():
            for _ in range(size // len(BLOCK)):
                client.send(BLOCK)
        thread = threading.Thread(target=upload)
        thread.start()
        digest = hashlib.sha256()
        response = client.response(keep=False, on_piece=digest.update)
        thread.join()
    assert response.is_complete and digest.hexdigest() == digest_of(size)
    # The answer may be whole before the service has read the last of the request.
    wait_for(lambda: hasattr(mirror, "seen"), 20, "the request at the service")
    assert mirror.seen == (size, digest_of(size))


class _NoBody:
    """A request without a body, for a route that is called a second time on one connection."""

    pieces = ()

    @staticmethod
    def get(name, default=None):
        return default


@pytest.mark.parametrize("workers", [1, 4])
def test_200_streams_over_several_links(world, workers):
    """Three links of one user, 200 requests at once, each with content of its own."""
    service = world.service()
    limit = {"SSH_MAX_CHANNELS": "100"}
    relay = world.relay(env=limit)
    names = ["one", "two", "three"]
    for name in names:
        world.http(relay, service.port, name=name, env=limit)
    token = world.token()
    failures = []

    def request(number):
        body = hashlib.sha256(b"%d" % number).digest() * (500 + number)
        try:
            response = relay.fetch(f"/t/{names[number % 3]}/{number}", token, "POST", body=body,
                                   timeout=60)
            if response.body != body:
                failures.append((number, response.status, len(response.body)))
        except Exception as error:  # noqa: BLE001
            failures.append((number, repr(error)))

    threads = [threading.Thread(target=request, args=(n,)) for n in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_more_requests_than_channels_queue_and_all_are_answered(home):
    """The default limit is 10 channels; 60 at once wait their turn."""
    failures = []

    def request(number):
        try:
            body = b"%d" % number
            if home.fetch("/x", "POST", body=body, timeout=60).body != body:
                failures.append(number)
        except Exception as error:  # noqa: BLE001
            failures.append((number, repr(error)))
    threads = [threading.Thread(target=request, args=(n,)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def is_sanitized():
    return "san" in os.environ.get("CULVERT_BUILD", "")


class Neighbour:
    """Asks again and again over the same link, and keeps the times."""

    def __init__(self, home):
        self.home = home
        self.times = []
        self.failures = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        with self.home.client() as client:
            while not self.stop.is_set():
                started = time.monotonic()
                client.request("POST", "/t/home/x", self.home.token, body=b"neighbour")
                response = client.response()
                if response is None or response.body != b"neighbour":
                    self.failures.append(response)
                    return
                self.times.append(time.monotonic() - started)
                time.sleep(0.01)

    def end(self):
        self.stop.set()
        self.thread.join()
        assert not self.failures and len(self.times) > 20
        return sorted(self.times)


@pytest.mark.timing
@pytest.mark.parametrize("workers", [1, 4])
def test_a_slow_reader_holds_the_service_back_in_flat_memory(scene, workers):
    """1 GiB waits at the service; relay and agent stay within 10 MiB; a neighbour is unharmed."""
    home = scene(routes={"/big": send_down(GIB)})
    for _ in range(20):
        home.fetch("/warm", "POST", body=b"x" * 100_000)
    before = home.relay.rss_kib(), home.agent.rss_kib()
    neighbour = Neighbour(home)
    with home.client(receive_buffer=65536) as slow:
        slow.request("GET", "/t/home/big", home.token)
        assert slow.head().status == 200
        grown = [0, 0]
        sent = 0
        end = time.monotonic() + 4
        while time.monotonic() < end:
            time.sleep(0.1)
            grown = [max(grown[0], home.relay.rss_kib() - before[0]),
                     max(grown[1], home.agent.rss_kib() - before[1])]
            slow.sock.recv(1024)
        sent = home.service.sent_bytes
        assert max(grown) < 10 * 1024, f"relay and agent grew by {grown} KiB"
        assert sent < 64 * MIB, f"{sent >> 20} MiB left the service though nobody reads"
        times = neighbour.end()
    assert times[len(times) // 2] < 0.05 and times[-1] < 1.0, times[-3:]


@pytest.mark.timing
def test_a_slow_service_holds_the_consumer_back_in_flat_memory(scene):
    release = threading.Event()

    def slow(conn, request):
        release.wait(30)
        conn.sock.close()
        return False
    home = scene(routes={"/slow": slow})
    for _ in range(20):
        home.fetch("/warm", "POST", body=b"x" * 100_000)
    before = home.relay.rss_kib(), home.agent.rss_kib()
    sent = 0
    with home.client(timeout=2) as client:
        client.send(f"POST /t/home/slow HTTP/1.1\r\nHost: h\r\nContent-Length: {GIB}\r\n"
                    f"Authorization: Bearer {home.token}\r\n\r\n".encode())
        try:
            while sent < GIB:
                sent += client.sock.send(BLOCK)
        except OSError:
            pass
        grown = [home.relay.rss_kib() - before[0], home.agent.rss_kib() - before[1]]
        release.set()
    assert sent < 64 * MIB
    assert max(grown) < 10 * 1024, f"relay and agent grew by {grown} KiB"


@pytest.mark.timing
def test_bulk_and_a_neighbour_share_a_link_fairly(scene):
    size = 256 * MIB
    home = scene(routes={"/down": send_down(size)})
    neighbour = Neighbour(home)
    with home.client(timeout=120) as client:
        client.request("GET", "/t/home/down", home.token)
        assert client.response(keep=False).is_complete
    times = neighbour.end()
    assert times[len(times) // 2] < 0.25, "the median neighbour waits behind the bulk"


def test_memory_comes_back_after_many_requests(home):
    def round_of_requests():
        for number in range(200):
            home.fetch("/x", "POST", body=b"y" * 10_000)
    round_of_requests()
    before = home.relay.rss_kib(), home.agent.rss_kib()
    for _ in range(2):
        round_of_requests()
    if not is_sanitized():
        assert home.relay.rss_kib() - before[0] < 2048
        assert home.agent.rss_kib() - before[1] < 2048


@pytest.mark.long
def test_a_thousand_streams_one_after_the_other_leave_nothing(home):
    home.fetch("/x")
    before = home.relay.descriptors(), home.agent.descriptors()
    for _ in range(1000):
        with home.client() as client:
            client.request("GET", "/t/home/x", home.token, headers=[("Connection", "close")])
            assert client.response().status == 200
    wait_for(lambda: home.relay.descriptors() <= before[0] + 1 and
             home.agent.descriptors() <= before[1] + 1, 10, "descriptors at their baseline")


@pytest.mark.tsan
@pytest.mark.parametrize("workers", [4])
def test_requests_from_many_threads_on_all_workers(tmp_path, workers):
    world = World(tmp_path / "many", workers)
    try:
        service = world.service()
        relay = world.relay(env={"SSH_MAX_CHANNELS": "50"})
        for name in ("one", "two"):
            world.http(relay, service.port, name=name, env={"SSH_MAX_CHANNELS": "50"})
        failures = []

        def consumer(seed):
            for number in range(15):
                body = b"%d/%d" % (seed, number) * 300
                name = "one" if (seed + number) % 2 else "two"
                try:
                    got = relay.fetch(f"/t/{name}/x", world.tokens[("alice",)], "POST", body=body,
                                      timeout=60)
                    if got.body != body:
                        failures.append((seed, number, got.status))
                except Exception as error:  # noqa: BLE001
                    failures.append((seed, number, repr(error)))
        threads = [threading.Thread(target=consumer, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
    finally:
        world.close()
