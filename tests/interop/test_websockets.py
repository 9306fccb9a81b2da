# SPDX-License-Identifier: MIT
"""WebSocket peers of other makers: npm's ws, python3-websockets, Chromium and curl, with and without
permessage-deflate, at the engine (tests/peers/ws_echo) and through the relay to a service."""
import asyncio
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import urllib.parse

import pytest
import websockets
import websockets.client

from bulk import LONG_MIB, SHORT_MIB
from culvert import PEERS
from interop_plugin import Stopwatch
from npm import node_environment
from sshpeers import HERE

WS_ECHO = PEERS / "ws_echo"
PLAIN = pytest.mark.parametrize("is_plain", [False, True], ids=["deflate", "plain"])
SIZES = pytest.mark.parametrize("mib", [SHORT_MIB, pytest.param(LONG_MIB, marks=pytest.mark.long)])


def args(is_plain, deflate=(), plain=("plain",)):
    return plain if is_plain else deflate


@pytest.fixture(scope="module")
def node(shared):
    """Runs ws_peer.js."""
    env = node_environment(shared)

    class Node:
        @staticmethod
        def start(*words, **extra):
            return subprocess.Popen(["node", HERE / "ws_peer.js", *map(str, words)],
                                    env={**env, **extra}, stdout=subprocess.PIPE, text=True)

        def run(self, *words, **extra):
            process = self.start(*words, **extra)
            out, _ = process.communicate(timeout=300)
            return json.loads(out)
    return Node()


@pytest.fixture
def ended():
    """Processes that the test starts and that must not outlive it."""
    processes = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def start_echo(ended, is_plain):
    echo = subprocess.Popen([WS_ECHO, "server", "--listen", "127.0.0.1:0",
                             *args(is_plain, plain=("--no-deflate",))],
                            stdout=subprocess.PIPE, text=True)
    ended.append(echo)
    return int(echo.stdout.readline().rpartition(":")[2])


def check(result, mib, is_plain):
    assert "error" not in result, result
    assert (result["mib"], result["code"]) == (mib, 1000)
    assert result["pongs"] == (mib + 9) // 10
    assert ("permessage-deflate" in result["extensions"]) != is_plain


# ---- npm's ws ----

@PLAIN
@SIZES
def test_ws_client_at_our_server(node, ended, row, is_plain, mib):
    port = start_echo(ended, is_plain)
    with Stopwatch(2 * mib) as watch:
        check(node.run("client", mib, f"ws://127.0.0.1:{port}/"), mib, is_plain)
    row.note("npm ws", "client at ws_echo", "plain" if is_plain else "deflate", 2 * mib, watch.rate)


@PLAIN
@SIZES
def test_ws_server_and_our_client(node, ended, row, is_plain, mib):
    server = node.start("drive", mib, *args(is_plain))
    ended.append(server)
    port = server.stdout.readline().strip()
    with Stopwatch(2 * mib) as watch:
        client = subprocess.run([WS_ECHO, "client", "--url", f"ws://127.0.0.1:{port}"], timeout=300,
                                capture_output=True, text=True)
        assert (client.returncode, client.stdout) == (0, "1 cases, 0 refused\n"), client
        check(json.loads(server.stdout.readline()), mib, is_plain)
    row.note("npm ws", "server of ws_echo", "plain" if is_plain else "deflate", 2 * mib, watch.rate)


class Tunnel:
    def __init__(self, world):
        self.world = world
        self.relay = world.relay(config="limits:\n  max_links_per_user: 50\n")
        self.token = world.token("alice")

    def to(self, port):
        """The URL of a service at this port."""
        name = f"ws-{port}"
        self.world.http(self.relay, port, name=name)
        return f"ws://127.0.0.1:{self.relay.port}/t/{name}/echo"


@pytest.fixture(scope="module")
def tunnel(shared):
    return Tunnel(shared)


@PLAIN
@SIZES
@pytest.mark.parametrize("by_protocol", [False, True], ids=["header", "protocol"])
def test_ws_client_and_server_through_the_relay(node, tunnel, ended, row, is_plain, mib, by_protocol):
    service = node.start("echo", *args(is_plain))
    ended.append(service)
    url = tunnel.to(int(service.stdout.readline()))
    words, env = [*args(is_plain)], {"AUTHORIZATION": f"Bearer {tunnel.token}"}
    if by_protocol:  # which ws, as browsers do, wants to have back
        words, env = [*words, f"bearer.{tunnel.token}"], {}
    with Stopwatch(2 * mib) as watch:
        check(node.run("client", mib, url, *words, **env), mib, is_plain)
    row.note("npm ws", "through the relay", "plain" if is_plain else "deflate", 2 * mib, watch.rate)


# ---- python3-websockets ----

@PLAIN
@SIZES
@pytest.mark.parametrize("through_relay", [False, True], ids=["direct", "relay"])
def test_python_websockets(tunnel, ended, row, is_plain, mib, through_relay):
    port = start_echo(ended, is_plain)
    url, headers = f"ws://127.0.0.1:{port}/", {}
    if through_relay:
        url, headers = tunnel.to(port), {"Authorization": f"Bearer {tunnel.token}"}
    piece = os.urandom(1 << 19) + b"culvert " * (1 << 16)

    async def talk():
        async with websockets.client.connect(url, max_size=None, extra_headers=headers,
                                             ping_timeout=None) as ws:
            assert bool(ws.extensions) != is_plain
            for _ in range(mib):
                await ws.send(piece)
                assert await ws.recv() == piece
            await ws.send("grüße")
            assert await ws.recv() == "grüße"
        assert ws.close_code == 1000
    with Stopwatch(2 * mib) as watch:
        asyncio.run(asyncio.wait_for(talk(), 300))
    row.note("python3-websockets", "through the relay" if through_relay else "client at ws_echo",
             "plain" if is_plain else "deflate", 2 * mib, watch.rate)


# ---- Chromium ----

class Site:
    """Serves ws_page.html, and takes what it tells."""

    def __init__(self):
        site = self
        self.told = threading.Event()
        self.result = None

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                page = (HERE / "ws_page.html").read_bytes()
                self.send_response(200 if self.path.startswith("/page") else 404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def do_POST(self):
                site.result = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()
                site.told.set()

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def browse(world):
    """Opens the page in Chromium; returns what it told."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed")
    sites = []

    def browse(site, url, protocol, mib):
        query = urllib.parse.urlencode({"url": url, "protocol": protocol, "mib": mib})
        world.spawn(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                    "--no-first-run", "--disable-background-networking",
                    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                    "--no-proxy-server", f"--user-data-dir={world.folder / 'chromium'}",
                    f"http://127.0.0.1:{site.port}/page?{query}")
        assert site.told.wait(120), "the page has told nothing"
        return site.result

    def make():
        sites.append(Site())
        return sites[-1]
    browse.site = make
    yield browse
    for site in sites:
        site.close()


def serve(world, ended, site, is_plain):
    """(URL, token) of ws_echo behind a relay that knows the page's origin."""
    relay = world.relay(config=f"cors:\n  origins: ['http://127.0.0.1:{site.port}']\n")
    world.http(relay, start_echo(ended, is_plain), name="ws")
    return f"ws://127.0.0.1:{relay.port}/t/ws/echo", world.token("alice")


@PLAIN
@SIZES
def test_chromium_through_the_relay(world, browse, ended, row, is_plain, mib):
    site = browse.site()
    url, token = serve(world, ended, site, is_plain)
    with Stopwatch(2 * mib) as watch:
        result = browse(site, url, f"bearer.{token}", mib)
    assert result["opened"], result
    assert (result["echoed"], result["texts"], "wrong" in result) == (mib, 1, False)
    assert (result["code"], result["wasClean"]) == (3000, True)
    assert ("permessage-deflate" in result["extensions"]) != is_plain
    row.note("Chromium", "through the relay", "plain" if is_plain else "deflate", 2 * mib, watch.rate)


def test_chromium_is_refused_on_a_foreign_page(world, browse, ended):
    site, other = browse.site(), browse.site()
    url, token = serve(world, ended, other, True)
    result = browse(site, url, f"bearer.{token}", 1)
    assert not result["opened"] and result["code"] == 1006, result


# ---- curl ----

def test_curl(tunnel, ended):
    curl = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout
    if not re.search(r"^Protocols:.*\bwss?\b", curl, re.M):
        pytest.skip("this curl was built without WebSocket: " + curl.split(" (")[0])
    url = tunnel.to(start_echo(ended, True))
    done = subprocess.run(["curl", "-sS", "-N", "-T", "-", "-H",
                           f"Authorization: Bearer {tunnel.token}", url], input=b"hello",
                          capture_output=True, timeout=20)
    assert done.stdout == b"hello", done
