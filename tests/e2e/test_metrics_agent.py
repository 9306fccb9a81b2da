# SPDX-License-Identifier: MIT
"""The agent's own metrics, on its machine's loopback address."""
import prometheus
import pytest
from chaos import Chaos
from client import Client
from culvert import free_port, wait_for
from test_metrics import documented


def fetch(port, path="/metrics", method="GET", host="localhost", **headers):
    with Client(port) as client:
        client.request(method, path, host=host, headers=list(headers.items()))
        return client.response(method)


@pytest.fixture
def agent(world):
    port = free_port()
    relay, service = world.relay(), world.service()
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    agent = world.http(relay, service.port, url=chaos.url,
                       env={"CULVERT_METRICS_LISTEN": f"127.0.0.1:{port}"})
    agent.relay, agent.service, agent.chaos, agent.port = relay, service, chaos, port
    agent.world = world
    return agent


def test_what_an_agent_tells(agent):
    page = prometheus.read(fetch(agent.port))
    assert set(page.families) == set(documented("Relay and agent", "Agent alone"))
    assert page["tunnel_active_connections"] == 1
    assert page["tunnel_agent_published_tunnels"] == 1
    assert page.get("tunnel_connections_total", result="ok") == 1
    assert page["tunnel_agent_service_connections_total"] == 0
    assert agent.relay.fetch("/t/home/x", agent.world.token()).status == 200
    page = prometheus.read(fetch(agent.port, Accept="application/openmetrics-text"), True)
    assert page.get("tunnel_agent_service_connections_total", result="ok") == 1
    assert page["tunnel_agent_service_connect_seconds_count"] == 1
    assert page.get("tunnel_websocket_frames_total", opcode="binary") > 1
    assert page["process_resident_memory_bytes"] > 1e6
    for mark in ("alice", "home"):
        assert mark not in fetch(agent.port).body.decode()


def test_a_connection_that_comes_back_and_a_service_that_is_down(agent):
    agent.chaos.cut()
    agent.wait_log("link_resumed")
    agent.service.close()
    assert agent.relay.fetch("/t/home/x", agent.world.token()).status == 502
    page = prometheus.read(fetch(agent.port))
    assert page.get("tunnel_reconnections_total", kind="resumed") == 1
    assert page.get("tunnel_agent_service_connections_total", result="refused") == 1
    assert page.get("tunnel_ssh_channel_open_failures_total", reason="connect_failed") == 1
    agent.chaos.is_refusing = True
    agent.chaos.cut()
    wait_for(lambda: prometheus.read(fetch(agent.port)).get("tunnel_connection_quality",
                                                            quality="detached") == 1,
             20, "a link without a connection")
    agent.chaos.is_refusing = False


def test_only_who_asks_for_this_machine_gets_it(agent):
    for host in ("evil.test", "evil.test:80", "192.0.2.1", "127.0.0.1.evil.test", "[2001:db8::1]"):
        assert fetch(agent.port, host=host).status == 403, host
    for host in ("127.0.0.1", f"127.0.0.1:{agent.port}", "[::1]", f"localhost:{agent.port}"):
        assert fetch(agent.port, host=host).status == 200, host
    assert fetch(agent.port, "/").status == 404
    assert fetch(agent.port, method="POST").status == 405
    head = fetch(agent.port, method="HEAD")
    assert head.status == 200 and head.body == b""
    with Client(agent.port) as client:
        client.send(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert client.response().status == 400


def test_many_at_once_do_not_hold_it(agent):
    idle = [Client(agent.port) for _ in range(12)]
    try:
        assert agent.relay.fetch("/t/home/x", agent.world.token()).status == 200
    finally:
        for client in idle:
            client.close()

    def answers():
        response = fetch(agent.port)
        return response and response.status == 200
    wait_for(answers, what="an answer once they have gone")


def test_an_address_that_others_could_reach_is_refused(world):
    relay = world.relay()
    done = world.run("http", "9", "--server", relay.url,
                     env={"CULVERT_METRICS_LISTEN": "0.0.0.0:0", "CULVERT_TOKEN": world.token()})
    assert done.returncode == 1 and "loopback" in done.stderr
