# SPDX-License-Identifier: MIT
"""The opening handshake (RFC 6455 §4, §9.1, §11.3), clause by clause: the engine as a server and as
a client, and the relay's /tunnel."""
import base64
import re
import socket
import subprocess

import pytest

from ws_sut import WS_ECHO, Client
from ws_wire import (CLOSE, TEXT, TIMEOUT_S, Listener, accept_of, close_payload, connect, frame,
                     read_head, request)

pytestmark = pytest.mark.skipif(not WS_ECHO.exists(), reason=f"{WS_ECHO} is not built")
clause = pytest.mark.clause


class Door:
    """Where a server takes upgrades, and what a good request has there besides."""

    def __init__(self, port, target, **fields):
        self.port = port
        self.target = target
        self.fields = fields

    def ask(self, **kw):
        """(status, fields) of the answer; anything else than a 101 closes the connection."""
        line = kw.pop("line", None)
        if line:
            line = line.replace("/TARGET", self.target)
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as sock:
            sock.sendall(request(self.target, line, **{**self.fields, **kw}))
            first, fields, rest = read_head(sock)
            status = int(first.split()[1])
            while status != 101 and (data := sock.recv(65536)):
                rest += data
            return status, fields

    def open(self, **kw):
        return connect(self.port, self.target, **{**self.fields, **kw})


@pytest.fixture(scope="module")
def relay(shared):
    return shared.relay(config="cors:\n  origins: [https://app.example]\n")


@pytest.fixture(params=["engine", "relay"])
def door(request):
    if request.param == "engine":
        return Door(request.getfixturevalue("server").port, "/")
    token = request.getfixturevalue("shared").token("alice")
    return Door(request.getfixturevalue("relay").port, "/tunnel",
                Authorization=f"Bearer {token}", Sec_WebSocket_Protocol="ssh")


# ---- what a server takes ----

@clause("6455:4.2.2-1", "6455:4.2.2-2", "6455:4.2.2-5")
def test_a_good_request_gets_a_101(door):
    with door.open() as peer:
        assert "sec-websocket-extensions" not in peer.head
    status, fields = door.ask(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")
    assert status == 101
    assert fields["sec-websocket-accept"] == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]  # §1.3


@clause("6455:4.2.1-3", "6455:4.2.1-4", "6455:9.1-3")
@pytest.mark.parametrize("fields", [
    {"Upgrade": "WebSocket"}, {"Upgrade": "WEBSOCKET"},
    {"Connection": "upgrade"}, {"Connection": "keep-alive, UPGRADE"},
    {"Connection": ["keep-alive", "Upgrade"]},
    {"Sec_WebSocket_Extensions": ["x-one; a=1", "x-two"]}])
def test_words_are_found_in_any_case_and_among_others(door, fields):
    assert door.ask(**fields)[0] == 101


@pytest.mark.parametrize("fields", [
    pytest.param(fields, id=f"{key}-{n}", marks=clause(f"6455:{key}"))
    for key, all_ in {
        "4.2.1-1": ({"line": "POST /TARGET HTTP/1.1", "Content-Length": "0"},
                    {"line": "HEAD /TARGET HTTP/1.1"}, {"line": "GET /TARGET HTTP/1.0"}),
        "4.2.1-2": ({"Host": None}, {"Host": ["a", "b"]}),
        "4.2.1-3": ({"Upgrade": None}, {"Upgrade": "h2c"}, {"Upgrade": "websockets"}),
        "4.2.1-4": ({"Connection": None}, {"Connection": "keep-alive"}, {"Connection": "Upgraded"}),
        "4.2.1-5": ({"Sec_WebSocket_Key": None}, {"Sec_WebSocket_Key": "x"},
                    {"Sec_WebSocket_Key": "AQIDBAUGBwgJCgsMDQ4P"},
                    {"Sec_WebSocket_Key": "AQIDBAUGBwgJCgsMDQ4PEBE="},
                    {"Sec_WebSocket_Key": "AQIDBAUGBwgJCgsMDQ4P!A=="}),
        "11.3.1-1": ({"Sec_WebSocket_Key": ["AQIDBAUGBwgJCgsMDQ4PEA=="] * 2},),
        "4.2.1-6": ({"Sec_WebSocket_Version": None}, {"Sec_WebSocket_Version": "12"},
                    {"Sec_WebSocket_Version": "013"}),
        "11.3.5-1": ({"Sec_WebSocket_Version": ["13", "13"]}, {"Sec_WebSocket_Version": "13, 8"}),
        "9.1-1": ({"Sec_WebSocket_Extensions": "a b"}, {"Sec_WebSocket_Extensions": "a;"},
                  {"Sec_WebSocket_Extensions": "a; b="}, {"Sec_WebSocket_Extensions": "=1"}),
        "9.1-2": ({"Sec_WebSocket_Extensions": 'a; b="c d"'}, {"Sec_WebSocket_Extensions": 'a; b="'},
                  {"Sec_WebSocket_Extensions": 'a; b=""'}),
    }.items() for n, fields in enumerate(all_)])
def test_a_request_with_a_fault_is_refused(door, fields):
    status, head = door.ask(**fields)
    assert status in (400, 405, 426), status
    assert "sec-websocket-accept" not in head


@clause("6455:4.4-1")
@pytest.mark.parametrize("version", [None, "0", "7", "8", "14", "255"])
def test_another_version_is_told_which_is_spoken(door, version):
    status, head = door.ask(Sec_WebSocket_Version=version)
    assert (status, head["sec-websocket-version"]) == (426, ["13"])


@clause("6455:9.1-2")
def test_a_quoted_value_counts_as_its_token(server):
    offer = 'permessage-deflate; server_max_window_bits="10"'
    with server.open(offer=offer) as peer:
        assert peer.deflate.their_bits == 10


@clause("6455:4.2.2-4", "6455:11.3.4-1")
def test_the_relay_chooses_among_the_subprotocols_that_were_offered(shared, relay):
    def ask(offered):
        return Door(relay.port, "/tunnel", Authorization=f"Bearer {shared.token('alice')}",
                    Sec_WebSocket_Protocol=offered).ask()
    for offered in ("ssh", "other, ssh", ["other", "ssh"]):
        status, head = ask(offered)
        assert (status, head["sec-websocket-protocol"]) == (101, ["ssh"])
    assert ask("other, another")[0] == 403
    for offered in (None, "ssh, ssh", ["ssh", "ssh"], "s s", "ssh;x"):
        assert ask(offered)[0] == 400


@clause("6455:4.2.2-6", "6455:10.5-1")
def test_the_relay_refuses_in_http(relay):
    assert Door(relay.port, "/tunnel", Sec_WebSocket_Protocol="ssh").ask()[0] == 401
    assert Door(relay.port, "/tunnel", Sec_WebSocket_Protocol="ssh",
                Authorization="Bearer x.y.z").ask()[0] == 401
    assert Door(relay.port, "/nowhere", Sec_WebSocket_Protocol="ssh").ask()[0] in (401, 404)


@clause("6455:4.2.2-3", "6455:10.2-1")
def test_a_foreign_origin_is_refused(shared, relay, server):
    token = shared.token("alice")
    shared.http(relay, server.port, name="ws")
    browser = {"Sec_WebSocket_Protocol": f"bearer.{token}"}
    links = {"Sec_WebSocket_Protocol": "ssh", "Authorization": f"Bearer {token}"}
    for target, fields in (("/t/ws/", browser), ("/t/nothing/", browser), ("/tunnel", links)):
        door = Door(relay.port, target, **fields)
        want = 404 if target == "/t/nothing/" else 101
        for origin in ("https://evil.example", "null", "https://app.example.evil.example",
                       "http://app.example", "https://ws.test.evil.example"):
            assert door.ask(Origin=origin)[0] == 403, (target, origin)
        assert door.ask(Origin="https://app.example")[0] == want, target
        assert door.ask()[0] == want, target  # a program
        if target != "/tunnel":  # a page of the service itself
            assert door.ask(Origin="https://ws.test")[0] == want
            assert door.ask(Origin="http://localhost:81", Host="LOCALHOST:81")[0] == want


@clause("6455:4.1-13")
def test_frames_that_come_with_the_request_are_kept_in_order(server):
    early = b"".join(frame(TEXT, b"%d" % n, mask=b"\0\0\0\0") for n in range(100))
    with connect(server.port, first=early) as peer:
        for n in range(100):
            assert peer.read() == ("message", TEXT, b"%d" % n)


# ---- what a client sends and takes ----

GOOD = {"status": "101 Switching Protocols", "upgrade": "websocket", "connection": "Upgrade"}


def meet(extra="", accept=None, args=(), **changes):
    """A client meets a server that answers the handshake so: it must hang up without a frame and
    say so. Returns the request's fields."""
    answer = GOOD | changes
    listener = Listener()
    client = Client(*args).start(listener)
    try:
        sock, line, fields, rest = listener.accept_raw()
        with sock:
            assert rest == b"", "data before the answer"
            key = fields["sec-websocket-key"][0]
            accept = accept_of(key) if accept is None else accept(key)
            head = f"HTTP/1.1 {answer['status']}\r\n" + "".join(
                f"{name.title()}: {answer[name]}\r\n" for name in ("upgrade", "connection")
                if answer[name] is not None)
            if accept:
                head += f"Sec-WebSocket-Accept: {accept}\r\n"
            sock.sendall((head + extra + "\r\n").encode() + b"\x81\x011\x88\x00")
            assert sock.recv(65536) == b"", "a frame though the handshake had failed"
        out, err = client.communicate(timeout=10)
        assert client.returncode == 1 and "no number of cases" in err, (client.returncode, out, err)
    finally:
        listener.close()
        client.kill()
        client.communicate()
    return line, fields


@pytest.mark.parametrize("answer", [
    pytest.param(answer, id=f"{key}-{n}", marks=clause("6455:4.1-2", f"6455:{key}"))
    for key, all_ in {
        "4.1-14": [{"status": status} for status in (
            "200 OK", "301 Moved", "401 Unauthorized", "404 Not Found", "426 Upgrade", "500 Error")],
        "4.1-15": [{"upgrade": None}, {"upgrade": "h2c"}, {"upgrade": "websocketx"}],
        "4.1-16": [{"connection": None}, {"connection": "keep-alive"}, {"connection": "Upgraded"}],
        "4.1-17": [{"accept": accept} for accept in (
            lambda key: "", lambda key: accept_of(key + "x"), lambda key: key,
            lambda key: accept_of(key)[:-1], lambda key: accept_of(key).swapcase())],
        "4.1-18": [{"extra": "Sec-WebSocket-Extensions: x-unknown\r\n"},
                   {"extra": "Sec-WebSocket-Extensions: permessage-deflate\r\n",
                    "args": ("--no-deflate",)},
                   {"extra": "Sec-WebSocket-Extensions: permessage-deflate, x-unknown\r\n"},
                   {"extra": "Sec-WebSocket-Extensions: permessage-deflate\r\n" * 2}],
        "4.1-19": [{"extra": "Sec-WebSocket-Protocol: chat\r\n"}],
        "11.3.3-1": [{"extra": "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"}],
        "11.3.4-1": [{"extra": "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n"}],
    }.items() for n, answer in enumerate(all_)])
def test_a_client_fails_at_an_answer_that_is_none(answer):
    meet(**answer)


@clause("6455:4.1-4", "6455:4.1-5", "6455:4.1-6", "6455:4.1-7", "6455:4.1-8", "6455:4.1-9",
        "6455:4.1-11", "6455:4.1-13")
def test_the_request_of_a_client():
    keys = set()
    for _ in range(8):
        listener = Listener()
        client = Client().start(listener)
        try:
            sock, line, fields, rest = listener.accept_raw()
            with sock:
                sock.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    sock.recv(1)  # it waits for the answer
        finally:
            listener.close()
            client.kill()
            client.communicate()
        assert line == "GET /getCaseCount HTTP/1.1" and rest == b""
        assert fields["host"] == [f"127.0.0.1:{listener.port}"]
        assert fields["upgrade"] == ["websocket"] and fields["connection"] == ["Upgrade"]
        assert fields["sec-websocket-version"] == ["13"]
        (key,) = fields["sec-websocket-key"]
        assert len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
        keys.add(key)
    assert len(keys) == 8


@clause("6455:4.1-12", "6455:4.1-6", "6455:4.1-11")
def test_the_request_of_an_agent(world):
    listener = Listener()
    try:
        relay = world.relay()  # only for a token's key
        world.http(relay, 9, ready=False, url=f"ws://127.0.0.1:{listener.port}")
        sock, line, fields, _ = listener.accept_raw()
        with sock:
            assert re.fullmatch(r"GET /tunnel HTTP/1\.1", line)
            assert fields["upgrade"] == ["websocket"]
            assert fields["sec-websocket-version"] == ["13"]
            protocols = re.split(r"\s*,\s*", ",".join(fields["sec-websocket-protocol"]))
            assert "culvert.v1" in protocols and len(set(protocols)) == len(protocols)
            assert all(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) for name in protocols)
    finally:
        listener.close()


@clause("6455:4.1-2", "6455:4.1-14")
def test_an_answer_that_ends_too_early_fails():
    for answer in (b"", b"HTTP/1.1 101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"):
        listener = Listener()
        client = Client().start(listener)
        try:
            sock, *_ = listener.accept_raw()
            with sock:
                sock.sendall(answer)
            client.communicate(timeout=10)
            assert client.returncode == 1
        finally:
            listener.close()
            client.kill()
            client.communicate()


@clause("6455:3-1")
def test_an_address_with_a_fragment_is_refused():
    done = subprocess.run([WS_ECHO, "client", "--url", "ws://127.0.0.1:9/#part"], timeout=10,
                          capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr


def test_a_client_whose_handshake_is_good_goes_on():
    """What meet() refuses is refused for its fault alone."""
    with Client().open() as peer:
        peer.send(TEXT, b"x")
        assert peer.read() == ("message", TEXT, b"x")
        peer.send(CLOSE, close_payload(1000))
        assert peer.read() == ("close", 1000, "")
