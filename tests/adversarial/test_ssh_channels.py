# SPDX-License-Identifier: MIT
"""Rows 20 to 22: a stream's packet sizes, windows and states, broken by an authenticated peer."""
import asyncio
import contextlib
import struct
import time

import pytest
from attack import IS_SANITIZED, RSS_KIB
from culvert import wait_for
from hostile import (ADJUST, CLOSE, CONFIRM, DATA, EOF, EXTENDED, FAILURE, OPEN, REQUEST, Boolean,
                     Byte, Hostile, String, UInt32, drive)
from lag import without_lag

MAX_WAITING = 48 << 20  # sockets' buffers on the way, the link's and the stream's windows
GIB = 1 << 30
# What nothing is kept of may leave behind; a sanitizer keeps freed memory for a while.
FLAT_KIB = RSS_KIB if IS_SANITIZED else 10 * 1024


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(env={"CULVERT_TIMERS_FIRST_BYTE": "3s",
                            "MAX_CONNECTIONS_PER_USER": "500"})


async def close(reader, writer):
    writer.close()


# ---- row 20 ----

TOO_SMALL = [0, 1, 9, 10, 11, 1023]


@pytest.mark.parametrize("packet", [*TOO_SMALL, 0xffffffff])
def test_row_20_packet_size_in_a_confirmation(target, packet):
    async def run():
        async with Hostile(target) as hostile:
            opened = []

            def answer(channel):
                opened.append(channel)
                hostile.send(CONFIRM, channel, UInt32(5), UInt32(0xffffffff), UInt32(packet))

            await hostile.publish(close, "bad")
            hostile.answer_opens(answer)
            started = time.monotonic()
            response = await hostile.fetch(name="bad")
            assert opened
            if packet == 0xffffffff:  # taken as the largest there is, then never answered
                assert response.status == 504
            else:
                assert response.status in (502, 503)
                assert time.monotonic() - started < 1, "refused at once"
    with target.attack():
        drive(run())


@pytest.mark.parametrize("packet", TOO_SMALL)
def test_row_20_packet_size_in_an_open(target, packet):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(CONFIRM, FAILURE)
            started = time.monotonic()
            hostile.send(OPEN, String(b"direct-tcpip"), UInt32(3), UInt32(1 << 20), UInt32(packet),
                         String(b"home"), UInt32(80), String(b"h"), UInt32(1))
            await hostile.until(lambda: seen, 1, "refusal")
            assert seen[0][0] == FAILURE and seen[0][1][:4] == b"\0\0\0\3"
            assert time.monotonic() - started < 1
    with target.attack():
        drive(run())


def test_row_20_the_largest_packet_size_in_an_open_is_not_made_use_of(target):
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(CONFIRM, FAILURE, channel=3)
            hostile.send(OPEN, String(b"direct-tcpip"), UInt32(3), UInt32(0xffffffff),
                         UInt32(0xffffffff), String(b"home"), UInt32(80), String(b"h"), UInt32(1))
            await hostile.until(lambda: seen, 5, "answer")
            assert seen[0][0] == CONFIRM
            channel = UInt32(struct.unpack("!I", seen[0][1][4:8])[0])
            hostile.send(DATA, channel, String(
                b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n"))
            for _ in range(10):
                hostile.send(DATA, channel, String(b"x" * 30000))
            await hostile.until(lambda: sum(len(data) for number, data in seen if number == DATA)
                                > 300_000, 10, "echo")
            assert max(len(data) for _, data in seen) <= 35000
    with target.attack():
        drive(run())


def test_row_20_the_loop_goes_on_meanwhile(target):
    """Hundreds of such opens and confirmations."""
    async def run():
        async with Hostile(target) as hostile:
            def answer(channel):
                hostile.send(CONFIRM, channel, UInt32(5), UInt32(0xffffffff), UInt32(10))
            await hostile.publish(close, "bad")
            hostile.answer_opens(answer)
            seen = hostile.watch(FAILURE)
            for number in range(600):
                hostile.send(OPEN, String(b"direct-tcpip"), UInt32(3), UInt32(1 << 20),
                             UInt32(TOO_SMALL[number % 6]), String(b"home"), UInt32(80),
                             String(b"h"), UInt32(1))
            await asyncio.gather(*[hostile.fetch(name="bad") for _ in range(10)])
            await hostile.until(lambda: len(seen) >= 600, 10, "refusals")
    with target.attack():
        without_lag(target, lambda: drive(run()))


# ---- row 21 ----

class Source:
    """A route that sends as much as is taken, up to `total`, and counts."""

    def __init__(self, total=GIB):
        self.total = total
        self.sent = 0

    def __call__(self, conn, request):
        conn.read_body(request)
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.total)
        block = b"g" * 65536
        conn.sock.settimeout(120)
        with contextlib.suppress(OSError):  # whoever asked is gone
            while self.sent < self.total:
                conn.sock.sendall(block)
                self.sent += len(block)
        return self.sent >= self.total

    def stalled(self, quiet_s=1.0):
        """How much had been taken when nothing more was, for so long."""
        def look():
            before = self.sent
            time.sleep(quiet_s)
            return before and self.sent == before
        wait_for(look, 30, "pause of the service")
        return self.sent


@pytest.fixture(scope="module")
def flood(make_target):
    """alice's `home` gives a gibibyte to whoever asks for /big."""
    flood = make_target(env={"CULVERT_LIMITS_BODY_IDLE_TIMEOUT": "60s",
                             "MAX_CONNECTIONS_PER_USER": "100"})
    flood.source = Source()
    flood.service.routes["/big"] = lambda conn, request: flood.source(conn, request)
    return flood


async def ask_by_ssh(hostile, path):
    seen = hostile.watch(CONFIRM, FAILURE, channel=3)
    hostile.send(OPEN, String(b"direct-tcpip"), UInt32(3), UInt32(0xffffffff), UInt32(32768),
                 String(b"home"), UInt32(80), String(b"h"), UInt32(1))
    await hostile.until(lambda: seen, 5, "answer")
    assert seen[0][0] == CONFIRM
    channel = UInt32(struct.unpack("!I", seen[0][1][4:8])[0])
    hostile.pump.deafen()
    hostile.send(DATA, channel, String(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n"))


def test_row_21_an_endless_window_and_a_peer_that_never_reads(flood):
    """Of one GiB, what the windows and sockets hold; then the service is paused."""
    async def run():
        async with Hostile(flood, is_direct=True) as hostile:
            await ask_by_ssh(hostile, b"/big")
            taken = await asyncio.to_thread(flood.source.stalled)
            assert 0 < taken < MAX_WAITING, taken
            assert flood.relay.rss_kib() - rss < 40 * 1024
    flood.source = Source()
    with flood.attack():
        rss = flood.relay.rss_kib()
        drive(run())


def test_row_21_a_consumer_that_never_reads(flood):
    flood.source = Source()
    with flood.attack():
        rss = flood.relay.rss_kib()
        with flood.client(receive_buffer=4096) as client:
            client.request("GET", "/t/home/big", flood.token)
            taken = flood.source.stalled()
            assert 0 < taken < MAX_WAITING, taken
            assert flood.relay.rss_kib() - rss < 40 * 1024


@pytest.mark.long
def test_row_21_the_whole_gibibyte_once_it_is_read(flood):
    flood.source = Source()
    with flood.attack(), flood.client(receive_buffer=65536, timeout=60) as client:
        client.request("GET", "/t/home/big", flood.token)
        flood.source.stalled()
        response = client.response(keep=False)
        assert response.is_complete and sum(size for _, size in response.pieces) == GIB


def test_row_21_an_agent_that_never_reads_while_consumers_upload(target):
    """Its link fills: the consumers wait and are told; memory stays."""
    async def hang(reader, writer):
        await asyncio.sleep(60)

    async def run():
        async with Hostile(target, is_direct=True) as hostile:
            await hostile.publish(hang, "bad")
            hostile.pump.deafen()
            answers = await asyncio.gather(*[
                hostile.fetch(name="bad", method="POST", body=b"x" * 3_000_000)
                for _ in range(8)])
            assert all(r is None or r.status in (408, 502, 503, 504) for r in answers)
    with target.attack():
        drive(run())


# ---- row 22 ----

CHANNEL = {
    "data beyond the window": lambda send, channel: [
        send(DATA, channel, String(b"x" * 32768)) for _ in range(200)],
    "a packet that is too large": lambda send, channel: [
        send(DATA, channel, String(b"x" * 34000))],
    "data after EOF": lambda send, channel: [
        send(EOF, channel), send(DATA, channel, String(b"x"))],
    "data after close": lambda send, channel: [
        send(CLOSE, channel), send(DATA, channel, String(b"x"))],
    "window over 2^32-1": lambda send, channel: [
        send(ADJUST, channel, UInt32(0xffffffff)) for _ in range(2)],
    "two confirmations": lambda send, channel: [
        send(CONFIRM, channel, UInt32(5), UInt32(1), UInt32(32768))],
    "failure behind the confirmation": lambda send, channel: [
        send(FAILURE, channel, UInt32(1), String(b""), String(b""))],
    "two closes": lambda send, channel: [send(CLOSE, channel), send(CLOSE, channel)],
}


@pytest.mark.parametrize("name", CHANNEL)
def test_row_22_a_stream_that_breaks_the_rules_ends_the_link(target, name):
    async def run():
        async with Hostile(target) as hostile:
            def answer(channel):
                hostile.send(CONFIRM, channel, UInt32(5), UInt32(1 << 20), UInt32(32768))
                with contextlib.suppress(Exception):  # the connection may be gone by then
                    CHANNEL[name](hostile.send, channel)

            await hostile.publish(close, "bad")
            hostile.answer_opens(answer)
            response = await hostile.fetch(name="bad")
            assert response.status in (502, 503, 504)
            await hostile.ended()
    with target.attack():
        drive(run())


UNKNOWN = {
    "data for no channel": [(DATA, UInt32(7), String(b"x"))],
    "data for a channel far away": [(DATA, UInt32(0xffffffff), String(b"x"))],
    "adjustment for no channel": [(ADJUST, UInt32(3), UInt32(1))],
    "EOF for no channel": [(EOF, UInt32(3))],
    "close for no channel": [(CLOSE, UInt32(0))],
    "request for no channel": [(REQUEST, UInt32(1), String(b"exec"), Boolean(True), String(b"x"))],
    "confirmation of nothing": [(CONFIRM, UInt32(0), UInt32(0), UInt32(1), UInt32(32768))],
    "failure of nothing": [(FAILURE, UInt32(0), UInt32(1), String(b""), String(b""))],
    "reply to nothing": [(81,)],
    "truncated open": [(OPEN, String(b"direct-tcpip"), UInt32(0))],
    "open with a string beyond the packet": [
        (OPEN, String(b"direct-tcpip"), UInt32(0), UInt32(1), UInt32(32768), UInt32(0xffffffff))],
    "truncated forward": [(80, String(b"tcpip-forward"), Boolean(True), String(b"home"))],
    "bytes behind a forward": [
        (80, String(b"tcpip-forward"), Boolean(True), String(b"h"), UInt32(80), Byte(1))],
    "channel success": [(99, UInt32(0))],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_row_22_messages_that_cannot_be_kept_in_step_end_the_link(target, name):
    async def run():
        async with Hostile(target) as hostile:
            for message in UNKNOWN[name]:
                hostile.send(*message)
            await hostile.ended()
    with target.attack():
        drive(run())


def test_row_22_an_unknown_message_is_answered(target):
    """RFC 4253 §11.4: SSH_MSG_UNIMPLEMENTED, and nothing else happens."""
    async def run():
        async with Hostile(target) as hostile:
            seen = hostile.watch(3)
            hostile.send(0)
            hostile.send(191)
            await hostile.until(lambda: len(seen) == 2, 5, "two answers")
            assert not target.relay.find("link_down", since=hostile.since)
    with target.attack():
        drive(run())


def test_row_22_harmless_oddities_on_a_stream_are_borne(target):
    async def run():
        async with Hostile(target) as hostile:
            def answer(channel):
                hostile.send(CONFIRM, channel, UInt32(5), UInt32(1 << 20), UInt32(32768))
                for _ in range(200):
                    hostile.send(EXTENDED, channel, UInt32(1), String(b"noise" * 1000))
                    hostile.send(REQUEST, channel, String(b"exec"), Boolean(True), String(b"sh"))
                    hostile.send(DATA, channel, String(b""))
                    hostile.send(ADJUST, channel, UInt32(0))
                hostile.send(DATA, channel, String(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))

            await hostile.publish(close, "bad")
            hostile.answer_opens(answer)
            response = await hostile.fetch(name="bad")
            assert response.body == b"ok", (response, target.relay.tail(8))
    with target.attack():
        drive(run())


def test_row_22_a_thousand_broken_streams_leak_nothing(target):
    """Links that end in the middle of a stream, over and over."""
    async def run():
        for number in range(25):
            async with Hostile(target) as hostile:
                def answer(channel, hostile=hostile, number=number):
                    hostile.send(CONFIRM, channel, UInt32(5), UInt32(1 << 20), UInt32(32768))
                    with contextlib.suppress(Exception):
                        list(CHANNEL.values())[number % 7](hostile.send, channel)
                await hostile.publish(close, "bad")
                hostile.answer_opens(answer)
                await asyncio.gather(*[hostile.fetch(name="bad") for _ in range(8)])
    with target.attack(rss_kib=FLAT_KIB):
        drive(run(), 60)
