# SPDX-License-Identifier: MIT
"""Ending gracefully: what is under way finishes, peers are told, nothing is left."""
import asyncio
import contextlib
import signal
import socket
import threading
import time

import pytest
import websockets
from client import Client
from culvert import AGENT_READY, wait_for


def slow_stream(seconds):
    def route(conn, request):
        conn.read_body(request)
        conn.start_chunked("text/event-stream")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            conn.chunk(b"data: x\n\n")
            time.sleep(0.05)
        conn.end_chunks()
    return route


def begin(home, target="/slow"):
    client = home.client(timeout=30)
    client.request("GET", f"/t/home{target}", home.token)
    head = client.head()
    client.wait_bytes()
    return client, head


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_relay_ends_quickly(home, number):
    home.fetch("/x")
    started = time.monotonic()
    home.relay.signal(number)
    assert home.relay.wait() == 0
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_agent_ends_quickly_and_its_tunnel_with_it(home, number):
    started = time.monotonic()
    home.agent.signal(number)
    assert home.agent.wait() == 0
    assert time.monotonic() - started < 5
    wait_for(lambda: home.fetch("/").status == 503, 5, "offline answer")


@pytest.mark.tsan
@pytest.mark.parametrize("which", ["relay", "agent"])
def test_a_request_in_flight_finishes(scene, which):
    home = scene(routes={"/slow": slow_stream(2)})
    client, head = begin(home)
    process = getattr(home, which)
    process.signal(signal.SIGTERM)
    with client:
        assert client.body(head).is_complete
    assert process.wait() == 0


def test_a_stopping_relay_takes_nothing_new(scene):
    home = scene(routes={"/slow": slow_stream(3)})
    client, head = begin(home)
    with client, Client(home.relay.port) as idle:
        idle.request("GET", "/readyz")
        assert idle.response().status == 200
        home.relay.signal(signal.SIGTERM)
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            fresh = Client(home.relay.port, timeout=3)
            fresh.request("GET", "/readyz")
            response = fresh.response()
            assert response is None or response.status == 503
            fresh.close()
        assert client.body(head).is_complete
    assert home.relay.wait() == 0


def test_the_drain_time_is_limited(scene):
    home = scene(routes={"/slow": slow_stream(60)}, relay_env={"CULVERT_SHUTDOWN_DRAIN": "1s"})
    client, head = begin(home)
    started = time.monotonic()
    home.relay.signal(signal.SIGTERM)
    with client:
        response = client.body(head)
    assert not response.is_complete, "a cut answer must not look whole"
    assert home.relay.wait() == 0
    assert time.monotonic() - started < 8


def test_an_agent_tells_how_its_drain_goes_and_takes_the_blame(scene):
    """What it cuts at the end is not the service's fault."""
    home = scene(routes={"/slow": slow_stream(60)}, agent_env={"CULVERT_SHUTDOWN_DRAIN": "3s"})
    client, head = begin(home)
    home.agent.signal(signal.SIGTERM)
    with client:
        response = client.body(head)
    assert home.agent.wait() == 0
    assert home.agent.find("shutdown_progress", streams=1)
    assert home.agent.find("shutdown_cut", streams=1)
    assert not response.is_complete
    assert b"TUNNEL_028" in response.body and b'"hop":"link"' in response.body


@pytest.mark.parametrize("which", ["relay", "agent"])
def test_a_second_signal_ends_at_once(scene, which):
    home = scene(routes={"/slow": slow_stream(60)})
    client, head = begin(home)
    process = getattr(home, which)
    process.signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.process.poll() is None, "it waits for the request"
    started = time.monotonic()
    process.signal(signal.SIGTERM)
    process.wait(5)
    process.stopped = True  # its exit code is free after a second signal
    assert time.monotonic() - started < 2
    with client:
        assert not client.body(head).is_complete


def test_peers_get_a_websocket_close_1000(home):
    async def run():
        async with websockets.connect(
                f"ws://127.0.0.1:{home.relay.port}/tunnel", subprotocols=["ssh"],
                extra_headers={"Authorization": f"Bearer {home.token}"}) as socket:
            assert socket.subprotocol == "ssh"
            assert (await socket.recv()).startswith(b"SSH-2.0-")
            home.relay.signal(signal.SIGTERM)
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await asyncio.wait_for(socket.recv(), 10)
            assert socket.close_code in (1000, 1001)
    asyncio.run(run())
    assert home.relay.wait() == 0


def test_each_step_is_logged(home):
    since = len(home.relay.records)
    home.relay.stop()
    events = [r["event"] for r in home.relay.records[since:]]
    assert any("shutdown" in event or "stop" in event or "drain" in event for event in events)


def test_a_killed_agent_is_noticed_and_its_place_taken(home):
    home.agent.kill()
    home.world.http(home.relay, home.service.port)
    assert home.fetch("/x").status == 200


def test_a_restart_under_load_comes_back(home):
    """Consumers see errors while the relay is away, and none of them is a broken answer."""
    world, port = home.world, home.relay.port
    stop = threading.Event()
    statuses, oddities = [], []

    def consumer():
        while not stop.is_set():
            try:
                with Client(port, timeout=5) as client:
                    client.request("POST", "/t/home/x", home.token, body=b"payload")
                    response = client.response()
                    if response is None:
                        continue
                    if response.status == 200 and response.body != b"payload":
                        oddities.append(response.body)
                    statuses.append(response.status)
            except OSError:
                time.sleep(0.02)
            except Exception as error:  # noqa: BLE001
                oddities.append(repr(error))

    threads = [threading.Thread(target=consumer) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(0.5)
        home.relay.stop()
        relay = world.relay(port=port)
        wait_for(lambda: len(home.agent.find(AGENT_READY)) >= 2, 20, "second publication")
        time.sleep(0.5)
        statuses.clear()
        time.sleep(1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not oddities
    assert statuses and set(statuses) == {200}
    assert relay.process.poll() is None


def test_a_listener_that_is_taken_is_told(world):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = world.run("server", "--dev", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "in use" in done.stderr.lower()


def test_a_request_whose_link_is_away_is_told_at_the_end(scene):
    """It waits for the link to come back; the relay's end comes first."""
    held = threading.Event()
    home = scene(routes={"/held": lambda conn, request: held.wait(20)},
                 relay_env={"CULVERT_SHUTDOWN_DRAIN": "1s"})
    with home.client(timeout=30) as client:
        client.request("GET", "/t/home/held", home.token)
        wait_for(lambda: home.service.requests, 10, "the request at the service")
        home.agent.kill()
        home.relay.wait_log("link_detached")
        home.relay.signal(signal.SIGTERM)
        answer = client.response()
    held.set()
    assert answer is not None, "closed without an answer"
    assert (answer.status, answer.json()["code"]) == (503, "TUNNEL_004"), answer.body
    assert home.relay.wait() == 0
