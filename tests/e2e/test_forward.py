# SPDX-License-Identifier: MIT
"""`culvert forward`: a local port whose links are kept as an agent's are. It moves with the relay,
fails over, is seen by `culvert status`, and lets what it carries end."""
import contextlib
import json
import signal
import socket
import subprocess
import threading
import time

import pytest
from chaos import Chaos
from client import fetch
from culvert import AGENT_READY, BIN, FORWARD_READY, free_port, wait_for
from test_takeover import successor

RETURN = {"CULVERT_TIMERS_AGENT_RETURN": "20s"}


@pytest.fixture
def echo():
    """A TCP service that echoes; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def talk(conn, text=b"hello"):
    conn.sendall(text)
    got = b""
    while len(got) < len(text):
        data = conn.recv(65536)
        assert data, "closed in the middle"
        got += data
    assert got == text


def connect(port):
    return socket.create_connection(("127.0.0.1", port), 30)


def start_forward(world, servers, name, extra=""):
    """With a list of relays, as a file says it."""
    port = free_port()
    config = world.write("forward.yaml", f"servers: {json.dumps(servers)}\n{extra}")
    forward = world.start("forward", "forward", "-c", config, port, name,
                          env={"CULVERT_TOKEN": world.token()})
    forward.wait_log(FORWARD_READY)
    return forward, port


def status(world, pid):
    agents = json.loads(world.run("status", "--json").stdout)["agents"]
    return next(a for a in agents if a["pid"] == pid)


# ---- the relay stops -----------------------------------------------------------------------------

def test_a_forward_moves_to_the_next_process_and_its_streams_end_by_themselves(world, echo):
    old = world.relay(env=RETURN)
    agent = world.tcp(old, echo, name="raw")
    forward, port = world.forward(old, "raw")
    with connect(port) as before:
        talk(before)
        new = successor(world, old, env=RETURN)
        wait_for(lambda: len(agent.find(AGENT_READY)) == 2, 20, "the agent at the new relay")
        with connect(port) as after:
            talk(after, b"over the new process" * 1000)
            talk(before, b"and over the old one" * 1000)
            wait_for(lambda: len(forward.find("link_up")) == 2, 20, "another link")
            assert old.process.poll() is None, "it has not waited for its TCP stream"
        talk(before)
    assert old.wait() == 0, old.tail()
    drained = old.find("drain_end")[0]
    assert drained["requests"] == 0 and not drained["wasCutShort"]
    assert new.find("link_up") and not forward.find("stream_refused")


def test_an_idle_forward_does_not_hold_up_a_relay_that_is_taken_over(world, echo):
    old = world.relay()
    world.tcp(old, echo, name="raw")
    forward, port = world.forward(old, "raw")
    began = time.monotonic()
    successor(world, old)
    assert old.wait() == 0
    assert time.monotonic() - began < 15
    wait_for(lambda: len(forward.find("link_up")) == 2, 20, "another link")
    with connect(port) as conn:
        talk(conn)


def test_a_forward_fails_over_and_comes_back(world, echo):
    """Its relay is killed: new connections go through the other one."""
    relays = [world.relay(), world.relay()]
    agent = world.start("agent", "agent", "-c", world.write("agent.yaml", json.dumps({
        "servers": [{"url": r.url} for r in relays], "links": 2,
        "tunnels": [{"name": "raw", "kind": "tcp", "target": f"127.0.0.1:{echo}"}]})),
        env={"CULVERT_TOKEN": world.token()})
    wait_for(lambda: len(agent.find(AGENT_READY)) == 2, 20, "the tunnel at both relays")
    forward, port = start_forward(world, [{"url": relays[0].url},
                                          {"url": relays[1].url, "priority": 1}], "raw",
                                  "reconnect: {return_after: 1s}")
    with connect(port) as conn:
        talk(conn)
    relays[0].kill()
    with connect(port) as conn:
        talk(conn)
    assert [r["relay"] for r in forward.find("link_up")] == [f"127.0.0.1:{r.port}" for r in relays]
    back = world.relay(port=relays[0].port)
    forward.wait_log("relay_changed", timeout=30)
    wait_for(lambda: back.find("tunnel_published"), 30, "the agent back")
    with connect(port) as conn:
        talk(conn)


# ---- people ask ----------------------------------------------------------------------------------

def test_people_see_a_forward_and_have_it_connect_anew(world, echo):
    relay = world.relay()
    world.tcp(relay, echo, name="raw")
    forward, port = world.forward(relay, "raw")
    with connect(port) as conn:
        talk(conn)
        told = status(world, forward.pid)
        assert told["forwards"] == [{"address": f"127.0.0.1:{port}", "tunnel": "raw", "kind": "tcp",
                                     "connections": 1, "waiting": 0}]
        assert told["tunnels"] == [] and told["streams"] == 1
        assert told["links"][0]["state"] == "up"
        people = world.run("status", check=0).stdout
        assert f"forward {forward.pid} " in people and f"127.0.0.1:{port} -> raw" in people
        world.run("reconnect", check=0)
        forward.wait_log("link_resumed")
        talk(conn)


# ---- ending --------------------------------------------------------------------------------------

def test_a_forward_lets_a_connection_end(world, echo):
    relay = world.relay()
    world.tcp(relay, echo, name="raw")
    forward, port = world.forward(relay, "raw")
    with connect(port) as conn:
        talk(conn)
        forward.signal(signal.SIGTERM)
        forward.wait_log("shutdown_started", streams=1)
        talk(conn)
        with pytest.raises(OSError):
            connect(port).close()
    assert forward.wait() == 0 and not forward.find("shutdown_cut")


def test_a_forward_without_its_relay_ends_at_once(world, echo):
    """A link that waits for a connection is not waited for with all of the drain time."""
    relay = world.relay()
    world.tcp(relay, echo, name="raw", env={"CULVERT_SHUTDOWN_DRAIN": "1s"})
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    port = free_port()
    forward = world.start("forward", "forward", port, "raw", "--server",
                          f"ws://127.0.0.1:{chaos.port}",
                          env={"CULVERT_TOKEN": world.token(), "CULVERT_SHUTDOWN_DRAIN": "60s"})
    forward.wait_log(FORWARD_READY)
    with connect(port) as conn:
        talk(conn)
        chaos.is_refusing = True
        chaos.cut()
        forward.wait_log("connection_lost")
        forward.signal(signal.SIGTERM)
        assert forward.wait(20) == 0


# ---- a tunnel that is not there ------------------------------------------------------------------

def test_a_connection_waits_for_an_agent_that_comes_back(world, echo):
    relay = world.relay(env=RETURN)
    agent = world.tcp(relay, echo, name="raw")
    _, port = world.forward(relay, "raw")
    agent.stop()
    with connect(port) as conn:
        conn.sendall(b"are you there")
        relay.wait_log("agent_awaited")
        world.tcp(relay, echo, name="raw")
        assert conn.recv(64) == b"are you there"


@pytest.mark.parametrize("wait", ["1s", "0"])
def test_a_connection_does_not_wait_for_ever(world, echo, wait):
    relay = world.relay(env={"CULVERT_TIMERS_AGENT_RETURN": wait})
    world.tcp(relay, echo, name="raw").stop()
    forward, port = world.forward(relay, "raw")
    with connect(port) as conn:
        conn.sendall(b"x")
        with contextlib.suppress(ConnectionResetError):
            assert conn.recv(1) == b""
    assert forward.wait_log("stream_refused")["detail"].startswith("tunnel-unknown")
    assert bool(relay.find("agent_awaited")) == (wait != "0")


def test_a_connection_that_waits_may_go(world, echo):
    relay = world.relay(env=RETURN)
    world.tcp(relay, echo, name="raw").stop()
    forward, port = world.forward(relay, "raw")
    with connect(port):
        relay.wait_log("agent_awaited")
    forward.signal(signal.SIGTERM)
    assert forward.wait(8) == 0, "it waits for a stream that is not there"


def test_a_tunnel_of_before_a_restart_is_offline_and_not_unknown(world):
    """Also where the relay does not wait for agents (--dev), and where it was killed."""
    relay = world.relay()
    agent = world.http(relay, 80)
    names = world.state / f"names-127.0.0.1:{relay.port}.txt"
    wait_for(names.exists, 10, "a file of names")
    assert b"home" not in names.read_bytes() and names.stat().st_mode & 0o777 == 0o600
    relay.kill()
    agent.stop()
    for _ in range(2):
        relay = world.relay(port=relay.port)
        assert relay.fetch("/t/home/x", world.token()).status == 503
        assert relay.fetch("/t/other/x", world.token()).status == 404
        assert relay.fetch("/t/home/x", world.token("bob")).status == 404
        relay.stop()


# ---- stdio ---------------------------------------------------------------------------------------

def test_stdio_takes_the_relay_that_answers(world):
    relay = world.relay()
    config = world.write("stdio.yaml", "servers:\n"
                         f"  - url: ws://127.0.0.1:{free_port()}\n"
                         f"  - url: {relay.url}\n    priority: 1\n")
    done = subprocess.Popen([str(BIN), "stdio", "-c", str(config)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE,
                            env=world.env({"CULVERT_TOKEN": world.token()}))
    with done:
        assert done.stdout.read(8) == b"SSH-2.0-"
        done.stdin.close()
        assert done.wait(20) == 0


def test_a_connection_through_stdio_outlives_a_takeover(world, echo):
    """The pipe stays with the process that it leads to, which waits for it."""
    old = world.relay()
    world.tcp(old, echo, name="raw")
    port = free_port()
    ssh = world.spawn("ssh", "-N", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no",
                      "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes",
                      "-o", f"ProxyCommand={world.stdio_command(old)}",
                      "-L", f"127.0.0.1:{port}:raw:{echo}", "alice@relay",
                      env=world.env({"CULVERT_TOKEN": world.token()}))

    def is_open():
        assert ssh.poll() is None, ssh.log_path.read_text()
        with contextlib.suppress(OSError):
            return connect(port)
    with wait_for(is_open, 20, "the port of ssh -L") as conn:
        talk(conn)
        successor(world, old)
        old.wait_log("drain_begin")
        time.sleep(1)  # longer than a drain with nothing to wait for
        talk(conn, b"still there" * 10000)
    assert old.wait() == 0 and old.find("drain_end", requests=0)


def test_a_forward_of_http_waits_while_its_relay_is_away(world):
    service = world.service()
    relay = world.relay(env=RETURN)
    world.http(relay, service.port)
    _, port = world.forward(relay, "home")
    relay.kill()
    got = []
    asking = threading.Thread(target=lambda: got.append(fetch(port, "/x", timeout=30).status),
                              daemon=True)
    asking.start()
    world.relay(port=relay.port, env=RETURN)
    asking.join(40)
    assert got == [200]
