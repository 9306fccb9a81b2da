# SPDX-License-Identifier: MIT
"""Rows 29, 32, 33, 35, 36: paths that are cut, a machine that has nothing left, ends and restarts
under load, and hours of churn in little. tests/faults has every call that can fail; here others are
watched meanwhile."""
import contextlib
import errno
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from attack import IS_SANITIZED, SLACK, Target, frame, reset, upgrade
from client import Broken
from culvert import AGENT_READY, raise_descriptor_limit, wait_for
from lag import without_lag

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
import faults as shim  # noqa: E402


# ---- row 29 ----

class Wire:
    """A TCP path that can be cut so that neither side hears of it; later connections get through."""

    def __init__(self, port):
        self.port = port
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.server.getsockname()[1]}"
        self.pairs = []
        self.cut_pairs = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                ours = self.server.accept()[0]
                theirs = socket.create_connection(("127.0.0.1", self.port))
                pair = (ours, theirs)
                self.pairs.append(pair)
                for source, sink in (pair, pair[::-1]):
                    threading.Thread(target=self._pump, args=(pair, source, sink),
                                     daemon=True).start()

    def _pump(self, pair, source, sink):
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and pair not in self.cut_pairs:
                sink.sendall(data)
            if pair in self.cut_pairs:
                return  # the sockets stay open, nothing moves any more
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def cut(self):
        self.cut_pairs |= set(self.pairs)

    def close(self):
        self.server.close()
        for pair in self.pairs:
            for sock in pair:
                sock.close()


def test_row_29_a_cut_path_and_the_same_agent_back(make_target):
    """A hundred streams are open when the path dies; the old socket lingers on the relay. The agent
    is back, the newer link serves, nothing is served twice or to somebody else."""
    target = make_target(home=False, env={
        "SSH_MAX_CHANNELS": "150", "WS_PING_INTERVAL": "4000", "WS_PONG_TIMEOUT": "4000",
        "MAX_CONNECTIONS_PER_USER": "10"})
    path = Wire(target.relay.port)
    release = threading.Event()
    seen = []

    def hold(conn, request):
        conn.read_body(request)
        seen.append(request.get("X-Number"))
        release.wait(60)
        conn.reply(body=request.get("X-Number").encode())
        return True

    def ping(conn, request):
        conn.read_body(request)
        seen.append(request.get("X-Number"))
        conn.reply(body=b"pong " + request.get("X-Number").encode())
        return True
    target.service.routes.update({"/hold": hold, "/ping": ping})
    target.world.http(target.relay, target.service.port, url=path.url, env={
        "CULVERT_WS_PING_INTERVAL": "1s", "CULVERT_WS_PONG_TIMEOUT": "1s",
        "SSH_MAX_CHANNELS": "150"})
    clients = []
    try:
        with target.attack(log_lines=400, log_bytes=200_000):
            for number in range(100):
                client = target.client(timeout=90)
                client.request("POST", "/t/home/hold", target.token, body=b"once",
                               headers=[("X-Number", str(number))])
                clients.append(client)
            wait_for(lambda: len(seen) == 100, 30, "a hundred streams")
            path.cut()

            def serves():
                with contextlib.suppress(AssertionError, OSError):
                    return target.fetch("/ping", headers=[("X-Number", "back")],
                                        timeout=5).status == 200
                return False
            wait_for(serves, 30, "the newer link", interval=0.2)
            # Twenty in a row: no request finds its way to the dead one.
            for number in range(20):
                response = target.fetch("/ping", headers=[("X-Number", f"new {number}")])
                assert response.status == 200 and response.body == b"pong new %d" % number
            release.set()
            for number, client in enumerate(clients):
                with contextlib.suppress(Broken):
                    response = client.response()
                    # Its own answer, or one that says that there is none.
                    assert response is None or response.status >= 500 or \
                        response.body == str(number).encode(), (number, response)
                client.close()
            wait_for(lambda: target.counters()["links"] == 2, 30, "end of the old link")
        for number in range(100):
            assert seen.count(str(number)) == 1, "what may be made once was made twice"
    finally:
        release.set()
        path.close()


# ---- rows 32 and 35 ----

@pytest.fixture(scope="module")
def weak(make_target, tmp_path_factory):
    """A target whose relay's calls fail when a test says so."""
    if shim.IS_TSAN:
        pytest.skip("the thread sanitizer wants to be the first to see these calls")
    folder = tmp_path_factory.mktemp("shim")
    page = shim.Faults(folder / "faults", shim.build_shim(folder))
    target = make_target(env={**page.env(), "LOG_LEVEL": "debug"})
    target.faults = page
    yield target
    page.clear()


@pytest.fixture
def failing(weak):
    yield weak.faults
    weak.faults.clear()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS],
                         ids=["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"])
def test_row_32_accept_fails_and_connections_that_are_there_go_on(weak, failing, error):
    """No spin, no wait for who is in already; who is not gets in afterwards."""
    outside = []

    def starve():
        failing.fail("accept", error)
        begin, used = time.monotonic(), weak.relay.cpu_seconds()
        client = weak.client(timeout=30)
        client.request("POST", "/t/home/x", weak.token, body=b"patience")
        outside.append(client)
        time.sleep(0.5)
        share = (weak.relay.cpu_seconds() - used) / (time.monotonic() - begin)
        failing.clear()
        assert share < 0.5 * SLACK, f"{share:.2f} of a CPU while nothing can be accepted"
    without_lag(weak, starve)
    for client in outside:
        with client:
            assert client.response().body == b"patience"


def test_row_32_descriptors_run_out_and_come_back(weak):
    before = resource.prlimit(weak.relay.pid, resource.RLIMIT_NOFILE)
    count = weak.relay.descriptors()
    with weak.client(timeout=30) as kept:
        kept.request("GET", "/t/home/x", weak.token)
        assert kept.response().status == 200
        resource.prlimit(weak.relay.pid, resource.RLIMIT_NOFILE, (count + 10, before[1]))
        try:
            crowd = [weak.client(timeout=30) for _ in range(60)]
            weak.relay.wait_log("accept_failed")
            for _ in range(20):
                kept.request("POST", "/t/home/x", weak.token, body=b"on")
                assert kept.response().body == b"on"
        finally:
            resource.prlimit(weak.relay.pid, resource.RLIMIT_NOFILE, before)
        for client in crowd:
            with client:
                client.request("POST", "/t/home/x", weak.token, body=b"late")
                assert client.response().body == b"late"
    wait_for(lambda: weak.relay.descriptors() <= count + 2, 15, "descriptors back")


def test_row_35_a_log_that_nobody_reads(weak, failing):
    """Every write to the pipe finds it full: served on, in flat memory, and told afterwards."""
    since = len(weak.relay.records)
    with weak.attack(rss_kib=20 * 1024 * SLACK):
        failing.fail("pipe_write", errno.EAGAIN)
        with weak.client() as client:
            for _ in range(600):
                client.request("POST", "/t/home/x", weak.token, body=b"on")
                assert client.response().body == b"on"
        failing.clear()
        weak.relay.wait_log("log_dropped", since=since)


def test_row_35_a_log_on_a_full_disk(weak, failing):
    with weak.attack():
        failing.fail("pipe_write", errno.ENOSPC)
        with weak.client() as client:
            for _ in range(300):
                client.request("POST", "/t/home/x", weak.token, body=b"on")
                assert client.response().body == b"on"
        failing.clear()


@pytest.mark.parametrize(("first", "then"), [(0, 3600), (3600, 0)], ids=["ahead", "back"])
def test_row_35_the_clock_is_stepped_an_hour(make_target, tmp_path, first, then):
    """Tokens that are valid at both times go on, and so does what is under way."""
    if shim.IS_TSAN:
        pytest.skip("the thread sanitizer wants to be the first to see these calls")
    page = shim.Faults(tmp_path / "faults", shim.build_shim(tmp_path))
    page.step_clock(first)
    target = make_target(env=page.env())
    day = target.world.token("alice", "--ttl", "24h")
    target.bob = target.world.token("bob", "--ttl", "24h")
    links = target.counters()["links"]
    with target.attack():
        target.admin = target.world.token("root", "--admin", "--ttl", "24h")
        page.step_clock(then)
        for _ in range(50):
            assert target.relay.fetch("/t/home/x", day).status == 200
        time.sleep(0.5)
    assert target.counters()["links"] == links
    assert not target.relay.find("link_down")


# ---- row 33 ----

def crowd_of_agents(target, count):
    return [target.world.http(target.relay, target.service.port, name=f"n{number}", ready=False,
                              env={"LOG_LEVEL": "info"}) for number in range(count)]


def all_published(agents, times, timeout):
    wait_for(lambda: all(len(a.find(AGENT_READY)) >= times for a in agents), timeout,
             f"publication {times} of all")


@pytest.mark.parametrize(("count", "links"), [
    (12, 300), pytest.param(200, 8000, marks=pytest.mark.long)])
def test_row_33_killed_and_restarted_under_load(world, count, links):
    """SIGKILL with links and requests on it; all agents are back within a minute, not all at the
    same moment; a storm of others that come at once hurts nobody."""
    raise_descriptor_limit(min(2 * links + 2000, 18_000))
    env = {"MAX_CONNECTIONS_PER_USER": "10000", "CULVERT_LIMITS_MAX_CONNECTIONS": "20000",
           "CULVERT_SSH_HANDSHAKE_TIMEOUT": "5s", "LOG_LEVEL": "info"}
    target = Target(world, home=False, env=env)
    agents = crowd_of_agents(target, count)
    all_published(agents, 1, 60)
    over, oddities = threading.Event(), []

    def load():
        while not over.is_set():
            try:
                response = target.relay.fetch("/t/n0/x", target.token, method="POST", body=b"load")
                if response.status == 200 and response.body != b"load":
                    oddities.append(response.body)
            except (OSError, AssertionError, Broken):
                time.sleep(0.02)
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        target.relay.kill()
        killed = time.monotonic()
        target.relay = world.relay(port=target.relay.port, env=env)
        storm = []
        for _ in range(links):
            with contextlib.suppress(OSError):
                storm.append(upgrade(target, "ssh", timeout=30))
        all_published(agents, 2, 60)
        assert time.monotonic() - killed < 60
        assert len(storm) > 0.9 * links
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not oddities
    for number in range(count):
        assert target.relay.fetch(f"/t/n{number}/x", target.token).status == 200
    for client in storm:
        client.close()
    back = sorted(agent.find(AGENT_READY)[1]["_at"] for agent in agents)
    assert back[-1] - back[0] > 0.001, "they were all back at the same moment"


def test_row_33_ended_under_load_it_drains_in_time(world):
    """SIGTERM: what is under way ends whole, what comes later is refused, exit code 0."""
    target = Target(world, env={"CULVERT_SHUTDOWN_DRAIN": "20s", "LOG_LEVEL": "info"})

    def slow(conn, request):
        conn.read_body(request)
        conn.start_chunked("text/plain")
        for _ in range(30):
            conn.chunk(b"tick\n")
            time.sleep(0.05)
        conn.end_chunks()
    target.service.routes["/slow"] = slow
    clients, heads = [], []
    for _ in range(8):
        client = target.client(timeout=30)
        client.request("GET", "/t/home/slow", target.token)
        heads.append(client.head())
        clients.append(client)
    begin = time.monotonic()
    target.relay.signal(signal.SIGTERM)
    for client, head in zip(clients, heads, strict=True):
        with client:
            assert client.body(head).is_complete and head.body == b"tick\n" * 30
    assert target.relay.wait() == 0
    assert time.monotonic() - begin < 15 * SLACK
    target.relay.stopped = True


# ---- row 36 ----

def churn(target, rng):
    """One turn of everything that comes and goes."""
    what = rng.randrange(6)
    with contextlib.suppress(OSError, Broken):
        if what == 0:
            target.fetch(method="POST", body=os.urandom(rng.randrange(20_000)))
        elif what == 1:  # a body that breaks off
            client = target.client()
            client.send(b"POST /t/home/x HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n"
                        + target.auth().encode() + b"\r\n" + b"x" * rng.randrange(60_000))
            reset(client.sock) if rng.randrange(2) else client.close()
        elif what == 2:  # an answer that nobody waits for
            client = target.client()
            client.request("POST", "/t/home/x", target.token, body=b"y" * 50_000)
            reset(client.sock)
        elif what == 3:  # a link that does not get far
            client = upgrade(target, rng.choice(("ssh", "culvert.v1")), timeout=5)
            client.send(frame(0x82, b"SSH-2.0-churn\r\n" + os.urandom(rng.randrange(300))))
            reset(client.sock) if rng.randrange(2) else client.close()
        elif what == 4:  # refusals
            target.relay.fetch("/t/home/x", "no.to.ken")
            target.relay.fetch("/t/never/x", target.token)
        else:
            with target.client() as client:
                for _ in range(rng.randrange(1, 20)):
                    client.request("GET", "/t/home/x", target.token)
                    client.response()


@pytest.mark.parametrize("seconds", [8, pytest.param(600, marks=pytest.mark.long)])
def test_row_36_churn_leaves_nothing(make_target, seconds):
    """Descriptors at their baseline, and memory that does not go on growing."""
    target = make_target(env={"MAX_CONNECTIONS_PER_USER": "500"})
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    marks = []
    with target.attack(log_lines=200_000, log_bytes=80_000_000):
        def work(number):
            rng = random.Random(seed + number)
            while time.monotonic() < end:
                churn(target, rng)
        begin = time.monotonic()
        end = begin + seconds
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        # From a third on: what the first ones needed has been taken by then.
        for part in range(5, 16):
            time.sleep(max(0, begin + seconds * part / 15 - time.monotonic()))
            marks.append(target.relay.rss_kib())
        for thread in threads:
            thread.join()
    if not IS_SANITIZED:
        early, late = min(marks[:4]), min(marks[-4:])
        assert late - early < 4 * 1024, f"memory goes on growing: {marks} KiB"
    agent = target.agent
    assert agent.rss_kib() < (400 if IS_SANITIZED else 60) * 1024
