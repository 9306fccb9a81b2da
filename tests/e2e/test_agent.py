# SPDX-License-Identifier: MIT
"""The agent's own behaviour: whom it trusts, when it goes on, when it gives up, what it passes on."""
import os
import re
import signal
import socket
import subprocess
import time

import pytest
from attack import IS_SANITIZED
from culvert import AGENT_READY, BIN, free_port, wait_for


def raw_service(handle):
    """A TCP service on a thread per connection; gives its port."""
    import threading
    server = socket.create_server(("127.0.0.1", 0))

    def loop():
        while True:
            try:
                conn, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(conn,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()
    return server


@pytest.fixture
def raw(world):
    """raw(handle): a relay, the service as tunnel `raw`, and a local port that leads to it."""
    servers = []

    def make(handle):
        servers.append(raw_service(handle))
        relay = world.relay()
        world.tcp(relay, servers[0].getsockname()[1], name="raw")
        _, port = world.forward(relay, "raw")
        return socket.create_connection(("127.0.0.1", port), 10)
    yield make
    for server in servers:
        server.close()


# -- whom it trusts --------------------------------------------------------------------------------

def fingerprint(world, relay):
    service = world.service()
    agent = world.http(relay, service.port, name="first")
    return agent.wait_log("host_key_pinned")["fingerprint"], service


def test_a_pinned_fingerprint_goes_before_known_hosts(world):
    relay = world.relay()
    right, service = fingerprint(world, relay)
    world.http(relay, service.port, env={"CULVERT_HOST_KEY_FINGERPRINT": right})
    wrong = "SHA256:" + "A" * 43
    agent = world.http(relay, service.port, ready=False, name="other",
                       env={"CULVERT_HOST_KEY_FINGERPRINT": wrong})
    agent.expect_error("host.?key")
    agent.wait()
    agent.stop(code=3)
    assert agent.find(text="TUNNEL_021") and not agent.find(AGENT_READY)


def test_known_hosts_is_private_and_has_one_line_per_relay(world):
    relay = world.relay()
    fingerprint(world, relay)
    path = world.state / "known_hosts"
    assert path.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(rf"127\.0\.0\.1:{relay.port} ssh-ed25519 \S+\n", path.read_text())


def test_a_token_does_not_travel_readable_to_another_machine(world):
    done = world.run("http", "80", "--server", "ws://192.0.2.1", env={"CULVERT_TOKEN": "a.b.c"})
    assert done.returncode == 2 and "wss://" in done.stderr


# -- going on and giving up ------------------------------------------------------------------------

def test_it_gives_up_after_as_many_tries_as_it_is_told(world):
    done = world.run("http", "80", "--server", f"ws://127.0.0.1:{free_port()}",
                     env={"CULVERT_TOKEN": "a.b.c", "CULVERT_RECONNECT_MAX_ATTEMPTS": "3"})
    assert done.returncode == 4
    assert done.stderr.count('"connecting"') == 3
    assert done.stderr.count('"connect_failed"') == 2


def test_each_try_is_logged_with_number_delay_and_reason(world):
    port = free_port()
    agent = world.start("agent", "http", 80, "--server", f"ws://127.0.0.1:{port}", "--name", "home",
                        env={"CULVERT_TOKEN": world.token()})
    wait_for(lambda: len(agent.find("connect_failed")) >= 3, what="three tries")
    tries = agent.find("connect_failed")
    assert [t["attempt"] for t in tries[:3]] == [1, 2, 3]
    assert all(t["delayMs"] <= 500 and t["error"]["code"] == "TUNNEL_001" for t in tries)


def test_a_refused_token_is_not_hammered(world):
    """An agent that was up goes on, but no relay is asked every few milliseconds."""
    service = world.service()
    relay = world.relay()
    path = world.write("token", world.token())
    agent = world.start("agent", "http", service.port, "--server", relay.url, "--name", "home",
                        "--token-file", path, env={"CULVERT_TOKEN": None})
    agent.wait_log(AGENT_READY)
    path.write_text("a.b.c")
    port = relay.port
    relay.stop()
    relay = world.relay(port=port)
    tried = agent.wait_log("reconnecting", text="TUNNEL_002")
    assert tried["delayMs"] >= 10000
    assert agent.process.poll() is None


def test_an_agent_service_outlives_a_refused_token(world):
    relay = world.relay()
    config = world.write("agent.yaml", f"server: {relay.url}\ntunnels: [{{name: a, target: '80'}}]\n")
    agent = world.start("agent", "agent", "-c", config, env={"CULVERT_TOKEN": "a.b.c"})
    agent.wait_log("connect_failed", text="TUNNEL_002")
    assert agent.process.poll() is None


def test_what_refuses_the_upgrade_is_explained(world):
    for status, words in ((404, "path"), (403, "proxy"), (200, "another server")):
        def route(conn, request, status=status):
            conn.read_body(request)
            conn.reply(status=status, body=b"<html>")
        service = world.service(default=route)
        done = world.run("stdio", "--server", f"ws://127.0.0.1:{service.port}", input="",
                         env={"CULVERT_TOKEN": "a.b.c"})
        assert done.returncode == 4, done.stderr
        assert str(status) in done.stderr and words in done.stderr


def test_retry_after_is_honoured(world):
    def route(conn, request):
        conn.read_body(request)
        conn.reply(status=503, headers=[("Retry-After", "30")])
    service = world.service(default=route)
    agent = world.start("agent", "http", 80, "--server", f"ws://127.0.0.1:{service.port}",
                        env={"CULVERT_TOKEN": "a.b.c"})
    assert agent.wait_log("connect_failed")["delayMs"] == 30000


def test_a_forward_waits_while_the_relay_is_away(world):
    service = world.service()
    relay = world.relay()
    agent = world.http(relay, service.port)
    _, local = world.forward(relay, "home")
    port = relay.port
    relay.stop()
    with socket.create_connection(("127.0.0.1", local), 20) as conn:
        conn.sendall(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        # The forward must not be back before the agent is, else its request finds no tunnel.
        forward = world.processes[-1]
        forward.signal(signal.SIGSTOP)
        world.relay(port=port)
        wait_for(lambda: len(agent.find(AGENT_READY)) >= 2, 20, "second publication")
        forward.signal(signal.SIGCONT)
        assert conn.recv(12) == b"HTTP/1.1 200"


# -- streams ---------------------------------------------------------------------------------------

def test_half_closes_travel_both_ways(raw):
    def count(conn):
        total = 0
        while data := conn.recv(65536):
            total += len(data)
        conn.sendall(str(total).encode())
        conn.close()
    with raw(count) as conn:
        conn.sendall(b"x" * 3_000_000)
        conn.shutdown(socket.SHUT_WR)
        assert conn.makefile("rb").read() == b"3000000"


def test_what_the_service_says_before_it_hangs_up_arrives(raw):
    def speak(conn):
        conn.sendall(b"y" * 2_000_000)
        conn.close()
    with raw(speak) as conn:
        time.sleep(0.3)
        assert len(conn.makefile("rb").read()) == 2_000_000


def test_a_client_that_goes_ends_the_services_connection(raw):
    ended = []

    def wait_for_end(conn):
        conn.sendall(b"hello")
        with conn:
            try:
                ended.append(conn.recv(1))
            except OSError:
                ended.append(b"")
    conn = raw(wait_for_end)
    assert conn.recv(5) == b"hello"
    conn.close()
    wait_for(lambda: ended == [b""], 5, "end at the service")


def test_a_slow_service_holds_the_sender_back(world):
    import threading
    gate = threading.Event()
    got = []

    def slow(conn):
        gate.wait(20)
        while data := conn.recv(1 << 20):
            got.append(len(data))
        conn.close()
    server = raw_service(slow)
    relay = world.relay()
    agent = world.tcp(relay, server.getsockname()[1], name="raw")
    forward, port = world.forward(relay, "raw")
    before = agent.rss_kib() + forward.rss_kib()
    with socket.create_connection(("127.0.0.1", port), 10) as conn:
        conn.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 200 << 20:
                sent += conn.send(b"z" * 65536)
        assert sent < 64 << 20, "nobody holds so much"
        grown = agent.rss_kib() + forward.rss_kib() - before
        assert grown < (200 if IS_SANITIZED else 24) * 1024
        gate.set()
        conn.settimeout(20)
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv(1) == b""
    assert sum(got) == sent
    server.close()


# -- small things ----------------------------------------------------------------------------------

def test_signals_change_the_log_level(world):
    service = world.service()
    relay = world.relay()
    agent = world.http(relay, service.port, env={"LOG_LEVEL": "info"})
    relay.fetch("/t/home/x", world.token())
    assert not agent.find(level="debug")
    agent.signal(signal.SIGUSR1)
    time.sleep(0.2)
    agent.signal(signal.SIGTERM)
    agent.wait()
    assert agent.find(level="debug")


def test_people_are_told_where_the_tunnel_is(world):
    service = world.service()
    relay = world.relay()
    agent = world.http(relay, service.port)
    wait_for(lambda: b"/t/home/" in agent.stdout, what="the URL on stdout")
    assert f"{relay.http_url}/t/home/ -> 127.0.0.1:{service.port}".encode() in agent.stdout


def test_without_a_name_the_port_is_the_name(world):
    service = world.service()
    relay = world.relay()
    agent = world.start("agent", "http", service.port, "--server", relay.url,
                        env={"CULVERT_TOKEN": world.token()})
    agent.wait_log(AGENT_READY, tunnel=str(service.port))
    assert relay.fetch(f"/t/{service.port}/x", world.token()).status == 200


@pytest.mark.parametrize("kind", ["file", "null", "socket", "pipe"])
def test_stdio_takes_any_kind_of_input(world, kind):
    relay = world.relay()
    env = world.env({"CULVERT_TOKEN": world.token()})
    hello = b"SSH-2.0-test\r\n"
    ours = None
    if kind == "file":
        theirs = open(world.write("input", hello.decode()), "rb")
    elif kind == "null":
        theirs = open("/dev/null", "rb")
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        ours.sendall(hello)
    else:
        read, write = os.pipe()
        os.write(write, hello)
        ours, theirs = os.fdopen(write, "wb"), os.fdopen(read, "rb")
    process = subprocess.Popen([BIN, "stdio", "--server", relay.url], env=env, stdin=theirs,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    theirs.close()
    if ours:
        assert process.stdout.read(8) == b"SSH-2.0-"
        ours.close()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    if not ours:
        assert out.startswith(b"SSH-2.0-")
