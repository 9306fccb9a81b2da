# SPDX-License-Identifier: MIT
"""Rows 23, 24, 27: opens and global requests without number, names of others, and everything of
SSH that a tunnel does not need."""
import asyncio
import contextlib
import json
import socket

import pytest
from attack import IS_SANITIZED, RSS_KIB, Target, upgrade
from culvert import wait_for
from hostile import (CONFIRM, DATA, FAILURE, OPEN, OPENS, REQUEST, Boolean, Hostile, String, UInt32,
                     asyncssh, drive)

GLOBAL, SUCCEEDED, FAILED = 80, 81, 82
# What nothing is kept of may leave behind; a sanitizer keeps freed memory for a while.
FLAT_KIB = RSS_KIB if IS_SANITIZED else 10 * 1024


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(env={"MAX_CONNECTIONS_PER_USER": "500"})


async def ok(reader, writer):
    with contextlib.suppress(Exception):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def nobody(reader, writer):
    writer.close()


async def send_in_portions(hostile, messages, seen, portion=500):
    """Each portion once the answers to the one before are there."""
    for at in range(0, len(messages), portion):
        for message in messages[at:at + portion]:
            hostile.send(*message)
        await hostile.until(lambda due=min(at + portion, len(messages)): len(seen) >= due, 20,
                            f"{at + portion} answers")


# ---- row 23 ----

@pytest.mark.parametrize("count", [
    6000, pytest.param(50_000, marks=pytest.mark.long)])
def test_row_23_channel_opens_are_refused_one_by_one(target, count):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(CONFIRM, FAILURE)
            await send_in_portions(hostile, [OPENS[n % len(OPENS)] for n in range(count)], seen)
            assert len(seen) == count and {number for number, _ in seen} == {FAILURE}
            assert not target.relay.find("link_down", since=hostile.since)
    with target.attack(rss_kib=FLAT_KIB):
        drive(run(), 120)


def test_row_23_opens_of_ones_own_tunnel_over_the_cap(target):
    """The streams that may be open are, the others are refused, none is forgotten."""
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(CONFIRM, FAILURE)
            await send_in_portions(hostile, [
                (OPEN, String(b"direct-tcpip"), UInt32(number), UInt32(1 << 20), UInt32(32768),
                 String(b"home"), UInt32(80), String(b"h"), UInt32(1)) for number in range(2000)],
                seen)
            numbers = [number for number, _ in seen]
            assert numbers.count(CONFIRM) == 10 and numbers.count(FAILURE) == 1990
    with target.attack(rss_kib=FLAT_KIB):
        drive(run())


@pytest.mark.parametrize("kind", [b"tcpip-forward", b"cancel-tcpip-forward"])
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_row_23_requests_with_the_longest_names(target, kind, count):
    """As long as a packet can have them: each is answered no."""
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(SUCCEEDED, FAILED)
            await send_in_portions(hostile, [
                (GLOBAL, String(kind), Boolean(True), String(b"n" * 32000), UInt32(80))] * count,
                seen, 100)
            assert {number for number, _ in seen} == {FAILED}
    with target.attack(rss_kib=FLAT_KIB):
        drive(run(), 120)


def test_row_23_a_name_of_200_kb_does_not_fit_a_packet(target):
    async def run():
        for _ in range(10):
            async with Hostile(target) as hostile:
                hostile.send(GLOBAL, String(b"tcpip-forward"), Boolean(True),
                             String(b"n" * 200_000), UInt32(80))
                await hostile.ended()
    with target.attack(rss_kib=FLAT_KIB):
        drive(run())


def test_row_23_unknown_global_requests_are_answered(target):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(SUCCEEDED, FAILED)
            unknown = [
                (GLOBAL, String(b"nothing@%d" % number), Boolean(True),
                 String(b"x" * (number * 10 % 30000))) for number in range(3000)]
            await send_in_portions(hostile, unknown, seen, 200)
            for number in range(1000):  # no answer is wanted
                hostile.send(GLOBAL, String(b"x" * 5000), Boolean(False))
            assert not await ask(hostile, seen, b"end@culvert", b"")
            assert len(seen) == 3001 and {number for number, _ in seen} == {FAILED}
    with target.attack(rss_kib=FLAT_KIB):
        drive(run())


@pytest.mark.parametrize("what", ["requests", "opens", "attributes"])
def test_row_23_a_peer_that_asks_without_end_and_never_reads(target, what):
    """Its answers fill what is kept for it, then its own bytes what its windows allow; no more."""
    messages = {
        "requests": (GLOBAL, String(b"nothing@culvert"), Boolean(True), String(b"x" * 900)),
        "opens": OPENS[0],
        "attributes": (GLOBAL, String(b"tunnel@culvert"), Boolean(True), String(b"{" * 900)),
    }

    async def run():
        async with Hostile(target, is_direct=True) as hostile:
            hostile.pump.deafen()
            for _ in range(200):
                for _ in range(100):
                    hostile.send(*messages[what])
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.5)
    with target.attack(rss_kib=60 * 1024):
        drive(run())


# ---- row 24 ----

def test_row_24_names_of_others_odd_names_and_a_hundred_names(target):
    async def run():
        async with Hostile(target) as hostile:
            for name, port in [("a_b", 80), ("-a", 80), ("", 80), ("a.b", 80),
                               ("x" * 64, 80), ("../x", 80), ("a\r\nb", 80), ("a\0b", 80),
                               ("home", 0), ("fresh", 0)]:
                with pytest.raises(asyncssh.ChannelListenError):
                    await hostile.publish(nobody, name, port)
                    pytest.fail(f"{name!r} port {port} was published")
            published = 0
            for number in range(100):
                try:
                    await hostile.publish(nobody, f"n{number}")
                    published += 1
                except asyncssh.ChannelListenError:
                    break
            assert published == 64
    with target.attack():
        drive(run())


def test_row_24_another_users_name_is_ones_own(target):
    """alice's `mine` is not bob's: who asks as bob gets bob's service, before and after."""
    async def run():
        async with Hostile(target) as hostile:
            await hostile.publish(ok, "mine")
            assert (await hostile.fetch(name="mine")).body == b"ok"
            theirs = await asyncio.to_thread(target.relay.fetch, "/t/mine/x", target.bob,
                                             method="POST", body=b"bob")
            assert theirs.body == b"bob"
        await asyncio.to_thread(wait_for, lambda: target.relay.fetch(
            "/t/mine/x", target.token).status == 503, 5, "end of alice's")
    with target.attack():
        drive(run())


async def ask(hostile, seen, kind, name, port=80):
    before = len(seen)
    hostile.send(GLOBAL, String(kind), Boolean(True), String(name), UInt32(port))
    await hostile.until(lambda: len(seen) > before, 5, "reply")
    return seen[-1][0] == SUCCEEDED


def test_row_24_a_name_twice_and_cancelling_what_is_not_ones_own(target):
    async def run():
        async with Hostile(target) as one, Hostile(target) as other:
            first, second = one.watch(SUCCEEDED, FAILED), other.watch(SUCCEEDED, FAILED)
            assert await ask(one, first, b"tcpip-forward", b"twice")
            await ask(one, first, b"tcpip-forward", b"twice")  # yes or no, but one of them
            count = target.tunnels()
            for name in (b"twice", b"mine", b"home", b"never"):
                assert not await ask(other, second, b"cancel-tcpip-forward", name), name
            assert not await ask(one, first, b"cancel-tcpip-forward", b"mine")
            assert target.tunnels() == count
            assert await ask(one, first, b"cancel-tcpip-forward", b"twice")
            assert not await ask(one, first, b"cancel-tcpip-forward", b"twice")
            assert target.tunnels() == count - 1
    with target.attack():
        drive(run())


def test_row_24_publishing_and_withdrawing_in_a_loop(target):
    async def run():
        async with Hostile(target) as hostile:
            for number in range(3000):
                name = String(b"loop%d" % (number % 70))
                hostile.send(GLOBAL, String(b"tunnel@culvert"), Boolean(False), String(json.dumps(
                    {"name": "loop%d" % (number % 70), "allow": ["GET /%d*" % number]}).encode()))
                for kind in (b"tcpip-forward", b"cancel-tcpip-forward"):
                    hostile.send(GLOBAL, String(kind), Boolean(False), name, UInt32(80))
                if number % 200 == 0:
                    await asyncio.sleep(0)
            seen = hostile.watch(SUCCEEDED, FAILED)
            await ask(hostile, seen, b"end@culvert", b"")  # all of it has been taken
            assert not target.relay.find("link_down", since=hostile.since)
    with target.attack():
        drive(run())


@pytest.mark.parametrize("workers", [4])
@pytest.mark.tsan
def test_row_24_agents_that_take_a_name_from_each_other_all_the_time(world, workers):
    """On different workers, while consumers use it: an answer or an error, never silence."""
    target = Target(world, home=False, env={"MAX_CONNECTIONS_PER_USER": "50", "LOG_LEVEL": "info"})

    async def run():
        async with Hostile(target) as a, Hostile(target) as b, Hostile(target) as c:
            over = asyncio.Event()
            seen = set()

            async def consume():
                while not over.is_set():
                    response = await a.fetch()
                    assert response is not None, "closed without an answer"
                    seen.add(response.status)

            consumers = [asyncio.create_task(consume()) for _ in range(2)]
            await a.publish(ok)
            for _ in range(60):
                for hostile in (a, b, c):
                    hostile.send(GLOBAL, String(b"tcpip-forward"), Boolean(False), String(b"home"),
                                 UInt32(80))
                    await asyncio.sleep(0.005)
            over.set()
            await asyncio.gather(*consumers)
            assert seen <= {200, 404, 409, 502, 503, 504}, seen
            # Whoever holds it can still give it up.
            for hostile in (a, b, c):
                hostile.send(GLOBAL, String(b"cancel-tcpip-forward"), Boolean(False),
                             String(b"home"), UInt32(80))
            for _ in range(100):
                if (await a.fetch()).status in (404, 503):
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("a name that was given up is still published")
    with target.attack(log_lines=450, log_bytes=150_000):
        drive(run())


# ---- row 27 ----

@pytest.fixture
def trap():
    """A port of this machine that nobody may reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()
            pytest.fail("the relay dialled what a peer named")


def channel_opens(port):
    originator = (String(b"127.0.0.1"), UInt32(1))
    return {
        "session": (String(b"session"),),
        "x11": (String(b"x11"), *originator),
        "agent": (String(b"auth-agent@openssh.com"),),
        "tun": (String(b"tun@openssh.com"), UInt32(1), UInt32(0x7fffffff)),
        "unix socket": (String(b"direct-streamlocal@openssh.com"), String(b"/run/x"), String(b""),
                        UInt32(0)),
        "forwarded-tcpip": (String(b"forwarded-tcpip"), String(b"home"), UInt32(80), *originator),
        "forwarded unix socket": (String(b"forwarded-streamlocal@openssh.com"), String(b"/run/x"),
                                  String(b"")),
        **{f"direct-tcpip to {host}": (String(b"direct-tcpip"), String(host.encode()),
                                       UInt32(port), *originator)
           for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "2130706433", "0x7f.1",
                        "127.0.0.1.", "[::ffff:127.0.0.1]", "localhost.localdomain")},
        "another user's tunnel": (String(b"direct-tcpip"), String(b"mine"), UInt32(80),
                                  *originator),
    }


@pytest.mark.parametrize("name", channel_opens(1))
def test_row_27_what_a_tunnel_does_not_need_is_refused(target, trap, name):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(CONFIRM, FAILURE)
            kind, *rest = channel_opens(trap)[name]
            hostile.send(OPEN, kind, UInt32(3), UInt32(1 << 20), UInt32(32768), *rest)
            await hostile.until(lambda: seen, 5, "answer")
            assert seen[0][0] == FAILURE
    drive(run())


@pytest.mark.parametrize("kind", [
    b"shell", b"exec", b"subsystem", b"pty-req", b"x11-req", b"env", b"auth-agent-req@openssh.com",
    b"signal", b"window-change", b"unheard-of"])
def test_row_27_requests_on_a_stream_are_refused_and_the_stream_goes_on(target, kind):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(CONFIRM, FAILURE, channel=3)
            hostile.send(OPEN, String(b"direct-tcpip"), UInt32(3), UInt32(1 << 20), UInt32(32768),
                         String(b"home"), UInt32(80), String(b"h"), UInt32(1))
            await hostile.until(lambda: seen, 5, "answer")
            channel = UInt32(int.from_bytes(seen[0][1][4:8], "big"))
            hostile.send(REQUEST, channel, String(kind), Boolean(True), String(b"/bin/sh"))
            await hostile.until(lambda: len(seen) == 2, 5, "reply")
            assert seen[1][0] == 100, "channel failure"
            hostile.send(DATA, channel, String(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"))
            await hostile.until(lambda: any(number == DATA for number, _ in seen), 5, "response")
    drive(run())


@pytest.mark.parametrize("kind", [b"streamlocal-forward@openssh.com", b"hostkeys-prove-00@openssh.com",
                                  b"no-more-sessions@openssh.com", b"eow@openssh.com"])
def test_row_27_global_requests_of_others_are_refused(target, kind):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(SUCCEEDED, FAILED)
            hostile.send(GLOBAL, String(kind), Boolean(True), String(b"/tmp/culvert-no-such-socket"))
            await hostile.until(lambda: seen, 5, "reply")
            assert seen[0][0] == FAILED
    drive(run())


def test_row_27_a_thousand_addresses_are_not_dialled(target, trap):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(CONFIRM, FAILURE)
            await send_in_portions(hostile, [
                (OPEN, kind, UInt32(3), UInt32(1 << 20), UInt32(32768), *rest)
                for kind, *rest in channel_opens(trap).values()] * 60, seen, 100)
            assert {number for number, _ in seen} == {FAILURE}
    before = len(target.service.connections)
    with target.attack():
        drive(run())
    assert len(target.service.connections) - before < 10, "warm-up only"


def test_row_27_a_link_that_is_no_ssh_reaches_nothing(target, trap):
    """The words of other protocols, on the ssh subprotocol."""
    for words in (b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\n" % trap, b"\5\1\0" * 100):
        with upgrade(target, "ssh", timeout=5) as client:
            client.send(b"\x82\x80\0\0\0\0")
            head = bytes([0x82, 0xfe]) + len(words).to_bytes(2, "big") + bytes(4) \
                if len(words) > 125 else bytes([0x82, 0x80 | len(words)]) + bytes(4)
            client.send(head + words)
            assert client.is_closed(10) or client.eof
