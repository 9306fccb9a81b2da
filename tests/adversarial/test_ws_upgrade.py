# SPDX-License-Identifier: MIT
"""Rows 1, 8 and 9: upgrades that are none, bytes that do not wait for the 101, origins and
subprotocols that nobody asked for."""
import contextlib
import time

import pytest
from attack import Cases, frame

KEY = "AQIDBAUGBwgJCgsMDQ4PEA=="
FIELDS = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
          "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Protocol": "culvert.v1"}


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(env={"MAX_CONNECTIONS_PER_USER": "500"})


def fields(**changes):
    """The fields of a good upgrade, some changed; None leaves one out, a tuple doubles it."""
    wanted = {**FIELDS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return [(name, item) for name, value in wanted.items() if value is not None
            for item in (value if isinstance(value, tuple) else (value,))]


# name: (method, version, fields, statuses)
UPGRADES = {
    "no key": ("GET", "1.1", fields(Sec_WebSocket_Key=None), {400}),
    "empty key": ("GET", "1.1", fields(Sec_WebSocket_Key=""), {400}),
    "key of 15 bytes": ("GET", "1.1", fields(Sec_WebSocket_Key="AQIDBAUGBwgJCgsMDQ4P"), {400}),
    "key of 17 bytes": ("GET", "1.1", fields(Sec_WebSocket_Key="AQIDBAUGBwgJCgsMDQ4PEBE="), {400}),
    "key in no base64": ("GET", "1.1", fields(Sec_WebSocket_Key="!QIDBAUGBwgJCgsMDQ4PEA=="), {400}),
    "key without padding": ("GET", "1.1", fields(Sec_WebSocket_Key=KEY[:-2]), {400}),
    "key and more": ("GET", "1.1", fields(Sec_WebSocket_Key=KEY + "AA"), {400}),
    "a long key": ("GET", "1.1", fields(Sec_WebSocket_Key="A" * 4000), {400}),
    "two keys": ("GET", "1.1", fields(Sec_WebSocket_Key=(KEY, KEY)), {400}),
    "no version": ("GET", "1.1", fields(Sec_WebSocket_Version=None), {426}),
    "empty version": ("GET", "1.1", fields(Sec_WebSocket_Version=""), {400, 426}),
    "version 0": ("GET", "1.1", fields(Sec_WebSocket_Version="0"), {426}),
    "version 8": ("GET", "1.1", fields(Sec_WebSocket_Version="8"), {426}),
    "version 14": ("GET", "1.1", fields(Sec_WebSocket_Version="14"), {426}),
    "version 013": ("GET", "1.1", fields(Sec_WebSocket_Version="013"), {400, 426}),
    "version 13, 8": ("GET", "1.1", fields(Sec_WebSocket_Version="13, 8"), {400, 426}),
    "version 13 twice": ("GET", "1.1", fields(Sec_WebSocket_Version=("13", "13")), {400, 426}),
    "version 13 and 8": ("GET", "1.1", fields(Sec_WebSocket_Version=("13", "8")), {400, 426}),
    "POST": ("POST", "1.1", fields(), {400}),
    "POST with a body": ("POST", "1.1", [*fields(), ("Content-Length", "0")], {400}),
    "PUT": ("PUT", "1.1", fields(), {400}),
    "HEAD": ("HEAD", "1.1", fields(), {400}),
    "OPTIONS": ("OPTIONS", "1.1", fields(), {400}),
    "HTTP/1.0": ("GET", "1.0", fields(), {400}),
    "no Connection": ("GET", "1.1", fields(Connection=None), {400}),
    "Connection: keep-alive": ("GET", "1.1", fields(Connection="keep-alive"), {400}),
    "Connection: upgrades": ("GET", "1.1", fields(Connection="upgrades"), {400}),
    "Connection: close": ("GET", "1.1", fields(Connection="close"), {400}),
    "no Upgrade": ("GET", "1.1", fields(Upgrade=None), {400, 426}),
    "Upgrade: h2c": ("GET", "1.1", fields(Upgrade="h2c"), {400, 426}),
    "Upgrade: websockets": ("GET", "1.1", fields(Upgrade="websockets"), {400, 426}),
    "a body": ("GET", "1.1", [*fields(), ("Content-Length", "7")], {400}),
    "a chunked body": ("GET", "1.1", [*fields(), ("Transfer-Encoding", "chunked")], {400}),
    "nothing at all": ("GET", "1.1", [], {400, 426}),
}


def ask(target, method, version, headers, path="/tunnel", behind=b""):
    with target.client() as client:
        client.request(method, path, target.token, headers=headers, version=f"HTTP/{version}")
        if behind:
            with contextlib.suppress(OSError):
                client.send(behind)
        return client.response(method), client.is_closed()


def test_row_01_upgrades_that_are_none(target):
    cases = Cases()
    before = target.counters()["links"]
    with target.attack():
        for name, (method, version, headers, statuses) in UPGRADES.items():
            with cases.case(name):
                response, is_closed = ask(target, method, version, headers,
                                          behind=frame(0x89, b"x") if "body" in name else b"")
                assert response.status in statuses, response
                if response.status == 426:
                    assert response.all("Sec-WebSocket-Version") == ["13"], response.headers
                    assert "websocket" in response.get("Upgrade", "")
                assert not response.all("Sec-WebSocket-Accept")
                assert is_closed
                assert target.counters()["links"] == before
    cases.check()


def test_row_01_no_token_is_spent_on_them(target):
    """What is no upgrade is refused before anybody looks at who asks."""
    with target.client() as client:
        client.request("GET", "/tunnel", headers=fields(Sec_WebSocket_Key=None))
        assert client.response().status == 400
    with target.client() as client:
        client.request("GET", "/tunnel", headers=fields())
        assert client.response().status == 401


# ---- row 8 ----

def request_bytes(target, path, protocol):
    return (f"GET {path} HTTP/1.1\r\nHost: h\r\n" +
            "".join(f"{name}: {value}\r\n" for name, value in
                    fields(Sec_WebSocket_Protocol=protocol)) +
            target.auth() + "\r\n").encode()


@pytest.mark.parametrize("protocol", ["ssh", "culvert.v1"])
def test_row_08_frames_before_the_101_are_kept_in_order(target, protocol):
    pings = [b"early %d" % number for number in range(20)]
    data = request_bytes(target, "/tunnel", protocol) + frame(0x82, b"SSH-2.0-early\r\n") + \
        b"".join(frame(0x89, ping) for ping in pings)
    cases = Cases()
    with target.attack():
        for cut in (len(data), 1, len(data) - 1, len(data) - 40, data.index(b"\r\n\r\n") + 4,
                    data.index(b"\r\n\r\n") + 5, data.index(b"\r\n\r\n") + 2):
            with cases.case(f"cut at {cut}"), target.client(timeout=5) as client:
                client.send(data[:cut])
                if cut < len(data):
                    time.sleep(0.01)
                    client.send(data[cut:])
                assert client.head().status == 101
                while pings[-1] not in client.buffer or b"SSH-2.0-" not in client.buffer:
                    assert client.fill(), client.buffer
                places = [client.buffer.index(b"\x8a%c" % len(ping) + ping) for ping in pings]
                assert places == sorted(places)
                assert client.buffer.count(b"SSH-2.0-") == 1
    cases.check()


def test_row_08_bytes_before_a_services_101_are_kept_in_order(target):
    """Through a tunnel: the service gets them behind the head, once, whatever their number."""
    def accept(conn, request):
        assert not conn.buffer, "bytes came before the 101"
        time.sleep(0.02)
        conn.send(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        conn.send(conn.read_exactly(len(early)))
        return False
    early = b"".join(b"%07d" % number for number in range(8000))
    target.service.on("/early", accept)
    head = request_bytes(target, "/t/home/early", "chat")
    cases = Cases()
    with target.attack():
        for cut in (len(early), 0, 1, 40000):
            with cases.case(f"{cut} at once"), target.client() as client:
                client.send(head + early[:cut])
                assert client.head().status == 101
                client.send(early[cut:])
                while len(client.buffer) < len(early) and client.fill():
                    pass
                assert client.buffer == early
    cases.check()


def test_row_08_more_than_is_kept_is_refused_not_lost(target):
    """A peer that sends megabytes before the 101: all of them arrive, or the connection ends."""
    def accept(conn, request):
        conn.send(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        got.append(0)
        while True:
            conn._fill()
            got[-1] += len(conn.buffer)
            assert conn.buffer == b"z" * len(conn.buffer)
            conn.buffer = b""
            if got[-1] == len(early):
                conn.send(b"all of it")
                return False
    got, early = [], b"z" * 3_000_000
    target.service.on("/much", accept)
    with target.attack(), target.client() as client:
        client.send(request_bytes(target, "/t/home/much", "chat") + early)
        response = client.head()
        if response is not None and response.status == 101:
            while client.buffer != b"all of it":
                assert client.fill(), (client.buffer, got)
        else:
            assert response is None or response.status >= 400


# ---- row 9 ----

@pytest.mark.parametrize("path", ["/tunnel", "/t/home/ws"])
def test_row_09_foreign_origins(target, path):
    cases = Cases()
    with target.attack():
        for origin in ("https://evil.example", "null", "http://localhost", "file://", "*",
                       "https://relay.test.evil.example", f"https://{'x' * 4000}.example"):
            with cases.case(origin):
                response, is_closed = ask(target, "GET", "1.1", [*fields(), ("Origin", origin)],
                                          path)
                assert response.status == 403 and is_closed, response
                assert origin not in str(response.headers)
    cases.check()
    assert all(request.path != "/ws" for request in target.service.requests)


@pytest.mark.parametrize("origins, origin, status", [
    ("https://app.example", "https://app.example", 101),
    ("https://app.example", "https://APP.example.evil", 403),
    ("https://app.example", "http://app.example", 403),
    ("*", "https://anybody.example", 101),
])
def test_row_09_only_origins_that_are_allowed(make_target, origins, origin, status):
    target = make_target(env={"CULVERT_CORS_ORIGINS": origins})
    target.service.on("/ws", accept_with("chat"))
    for path, protocol in (("/tunnel", "ssh"), ("/t/home/ws", "chat")):
        with target.client() as client:
            client.request("GET", path, target.token, headers=[
                *fields(Sec_WebSocket_Protocol=protocol), ("Origin", origin)])
            assert client.head().status == status, path


@pytest.mark.parametrize("origin", ["http://relay.test", "https://Relay.TEST"])
def test_row_09_pages_that_came_through_the_relay_are_not_foreign(target, origin):
    target.service.on("/own", accept_with("chat"))
    with target.client() as client:
        client.request("GET", "/t/home/own", target.token, headers=[
            *fields(Sec_WebSocket_Protocol="chat"), ("Origin", origin)])
        assert client.head().status == 101


def accept_with(protocol):
    def accept(conn, request):
        line = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
        conn.send(f"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{line}\r\n"
                  .encode())
        with contextlib.suppress(OSError):
            conn.sock.recv(1)
        return False
    return accept


def test_row_09_subprotocols_that_nobody_knows_are_never_echoed(target):
    cases = Cases()
    for offered, statuses in {
            "evil": {403}, "evil, worse": {403}, "SSH": {403}, "culvert.v2": {403},
            "culvert.v1x": {403}, "x" * 4000: {403}, "ssh, ssh": {400}, "ssh;q=1": {400},
            "s s h": {400}, ", ".join(f"p{n}" for n in range(100)): {400}, "": {400},
            "ss\th": {400}, '"ssh"': {400}}.items():
        with cases.case(offered):
            response, is_closed = ask(target, "GET", "1.1",
                                      fields(Sec_WebSocket_Protocol=offered))
            assert response.status in statuses and is_closed, response.body
            assert not response.all("Sec-WebSocket-Protocol")
            assert not offered or offered not in str(response.headers)
    cases.check()
    # One that is known among them is taken, and is all that the answer names.
    with target.client() as client:
        client.request("GET", "/tunnel", target.token,
                       headers=fields(Sec_WebSocket_Protocol="evil, ssh, culvert.v1"))
        response = client.head()
        assert response.status == 101 and response.all("Sec-WebSocket-Protocol") == ["ssh"]


@pytest.mark.parametrize("offered, chosen, status", [
    ("chat", "chat", 101), ("chat, other", "other", 101), ("chat", None, 101), (None, None, 101),
    ("chat", "evil", 502), (None, "evil", 502), ("chat", "Chat", 502),
    ("chat, other", "chat, other", 502), ("chat", "", 101),
    ("chat, bearer.x", "bearer.x", 502),
])
def test_row_09_a_service_cannot_choose_what_was_not_offered(target, offered, chosen, status):
    target.service.on("/choose", accept_with(chosen))
    with target.client() as client:
        client.request("GET", "/t/home/choose", target.token,
                       headers=fields(Sec_WebSocket_Protocol=offered))
        response = client.head()
        assert response.status == status, response
        assert response.all("Sec-WebSocket-Protocol") == (
            [chosen] if chosen and status == 101 else [])
