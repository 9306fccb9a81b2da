# SPDX-License-Identifier: MIT
"""One relay takes over from another one on the same port: nobody notices, whatever goes wrong."""
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import culvert
import pytest
import sse
from chaos import Chaos
from client import Client, fetch
from culvert import free_port, wait_for
from test_tls import Secure, key  # noqa: F401 - a fixture

RECORD = 96


def successor(world, relay, *args, **kw):
    """`culvert server --takeover` on the port of `relay`; it accepts when this returns."""
    new = world.relay("--takeover", *args, port=relay.port, ready=False, **kw)
    new.wait_log("takeover_done")
    return new


def wait_until_passed(new, token):
    """The one before may still be accepting connections of its own for a moment."""
    def look():
        assert new.fetch("/t/home/x", token).status == 200
        return new.find("passed_on")
    wait_for(look, 20, "a request that is passed on")


def offer_path(world, port):
    return world.state / "run" / f"relay-127.0.0.1:{port}.sock"


def read_events(port, token, count, faults, begun, **tls):
    try:
        with Client(port, timeout=60, **tls) as client:
            client.request("GET", "/t/home/events", token)
            head = client.head()
            client.wait_bytes()
            begun.release()
            response = client.body(head)
        sse.check(response, count)
    except Exception as error:  # noqa: BLE001 - told by the test
        faults.append(f"events: {error!r}")
        begun.release()


class Load:
    """Requests on new connections and on kept ones, until told to stop; every one must be answered.

    A kept connection may be closed between two requests (RFC 9112 §9.3.1), which a client answers
    with a new one: that is no failure, an answer that breaks off is."""

    def __init__(self, port, token, rate=120, threads=6):
        self.port, self.token = port, token
        self.pause_s = threads / rate
        self.done, self.faults = 0, []
        self.is_over = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(n % 2 == 0,), daemon=True)
                        for n in range(threads)]
        for thread in self.threads:
            thread.start()

    def _ask(self, client, is_fresh):
        """True: the connection may carry another request; None: it had been closed before."""
        try:
            client.request("GET", "/t/home/x", self.token)
            head = client.head()
        except ConnectionError:
            if is_fresh:
                raise
            return None
        if head is None and not is_fresh:
            return None
        assert head is not None, "closed without an answer"
        response = client.body(head)
        assert response.status == 200 and response.is_complete, (response.status, response.body)
        with self.lock:
            self.done += 1
        return response.get("connection", "") != "close"

    def _run(self, is_kept):
        client = None
        while not self.is_over.wait(self.pause_s):
            try:
                goes_on = self._ask(client, False) if client else None
                if goes_on is None:
                    client = Client(self.port, timeout=30)
                    goes_on = self._ask(client, True)
                if not goes_on or not is_kept:
                    client.close()
                    client = None
            except Exception as error:  # noqa: BLE001 - told by the test
                self.faults.append(repr(error))
                client = None

    def stop(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join(30)
        return self.faults


def start(world, **kw):
    relay = world.relay(**kw)
    service = world.service()
    agent = world.http(relay, service.port, **kw)
    return SimpleNamespace(world=world, relay=relay, service=service, agent=agent,
                           token=world.token())


@pytest.fixture
def scene(world):
    return start(world)


@pytest.mark.parametrize("rounds, streams", [
    (2, 10), pytest.param(10, 50, marks=pytest.mark.long)])
def test_not_one_request_fails_over_takeovers(world, rounds, streams):
    channels = {"SSH_MAX_CHANNELS": 200}  # streams and requests side by side
    scene = start(world, env=channels)
    count = sse.serve(scene.service, 4 if rounds < 5 else 20)
    faults, begun = [], threading.Semaphore(0)
    load = Load(scene.relay.port, scene.token, rate=200 if rounds > 5 else 120)
    readers = [threading.Thread(target=read_events, daemon=True,
                                args=(scene.relay.port, scene.token, count, faults, begun))
               for _ in range(streams)]
    for reader in readers:
        reader.start()
    for _ in readers:
        assert begun.acquire(timeout=30)
    relays = [scene.relay]
    for _ in range(rounds):
        before = load.done
        relays.append(successor(world, scene.relay, env=channels))
        wait_for(lambda seen=before: load.done > seen + 40, 60, "requests after the takeover")
    for reader in readers:
        reader.join(90)
    assert not load.stop(), load.faults[:5]
    assert not faults, faults[:5]
    for old in relays[:-1]:
        assert old.wait(60) == 0
        assert not old.find("drain_end", wasCutShort=True)
    assert load.done >= 40 * rounds
    passed = sum(len(relay.find("passed_on")) for relay in relays)
    print(f"{load.done} requests and {streams} streams over {rounds} takeovers, none failed; "
          f"{passed} were passed to the relay before")


def test_the_agent_has_moved_before_the_old_relay_closes(scene):
    new = successor(scene.world, scene.relay)
    assert scene.relay.wait() == 0
    scene.agent.wait_log("relay_stops")
    moved = scene.relay.find("link_control", code="moved")
    ended = scene.relay.find("drain_end")
    assert moved and moved[0]["_at"] <= ended[0]["_at"]
    new.wait_log("tunnel_published")
    new.wait_log("predecessor_gone")
    assert new.fetch("/t/home/x", scene.token).status == 200


def start_behind_chaos(world, **kw):
    relay = world.relay(**kw)
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    service = world.service()
    agent = world.http(relay, service.port, url=chaos.url)
    return SimpleNamespace(world=world, relay=relay, chaos=chaos, service=service, agent=agent,
                           token=world.token())


def test_a_cut_in_the_drain_is_resumed_into_the_old_relay(world):
    scene = start_behind_chaos(world)
    count = sse.serve(scene.service, 6)
    faults, begun = [], threading.Semaphore(0)
    reader = threading.Thread(target=read_events, daemon=True,
                              args=(scene.relay.port, scene.token, count, faults, begun))
    reader.start()
    assert begun.acquire(timeout=30)
    new = successor(world, scene.relay)
    new.wait_log("tunnel_published")
    scene.chaos.cut()
    scene.relay.wait_log("link_resumed")
    assert new.fetch("/t/home/x", scene.token).status == 200
    reader.join(60)
    assert not faults, faults
    assert scene.relay.wait() == 0
    scene.agent.stop()  # ahead of what carries it


def test_a_request_for_a_tunnel_that_has_not_moved_is_passed_on(world):
    """The agent cannot reach the new relay, whose consumers are served all the same, body and all;
    through two relays as well."""
    scene = start_behind_chaos(world)
    block = os.urandom(1 << 20)

    def echo(conn, request):
        time.sleep(2)
        conn.read_body(request)
        conn.reply(body=request.body)
        return True
    scene.service.on("/echo", echo)
    count = sse.serve(scene.service, 12)
    faults, begun = [], threading.Semaphore(0)
    reader = threading.Thread(target=read_events, daemon=True,
                              args=(scene.relay.port, scene.token, count, faults, begun))
    reader.start()
    assert begun.acquire(timeout=30)
    scene.chaos.is_refusing = True
    try:
        new = successor(world, scene.relay)
        wait_until_passed(new, scene.token)
        answer = new.fetch("/t/home/echo", scene.token, "POST", body=block)
        assert answer.status == 200 and answer.body == block
        assert not new.find("tunnel_published")
        assert new.fetch("/t/elsewhere/", scene.token).status == 404
    finally:
        scene.chaos.is_refusing = False
    new.wait_log("tunnel_published", timeout=30)
    reader.join(60)
    assert not faults, faults
    assert scene.relay.wait() == 0


def test_it_moves_to_more_workers_and_to_fewer(scene):
    load = Load(scene.relay.port, scene.token, rate=60, threads=4)
    for workers in (5, 1, 3):
        before = load.done
        successor(scene.world, scene.relay, workers=workers)
        wait_for(lambda seen=before: load.done > seen + 20, 60, "requests after the takeover")
    assert not load.stop(), load.faults[:5]


def test_tls_connections_are_passed_on_and_links_resume_through_them(world, authority, key):
    """The keys of a TLS connection cannot leave their process: its bytes go through it."""
    secure = Secure(world, authority, key)
    relay = secure.relay
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    agent = secure.agent(url=f"wss://localhost:{chaos.port}")
    tls = {"tls": relay.tls, "server_name": relay.server_name}
    count = sse.serve(secure.service, 6)
    faults, begun = [], threading.Semaphore(0)
    reader = threading.Thread(target=read_events, daemon=True, kwargs=tls,
                              args=(relay.port, secure.token, count, faults, begun))
    reader.start()
    assert begun.acquire(timeout=30)
    chaos.is_refusing = True
    new = successor(world, relay, "-c", world.folder / f"relay-{relay.port}.yaml", dev=False, **tls)
    wait_until_passed(new, secure.token)
    assert secure.service.requests[-1].get("X-Forwarded-Proto") == "https"
    chaos.is_refusing = False
    new.wait_log("tunnel_published", timeout=30)
    chaos.cut()
    relay.wait_log("link_resumed")
    reader.join(60)
    assert not faults, faults
    assert relay.wait() == 0
    agent.wait_log("link_resumed")
    agent.stop()


# ---- what goes wrong -----------------------------------------------------------------------------

def receive(sock):
    """(text, descriptors) of the next record; None at the end."""
    data, found, _, _ = socket.recv_fds(sock, RECORD, 4)
    return (data.rstrip(b"\0").decode(), found) if data else None


def connect_offer(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    here = os.open(path.parent, os.O_PATH)  # the path may be longer than sun_path
    try:
        sock.connect(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)
    return sock


def all_sockets(sock):
    found = []
    while (record := receive(sock))[0] != "all":
        assert record[0] == "socket" and len(record[1]) == 1
        found += record[1]
    return found


def test_a_successor_that_dies_before_it_is_ready_changes_nothing(scene):
    load = Load(scene.relay.port, scene.token, rate=60, threads=4)
    path = offer_path(scene.world, scene.relay.port)
    for n in range(3):
        with connect_offer(path) as sock:
            found = all_sockets(sock)
            assert len(found) == scene.world.workers
            for fd in found:
                os.close(fd)
        wait_for(lambda want=n + 1: len(scene.relay.find("successor_gone")) == want, 20,
                 "the loss of the successor")
    assert not load.stop(), load.faults[:5]
    assert not scene.relay.find("drain_begin")
    successor(scene.world, scene.relay)
    assert scene.relay.wait() == 0


def test_a_successor_with_a_broken_configuration_changes_nothing(scene):
    load = Load(scene.relay.port, scene.token, rate=60, threads=4)
    new = scene.world.relay("--takeover", port=scene.relay.port, ready=False,
                            env={"CULVERT_METRICS_LISTEN": f"127.0.0.1:{scene.service.port}"})
    new.expect_error("start_failed")
    assert new.wait() == 1
    new.stopped = True
    scene.relay.wait_log("successor_gone")
    time.sleep(0.2)
    assert not load.stop(), load.faults[:5]
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200


def test_only_one_takes_over_at_a_time(scene):
    path = offer_path(scene.world, scene.relay.port)
    with connect_offer(path) as first:
        for fd in all_sockets(first):
            os.close(fd)
        with connect_offer(path) as second:
            assert receive(second) is None
        new = scene.world.relay("--takeover", port=scene.relay.port, ready=False)
        new.expect_error("the running relay refuses")
        assert new.wait() == 1
        new.stopped = True
    scene.relay.wait_log("successor_gone")
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200


def record(text):
    return text.encode().ljust(RECORD, b"\0")


NOISE = [b"x", b"GET / HTTP/1.1\r\n\r\n", random.Random(5).randbytes(RECORD), bytes(4 * RECORD),
         b"A" * 100000, record("pass"), record("pass "), record("returned"),
         record("returned 99999999999999999999"), record("returned -1"),
         record("socket") + record("all"), record("done")]


def test_garbage_on_the_socket_is_harmless(scene):
    path = offer_path(scene.world, scene.relay.port)
    for n, noise in enumerate(NOISE):
        with connect_offer(path) as sock:
            for fd in all_sockets(sock):
                os.close(fd)
            with contextlib.suppress(OSError):
                sock.sendall(noise)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
                while receive(sock):
                    pass
        wait_for(lambda want=n + 1: len(scene.relay.find("successor_gone")) == want, 20,
                 f"the loss of who said {noise[:20]!r}")
        assert scene.relay.fetch("/t/home/x", scene.token).status == 200
    assert not scene.relay.find("drain_begin")


def test_strange_descriptors_are_harmless(scene):
    path = offer_path(scene.world, scene.relay.port)
    request = (f"GET /t/home/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {scene.token}\r\n"
               f"\r\n").encode()
    scene.relay.fetch("/t/home/x", scene.token)
    before = scene.relay.descriptors()
    for text in ("pass plain 127.0.0.1:1", "pass tls nonsense", "pass plain ", "pass", "what"):
        for count in (-1, 1, 5):
            with connect_offer(path) as sock, open("/dev/null", "rb") as null:
                for fd in all_sockets(sock):
                    os.close(fd)
                ours, theirs = socket.socketpair()
                fds = [null.fileno()] if count < 0 else [theirs.fileno()] * count
                socket.send_fds(sock, [record(text)], fds)
                theirs.close()
                if count == 1 and text.startswith("pass ") and len(text) > 5:
                    ours.sendall(request)
                    ours.settimeout(20)
                    assert ours.recv(1) == b"+"
                ours.close()
            assert scene.relay.fetch("/t/home/x", scene.token).status == 200
            wait_for(lambda: scene.relay.descriptors() <= before, 20, "all descriptors closed")
    assert not scene.relay.find("drain_begin")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(scene):
    path = offer_path(scene.world, scene.relay.port)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    program = ("import os, socket, sys\n"
               "here = os.open(sys.argv[1], os.O_PATH)\n"
               "os.setgid(65534); os.setuid(65534)\n"
               "s = socket.socket(socket.AF_UNIX); s.settimeout(20)\n"
               "s.connect(f'/proc/self/fd/{here}/{sys.argv[2]}')\n"
               "print(len(s.recv(1000)))\n")
    path.chmod(0o666)
    path.parent.chmod(0o755)
    try:
        done = subprocess.run([sys.executable, "-c", program, path.parent, path.name],
                              capture_output=True, text=True, timeout=30)
    finally:
        path.parent.chmod(0o700)
    assert done.stdout.strip() == "0", done.stderr
    assert not scene.relay.find("takeover_asked")


def test_with_nobody_to_take_over_from_it_just_starts(world):
    relay = world.relay("--takeover")
    assert relay.find("takeover_alone")
    relay.kill()  # leaves the name of its socket behind
    again = world.relay("--takeover", port=relay.port)
    assert again.find("takeover_alone")
    assert offer_path(world, relay.port).exists()
    again.stop()
    assert not list((world.state / "run").iterdir())


def test_without_the_flag_a_port_in_use_stays_in_use(scene):
    new = scene.world.relay(port=scene.relay.port, ready=False)
    new.expect_error("start_failed")
    assert new.wait() == 1
    new.stopped = True
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200


# ---- the service manager -------------------------------------------------------------------------

LAUNCHER = """#!{python}
import os, socket, sys
def listen(text):
    host, _, port = text.rpartition(":")
    return socket.create_server((host, int(port)), backlog=128)
sockets = [listen(text) for text in os.environ.pop("TEST_SOCKETS").split()]
for n, sock in enumerate(sockets):
    os.dup2(sock.fileno(), 100 + n, inheritable=False)
for n in range(len(sockets)):
    os.dup2(100 + n, 3 + n, inheritable=True)
os.environ["LISTEN_FDS"] = str(len(sockets))
os.environ["LISTEN_PID"] = os.environ.pop("TEST_PID", str(os.getpid()))
os.execv("{binary}", ["{binary}"] + sys.argv[1:])
"""


@pytest.fixture
def activated(world, monkeypatch):
    """Starts a relay with sockets that were opened for it, as systemd does."""
    launcher = world.write("launcher", LAUNCHER.format(python=sys.executable, binary=culvert.BIN))
    launcher.chmod(0o755)

    def start(*args, sockets, env=None, **kw):
        with monkeypatch.context() as patch:
            patch.setattr(culvert, "BIN", launcher)
            return world.relay(*args, env={"TEST_SOCKETS": " ".join(sockets), **(env or {})}, **kw)
    return start


def test_sockets_of_the_service_manager_are_used(world, activated):
    port, metrics = free_port(), free_port()
    relay = activated("--metrics-listen", f"127.0.0.1:{metrics}", port=port,
                      sockets=[f"127.0.0.1:{metrics}", f"127.0.0.1:{port}"])
    service = world.service()
    world.http(relay, service.port)
    assert relay.fetch("/t/home/x", world.token()).status == 200
    assert fetch(metrics, "/livez").status == 200
    assert fetch(metrics, "/t/home/x", world.token()).status == 404
    load = Load(port, world.token(), rate=60, threads=4)
    successor(world, relay, "--metrics-listen", f"127.0.0.1:{metrics}")
    assert relay.wait() == 0
    assert fetch(metrics, "/livez").status == 200
    assert not load.stop(), load.faults[:5]


def test_a_socket_for_no_address_is_closed_and_told(world, activated):
    port, other = free_port(), free_port()
    relay = activated(port=port, sockets=[f"127.0.0.1:{port}", f"127.0.0.1:{other}"])
    relay.wait_log("socket_unused")
    assert relay.fetch("/livez").status == 200
    with pytest.raises(ConnectionRefusedError):
        Client(other)


def test_sockets_of_which_none_fits_are_an_error(activated):
    relay = activated(sockets=[f"127.0.0.1:{free_port()}"], ready=False)
    relay.expect_error("none of the 1 sockets given to this process")
    assert relay.wait() == 1
    relay.stopped = True


def test_sockets_for_another_process_are_left_alone(activated):
    relay = activated(sockets=[f"127.0.0.1:{free_port()}"], env={"TEST_PID": "1"})
    assert not relay.find("socket_unused")


def test_the_service_manager_is_told(world):
    path = world.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        here = os.open(world.folder, os.O_PATH)
        manager.bind(f"/proc/self/fd/{here}/notify")
        manager.settimeout(30)
        if len(str(path)) > 100:
            pytest.skip("the folder's path is too long for a socket")
        env = {"NOTIFY_SOCKET": path}
        relay = world.relay(env=env)
        assert manager.recv(4096) == b"READY=1\nMAINPID=%d" % relay.pid
        relay.signal(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096) == b"READY=1\nMAINPID=%d" % relay.pid
        new = successor(world, relay, env=env)
        assert manager.recv(4096) == b"READY=1\nMAINPID=%d" % new.pid
        assert relay.wait() == 0
        new.stop()
        assert manager.recv(4096) == b"STOPPING=1"
        os.close(here)
