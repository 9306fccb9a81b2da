# SPDX-License-Identifier: MIT
"""Attacks by consumers, and by services through their answers."""
import contextlib
import threading
import time

import pytest
from attack import UPGRADE, Target, reset
from client import Client
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
