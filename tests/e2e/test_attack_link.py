# SPDX-License-Identifier: MIT
"""Attacks by agents: WebSocket frames, control messages, SSH messages, tunnels that misbehave."""
import asyncio
import contextlib
import json
import os
import socket
import threading
import time

import pytest
from attack import UPGRADE, Target, frame, reset, upgrade
from client import Client
from culvert import World, wait_for
from hostile import Boolean, Hostile, String, asyncssh, drive

IDENT = b"SSH-2.0-attack\r\n"


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("attack"))
    try:
        yield Target(world, home=False, env={
            "CULVERT_SSH_HANDSHAKE_TIMEOUT": "2s", "CULVERT_TIMERS_FIRST_BYTE": "1s",
            "MAX_CONNECTIONS_PER_USER": "500"})
    finally:
        world.close()


# ---- links ----

def test_links_that_are_dropped_at_every_phase(target):
    with target.attack():
        for number in range(120):
            client = upgrade(target, ("ssh", "culvert.v1")[number % 2])
            if number % 3:
                client.send(frame(0x82, IDENT))
            if number % 5 == 0:
                client.send(frame(0x82, os.urandom(500)))
            if number % 7 == 0:
                client.send(b"\x82\xfe\x03")
            if number % 4 == 0 and not client.buffer:
                client.fill()
            reset(client.sock) if number % 2 else client.close()


def test_the_links_of_a_user_are_counted_whether_or_not_they_publish(world):
    target = Target(world, home=False, env={"MAX_CONNECTIONS_PER_USER": "2"})
    with target.attack():
        crowd = [upgrade(target, "ssh") for _ in range(12)]
        for _ in range(5):
            refused = target.relay.fetch("/tunnel", target.token, headers=[
                *UPGRADE, ("Sec-WebSocket-Protocol", "ssh")])
            assert refused.status == 429 and refused.json()["detail"].startswith("too many links")
        for client in crowd:
            client.close()
        wait_for(lambda: target.relay.fetch("/tunnel", target.token, headers=[
            *UPGRADE, ("Sec-WebSocket-Protocol", "nonsense")]).status == 403, 5, "refusal")

        def comes_in():
            with contextlib.suppress(AssertionError), upgrade(target, "ssh"):
                return True
            return False
        wait_for(comes_in, 5, "place for a new link")


ATTRIBUTES = [b"", b"{", b"[]", b"null", b'{"name":"home","name":"mine"}', b'{"name":"HOME"}',
              b'{"name":"home","host":"a\\r\\nX: y"}', b'{"name":"home","host":"a b"}',
              b'{"name":"home","host":"a/b"}', b'{"name":"home","host":"u@a"}',
              b'{"name":"home","host":""}', b'{"name":"home","host":"a:99999"}',
              b'{"name":"home","host":"a,b"}', b'{"name":"home","host":"a\\u0000"}',
              b'{"name":"home","preset":"' + b"x" * 100 + b'"}',
              b'{"name":"home","preset":"a\\r\\nb"}',
              b'{"name":"home","allow":["GET /x HTTP/1.1"]}', b'{"name":"home","allow":["GET"]}',
              b'{"name":"home","allow":[1]}', b'{"name":"home","allow":"GET /"}',
              b'{"name":"home","allow":["GET /\\r\\nX: y"]}',
              b'{"name":"home","concurrency":-1}', b'{"name":"home","concurrency":1e99}',
              b'{"name":"home","idle_ms":99999999999}', b'{"name":"../home"}',
              b'{"name":"home","allow":[' + b'"GET /",' * 100 + b'"GET /"]}',
              b'{"name":"home","x":' + b"[" * 3000 + b"]" * 3000 + b"}", b"\xff" * 100,
              b'{"name":"home","y":"' + b"z" * 17000 + b'"}']


def test_attributes_cannot_inject_into_heads(target):
    """Whatever is described, what a service sees, if anything, stays one canonical head."""
    seen = []

    async def serve(reader, writer):
        with contextlib.suppress(Exception):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def run():
        async with Hostile(target) as hostile:
            for attributes in ATTRIBUTES:
                hostile.send(80, String(b"tunnel@culvert"), Boolean(False), String(attributes))
            hostile.send(80, String(b"tunnel@culvert"), Boolean(False), b"\xff\xff\xff\xff")
            try:
                await hostile.publish(serve)
            except asyncssh.ChannelListenError:  # a name whose description was refused is not
                assert (await hostile.fetch()).status == 404
            else:
                assert (await hostile.fetch()).status in (200, 403)
    with target.attack():
        drive(run())
    for head in seen:
        assert head.count(b"\r\nHost: ") == 1 and b"\r\nX: y" not in head


# ---- tunnels that misbehave ----

async def _refuse(reader, writer):
    raise asyncssh.ChannelOpenError(1, "no")


async def _hang(reader, writer):
    await asyncio.sleep(60)


async def _close(reader, writer):
    writer.close()


async def _eof(reader, writer):
    writer.write_eof()
    await asyncio.sleep(60)


async def _garbage(reader, writer):
    with contextlib.suppress(Exception):
        writer.write(os.urandom(100_000))
        await asyncio.sleep(60)


async def _endless_head(reader, writer):
    with contextlib.suppress(Exception):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: " + b"y" * 1000 + b"\r\n")
            await asyncio.sleep(0)


async def _endless_line(reader, writer):
    with contextlib.suppress(Exception):
        while True:
            writer.write(b"H" * 10000)
            await asyncio.sleep(0)


async def _half_head(reader, writer):
    with contextlib.suppress(Exception):
        await reader.read(10)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5")
        writer.close()


async def _trickle(reader, writer):
    with contextlib.suppress(Exception):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(4):
            writer.write(b"x")
            await asyncio.sleep(0.1)
        writer.close()


@pytest.mark.parametrize("handler", [_refuse, _hang, _close, _eof, _garbage, _endless_head,
                                     _endless_line, _half_head, _trickle],
                         ids=lambda handler: handler.__name__.strip("_"))
def test_every_consumer_of_a_bad_tunnel_gets_an_answer(target, handler):
    async def run():
        async with Hostile(target) as hostile:
            if handler is _refuse:
                def refuse(host, port):
                    raise asyncssh.ChannelOpenError(1, "no")
                await hostile.connection.start_server(refuse, "home", 80)
            else:
                await hostile.publish(handler)
            answers = await asyncio.gather(*[hostile.fetch() for _ in range(16)])
            for response in answers:
                if handler is _trickle:
                    assert response.status in (200, 503, 504) and (
                        response.status != 200 or not response.is_complete)
                else:
                    assert response.status in (429, 502, 503, 504), response
    with target.attack():
        drive(run())


def test_opens_that_are_never_answered_end_with_the_timer(target):
    """More of them than there are channels: consumers get errors, and the link ends cleanly."""
    async def run():
        async with Hostile(target) as hostile:
            never = asyncio.get_running_loop().create_future()

            async def wait(host, port):
                await never

            def session(host, port):
                return wait(host, port)
            await hostile.connection.create_server(session, "home", 80)
            answers = await asyncio.gather(*[hostile.fetch() for _ in range(24)])
            assert all(r.status in (429, 502, 503, 504) for r in answers)
            never.cancel()
    with target.attack():
        drive(run())


def test_streams_to_ones_own_http_tunnel_in_any_number(target):
    """direct-tcpip to a tunnel that is on the same link: each request takes two channels."""
    async def serve(reader, writer):
        with contextlib.suppress(Exception):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def run():
        async with Hostile(target) as hostile:
            await hostile.publish(serve)

            async def visit(number):
                with contextlib.suppress(asyncssh.Error, OSError):
                    reader, writer = await hostile.connection.open_connection("home", 80)
                    writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" * (number % 5))
                    if number % 3 == 0:
                        writer.write(b"GET /x HTTP/1.1\r\nHo")
                    if number % 2:
                        writer.write_eof()
                        await asyncio.wait_for(reader.read(), 4)
                    writer.close()
            for _ in range(4):
                await asyncio.gather(*[visit(n) for n in range(12)], return_exceptions=True)
            response = await hostile.fetch()
            assert response.status == 200, response
    with target.attack():
        drive(run())


def test_a_peer_that_sends_but_never_reads_is_closed(world):
    """Signs of life do not help one that takes nothing of what waits for it."""
    relay = world.relay(env={"WS_PING_INTERVAL": "1000", "WS_PONG_TIMEOUT": "1000"})
    deaf = threading.Event()

    def pump(source, sink, stops):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if stops and deaf.is_set():
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        def bridge():
            with contextlib.suppress(OSError):
                ours = server.accept()[0]
                theirs = socket.create_connection(("127.0.0.1", relay.port))
                threading.Thread(target=pump, args=(ours, theirs, False), daemon=True).start()
                pump(theirs, ours, True)
        threading.Thread(target=bridge, daemon=True).start()
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        # The agent says something every second and does not mind that nothing comes back at first.
        agent = world.http(relay, world.service().port, url=url,
                           env={"CULVERT_SSH_KEEPALIVE_INTERVAL": "1s"})
        deaf.set()
        clients = [Client(relay.port, timeout=30) for _ in range(8)]
        for client in clients:
            client.sock.settimeout(1)
            with contextlib.suppress(OSError):
                client.send(b"POST /t/home/up HTTP/1.1\r\nHost: h\r\nContent-Length: 90000000\r\n"
                            b"Authorization: Bearer " + world.token().encode() + b"\r\n\r\n"
                            + b"x" * 6_000_000)
        relay.wait_log(text="the peer does not read", timeout=10)
        agent.kill()
        for client in clients:
            client.close()


def test_the_log_shows_nothing_of_what_was_sent_as_text(target):
    with upgrade(target, timeout=5) as client:
        client.send(frame(0x81, json.dumps({"type": "event", "code": "x\ny",
                                            "message": 'a"\n{"level":"error"}'}).encode()))
        client.send(frame(0x81, json.dumps({"type": "token", "token": target.token}).encode()))
        time.sleep(0.2)
    wait_for(lambda: target.relay.find("link_down"), 5, "end of the link")
    assert all(target.token not in line for line in target.relay.lines)
    assert not target.relay.strangers
