# SPDX-License-Identifier: MIT
"""People and the agents that run here: an agent that rests, `culvert status`, `culvert reconnect`,
and the socket below them."""
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from culvert import AGENT_READY, BIN, free_port, wait_for


def service_agent(world, relay_url, target=80, name="home", env=None, more=""):
    """`culvert agent` with one tunnel."""
    config = world.write(f"agent-{name}.yaml",
                         f"server: {relay_url}\n"
                         f"tunnels: [{{name: {name}, target: '{target}'}}]\n{more}")
    return world.start(f"agent/{name}", "agent", "-c", config,
                       env={"CULVERT_TOKEN": world.token(), **(env or {})})


def test_an_agent_rests_when_its_tries_are_used_up(world):
    agent = service_agent(world, f"ws://127.0.0.1:{free_port()}",
                          more="reconnect: {max_attempts: 3}\n")
    paused = agent.wait_log("reconnect_paused")
    assert paused["failures"] == 3 and paused["error"]["code"] == "TUNNEL_001"
    assert "culvert reconnect" in paused["message"]
    tries = len(agent.find("connecting"))
    assert tries == 3 and agent.process.poll() is None


def test_people_are_told_when_a_relay_stays_away(world):
    agent = service_agent(world, f"ws://127.0.0.1:{free_port()}", more="reconnect: {initial: 100ms, max: 100ms}\n")
    told = agent.wait_log("still_unreachable")
    assert told["failures"] == 10 and told["suggestion"]
    assert wait_for(lambda: len(agent.find("connecting")) > 11, what="tries after that")


def test_a_relay_that_stays_away_does_not_fill_the_log(world):
    """The first failure with what to do, then ever more of them between two lines."""
    agent = service_agent(world, f"ws://127.0.0.1:{free_port()}", env={"LOG_LEVEL": "debug"},
                          more="reconnect: {initial: 100ms, max: 100ms}\n")
    wait_for(lambda: len(agent.find("connect_failed")) >= 17, 30, "17 tries")
    told = agent.find("connect_failed", level="warn")
    assert [r["failures"] for r in told] == [1, 2, 4, 8, 16]
    assert told[0]["suggestion"] and all("suggestion" not in r for r in told[1:])


def test_a_resting_agent_is_woken_by_a_person(world):
    port = free_port()
    agent = service_agent(world, f"ws://127.0.0.1:{port}",
                          more="reconnect: {max_attempts: 2}\n")
    agent.wait_log("reconnect_paused")
    assert status(world)["links"][0]["state"] == "resting"
    world.run("reconnect", check=0)
    wait_for(lambda: len(agent.find("reconnect_paused")) == 2, what="another round of two tries")
    assert len(agent.find("connecting")) == 4
    relay = world.relay(port=port)
    world.run("reconnect", "--server", relay.url, check=0)
    agent.wait_log(AGENT_READY)
    assert status(world)["links"][0]["state"] == "up"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nsenter"), reason="needs root, nsenter")
def test_a_resting_agent_is_woken_by_a_change_of_the_network(world):
    config = world.write("agent.yaml", "server: ws://127.0.0.1:9\n"
                         "tunnels: [{name: home, target: '80'}]\n"
                         "reconnect: {max_attempts: 1}\n")
    agent = world.spawn("unshare", "--net", str(BIN), "agent", "-c", config,
                        env=world.env({"CULVERT_TOKEN": world.token()}))

    def rests():
        return agent.log_path.read_text().count('"reconnect_paused"')
    wait_for(lambda: rests() or agent.poll() is not None, what="a rest")
    if not rests() and "unshare" in agent.log_path.read_text():
        pytest.skip("no network namespaces here")
    seen = rests()
    subprocess.run(["nsenter", "--net", "-t", str(agent.pid), "ip", "link", "set", "lo", "up"],
                   check=True)
    wait_for(lambda: rests() > seen, what="another try")


# ---- what people see ----------------------------------------------------------------------------

def status(world, *args):
    """The one agent's answer."""
    agents = json.loads(world.run("status", "--json", *args, check=0).stdout)["agents"]
    assert len(agents) == 1, agents
    return agents[0]


def test_the_state_of_links_and_tunnels_is_told(scene):
    home = scene()
    assert home.fetch("/x").status == 200
    told = status(home.world)
    assert told["pid"] == home.agent.pid and told["stopping"] is False and told["version"]
    assert 0 <= told["age_ms"] < 600000 and told["since"].endswith("Z")
    link, = told["links"]
    assert link["relay"] == f"127.0.0.1:{home.relay.port}" and link["state"] == "up"
    assert link["attempts"] == 1 and link["failures"] == link["resumes"] == 0
    assert link["bytes_in"] and link["bytes_out"] and link["error"] is None
    assert link["next_try_ms"] is None and link["since"].endswith("Z")
    tunnel, = told["tunnels"]
    assert tunnel == {"name": "home", "kind": "http", "target": f"127.0.0.1:{home.service.port}",
                      "state": "published", "health": "unknown", "links": 1, "reason": None,
                      "url": f"{home.relay.http_url}/t/home/"}
    people = home.world.run("status", check=0).stdout
    assert f"agent {home.agent.pid} " in people and " up for " in people
    assert f"{home.relay.http_url}/t/home/ -> 127.0.0.1:{home.service.port}" in people


def test_the_first_round_trip_is_measured_at_once(home):
    """Not by an acknowledgement, which the relay puts off for a quarter of a second."""
    rtt = wait_for(lambda: status(home.world)["links"][0]["rtt_ms"], 5, "a round trip")
    assert rtt < 200


def test_an_agent_without_its_relay_says_why(world):
    agent = service_agent(world, f"ws://127.0.0.1:{free_port()}",
                          more="reconnect: {initial: 10s, max: 60s}\n")
    agent.wait_log("connect_failed")
    told = status(world)
    link, tunnel = told["links"][0], told["tunnels"][0]
    assert link["state"] in ("waiting", "dialing") and link["failures"] >= 1
    assert link["error"]["code"] == "TUNNEL_001" and link["error"]["category"] == "network"
    assert link["error"]["message"] and link["error"]["suggestion"]
    assert tunnel["state"] == "waiting" and tunnel["url"] is None
    assert "TUNNEL_001" in world.run("status", check=0).stdout


def test_a_refused_tunnel_says_why(world):
    relay = world.relay()
    config = world.write("agent.yaml", f"server: {relay.url}\n"
                         "tunnels: [{name: home, target: '80'}]\n")
    token = world.token("alice", "--tunnel", "other")
    agent = world.start("agent", "agent", "-c", config, env={"CULVERT_TOKEN": token})
    agent.wait_log("tunnel_refused")
    tunnel, = status(world)["tunnels"]
    assert tunnel["state"] == "refused" and tunnel["reason"] and tunnel["links"] == 0


def test_agents_are_chosen_by_their_relay(world):
    one, two = world.relay(), world.relay()
    first = world.http(one, 80, name="one")
    second = world.http(two, 80, name="two")
    agents = json.loads(world.run("status", "--json", check=0).stdout)["agents"]
    assert [agent["pid"] for agent in agents] == sorted([first.pid, second.pid])
    assert status(world, "--server", two.url)["pid"] == second.pid
    world.run("reconnect", "--server", f"ws://127.0.0.1:{one.port}", check=0)
    first.wait_log("link_resumed")
    assert not second.find("reconnect_asked")
    nobody = world.run("status", "--server", "wss://relay.example.org", check=1)
    assert "relay.example.org:443" in nobody.stderr
    assert "--server" in world.run("reconnect", "--server", "no url", check=2).stderr


def test_without_agents_that_is_said(world):
    done = world.run("status", check=1)
    assert "no agent runs here" in done.stderr and not done.stdout
    assert json.loads(world.run("status", "--json", check=1).stdout) == {"agents": []}
    world.run("reconnect", check=1)


def test_a_connected_agent_reconnects_under_its_streams(scene):
    """Not one byte of a download is lost when a person asks for a new connection."""
    body = random.Random(3).randbytes(8 << 20)

    def slow(conn, request):
        conn.read_body(request)
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 1 << 17):
            conn.send(body[start:start + (1 << 17)])
            time.sleep(0.01)
        return True
    home = scene(routes={"/slow": slow})
    results = []
    thread = threading.Thread(target=lambda: results.append(home.fetch("/slow", timeout=60)))
    thread.start()
    for round in range(1, 4):
        home.world.run("reconnect", check=0)
        wait_for(lambda: len(home.agent.find("link_resumed")) == round, what="a resume")
    thread.join(60)
    assert results[0].body == body
    assert len(home.agent.find("tunnel_published")) == 1
    link, = status(home.world)["links"]
    assert link["resumes"] == 3 and link["attempts"] == 1


# ---- the socket ---------------------------------------------------------------------------------

def socket_path(agent):
    return agent.world.state / "run" / f"{agent.pid}.sock"


def ask(agent, *lines, timeout=10):
    """Asks over the socket itself; returns the answers."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(timeout)
        peer.connect(str(socket_path(agent)))
        peer.sendall(b"".join(line + b"\n" for line in lines))
        answers = peer.makefile("rb")
        return [json.loads(answers.readline()) for _ in lines]


def test_the_socket_comes_and_goes_with_the_agent(home):
    path = socket_path(home.agent)
    assert path.stat().st_mode & 0o777 == 0o600
    home.agent.stop()
    assert not path.exists()


def test_the_socket_of_a_dead_agent_is_removed(home):
    path = socket_path(home.agent)
    others = sorted(p.name for p in path.parent.glob("relay-*"))
    home.agent.kill()
    assert path.exists()
    home.world.run("status", check=1)
    assert not path.exists()
    assert sorted(p.name for p in path.parent.glob("relay-*")) == others


def test_a_silent_agent_does_not_hide_the_others(home):
    other = home.world.http(home.relay, 80, name="other")
    home.agent.signal(signal.SIGSTOP)
    try:
        done = home.world.run("status", "--json", check=1)
        began = time.monotonic()
        people = home.world.run("status", check=1)
        took = time.monotonic() - began
    finally:
        home.agent.signal(signal.SIGCONT)
    told = {agent["pid"]: agent for agent in json.loads(done.stdout)["agents"]}
    assert took < 3, "1 s is enough, whatever is silent"
    assert f"agent {home.agent.pid}  it does not answer" in people.stdout
    assert told[home.agent.pid]["error"]["message"] == "it does not answer"
    assert told[other.pid]["links"][0]["state"] == "up"


def test_what_is_no_question_is_told_so(home):
    answers = ask(home.agent, b"", b"{", b"[]", b'"status"', b"{}", b'{"command":5}', b"\xff\xfe",
                  b'{"command":"stop"}', b'{"command":"reconnect","relay":7}',
                  b'{"command":"reconnect","relay":"elsewhere:1"}', b'{"command":"status"}')
    assert all(answer["error"]["message"] for answer in answers[:9]), answers
    assert answers[9] == {"reconnecting": 0}
    assert answers[10]["pid"] == home.agent.pid
    assert not home.agent.find("reconnect_asked")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_user_is_not_heard(home):
    """Whatever the folder's and the socket's modes have become."""
    folder = Path(tempfile.mkdtemp(prefix="culvert-"))
    try:
        folder.chmod(0o755)
        os.link(socket_path(home.agent), folder / "sock")
        (folder / "sock").chmod(0o666)
        code = ("import os, socket, sys; os.setgid(65534); os.setuid(65534); "
                "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
                "try: s.sendall(b'{\"command\":\"status\"}\\n'); print(s.recv(1000))\n"
                "except OSError: print(b'')")
        done = subprocess.run([sys.executable, "-c", code, str(folder / "sock")],
                              capture_output=True, text=True, timeout=20)
        assert done.stdout == "b''\n", done
    finally:
        shutil.rmtree(folder)


def test_no_peer_of_the_socket_disturbs_the_agent(home):
    """Silent, slow, endless, greedy and vanishing ones, more than there is room for."""
    path, question = str(socket_path(home.agent)), b'{"command":"status"}\n'
    assert home.fetch("/x").status == 200
    before = home.agent.descriptors()
    held = []

    def connect():
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        held.append(peer)
        return peer
    for n in range(60):
        peer = connect()
        with contextlib.suppress(OSError):
            if n % 5 == 1:
                peer.send(b'{"command"')
            elif n % 5 == 2:
                peer.send(b"x" * 5000)
            elif n % 5 == 3:
                peer.setblocking(False)
                while peer.send(question * 1000):
                    pass
            elif n % 5 == 4:
                peer.send(question)
                peer.close()
        if n % 10 == 0:
            assert home.fetch("/x").status == 200
    wait_for(lambda: home.agent.descriptors() <= before + 16, what="room made")
    assert status(home.world)["links"][0]["state"] == "up"
    assert home.fetch("/x").status == 200
    assert home.agent.cpu_seconds() < 30
    for peer in held:
        peer.close()
    wait_for(lambda: home.agent.descriptors() <= before, what="closed connections")


def test_a_question_that_is_too_long_ends_the_connection(home):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(socket_path(home.agent)))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(b'{"command":"' + b"x" * 10000)
            assert peer.recv(100) == b""


def test_many_answers_wait_for_a_slow_reader_and_all_come(home):
    count = 2000
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(30)
        peer.connect(path := str(socket_path(home.agent)))
        sender = threading.Thread(
            target=lambda: peer.sendall(b'{"command":"status"}\n' * count))
        sender.start()
        time.sleep(0.3)
        assert home.fetch("/x").status == 200
        answers = peer.makefile("rb")
        pids = {json.loads(answers.readline())["pid"] for _ in range(count)}
        sender.join()
    assert pids == {home.agent.pid} and Path(path).exists()


def test_an_agent_goes_on_without_its_socket(world):
    world.state.mkdir()
    (world.state / "run").mkdir(mode=0o700)
    relay = world.relay()
    (world.state / "run").rename(world.state / "was-run")
    (world.state / "run").write_text("in the way")
    agent = world.http(relay, 80)
    assert agent.find("control_off")[0]["error"]["message"]
