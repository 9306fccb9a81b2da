# SPDX-License-Identifier: MIT
"""What a user does first, by hand, as the README has it."""
import json
import subprocess
import time

import pytest
from client import fetch
from culvert import AGENT_READY, wait_for

pytestmark = pytest.mark.tsan


def chat(conn, request):
    """A model that answers in NDJSON, as Ollama does."""
    conn.read_body(request)
    conn.start_chunked("application/x-ndjson")
    for word in ("The", " sky", " is", " blue"):
        conn.chunk(json.dumps({"message": {"content": word}, "done": False}).encode() + b"\n")
    conn.chunk(b'{"done":true}\n')
    conn.end_chunks()
    return True


def test_by_hand_steps_of_the_readme(world):
    service = world.service({"/api/chat": chat})
    relay = world.relay()
    token = world.run("token", "--dev", "--sub", "alice", check=0).stdout.strip()
    agent = world.start("agent", "http", service.port, "--server", f"ws://127.0.0.1:{relay.port}",
                        "--name", "home", env={"CULVERT_TOKEN": token})
    agent.wait_log(AGENT_READY)
    done = subprocess.run(
        ["curl", "-sS", "-N", "-H", f"Authorization: Bearer {token}", "-d", '{"model":"m"}',
         f"http://127.0.0.1:{relay.port}/t/home/api/chat"],
        capture_output=True, text=True, timeout=20, check=True, env=world.env())
    words = [json.loads(line) for line in done.stdout.splitlines()]
    assert "".join(w["message"]["content"] for w in words[:-1]) == "The sky is blue"
    assert words[-1] == {"done": True}
    assert service.requests[0].body == b'{"model":"m"}'


@pytest.mark.parametrize("workers", [1, 4])
def test_every_connection_reaches_the_tunnel_whichever_worker_takes_it(home):
    for number in range(24):
        body = f"body {number}".encode()
        assert home.fetch("/echo", "POST", body=body).body == body


def test_two_users_publish_the_same_name(world):
    relay = world.relay()
    for user in ("alice", "bob"):
        def route(conn, request, user=user):
            conn.read_body(request)
            conn.reply(body=f"{user}'s home".encode())
        world.http(relay, world.service(default=route).port, sub=user)
    for user in ("alice", "bob"):
        response = relay.fetch("/t/home/", world.token(user))
        assert (response.status, response.body) == (200, f"{user}'s home".encode())


def test_another_users_tunnel_looks_like_no_tunnel(home):
    other = home.relay.fetch("/t/home/", home.world.token("mallory")).json()
    nothing = home.relay.fetch("/t/nothing/", home.world.token("mallory")).json()
    for problem in (other, nothing):
        problem.pop("request_id")
        problem.pop("instance", None)
    assert other == nothing


def test_the_newest_agent_gets_the_name_and_the_older_is_told(world):
    relay = world.relay()

    def says(text):
        def route(conn, request):
            conn.read_body(request)
            conn.reply(body=text)
        return world.service(default=route).port

    first = world.http(relay, says(b"first"))
    world.http(relay, says(b"second"))
    assert relay.fetch("/t/home/", world.token()).body == b"second"
    first.expect_error("replaced")
    first.wait_log(text="replaced")
    time.sleep(0.5)  # the displaced one must not take the name back; having no other, it may end
    if first.process.poll() is not None:
        first.stop(code=1)
    assert relay.fetch("/t/home/", world.token()).body == b"second"


def test_one_agent_publishes_several_tunnels_from_its_configuration(world):
    service = world.service()
    relay = world.relay()
    config = world.write("agent.yaml", f"""
server: {relay.url}
tunnels:
  - name: one
    kind: http
    target: 127.0.0.1:{service.port}
  - name: two
    kind: http
    target: "{service.port}"
""")
    agent = world.start("agent", "agent", "-c", config, env={"CULVERT_TOKEN": world.token()})
    wait_for(lambda: len(agent.find(AGENT_READY)) >= 2, what="two tunnels")
    for name in ("one", "two"):
        assert relay.fetch(f"/t/{name}/x", world.token()).status == 200


def test_tcp_tunnel_carries_raw_bytes_to_a_local_port(world):
    def raw(conn, request):
        conn.reply(body=request.head)
        return False
    service = world.service(default=raw)
    relay = world.relay()
    world.tcp(relay, service.port, name="raw")
    _, port = world.forward(relay, "raw")
    response = fetch(port, "/", host="untouched.test")
    assert b"Host: untouched.test" in response.body, "a TCP tunnel changed what it carries"


def test_tcp_tunnel_is_not_reached_by_http(world):
    service = world.service()
    relay = world.relay()
    world.tcp(relay, service.port, name="raw")
    assert relay.fetch("/t/raw/", world.token()).status in (400, 403, 404)
    assert service.received_bytes == 0


def test_forward_leads_to_an_http_tunnel_through_its_rules(world):
    service = world.service()
    relay = world.relay()
    world.http(relay, service.port, "--preset", "ollama")
    _, port = world.forward(relay, "home")
    assert fetch(port, "/api/tags").status == 200
    assert fetch(port, "/api/pull", method="POST", body=b"{}").status == 403
    assert [r.path for r in service.requests] == ["/api/tags"]


def test_relay_on_ipv6(world):
    service = world.service()
    relay = world.relay(host="::1")
    world.http(relay, service.port, url=f"ws://[::1]:{relay.port}")
    response = _fetch6(relay.port, world.token())
    assert response.status == 200


def _fetch6(port, token):
    from client import Client
    with Client(port, host="::1") as client:
        client.request("GET", "/t/home/x", token, host=f"[::1]:{port}")
        return client.response()


def test_service_on_ipv6(world):
    import socket
    service = world.service(family=socket.AF_INET6)
    relay = world.relay()
    world.http(relay, f"[::1]:{service.port}")
    assert relay.fetch("/t/home/x", world.token()).status == 200


def test_demo_once_runs_from_nothing_and_ends_well(world):
    started = time.monotonic()
    done = world.run("demo", "--once", env={"LOG_FORMAT": None}, check=0, timeout=60)
    assert time.monotonic() - started < 30
    assert "curl" in done.stdout and "/t/" in done.stdout
    assert "/v1" in done.stdout, "the OpenAI base URL is shown"


def test_agent_comes_back_after_the_relay_restarts(world):
    service = world.service()
    relay = world.relay()
    agent = world.http(relay, service.port)
    port = relay.port
    relay.stop()
    relay = world.relay(port=port)
    wait_for(lambda: len(agent.find(AGENT_READY)) >= 2, 20, "second publication")
    assert relay.fetch("/t/home/", world.token()).status == 200


def test_host_key_is_pinned_and_a_changed_one_refused(world):
    service = world.service()
    relay = world.relay()
    world.http(relay, service.port).stop()
    port = relay.port
    relay.stop()
    for path in world.state.rglob("*host*key*"):
        if "known" not in path.name:
            path.unlink()
    relay = world.relay(port=port)
    agent = world.http(relay, service.port, ready=False)
    agent.expect_error("host.?key")
    agent.wait_log(text="TUNNEL_021")
    assert "known_hosts" in agent.tail(), "the text says what to do"
    assert not agent.find(AGENT_READY)
    agent.kill()


def test_private_files_are_private(home):
    keys = [p for p in home.world.state.rglob("*") if p.is_file() and "known" not in p.name]
    assert keys
    for path in keys:
        assert path.stat().st_mode & 0o077 == 0, f"{path.name}: {oct(path.stat().st_mode)}"
    assert home.world.state.stat().st_mode & 0o077 == 0
