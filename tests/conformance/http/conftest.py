# SPDX-License-Identifier: MIT
"""The three sides that a message is sent to, and what each shows of it."""
import subprocess

import pytest
from client import Client
from culvert import PEERS, wait_for
from scene import Scene

CANARY = "GET {p}/canary HTTP/1.1\r\nHost: a\r\n{a}\r\n"


class Side:
    """Where messages go. In a message, {p} is the target's prefix, {a} the field line with the
    token, if it has one; characters are bytes."""

    def __init__(self, name, port, prefix="", auth="", scene=None):
        self.name = name
        self.port = port
        self.prefix = prefix
        self.auth = auth
        self.scene = scene
        self.service = scene.service if scene and auth else None

    def bytes(self, text):
        return text.replace("{p}", self.prefix).replace("{a}", self.auth).encode("latin-1")

    def connect(self, **kw):
        return Client(self.port, **kw)

    def send(self, text, method="GET"):
        """(the answer, whether the connection then closed) to one message on its own."""
        with self.connect() as client:
            client.send(self.bytes(text))
            return client.response(method)

    def seen(self):
        """How much the service has seen so far: bytes, requests."""
        return (self.service.received_bytes, len(self.service.requests)) if self.service else None

    def refuses(self, text, statuses=(400,)):
        """The message, sent in one piece with a sound request behind it, is refused, the connection
        closed, and the service hears nothing of either."""
        before = self.seen()
        with self.connect() as client:
            try:
                client.send(self.bytes(text) + self.bytes(CANARY))
            except OSError:
                pass  # refused before all of it was out
            response = client.response("GET")
            assert response is not None, "no answer before the close"
            assert response.status in statuses, (response.status, response.body)
            assert client.is_closed(), "what stands behind it was looked at"
        assert self.seen() == before, "the service heard of it"
        return response


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """http_echo, the parser alone."""
    process = subprocess.Popen([PEERS / "http_echo", "--listen", "127.0.0.1:0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    yield Side("echo", int(line.rpartition(":")[2]))
    process.terminate()
    _, log = process.communicate(timeout=10)
    assert "Sanitizer" not in log and "runtime error" not in log, log


@pytest.fixture(scope="module")
def relay(shared):
    """A relay, an agent and a service that records what it gets; with alice's token."""
    scene = Scene(shared)
    return Side("relay", scene.relay.port, "/t/home",
                f"Authorization: Bearer {scene.token}\r\n", scene)


@pytest.fixture(scope="module")
def bare(relay):
    """The same relay, without a token."""
    return Side("bare", relay.port, "/t/home", scene=relay.scene)


@pytest.fixture(params=["echo", "bare", "relay"])
def side(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["echo", "relay"])
def server(request):
    """Who answers what is well-formed."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def answers(relay):
    """Makes the service answer the next request with these bytes; gives what the consumer sees.
    The client refuses answers that are not strictly HTTP."""
    def run(data, method="GET", close=False, version="HTTP/1.1"):
        def route(conn, request):
            conn.read_body(request)
            conn.send(data)
            return not close
        relay.scene.relay.expect_error(".*")
        relay.service.on("/answer", route)
        with relay.connect() as client:
            client.send(relay.bytes(f"{method} {{p}}/answer {version}\r\nHost: a\r\n{{a}}\r\n"))
            response = client.response(method)
            response.raw_rest = client.buffer
            return response
    return run


@pytest.fixture
def forwards(relay):
    """Sends a message; gives (answer, the request as the service got it)."""
    def run(text, method="GET"):
        count = len(relay.service.requests)
        response = relay.send(text, method)
        wait_for(lambda: len(relay.service.requests) > count, 10, "request at the service")
        return response, relay.service.requests[count]
    return run
