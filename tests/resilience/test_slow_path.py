# SPDX-License-Identifier: MIT
"""A slow path is not a dead one, however much stands in front of a ping."""
import threading
import time
from types import SimpleNamespace

import netns
import pytest
from chaos import Chaos
from client import Client
from culvert import wait_for

KBIT = 1000


@pytest.fixture(params=["queue", "proxy"])
def slow(request, world, credentials):
    """A scene whose path carries 1 Mbit/s each way: a queue of the kernel, or our proxy."""
    if request.param == "proxy":
        relay = world.relay()
        chaos = Chaos(relay.port)
        world.cleanups.append(chaos.close)
        service = world.service()
        agent = world.http(relay, service.port, url=chaos.url)
        chaos.bytes_per_s = KBIT * 1000 // 8
        yield SimpleNamespace(relay=relay, agent=agent, service=service, token=world.token(),
                              kind="proxy")
        chaos.bytes_per_s = 0
        wait_gone(service)
        return
    reason = netns.why_not(with_tbf=True)
    if reason:
        pytest.skip(reason)
    from lab import Lab
    with Lab(credentials) as lab:
        lab.network.throttle(KBIT)
        lab.kind = "queue of the kernel"
        yield lab
        lab.network.throttle(1000 * KBIT)
        wait_gone(lab.service)


def wait_gone(service):
    """Until the service has seen that the two endless requests were given up."""
    ends = [c for c in service.connections if b"/endless" in c.raw or b"/swallow" in c.raw]
    wait_for(lambda: all(c.closed_at for c in ends), 30, "the end of the requests")


def saturate(scene, seconds):
    """Moves what it can both ways, on one request each; gives the bytes of both ways."""
    end = time.monotonic() + seconds
    moved = {"down": 0, "up": 0}
    block = bytes(65536)

    def endless(conn, request):
        conn.read_body(request)
        conn.start_chunked("application/octet-stream")
        while time.monotonic() < end:
            conn.chunk(block[:16384])
        conn.end_chunks()
        return True

    def swallow(conn, request):
        while True:
            conn._fill()
            moved["up"] += len(conn.buffer)
            conn.buffer = b""
    scene.service.on("/endless", endless).on("/swallow", swallow)

    def down():
        with connect(scene) as client:
            client.request("GET", "/t/home/endless", scene.token)
            client.head()
            while time.monotonic() < end:
                if not client.fill():
                    return
                moved["down"] += len(client.buffer)
                client.buffer = b""

    def up():
        with connect(scene) as client:
            client.send(f"POST /t/home/swallow HTTP/1.1\r\nHost: localhost\r\n"
                        f"Authorization: Bearer {scene.token}\r\n"
                        f"Content-Length: {1 << 40}\r\n\r\n".encode())
            client.sock.settimeout(1)
            while time.monotonic() < end:
                try:
                    client.sock.send(block)
                except TimeoutError:
                    continue
                except OSError:
                    return
    threads = [threading.Thread(target=run, daemon=True) for run in (down, up)]
    for thread in threads:
        thread.start()
    return threads, moved


def connect(scene):
    return Client(scene.relay.port, timeout=90, tls=scene.relay.tls,
                  server_name=scene.relay.server_name)


def never_lost(scene, figure, seconds):
    since = len(scene.relay.records)
    threads, moved = saturate(scene, seconds)
    scene.service.wait_requests(2, timeout=30)
    waits = []
    end = time.monotonic() + seconds - 3
    while time.monotonic() < end:
        asked = time.monotonic()
        assert scene.relay.fetch("/t/home/small", scene.token, timeout=90).status == 200
        waits.append(time.monotonic() - asked)
        time.sleep(0.5)
    for thread in threads:
        thread.join(60)
    figure(f"1 Mbit/s saturated both ways for {seconds} s ({scene.kind}): "
           f"{moved['down'] * 8 / seconds / 1e6:.2f} Mbit/s down, "
           f"{moved['up'] * 8 / seconds / 1e6:.2f} up, {len(waits)} small requests beside it, "
           f"slowest {max(waits):.1f} s")
    assert not scene.agent.find("connection_lost"), "a slow path was taken for a dead one"
    assert not scene.relay.find("link_detached", since=since)
    assert moved["down"] > 20000 * seconds and moved["up"] > 20000 * seconds, moved


@pytest.mark.timing
def test_a_saturated_slow_path_is_not_taken_for_a_dead_one(slow, figure):
    never_lost(slow, figure, 15)


@pytest.mark.long
@pytest.mark.timing
def test_a_saturated_slow_path_is_not_taken_for_a_dead_one_for_a_minute(slow, figure):
    never_lost(slow, figure, 60)
