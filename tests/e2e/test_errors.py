# SPDX-License-Identifier: MIT
"""Errors say what happened, who says so, and what to do: RFC 9457 with codes of our own."""
import contextlib
import re
import socket
import threading
import time

import pytest
from client import Client
from culvert import ROOT, free_port, wait_for


def problem(response, status, code, hop, category=None):
    assert response.status == status, response.body
    assert response.get("Content-Type") == "application/problem+json"
    body = response.json()
    assert body["status"] == status and body["code"] == code and body["hop"] == hop
    assert body["title"] and body["suggestion"]
    assert body["request_id"] == response.get("X-Request-Id")
    assert body["category"] in ("network", "authentication", "configuration", "server", "protocol",
                                "unknown")
    if category:
        assert body["category"] == category
    page = ROOT / "docs" / "errors" / f"{code}.md"
    assert page.exists(), f"no page for {code}"
    return body


def test_no_such_tunnel(world):
    relay = world.relay()
    problem(relay.fetch("/t/nothing/", world.token()), 404, "TUNNEL_011", "relay")


def test_agent_offline(home):
    home.agent.stop()
    wait_for(lambda: home.fetch("/").status == 503, 10, "offline answer")
    body = home.fetch("/")
    problem(body, 503, "TUNNEL_012", "relay", "server")
    assert int(body.get("Retry-After")) > 0


def test_local_service_refused(world):
    relay = world.relay()
    world.http(relay, free_port())
    response = relay.fetch("/t/home/", world.token())
    problem(response, 502, "TUNNEL_013", "service", "server")


@contextlib.contextmanager
def black_hole():
    """A port that does not answer to SYN: its backlog is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(address)
        time.sleep(0.1)
        yield address[1]


def test_local_service_cannot_be_reached_in_time(world):
    relay = world.relay()
    with black_hole() as port:
        world.http(relay, port, env={"CULVERT_CONNECT_SERVICE_TIMEOUT": "1s"})
        started = time.monotonic()
        response = relay.fetch("/t/home/", world.token(), timeout=30)
        assert time.monotonic() - started < 10
    problem(response, 504, "TUNNEL_014", "service", "server")


def test_no_first_byte_in_time(scene):
    gone = []

    def silent(conn, request):
        gone.append(conn.wait_gone(15))
        return False
    home = scene(routes={"/silent": silent}, relay_env={"CULVERT_TIMERS_FIRST_BYTE": "1s"})
    started = time.monotonic()
    response = home.fetch("/silent")
    assert 0.8 < time.monotonic() - started < 5
    problem(response, 504, "TUNNEL_007", "service", "server")
    wait_for(lambda: gone, 5, "end of the service's connection")


def test_the_service_resets_before_its_head(scene):
    def reset(conn, request):
        conn.read_body(request)
        conn.reset()
        return False
    home = scene(routes={"/reset": reset})
    home.relay.expect_error(".*")
    response = home.fetch("/reset", "POST", body=b"not idempotent")
    assert response.status == 502
    assert response.json()["hop"] == "service"


def test_queue_and_channel_limits(scene):
    """Over the channel limit requests wait; over the queue's they are told at once."""
    release = threading.Event()

    def hold(conn, request):
        release.wait(20)
        conn.reply(body=b"done")
    home = scene(routes={"/hold": hold},
                 relay_env={"SSH_MAX_CHANNELS": "2", "CULVERT_QUEUE_SIZE": "10"},
                 agent_env={"SSH_MAX_CHANNELS": "2"})
    clients = [Client(home.relay.port, timeout=30) for _ in range(12)]
    try:
        for client in clients:
            client.request("GET", "/t/home/hold", home.token)
        home.service.wait_requests(2)
        time.sleep(0.5)
        assert len(home.service.requests) == 2
        started = time.monotonic()
        response = home.fetch("/hold")
        assert time.monotonic() - started < 2, "told at once"
        assert response.status == 503
        assert response.json()["code"] in ("TUNNEL_006", "TUNNEL_015")
        assert response.get("Retry-After")
        release.set()
        assert [client.response().body for client in clients] == [b"done"] * 12
    finally:
        release.set()
        for client in clients:
            client.close()


def test_a_waiting_consumer_that_goes_away_leaves_the_queue(scene):
    release = threading.Event()

    def hold(conn, request):
        release.wait(20)
        conn.reply(body=b"done")
    home = scene(routes={"/hold": hold}, agent_env={"SSH_MAX_CHANNELS": "1"},
                 relay_env={"SSH_MAX_CHANNELS": "1"})
    with home.client() as first, home.client() as second:
        first.request("GET", "/t/home/hold", home.token)
        home.service.wait_requests(1)
        second.request("GET", "/t/home/abandoned", home.token)
        time.sleep(0.2)
        second.close()
        time.sleep(0.2)
        release.set()
        assert first.response().body == b"done"
    assert home.fetch("/next").status == 200
    assert "/abandoned" not in [r.path for r in home.service.requests]


def test_problems_have_no_html_and_no_echo_of_the_path(world):
    relay = world.relay()
    response = relay.fetch("/<script>alert(1)</script>", None)
    assert response.status in (400, 404)
    assert b"<script>" not in response.body


def test_head_errors_have_no_body(world):
    relay = world.relay()
    response = relay.fetch("/t/nothing/", world.token(), "HEAD")
    assert response.status == 404 and response.body == b""


def test_the_request_id_leads_to_the_logs_of_both_ends(scene):
    home = scene(relay_env={"LOG_LEVEL": "debug"}, agent_env={"LOG_LEVEL": "debug"})
    request_id = home.fetch("/x").get("X-Request-Id")
    assert re.fullmatch(r"[0-9A-Za-z_-]{8,64}", request_id)
    home.relay.wait_log(text=request_id)
    assert home.relay.find(text=request_id)[0]["correlationId"] == request_id


def test_log_records_have_the_agreed_fields(home):
    home.fetch("/x")
    for process in (home.relay, home.agent):
        assert process.records
        for record in process.records:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["timestamp"])
            assert record["level"] in ("error", "warn", "info", "debug", "trace")
            for field in ("message", "component", "event", "service", "version"):
                assert record[field], record
            assert record["service"] == "culvert"


@pytest.mark.parametrize("number", range(1, 33))
def test_every_code_has_a_page(number):
    page = ROOT / "docs" / "errors" / f"TUNNEL_{number:03}.md"
    assert page.exists() and f"TUNNEL_{number:03}" in page.read_text()


def test_relay_and_agent_log_a_request_under_one_id(world):
    relay = world.relay()
    agent = world.http(relay, free_port())
    request_id = relay.fetch("/t/home/", world.token()).get("X-Request-Id")
    assert agent.wait_log("service_unavailable")["correlationId"] == request_id
    relay.wait_log("request_refused", correlationId=request_id)


def test_a_long_request_is_no_silence(scene):
    """The first byte is waited for from the last byte of the request that the service was given."""
    def slow(conn, request):
        conn.read_body(request, keep=False, pause=0.01)
        conn.reply(body=b"got it")
        return True
    home = scene(routes={"/slow": slow}, relay_env={"CULVERT_TIMERS_FIRST_BYTE": "3s"})
    response = home.fetch("/slow", "POST", body=b"x" * (40 << 20), timeout=60)
    assert response.status == 200 and response.body == b"got it"
