# SPDX-License-Identifier: MIT
"""Relay, agent or service stand still, are killed, come back: what becomes of the requests."""
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from client import Client
from culvert import World, wait_for
from lab import in_parallel
from streams import Load


def make(world):
    relay = world.relay()
    service = world.service()
    return SimpleNamespace(world=world, relay=relay, service=service,
                           agent=world.http(relay, service.port), token=world.token())


@pytest.fixture
def home(world):
    return make(world)


# ---- standing still -----------------------------------------------------------------------------

def stand_still(folder, who, seconds, times):
    """Under load, transfers included: everything arrives whole in the end."""
    folder.mkdir()
    world = World(folder)
    try:
        scene = make(world)
        load = Load(scene, size=64 << 20, events=3)
        process = getattr(scene, who)
        process.signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            process.signal(signal.SIGCONT)
        woken = time.monotonic()
        asked = scene.relay.fetch("/t/home/x", scene.token, timeout=60)
        times[f"{who} {seconds} s"] = time.monotonic() - woken
        assert asked.status == 200
        load.finish()
        assert not scene.relay.find("link_down"), "the link did not survive"
        resumes = len(scene.agent.find("link_resumed"))
        if seconds < 5:
            assert resumes == 0, "a short pause is no loss"
        else:
            assert resumes >= 1, "a long pause was not seen"
    finally:
        world.close()


def test_processes_that_stand_still_for_a_while_lose_nothing(tmp_path, figure):
    times = {}
    in_parallel([(f"{who} {seconds} s", lambda who=who, seconds=seconds: stand_still(
        tmp_path / f"{who}{seconds}", who, seconds, times))
        for who in ("relay", "agent") for seconds in (3, 20)])
    figure("answer after a standstill: " + ", ".join(
        f"{name} {value:.2f} s" for name, value in sorted(times.items())))


# ---- killed -------------------------------------------------------------------------------------

class Asked:
    """A request on a thread of its own."""

    def __init__(self, home, method, target):
        self.response = None
        self.has_begun = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(home, method, target), daemon=True)
        self.thread.start()

    def _run(self, home, method, target):
        with Client(home.relay.port, timeout=60) as client:
            client.request(method, target, home.token)
            head = client.head()
            self.has_begun.set()
            client.body(head, method)
            self.response = head

    def wait(self, timeout=40):
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "a request hangs"
        return self.response


def hang_until(release):
    """Says nothing until released; then answers."""
    def route(conn, request):
        conn.read_body(request)
        if not release.is_set():
            conn.wait_gone(60)
            return False
        conn.reply(body=b"done")
        return True
    return route


def half(conn, request):
    conn.read_body(request)
    conn.start_chunked("text/event-stream")
    conn.chunk(b"data: 1\n\n")
    conn.wait_gone(60)
    return False


def test_an_agent_is_killed_and_another_takes_its_place(home, figure):
    """Waiting requests are sent, idempotent ones without a byte of answer sent again, once; all
    others end with an error at once."""
    release = threading.Event()
    home.service.on("/hang", hang_until(release)).on("/half", half)
    asked = {name: Asked(home, *name.split())
             for name in ("GET /t/home/hang", "POST /t/home/hang", "GET /t/home/half")}
    home.service.wait_requests(3)
    assert asked["GET /t/home/half"].has_begun.wait(10)
    home.agent.kill()
    home.relay.wait_log("link_detached")
    waiting = [Asked(home, method, "/t/home/waiting") for method in ("GET", "POST")]
    time.sleep(0.3)
    assert not [r for r in home.service.requests if r.path == "/waiting"]
    release.set()
    began = time.monotonic()
    home.agent = home.world.http(home.relay, home.service.port)
    assert [each.wait().status for each in waiting] == [200, 200]
    assert asked["GET /t/home/hang"].wait().status == 200
    post, cut = asked["POST /t/home/hang"].wait(), asked["GET /t/home/half"].wait()
    assert post.status in (409, 502) and post.json()["code"].startswith("TUNNEL_"), post.body
    assert not cut.is_complete and b"TUNNEL_" in cut.body, cut.body
    figure(f"an agent killed, another started: waiting requests answered after "
           f"{time.monotonic() - began:.2f} s")
    paths = sorted(f"{r.method} {r.path}" for r in home.service.requests)
    assert paths == ["GET /half", "GET /hang", "GET /hang", "GET /waiting", "POST /hang",
                     "POST /waiting"]


def test_a_relay_is_killed_and_comes_back(home, figure):
    port = home.relay.port
    names = ["home", "second", "third"]
    agents = [home.agent] + [home.world.http(home.relay, home.service.port, name=name)
                             for name in names[1:]]
    hanging = threading.Event()
    home.service.on("/hang", hang_until(hanging))
    client = Client(port)
    client.request("POST", "/t/home/hang", home.token)
    home.service.wait_requests()
    home.relay.kill()
    assert client.head() is None, "an answer from a relay that is dead"
    time.sleep(3)
    relay = home.world.relay(port=port)
    began = time.monotonic()
    for name in names:
        wait_for(lambda name=name: relay.fetch(f"/t/{name}/x", home.token).status == 200, 20,
                 f"{name} back")
    took = time.monotonic() - began
    figure(f"a relay killed, another started after 3 s: all agents back after {took:.2f} s")
    assert took < 5
    for agent in agents:
        wait_for(lambda agent=agent: len(agent.find("tunnel_published")) == 2, 10, "the log's word")
    # What the dead relay had asked of the service is given up, not left hanging.
    wait_for(lambda: all(c.closed_at for c in home.service.connections if b"/hang" in c.raw), 10,
             "the end of the request")


def test_a_service_restarts_under_load(home):
    """502 while it is away, not one failure before or after."""
    results = []
    is_over = threading.Event()

    def ask():
        while not is_over.is_set():
            began = time.monotonic()
            response = home.relay.fetch("/t/home/x", home.token, timeout=30)
            results.append((began, time.monotonic(), response))
            time.sleep(0.02)
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    home.service.wait_requests(20)
    away = time.monotonic()
    home.service.close()
    time.sleep(1)
    service = home.world.service(port=home.service.port)
    back = time.monotonic()
    service.wait_requests(20)
    is_over.set()
    for thread in threads:
        thread.join(30)
    wrong = [r for began, ended, r in results if r.status != 200]
    assert wrong and all(r.status == 502 and r.json()["code"].startswith("TUNNEL_") for r in wrong)
    assert all(r.status == 200 for began, ended, r in results if began > back or ended < away)
