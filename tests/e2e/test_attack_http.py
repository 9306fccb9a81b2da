# SPDX-License-Identifier: MIT
"""Attacks by consumers, and by services through their answers."""
import contextlib
import threading
import time

import pytest
from attack import UPGRADE, Target, reset
from client import Broken, Client
from culvert import World, wait_for


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("attack"))
    try:
        yield Target(world, env={
            "CULVERT_LIMITS_HEADER_TIMEOUT": "2s", "CULVERT_LIMITS_BODY_IDLE_TIMEOUT": "2s",
            "CULVERT_LIMITS_KEEPALIVE_TIMEOUT": "2s"})
    finally:
        world.close()


@pytest.fixture(scope="module")
def ruled(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("rules"))
    try:
        yield Target(world, agent_args=["--preset", "ollama"])
    finally:
        world.close()


# ---- rules ----

BYPASSES = [
    "/api/pull/../chat", "/api/pull/%2e%2e/chat", "/api/pull/.%2E/chat", "/api/./chat",
    "/api/chat/..", "/api/chat/.", "/./api/chat", "/api/chat/../chat", "/api/pull/..;/chat",
    "/api/chat%2e", "/api/chat/", "/api/chat;x=/api/pull", "/api/chat%3f/../pull", "/api%2fchat",
    "/api/chat%00", "/api/chat%0d%0aX:y", "/api/chat%20", "/API/CHAT", "/api/Chat",
    "/v1/../api/pull", "/v1/..%2fapi/pull", "/v1/%2e%2e/api/pull", "/v1/..;/api/pull",
    "/v1/%252e%252e/api/pull", "/v1/..%5capi/pull", "/v1/x/../../api/pull",
    "/v1/%c0%ae%c0%ae/%2e%2e/api/pull", "/t/home/api/chat",
]


@pytest.mark.parametrize("path", BYPASSES)
def test_no_spelling_gets_around_the_allow_list(ruled, path):
    before = ruled.service.received_bytes
    response = ruled.fetch(path, method="POST", body=b"{}")
    assert response.status in (400, 403), response
    assert ruled.service.received_bytes == before


@pytest.mark.parametrize("line", [
    "POST http://relay.test/t/home/api/pull", "POST http://relay.test//t/home/api/pull",
    "POST HTTP://RELAY.TEST/t/home/api/pull", "PULL /t/home/api/chat", "post /t/home/api/chat",
    "POST /t/home/api/pull?/../chat", "POST /t/home//api/pull", "POST /t/../t/home/api/pull",
    "POST /t/home/api/pull/", "POST /t/HOME/api/chat", "POST /T/home/api/chat",
    "POST /t/home%2fapi/chat", "POST /t/%68ome/api/pull", "POST /t//home/api/chat",
])
def test_no_form_of_the_request_line_gets_around_it(ruled, line):
    before = ruled.service.received_bytes
    with ruled.client() as client:
        client.send(f"{line} HTTP/1.1\r\nHost: relay.test\r\n{ruled.auth()}"
                    "Content-Length: 2\r\n\r\n{}".encode())
        assert client.response().status in (400, 403, 404)
    assert ruled.service.received_bytes == before


# ---- the token ----

def test_a_tunnel_cannot_ask_for_the_relays_token(world):
    """authorization: pass is about the service's own credentials, never about ours."""
    service = world.service()
    relay = world.relay()
    config = world.write("agent.yaml", f"""
server: {relay.url}
tunnels:
  - name: home
    target: "{service.port}"
    authorization: pass
""")
    world.start("agent", "agent", "-c", config, env={"CULVERT_TOKEN": world.token()}) \
        .wait_log("tunnel_published")
    token = world.token()
    bearer = f"Bearer {token}"
    for headers in ([("Authorization", bearer)],
                    [("Authorization", bearer), ("Culvert-Authorization", bearer)],
                    [("Culvert-Authorization", bearer)],
                    [("Culvert-Authorization", bearer), ("Authorization", f"bearer {token}")]):
        assert relay.fetch("/t/home/", None, headers=headers).status == 200
    assert len(service.requests) == 4
    assert all(token.encode() not in bytes(conn.raw) for conn in service.connections)


@pytest.mark.parametrize("name", ["Authorization", "Culvert-Authorization", "X-Forwarded-For",
                                  "Forwarded", "X-Request-Id", "Host", "Transfer-Encoding",
                                  "Content-Length", "Connection", "Upgrade", "Trailer", "TE",
                                  "Culvert-Agent", "Proxy-Authorization", "traceparent",
                                  "X-Real-IP", "Cookie", "Origin"])
def test_trailers_cannot_bring_what_the_head_may_not(target, name):
    with target.client() as client:
        client.request("POST", "/t/home/x", target.token, body=b"hello", chunked=True,
                       trailers=[(name, "evil-value")])
        response = client.response()
    assert response.status in (200, 400)
    assert all(b"evil-value" not in bytes(conn.raw) for conn in target.service.connections)


@pytest.mark.parametrize("option", ["Host", "Content-Length", "Transfer-Encoding", "X-Request-Id",
                                    "X-Forwarded-For", "Authorization", "Culvert-Authorization",
                                    "traceparent", "Content-Type", "Forwarded", "close, Host"])
def test_connection_strips_nothing_that_matters(target, option):
    response = target.fetch("/strip", method="POST", body=b"hello", headers=[
        ("Connection", option), ("Culvert-Tenant", "evil"), ("X-Forwarded-Host", "evil")])
    assert response.status in (200, 400, 401)
    if response.status == 200:
        assert response.body == b"hello"
        request = [r for r in target.service.requests if r.path == "/strip"][-1]
        for name in ("Host", "Content-Length", "X-Request-Id", "X-Forwarded-For", "traceparent"):
            assert len(request.all(name)) == 1, name
        assert b"evil" not in request.head


# ---- answers that lie ----

def raw(data, then=None):
    def route(conn, request):
        conn.read_body(request)
        conn.send(data)
        if then:
            time.sleep(0.05)
            conn.send(then)
        return False
    return route


SMUGGLED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nX-Evil: 1\r\n\r\nevil!!!"
LIES = {
    "two answers": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + SMUGGLED,
    "204 with a body": b"HTTP/1.1 204 No\r\nContent-Length: 99\r\n\r\n" + SMUGGLED,
    "204 chunked": b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "304 with a body": b"HTTP/1.1 304 Not\r\nContent-Length: 7\r\n\r\n" + SMUGGLED,
    "unasked 101": b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + SMUGGLED,
    "103 with a length": b"HTTP/1.1 103 E\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n"
                         b"\r\n" + SMUGGLED,
    "100 with a length": b"HTTP/1.1 100 C\r\nContent-Length: 99\r\n\r\n" + SMUGGLED,
    "199": b"HTTP/1.1 199 X\r\n\r\n" + SMUGGLED,
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"2\r\nok\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nok",
    "bare CR in a value": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    "bare LF in a value": b"HTTP/1.1 200 OK\r\nX: a\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
    "fold": b"HTTP/1.1 200 OK\r\nX: a\r\n X-Evil: 1\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "reason with CR": b"HTTP/1.1 200 O\rX-Evil: 1\r\nContent-Length: 0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + SMUGGLED,
    "status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "evil trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
                     b"Content-Length: 9\r\nSet-Cookie: evil=1\r\n\r\n",
    "forged relay fields": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Request-Id: evil\r\n"
                           b"Access-Control-Allow-Origin: evil\r\nConnection: Content-Length\r\n\r\n",
    "huge chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "empty": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50,
}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "in two"])
@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_that_lies_reaches_nobody_else(target, name, method, late):
    data = LIES[name]
    cut = len(data) // 2
    target.service.on("/lie", raw(data[:cut], data[cut:]) if late else raw(data))
    with target.client(timeout=5) as client:
        client.request(method, "/t/home/lie", target.token)
        with contextlib.suppress(Broken):
            first = client.response(method)
            assert first is None or first.status != 101
            assert first is None or first.get("X-Request-Id") != "evil"
            assert first is None or not first.all("X-Evil") or first.status == 200
        # Whatever came first, the next answer on this connection belongs to the next request.
        with contextlib.suppress(OSError):
            # PUT, since it may be tried again: the service closes without having said so.
            client.request("PUT", "/t/home/next", target.token, body=b"mine")
            second = client.response("PUT")
            assert second is None or second.body == b"mine", second
    for _ in range(3):
        assert target.fetch("/x", method="PUT", body=b"after").body == b"after"


def test_a_service_that_speaks_first_is_not_believed_twice(target):
    """A second answer that arrives while the stream lies in the pool must not be the next one's."""
    def twice(conn, request):
        conn.read_body(request)
        conn.reply(body=b"first")
        time.sleep(0.02)
        conn.send(SMUGGLED)
        return True
    target.service.on("/twice", twice)
    for _ in range(10):
        assert target.fetch("/twice").body == b"first"
        time.sleep(0.06)
        response = target.fetch("/x", method="POST", body=b"mine")
        assert response.body == b"mine" and not response.all("X-Evil")


# ---- floods ----

def test_resets_at_every_phase(target):
    request = (f"POST /t/home/x HTTP/1.1\r\nHost: h\r\n{target.auth()}Content-Length: 10\r\n\r\n"
               "0123456789GET /t/home/y HTTP/1.1\r\nHost: h\r\n\r\n").encode()
    with target.attack():
        for at in list(range(0, len(request), 13)) + [len(request)]:
            for wait in (0, 0.003):
                client = target.client()
                client.send(request[:at])
                time.sleep(wait)
                reset(client.sock)


def test_two_thousand_connections_and_back(target):
    crowd = []
    with target.attack():
        for number in range(2000):
            client = target.client()
            if number % 3:
                client.send(b"GET /t/home/x HTTP/1.1\r\nHost: h\r\nX-Slow: ")
            crowd.append(client)
        for client in crowd[::2]:
            reset(client.sock)
        for client in crowd[1::2]:
            client.close()


def test_thousands_of_pipelined_requests_that_nobody_reads(target):
    with target.attack():
        crowd = [target.client(timeout=1, receive_buffer=4096) for _ in range(8)]
        burst = (b"GET /t/home/x HTTP/1.1\r\nHost: h\r\n" + target.auth().encode() + b"\r\n"
                 + b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n" * 50) * 40
        for client in crowd:
            with contextlib.suppress(OSError):
                client.send(burst)
        for client in crowd:
            reset(client.sock)


def test_answers_without_end_that_nobody_reads(target):
    def endless(conn, request):
        conn.read_body(request)
        conn.start_chunked()
        while True:
            conn.chunk(b"x" * 65536)
    target.service.on("/endless", endless)
    with target.attack():
        crowd = [target.client(receive_buffer=4096) for _ in range(8)]
        for client in crowd:
            client.request("GET", "/t/home/endless", target.token)
        for client in crowd:
            assert client.head().status == 200
        time.sleep(0.3)
        for client in crowd[:4]:
            reset(client.sock)
        # The other half is cut by the relay, since it takes nothing.
        wait_for(lambda: all(c.closed_at for c in target.service.connections
                             if b"/endless" in c.raw), 15, "end of the endless answers")
        for client in crowd[4:]:
            client.close()


def test_bodies_without_end_that_the_service_does_not_read(target):
    held = threading.Event()

    def deaf(conn, request):
        held.wait(10)
        return False
    target.service.on("/deaf", deaf)
    with target.attack():
        crowd = [target.client(timeout=0.5) for _ in range(4)]
        for client in crowd:
            client.send(f"POST /t/home/deaf HTTP/1.1\r\nHost: h\r\n{target.auth()}"
                        "Content-Length: 1000000000\r\n\r\n".encode())
        for client in crowd:
            with contextlib.suppress(OSError):
                client.send(b"x" * 50_000_000)
        for client in crowd:
            reset(client.sock)
        held.set()


def test_upgrades_that_are_dropped_half_way(target):
    def accept(conn, request):
        conn.send(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        with contextlib.suppress(OSError):
            while data := conn.sock.recv(65536):
                conn.send(data)
        return False
    target.service.on("/ws", accept)
    with target.attack():
        for number in range(60):
            client = target.client()
            client.request("GET", "/t/home/ws", target.token, headers=UPGRADE)
            if number % 3:
                assert client.head().status == 101
                client.send(b"x" * 1000 * (number % 5))
            reset(client.sock) if number % 2 else client.close()


def test_a_body_behind_an_upgrade_request_is_no_request(target):
    before = len(target.service.requests)
    with target.client() as client:
        client.send(f"GET /t/home/x HTTP/1.1\r\nHost: h\r\n{target.auth()}Connection: Upgrade\r\n"
                    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 40\r\n"
                    "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n\r\n"
                    "GET /t/home/smuggled HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        client.response()
    assert all(r.path != "/smuggled" for r in target.service.requests[before:])


# ---- other users ----

def test_another_users_names_cannot_be_told_from_none(target):
    """By status, by bytes, by time."""
    def ask(name):
        started = time.monotonic()
        response = target.relay.fetch(f"/t/{name}/x", target.token)
        return time.monotonic() - started, response
    times = {"mine": [], "nope": []}
    bodies = {}
    for _ in range(40):
        for name, list_ in times.items():
            seconds, response = ask(name)
            list_.append(seconds)
            assert response.status == 404
            problem = response.json()
            problem.pop("request_id")
            bodies[name] = problem
    assert bodies["mine"] == bodies["nope"]
    median = {name: sorted(list_)[20] for name, list_ in times.items()}
    assert abs(median["mine"] - median["nope"]) < 0.005


@pytest.mark.tsan
@pytest.mark.parametrize("workers", [4])
def test_consumers_that_vanish_while_they_move(world, workers):
    """A connection moves to the worker of its tunnel, its request's body and its end behind it."""
    target = Target(world)
    with target.attack():
        def storm():
            for number in range(60):
                client = Client(target.relay.port)
                client.request("POST", "/t/home/x", target.token, body=b"y" * (number * 500))
                if number % 4 == 0:
                    reset(client.sock)
                elif number % 4 == 1:
                    client.close()
                else:
                    assert client.response("POST").status == 200
                    client.close()
        threads = [threading.Thread(target=storm) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
