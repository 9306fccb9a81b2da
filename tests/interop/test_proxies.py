# SPDX-License-Identifier: MIT
"""nginx and haproxy in front of the relay, with consumers and the agent's link both behind them."""
import json
import threading

import pytest
from bulk import LONG_MIB, MIB, ROUTES, SHORT_MIB, download, upload
from client import Client
from culvert import wait_for
from interop_plugin import Stopwatch
from proxies import FRONTS
from test_auth import AUDIENCE, ISSUER
from test_tls import Secure, key  # noqa: F401 - a fixture

BACK_S = 45
PATIENCE = {"WS_PING_INTERVAL": "1s", "WS_PONG_TIMEOUT": "30s"}


class Plain:
    """No TLS anywhere."""
    tls = None
    relay_options = {}

    def __init__(self, world, authority, key, front, env=None, **options):  # noqa: F811
        self.world = world
        self.service = world.service(ROUTES)
        self.start_relay(authority, key, env or {})
        self.front = FRONTS[front](world, self.relay.port, **options, **self.front_options())
        self.agent = world.http(
            self.relay, self.service.port, token=self.token, url=self.url(),
            env={"CULVERT_CA_FILE": str(authority.ca), **(env or {})})

    def start_relay(self, authority, key, env):  # noqa: F811
        self.relay = self.world.relay(env=env)
        self.token = self.world.token()

    def front_options(self):
        return {}

    def url(self):
        return f"{'wss' if self.tls else 'ws'}://localhost:{self.front.port}"

    def client(self, timeout=60):
        return Client(self.front.port, tls=self.tls, server_name="localhost", timeout=timeout)

    def fetch(self, method="GET", body=None, target="/x", timeout=60):
        with self.client(timeout) as client:
            client.request(method, f"/t/home{target}", self.token, body=body)
            return client.response(method)

    def is_back(self):
        try:
            response = self.fetch(timeout=5)
        except OSError:
            return False
        return response is not None and response.status == 200


class TlsAtTheProxy(Plain):
    def start_relay(self, authority, key, env):  # noqa: F811
        self.tls = authority.context()
        jwks = self.world.write("jwks.json", json.dumps({"keys": [key.jwk]}))
        self.relay = self.world.relay(dev=False, env=env, config=f"""
trusted_proxy: [127.0.0.1/32]
auth:
  jwks_file: {jwks}
  issuer: {ISSUER}
  audience: [{AUDIENCE}]
""")
        self.token = key.sign()
        self.files = authority.issue()

    def front_options(self):
        return {"cert": self.files[0], "private": self.files[1]}


class TlsPassesThrough(Plain):
    def start_relay(self, authority, key, env):  # noqa: F811
        secure = Secure(self.world, authority, key, env=env)
        self.tls, self.relay, self.token = authority.context(), secure.relay, secure.token

    def front_options(self):
        return {"passes_tls": True}


KINDS = {"plain": Plain, "tls ends here": TlsAtTheProxy, "tls passes": TlsPassesThrough}
every_front = pytest.mark.parametrize("front", FRONTS)


@pytest.fixture
def behind(world, authority, key):  # noqa: F811
    scenes = []

    def start(front, kind="plain", **kw):
        scenes.append(KINDS[kind](world, authority, key, front, **kw))
        return scenes[-1]

    yield start
    for scene in scenes:  # while there still is a way for its goodbye
        scene.agent.stop()


@pytest.mark.parametrize("mib", [SHORT_MIB, pytest.param(LONG_MIB, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", KINDS)
@every_front
def test_link_and_consumers_through_a_proxy(behind, row, front, kind, mib):
    scene = behind(front, kind)
    assert scene.fetch().status == 200
    assert scene.fetch("POST", b"hello").body == b"hello"
    if kind == "tls ends here":
        assert scene.service.requests[-1].get("X-Forwarded-Proto") == "https"
    with Stopwatch(mib) as up, scene.client() as client:
        upload(client, "/t/home/up", mib * MIB, scene.token)
    with Stopwatch(mib) as down, scene.client() as client:
        download(client, "/t/home/down", mib * MIB, scene.token)
    row.note(front, "in front", kind, mib, up.rate, down.rate)


@pytest.mark.parametrize("kind", ["plain", "tls ends here"])
@every_front
def test_pieces_and_cuts_and_leaving_through_a_proxy(behind, front, kind):
    seen, gone = threading.Semaphore(0), threading.Event()

    def stream(conn, request):
        conn.start_chunked()
        for number in range(5):
            conn.chunk(b"%d" % number)
            assert seen.acquire(timeout=60)
        conn.end_chunks()

    def cut(conn, request):
        conn.start_chunked()
        conn.chunk(b"half")
        return False

    def endless(conn, request):
        # haproxy notices only when it writes.
        conn.start_chunked()
        try:
            while not gone.wait(0.05):
                conn.chunk(b"more")
        finally:
            gone.set()
    scene = behind(front, kind)
    scene.service.on("/stream", stream).on("/cut", cut).on("/endless", endless)
    with scene.client() as client:
        client.request("GET", "/t/home/stream", scene.token)
        response = client.response(on_piece=lambda data: [seen.release() for _ in data])
        assert response.is_complete and response.body == b"01234"
    with scene.client() as client:
        client.request("GET", "/t/home/cut", scene.token)
        response = client.response()
        assert response is None or not response.is_complete
    with scene.client() as client:
        client.request("GET", "/t/home/endless", scene.token)
        assert client.head().status == 200
        client.wait_bytes()
    assert gone.wait(20)


@pytest.mark.parametrize("kind", ["plain", "tls passes"])
@every_front
def test_pings_keep_an_idle_link_through_a_proxy(behind, front, kind):
    """The proxy's patience ends after 3 s, a ping goes every second."""
    scene = behind(front, kind, idle_s=3, env=PATIENCE)
    stopped = threading.Event()
    assert not stopped.wait(7)
    assert not scene.relay.find("link_detached") and not scene.relay.find("link_down")
    assert scene.fetch().status == 200


@every_front
def test_a_link_that_a_proxy_finds_idle_comes_back(behind, front):
    """Each second the proxy cuts the link: it resumes, and an answer that pauses longer is whole."""
    def pausing(conn, request):
        conn.start_chunked()
        for piece in (b"before, ", b"after"):
            conn.chunk(piece)
            scene.relay.wait_log("link_resumed", timeout=BACK_S, since=len(scene.relay.records))
        conn.end_chunks()
    scene = behind(front, idle_s=1)
    scene.service.on("/pausing", pausing)
    response = scene.relay.fetch("/t/home/pausing", scene.token, timeout=2 * BACK_S)
    assert response.is_complete and response.body == b"before, after"


@pytest.mark.parametrize("kind", KINDS)
@every_front
def test_a_proxy_that_was_started_anew(behind, front, kind):
    """Consumers behind it fail meanwhile; an answer to one that has another way is whole."""
    back = threading.Event()

    def long(conn, request):
        conn.start_chunked()
        conn.chunk(b"before, ")
        assert back.wait(2 * BACK_S)
        conn.chunk(b"after")
        conn.end_chunks()
    scene = behind(front, kind)
    scene.service.on("/long", long)
    assert scene.is_back()
    with Client(scene.relay.port, tls=scene.relay.tls, server_name="localhost",
                timeout=2 * BACK_S) as client:
        client.request("GET", "/t/home/long", scene.token)
        response = client.head()
        client.wait_bytes()
        scene.front.stop()
        assert not scene.is_back()
        scene.front.start()
        wait_for(scene.is_back, BACK_S, "tunnel", interval=0.2)
        back.set()
        client.body(response)
    assert response.is_complete and response.body == b"before, after"
    assert scene.fetch("POST", b"again").body == b"again"
