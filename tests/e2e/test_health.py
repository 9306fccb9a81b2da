# SPDX-License-Identifier: MIT
"""Liveness and readiness, as balancers and orchestrators ask for them."""
import ctypes
import os
import signal
import time

import pytest
from client import Client
from culvert import free_port, wait_for


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_no_token_is_needed(shared_home, path):
    response = shared_home.relay.fetch(path)
    assert response.status == 200
    if path == "/health":
        assert response.get("Content-Type").startswith("application/json")
        assert response.json()["status"] in ("ok", "healthy", "pass")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_http_1_0_without_host_is_answered(shared_home, path):
    with shared_home.client() as client:
        client.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert client.response().status == 200
        assert client.is_closed()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_head_and_other_methods(shared_home, path):
    response = shared_home.relay.fetch(path, method="HEAD")
    assert response.status == 200 and response.body == b""
    response = shared_home.relay.fetch(path, method="DELETE")
    assert response.status == 405 and "GET" in response.get("Allow")


def test_answers_are_not_cached(shared_home):
    assert "no-store" in shared_home.relay.fetch("/readyz").get("Cache-Control")


def test_health_tells_strangers_nothing_about_users(shared_home):
    text = shared_home.relay.fetch("/health").body.decode()
    assert "alice" not in text and "home" not in text


def test_many_checks_on_one_connection(shared_home):
    with shared_home.client() as client:
        for _ in range(100):
            client.request("GET", "/livez")
            assert client.response().status == 200


def test_a_listener_of_its_own(world):
    port = free_port()
    world.relay("--metrics-listen", f"127.0.0.1:{port}")

    def answers():
        try:
            with Client(port) as client:
                client.request("GET", "/livez")
                return client.response().status == 200
        except OSError:
            return False
    wait_for(answers, what="answer of the second listener")
    with Client(port) as client:
        client.request("GET", "/t/home/x", world.token())
        assert client.response().status == 404, "no tunnels there"


def counts(diagnostics):
    return {name: diagnostics[name]
            for name in ("connections", "requests", "links", "streams", "tunnels")}


def test_diagnostics_are_for_admins(shared_home):
    path = "/api/tunnel/diagnostics"
    assert shared_home.relay.fetch(path).status == 401
    assert shared_home.relay.fetch(path, shared_home.token).status == 403
    admin = shared_home.world.token("root", "--admin")
    assert shared_home.relay.fetch(path, admin, method="DELETE").status == 405
    answer = shared_home.relay.fetch(path, admin)
    assert answer.get("Content-Type") == "application/json"
    assert "no-store" in answer.get("Cache-Control")
    assert counts(answer.json()) == {"connections": 1, "requests": 0, "links": 1, "streams": 0,
                                     "tunnels": 1}


def test_diagnostics_count_what_is_open(home):
    def held(conn, request):
        conn.start_chunked()
        conn.chunk(b"x")
        conn.wait_gone(20)
        return False
    home.service.on("/held", held)
    admin = home.world.token("root", "--admin")
    with home.client() as idle, home.client() as busy:
        busy.request("GET", "/t/home/held", home.token)
        assert busy.head().status == 200
        now = home.relay.fetch("/api/tunnel/diagnostics", admin).json()
        assert (now["requests"], now["streams"], now["links"]) == (1, 1, 1)
        assert now["connections"] == 3
        idle.request("GET", "/livez")
        assert idle.response().status == 200
    wait_for(lambda: counts(home.relay.fetch("/api/tunnel/diagnostics", admin).json()) == {
        "connections": 1, "requests": 0, "links": 1, "streams": 0, "tunnels": 1}, 10, "rest")


def test_diagnostics_tell_how_the_relay_is(home):
    admin = home.world.token("root", "--admin")
    assert home.relay.fetch("/t/none/", home.token).status == 404
    said = home.relay.fetch("/api/tunnel/diagnostics", admin).json()
    assert said["version"] and said["revision"] and said["pid"] == home.relay.pid
    assert set(said["libraries"]) == {"openssl", "libuv", "libcurl", "jansson"}
    assert 0 <= said["uptime_s"] < 600 and not said["is_draining"] and not said["truncated"]
    assert [w["index"] for w in said["workers"]] == list(range(int(home.world.workers)))
    assert sum(w["links"] for w in said["workers"]) == 1
    assert all(0 <= w["lag_us"] < 20e6 for w in said["workers"])
    assert said["memory"]["resident_bytes"] > 1e6 and said["memory"]["replay_bytes"] >= 0
    link, = said["link_list"]
    assert link["owner"] == "alice" and link["state"] == "up" and len(link["id"]) == 32
    assert link["age_ms"] >= 0 and link["queued"] == 0
    assert said["top_users"] == [{"user": "alice", "links": 1, "requests": 0, "queued": 0}]
    assert said["limits"]["rejected_by_user"] == 0
    assert said["breakers"]["open"] == 0
    error, = said["last_errors"]
    assert error["code"] == "TUNNEL_011" and error["request_id"] and error["category"] == "server"


# -- a worker that does not turn -------------------------------------------------------------------

class Held:
    """One thread of a process is stopped, as a loop that does not turn would be."""

    SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17

    def __init__(self, thread_id):
        self.thread_id = thread_id
        self.ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self.ptrace.argtypes = [ctypes.c_long] * 4
        self.ptrace.restype = ctypes.c_long

    def call(self, request):
        if self.ptrace(request, self.thread_id, 0, 0) != 0:
            pytest.skip(f"ptrace is not allowed here: {os.strerror(ctypes.get_errno())}")

    def __enter__(self):
        self.call(self.SEIZE)
        self.call(self.INTERRUPT)
        os.waitpid(self.thread_id, 0x40000000)  # __WALL
        return self

    def __exit__(self, *unused):
        self.ptrace(self.DETACH, self.thread_id, 0, 0)


def ask(relay, path):
    """The answer, or None where the connection went to the worker that is held."""
    try:
        return relay.fetch(path, timeout=1)
    except (OSError, AssertionError):
        return None


def threads_of_workers(relay, workers):
    def look():
        found = []
        for thread in os.listdir(f"/proc/{relay.pid}/task"):
            with open(f"/proc/{relay.pid}/task/{thread}/comm") as file:
                if file.read().startswith("worker-"):
                    found.append(int(thread))
        return sorted(found) if len(found) == workers else None
    return wait_for(look, 10, "threads of workers")


def test_liveness_is_that_every_loop_turns(world):
    relay = world.relay(config="health:\n  stall: 2s\n", workers=3)
    assert relay.fetch("/livez").status == 200
    with Held(threads_of_workers(relay, 3)[1]):
        def is_told():
            answer = ask(relay, "/livez")
            return answer is not None and answer.status == 503
        wait_for(is_told, 30, "a liveness page that tells")
        health = wait_for(lambda: ask(relay, "/health"), 30, "a page")
        assert health.status == 503 and health.json()["status"] == "stalled"
        assert health.json()["parts"]["workers"] == {"status": "stalled", "count": 3, "stalled": 1}
        ready = wait_for(lambda: ask(relay, "/readyz"), 30, "a page")
        assert ready.status == 200, "it still accepts"
    wait_for(lambda: (a := ask(relay, "/livez")) and a.status == 200, 30, "a relay that is well")


def test_a_process_that_was_stopped_is_alive_when_it_goes_on(world):
    relay = world.relay(config="health:\n  stall: 2s\n", workers=3)
    relay.signal(signal.SIGSTOP)
    time.sleep(3.2)
    relay.signal(signal.SIGCONT)
    for _ in range(20):
        assert relay.fetch("/livez").status == 200


def test_the_parts_of_health(shared_home):
    health = shared_home.relay.fetch("/health").json()
    parts = health["parts"]
    assert parts["workers"]["status"] == parts["accepting"]["status"] == "ok"
    assert parts["history"]["status"] == "ok"
    assert parts["keys"]["status"] == health["keys"]
