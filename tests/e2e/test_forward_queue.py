# SPDX-License-Identifier: MIT
"""`culvert forward` to an HTTP tunnel: requests wait while the link is down or full, go out by
priority and age, are refused at once when too many wait, and are sent twice only when that is
safe. Bytes pass as they are."""
import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
import time

import pytest
from chaos import Chaos
from client import Client, fetch
from culvert import AGENT_READY, FORWARD_READY, free_port, wait_for
from streams import echo_route
from test_takeover import successor

LOW = [("Culvert-Priority", "background")]


class Path:
    """Relay, agent, and a forward behind a chaos proxy."""

    def __init__(self, world, env=None, relay_env=None):
        self.world = world
        self.service = world.service()
        self.relay_env = {"CULVERT_TIMERS_AGENT_RETURN": "20s", **(relay_env or {})}
        self.relay = world.relay(env=self.relay_env)
        self.agent = world.http(self.relay, self.service.port)
        self.chaos = Chaos(self.relay.port)
        world.cleanups.append(self.chaos.close)
        self.port = free_port()
        self.forward = world.start(
            "forward", "forward", self.port, "home", "--server", f"ws://127.0.0.1:{self.chaos.port}",
            env={"CULVERT_TOKEN": world.token(), "CULVERT_FORWARD_KIND": "http", **(env or {})})
        self.forward.wait_log(FORWARD_READY)

    def lose(self):
        self.chaos.is_refusing = True
        self.chaos.cut()
        self.forward.wait_log("connection_lost")

    def find(self):
        self.chaos.is_refusing = False

    def facts(self):
        agents = json.loads(self.world.run("status", "--json").stdout)["agents"]
        return next(a for a in agents if a["pid"] == self.forward.pid)["forwards"][0]

    def queued(self, count):
        wait_for(lambda: self.facts()["waiting"] == count, 10, f"{count} that wait")


@pytest.fixture
def path(world):
    return lambda **kw: Path(world, **kw)


class Asking(threading.Thread):
    """One request in the background."""

    def __init__(self, port, target="/x", **kw):
        super().__init__(daemon=True)
        self.args = (port, target), {"timeout": 40, **kw}
        self.answer, self.error = None, None
        self.start()

    def run(self):
        args, kw = self.args
        try:
            self.answer = fetch(*args, **kw)
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    @property
    def status(self):
        self.join(60)
        assert self.answer, f"no answer: {self.error!r}"
        return self.answer.status

    def code(self):
        return self.status, json.loads(self.answer.body)["code"]


# ---- bytes pass as they are ----------------------------------------------------------------------

def test_one_request_after_the_other_on_one_connection(path):
    here = path()

    def who(conn, request):
        conn.read_body(request)
        conn.reply(body=request.head)
    here.service.on("/who", who)
    with Client(here.port) as client:
        for number in range(5):
            client.request("POST", "/who", headers=[("X-Number", str(number))], body=b"z" * number)
            response = client.response("POST")
            assert response.status == 200 and f"X-Number: {number}".encode() in response.body
    assert len(here.service.requests) == 5
    assert here.facts()["kind"] == "http"
    assert len(here.relay.find("agent_awaited")) == 0


def test_what_is_sent_ahead_is_answered_in_order(path):
    here = path()
    with Client(here.port) as client:
        client.send(b"".join(b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab%d"
                             % (n, n) for n in range(6)))
        for _ in range(6):
            assert client.response("POST").status == 200
    assert [r.path for r in here.service.requests] == [f"/{n}" for n in range(6)]


def test_large_bodies_both_ways(path):
    here = path()
    data = os.urandom(1 << 20) * 8

    def hashed(conn, request):
        conn.read_body(request)
        conn.reply(body=request.body,
                   headers=[("X-Hash", hashlib.sha256(request.body).hexdigest())])
    here.service.on("/mirror", hashed)
    response = fetch(here.port, "/mirror", method="POST", body=data, timeout=60)
    assert response.get("x-hash") == hashlib.sha256(data).hexdigest()
    assert response.body == data


def test_a_malformed_request_is_answered_by_the_relay(path):
    here = path()
    with Client(here.port) as client:
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert client.response().status == 400
    assert not here.service.requests


def test_an_upgraded_connection_carries_anything(path):
    here = path()

    here.service.on("/ws", echo_route)
    with socket.create_connection(("127.0.0.1", here.port), 15) as conn:
        conn.sendall(b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                     b"\r\nping")
        got = b""
        while not got.endswith(b"\r\n\r\nping"):
            data = conn.recv(4096)
            assert data, got
            got += data
        assert got.startswith(b"HTTP/1.1 101")
        conn.sendall(b"\x00\xff\r\n")
        assert conn.recv(4) == b"\x00\xff\r\n"
    wait_for(lambda: getattr(here.service.connections[0], "closed_at", None), 10, "its end")


def test_tokens_pass_one_by_one(path):
    here = path()
    gate = threading.Semaphore(0)

    def drip(conn, request):
        conn.start_chunked("text/event-stream")
        for number in range(5):
            conn.chunk(b"data: %d\n\n" % number)
            assert gate.acquire(timeout=20)
        conn.end_chunks()
    here.service.on("/drip", drip)
    with Client(here.port) as client:
        client.request("GET", "/drip")
        head = client.head()
        response = client.body(head, on_piece=lambda *_: gate.release())
    assert response.is_complete and response.body.count(b"data:") == 5


# ---- who waits -----------------------------------------------------------------------------------

def test_requests_wait_for_the_link_and_go_out_in_order(path):
    """By priority, then by age; one at a time, since the link has one stream."""
    here = path(env={"SSH_MAX_CHANNELS": "1"})
    here.lose()
    asking = []
    for target, headers in [("/b1", LOW), ("/b2", LOW), ("/n1", [("Priority", "u=4")]),
                            ("/i1", []), ("/b3", LOW), ("/i2", [])]:
        asking.append(Asking(here.port, target, headers=headers))
        here.queued(len(asking))
    assert not here.service.requests
    here.find()
    assert [a.status for a in asking] == [200] * 6
    assert [r.path for r in here.service.requests] == ["/i1", "/i2", "/n1", "/b1", "/b2", "/b3"]


def test_a_full_queue_drops_what_matters_least_and_says_so(path):
    here = path(env={"CULVERT_FORWARD_QUEUE_SIZE": "10"})
    here.lose()
    low = []
    for number in range(10):
        low.append(Asking(here.port, f"/b{number}", headers=LOW))
        here.queued(number + 1)
    began = time.monotonic()
    refused = Asking(here.port, headers=LOW)
    assert refused.code() == (503, "TUNNEL_006")
    assert refused.answer.get("retry-after") and time.monotonic() - began < 5
    assert refused.answer.get("culvert-backpressure") == "queued=10, size=10"
    urgent = Asking(here.port, "/i")
    assert low[9].code() == (503, "TUNNEL_006")
    here.queued(10)
    here.find()
    assert [a.status for a in [urgent, *low[:9]]] == [200] * 10
    assert here.forward.find("queue_full") and here.forward.find("queue_pressing")
    assert sorted(r.path for r in here.service.requests) == \
        sorted(["/i", *(f"/b{n}" for n in range(9))])


def test_a_request_does_not_wait_for_ever(path):
    here = path(env={"CULVERT_FORWARD_WAIT": "1s"})
    here.lose()
    asking = Asking(here.port)
    assert asking.code() == (504, "TUNNEL_007")
    here.find()
    here.forward.wait_log("link_resumed")
    assert fetch(here.port, "/y").status == 200
    assert [r.path for r in here.service.requests] == ["/y"]


def test_who_goes_leaves_the_queue(path):
    here = path()
    here.lose()
    with Client(here.port) as client:
        client.request("GET", "/gone")
        here.queued(1)
    here.queued(0)
    here.find()
    assert fetch(here.port, "/x").status == 200
    assert [r.path for r in here.service.requests] == ["/x"]


def test_who_waits_at_the_end_is_told(path):
    here = path()
    here.lose()
    asking = Asking(here.port)
    here.queued(1)
    here.forward.signal(signal.SIGTERM)
    assert asking.code() == (503, "TUNNEL_004")
    assert here.forward.wait() == 0


def test_an_idle_connection_gives_its_stream_to_another(path):
    here = path(env={"SSH_MAX_CHANNELS": "1"})
    with Client(here.port) as first:
        for _ in range(3):
            first.request("GET", "/a")
            assert first.response().status == 200
            assert fetch(here.port, "/b").status == 200


# ---- twice only when that is safe ----------------------------------------------------------------

@pytest.mark.parametrize("method, headers, status", [
    ("GET", [], 200), ("POST", [("Idempotency-Key", "k")], 200), ("POST", [], 502)])
def test_a_link_lost_for_good_in_the_middle_of_a_request(path, method, headers, status):
    here = path()
    begun = threading.Semaphore(0)

    def hang(conn, request):
        conn.read_body(request)
        begun.release()
        if len(here.service.requests) > 1:
            conn.reply(body=b"second")
        else:
            conn.wait_gone(40)
            return False
    here.service.on("/job", hang)
    asking = Asking(here.port, "/job", method=method, headers=headers,
                    body=b"work" if method == "POST" else None)
    assert begun.acquire(timeout=20)
    here.chaos.is_refusing = True
    here.relay.kill()
    here.relay = here.world.relay(port=here.relay.port, env=here.relay_env)
    wait_for(lambda: len(here.agent.find(AGENT_READY)) == 2, 30, "the agent back")
    here.find()
    assert asking.status == status
    assert len(here.service.requests) == (2 if status == 200 else 1)
    if status == 502:
        assert json.loads(asking.answer.body)["code"] == "TUNNEL_028"


def test_a_resumed_link_is_not_noticed(path):
    here = path()
    begun, gate = threading.Semaphore(0), threading.Event()

    def slow(conn, request):
        conn.read_body(request)
        conn.start_chunked()
        conn.chunk(b"one ")
        begun.release()
        assert gate.wait(30)
        conn.chunk(b"two")
        conn.end_chunks()
    here.service.on("/slow", slow)
    asking = Asking(here.port, "/slow", method="POST", body=b"x")
    assert begun.acquire(timeout=20)
    here.lose()
    gate.set()
    here.find()
    assert asking.status == 200 and asking.answer.body == b"one two"
    assert len(here.service.requests) == 1


def test_a_cut_answer_does_not_look_whole(path):
    here = path()

    def broken(conn, request):
        conn.start_chunked("text/plain")
        conn.chunk(b"half")
        conn.reset()
        return False
    here.service.on("/broken", broken)
    with Client(here.port) as client:
        client.request("GET", "/broken")
        response = client.body(client.head())
    assert not response.is_complete


# ---- the kind of tunnel --------------------------------------------------------------------------

def test_the_kind_is_found_out(world):
    service = world.service()
    relay = world.relay()
    world.http(relay, service.port)
    forward, port = world.forward(relay, "home")
    forward.wait_log("kind_known")
    assert fetch(port, "/x").status == 200
    assert json.loads(world.run("status", "--json").stdout)["agents"][-1]["forwards"][0]["kind"] \
        == "http"


def test_no_request_fails_while_the_relay_is_taken_over(world):
    """On a kept connection and on new ones, some of them not to be sent twice."""
    service = world.service()
    old = world.relay(env={"CULVERT_TIMERS_AGENT_RETURN": "20s"})
    agent = world.http(old, service.port)
    forward, port = world.forward(old, "home", env={"CULVERT_FORWARD_KIND": "http"})
    answers, is_over = [], threading.Event()

    def ask(is_kept):
        client = Client(port, timeout=40)
        while not is_over.wait(0.01):
            client.request("POST", "/x", body=b"job")
            response = client.response("POST")
            answers.append(response.status if response else None)
            if not is_kept or not response or response.get("connection") == "close":
                client.close()
                client = Client(port, timeout=40)
        client.close()

    threads = [threading.Thread(target=ask, args=(n % 2 == 0,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(answers) > 20, 20, "answers")
    successor(world, old, env={"CULVERT_TIMERS_AGENT_RETURN": "20s"})
    wait_for(lambda: len(forward.find("link_up")) == 2, 20, "another link")
    wait_for(lambda: len(agent.find(AGENT_READY)) == 2, 20, "the agent at the new relay")
    seen = len(answers)
    wait_for(lambda: len(answers) > seen + 40, 30, "answers after it")
    is_over.set()
    for thread in threads:
        thread.join(40)
    assert set(answers) == {200} and len(service.requests) == len(answers)
