# SPDX-License-Identifier: MIT
"""Out of descriptors, out of memory on accept, connections that are gone before they are accepted:
the process rests instead of spinning, serves those that it has, and takes the rest later."""
import contextlib
import errno
import resource
import threading
import time

import pytest
from attack import IS_SANITIZED
from client import Client
from culvert import wait_for
from scene import Scene

# A share of one CPU that a process that rests 100 ms after each failure stays far below, and one
# that spins is far above.
REST_SHARE = 0.5 if IS_SANITIZED else 0.2
LOOK_S = 2


@contextlib.contextmanager
def descriptors(process, count):
    """The process may have that many and no more meanwhile."""
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


def cpu_share(process, seconds=LOOK_S):
    used, began = process.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    return (process.cpu_seconds() - used) / (time.monotonic() - began)


def ticking(period):
    """A service that sends a line every `period` seconds until the consumer goes."""
    def route(conn, request):
        conn.read_body(request)
        conn.start_chunked("text/event-stream")
        while True:
            conn.chunk(b"data: tick\n\n")
            time.sleep(period)
    return route


class Stream:
    """A consumer of ticks; `count` grows while they come."""

    def __init__(self, home):
        self.client = home.client(timeout=60)
        self.count = 0
        self.client.request("GET", "/t/home/ticks", home.token)
        self.head = self.client.head()
        assert self.head.status == 200
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError, ValueError):
            self.client.body(self.head, on_piece=self._more)

    def _more(self, data):
        self.count += data.count(b"tick")

    def goes_on(self, timeout=10):
        now = self.count
        wait_for(lambda: self.count > now + 2, timeout, "more ticks")

    def close(self):
        self.client.close()


def ask_without_answer(home, count):
    """Connections with a request on each, which the relay cannot accept now."""
    clients = []
    for _ in range(count):
        client = home.client(timeout=30)
        client.request("POST", "/t/home/x", home.token, body=b"patience")
        clients.append(client)
    return clients


@pytest.mark.parametrize("workers", [1, 2])
def test_a_relay_without_descriptors_rests_and_recovers(world):
    home = Scene(world, routes={"/ticks": ticking(0.05)})
    stream = Stream(home)
    with home.client() as kept, descriptors(home.relay, 4):
        # That worker's connection is there already; more than it could keep is not needed for it.
        clients = ask_without_answer(home, 20)
        home.relay.wait_log(text="accept", level="warn")
        share = cpu_share(home.relay)
        assert share < REST_SHARE, f"{share:.2f} of a CPU while out of descriptors"
        stream.goes_on()
        for client in clients:
            client.sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                assert not client.fill(), "it answered on a connection that it could not accept"
            client.sock.settimeout(30)
        del kept
    for client in clients:
        with client:
            assert client.response().body == b"patience"
    stream.goes_on()
    stream.close()
    assert len(home.relay.find(text="accept", level="warn")) < 40, "one line a second is plenty"


def test_an_agent_without_descriptors_says_so_and_recovers(world):
    home = Scene(world, routes={"/ticks": ticking(0.05)})
    stream = Stream(home)
    with descriptors(home.agent, 4):
        for _ in range(3):
            response = home.fetch("/x")
            assert response.status in (502, 503), response
            assert response.get("Content-Type") == "application/problem+json"
        share = cpu_share(home.agent)
        assert share < REST_SHARE, f"{share:.2f} of a CPU while out of descriptors"
        stream.goes_on()
    wait_for(lambda: home.fetch("/x").status == 200, 15, "answer of the service")
    stream.goes_on()
    stream.close()
    assert len(home.agent.find("tunnel_published")) == 1, "the link was given up for it"


def test_an_agent_that_lost_its_relay_finds_it_once_it_has_descriptors(world):
    home = Scene(world)
    port = home.relay.port
    with descriptors(home.agent, 4):
        home.relay.stop()
        home.relay = world.relay(port=port)
        share = cpu_share(home.agent)
        assert share < REST_SHARE, f"{share:.2f} of a CPU while out of descriptors"
        home.agent.wait_log(level="warn")
    wait_for(lambda: home.fetch("/x").status == 200, 30, "tunnel that is back")


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS,
                                   errno.EPERM, errno.EPROTO],
                         ids=errno.errorcode.get)
def test_accept_that_always_fails_neither_spins_nor_hangs(world, new_faults, error):
    """EPERM and EPROTO are the connection's own; here they come for ever."""
    faults = new_faults()
    home = Scene(world, routes={"/ticks": ticking(0.05)}, relay_env=faults.env())
    stream = Stream(home)
    faults.fail("accept", error)
    clients = ask_without_answer(home, 4)
    wait_for(lambda: faults.hits("accept") > 2, 10, "failed accepts")
    share = cpu_share(home.relay, 1)
    assert share < REST_SHARE, f"{share:.2f} of a CPU"
    stream.goes_on()
    faults.clear()
    for client in clients:
        with client:
            assert client.response().body == b"patience"
    stream.close()


def test_connections_that_are_gone_before_accept_are_skipped(world, new_faults):
    faults = new_faults()
    home = Scene(world, relay_env=faults.env())
    faults.fail("accept", errno.ECONNABORTED, chance=0.5)
    whole = 0
    for _ in range(60):
        with contextlib.suppress(OSError), Client(home.relay.port, timeout=20) as client:
            client.request("POST", "/t/home/x", home.token, body=b"here")
            response = client.response()
            whole += response is not None and response.body == b"here"
    assert faults.hits("accept") > 5 and whole > 5
    faults.clear()
    assert home.fetch("/x").status == 200


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.ENOMEM], ids=errno.errorcode.get)
@pytest.mark.parametrize("side", ["relay", "agent"])
def test_a_socket_that_cannot_be_polled_is_shed(world, new_faults, side, error):
    """/proc/sys/fs/epoll/max_user_watches, or the kernel's memory, is used up."""
    faults = new_faults()
    home = Scene(world, routes={"/ticks": ticking(0.05)}, **{f"{side}_env": faults.env()})
    stream = Stream(home)
    faults.fail("epoll_ctl", error)
    for _ in range(5):
        with contextlib.suppress(OSError, AssertionError):
            assert home.fetch("/x", timeout=10).status in (502, 503)
    assert faults.hits("epoll_ctl")
    stream.goes_on()
    faults.clear()
    wait_for(lambda: home.fetch("/x").status == 200, 15, "answer")
    stream.goes_on()
    stream.close()
