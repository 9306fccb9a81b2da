# SPDX-License-Identifier: MIT
"""Limits on what strangers can take: sizes, numbers, time."""
import contextlib
import socket
import time

import pytest
from client import Client
from culvert import World, wait_for


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A relay whose patience is short."""
    from scene import Scene
    world = World(tmp_path_factory.mktemp("limits"))
    try:
        yield Scene(world, relay_env={
            "CULVERT_LIMITS_HEADER_TIMEOUT": "1s", "CULVERT_LIMITS_BODY_IDLE_TIMEOUT": "1s",
            "CULVERT_LIMITS_KEEPALIVE_TIMEOUT": "1s", "CULVERT_LIMITS_BODY_BYTES": "100KiB",
            "CULVERT_SSH_HANDSHAKE_TIMEOUT": "1s"})
    finally:
        world.close()


def auth(home):
    return f"Authorization: Bearer {home.token}\r\n"


def untouched(home, send):
    before = home.service.received_bytes
    with home.client() as client:
        with contextlib.suppress(OSError):
            client.send(send.encode())
        response = client.response()
        assert client.is_closed()
    assert home.service.received_bytes == before
    return response


def test_a_long_request_line_is_414(shared_home):
    response = untouched(shared_home, f"GET /t/home/{'x' * 9000} HTTP/1.1\r\nHost: h\r\n"
                         f"{auth(shared_home)}\r\n")
    assert response.status == 414 and response.json()["code"] == "TUNNEL_017"


def test_a_64_kib_target_is_414(shared_home):
    assert untouched(shared_home, f"GET /{'x' * 65536} HTTP/1.1\r\n").status == 414


def test_a_large_head_is_431(shared_home):
    fields = "".join(f"X-{n}: {'y' * 1000}\r\n" for n in range(20))
    response = untouched(shared_home, f"GET /t/home/x HTTP/1.1\r\nHost: h\r\n{fields}"
                         f"{auth(shared_home)}\r\n")
    assert response.status == 431 and response.json()["code"] == "TUNNEL_017"


def test_a_megabyte_field_is_431(shared_home):
    assert untouched(shared_home, f"GET /t/home/x HTTP/1.1\r\nHost: h\r\nX: {'y' * (1 << 20)}\r\n"
                     f"\r\n").status == 431


@pytest.mark.parametrize("count", [101, 10_000])
def test_too_many_fields_are_431(shared_home, count):
    fields = "".join(f"A{n}: b\r\n" for n in range(count))
    assert untouched(shared_home, f"GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth(shared_home)}"
                     f"{fields}\r\n").status == 431


def test_ninety_fields_and_twelve_kib_are_fine(shared_home):
    headers = [(f"A{n}", "b" * 100) for n in range(90)]
    assert shared_home.fetch("/x", headers=headers).status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_its_limit_is_413(strict, chunked):
    with strict.client() as client:
        with contextlib.suppress(OSError):
            client.request("POST", "/t/home/x", strict.token, body=b"x" * 200_000, chunked=chunked)
        assert client.response().status == 413
        assert client.is_closed()
    assert strict.fetch("/x", "POST", body=b"x" * 100_000).status == 200


def test_a_slow_head_is_ended_by_the_deadline(strict):
    with strict.client() as client:
        started = time.monotonic()
        with contextlib.suppress(OSError):
            client.send(b"GET /t/home/x HTTP/1.1\r\nHost: h\r\n")
            for number in range(40):
                client.send(b"X-%d: y\r\n" % number)
                time.sleep(0.1)
        response = client.response()
        assert time.monotonic() - started < 6, "each field must not renew the deadline"
        assert response is None or response.status == 408
        assert client.is_closed()


def test_silence_after_connecting_is_ended(strict):
    with strict.client() as client:
        started = time.monotonic()
        while client.fill():
            pass
        assert time.monotonic() - started < 5


def test_a_body_that_stops_coming_is_ended(strict):
    with strict.client() as client:
        client.send(f"POST /t/home/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n{auth(strict)}"
                    "\r\npart".encode())
        started = time.monotonic()
        response = client.response()
        assert response.status == 408 and response.json()["hop"] == "consumer"
        assert 0.5 < time.monotonic() - started < 5
        assert client.is_closed()
    wait_for(lambda: strict.service.connections[-1].closed_at, 5, "abort at the service")


def test_a_slow_body_that_goes_on_is_not_ended(strict):
    with strict.client() as client:
        client.send(f"POST /t/home/x HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n{auth(strict)}"
                    "\r\n".encode())
        for _ in range(8):
            time.sleep(0.25)
            client.send(b"x")
        assert client.response().body == b"x" * 8


def test_an_idle_connection_is_closed(strict):
    with strict.client() as client:
        client.request("GET", "/t/home/x", strict.token)
        assert client.response().status == 200
        started = time.monotonic()
        assert client.is_closed(10)
        assert 0.5 < time.monotonic() - started < 5


def test_a_hundred_slow_heads_do_not_disturb_a_bystander(strict):
    crowd = [Client(strict.relay.port) for _ in range(100)]
    try:
        for client in crowd:
            client.send(b"GET /t/home/x HTTP/1.1\r\nX: ")
        started = time.monotonic()
        for _ in range(20):
            assert strict.fetch("/x").status == 200
        assert time.monotonic() - started < 5
    finally:
        for client in crowd:
            client.close()


def test_more_connections_than_allowed_are_turned_away_and_come_back(scene):
    home = scene(relay_env={"CULVERT_LIMITS_MAX_CONNECTIONS": "16"})
    crowd = []
    try:
        for _ in range(24):
            client = Client(home.relay.port, timeout=1)
            client.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
            crowd.append(client)
        served = 0
        for client in crowd:
            with contextlib.suppress(OSError):
                response = client.response()
                served += response is not None and response.status == 200
        # Each worker has its share, rounded up.
        assert 1 <= served <= 16 + home.world.workers
    finally:
        for client in crowd:
            client.close()
    wait_for(lambda: _serves(home), 10, "service after the crowd has gone", interval=0.1)


def _serves(home):
    with contextlib.suppress(OSError, AssertionError):
        return home.fetch("/x").status == 200
    return False


def test_links_per_user_are_limited(world):
    service = world.service()
    relay = world.relay(env={"MAX_CONNECTIONS_PER_USER": "2"})
    for number in range(2):
        world.http(relay, service.port, name=f"t{number}")
    third = world.http(relay, service.port, name="t2", ready=False)
    third.expect_error(".*")
    wait_for(lambda: third.process.poll() is not None or third.find(text="429") or
             third.find(text="TUNNEL_005") or third.find(level="warn"), 15, "refusal")
    assert not third.find("tunnel_published")
    third.kill()
    assert relay.fetch("/t/t0/", world.token()).status == 200
    world.http(relay, service.port, name="t2", sub="bob")


def test_half_open_floods_leave_no_descriptor_behind(home):
    home.fetch("/x")
    before = home.relay.descriptors()
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", home.relay.port)) as sock:
            sock.send(b"G")
    wait_for(lambda: home.relay.descriptors() <= before + 2, 10, "descriptors at their baseline")


def test_an_unread_answer_holds_its_stream(scene):
    """What waits for consumers who do not read is bounded by the streams of the link."""
    body = b"x" * (4 << 20)

    def route(conn, request):
        conn.read_body(request)
        conn.reply(body=body)
        return True
    home = scene(routes={"/big": route}, relay_env={"SSH_MAX_CHANNELS": 4})
    crowd = [home.client(receive_buffer=4096, timeout=30) for _ in range(5)]
    for client in crowd[:4]:
        client.request("GET", "/t/home/big", home.token)
    home.service.wait_requests(4)
    crowd[4].request("GET", "/t/home/big", home.token)
    time.sleep(0.5)
    assert len(home.service.requests) == 4, "an unread answer gave its stream away"
    assert crowd[0].response().body == body
    home.service.wait_requests(5)
    for client in crowd[1:]:
        assert client.response().body == body
    for client in crowd:
        client.close()
