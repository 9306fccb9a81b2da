# SPDX-License-Identifier: MIT
"""RFC 6455 from §5 on, clause by clause where the table of ws_cases.py does not go, on the engine as
a server and as a client."""
import os
import random
import socket
import struct
import threading
import time

import pytest

from ws_sut import WS_ECHO, Client, Server
from ws_wire import (BINARY, CLOSE, PING, PONG, TEXT, Broken, Listener, Peer, accept_of,
                     close_payload, connect, frame, leave, xor)

pytestmark = pytest.mark.skipif(not WS_ECHO.exists(), reason=f"{WS_ECHO} is not built")
clause = pytest.mark.clause
MIB = 1 << 20


def fails_with(peer, *codes):
    """What comes is a Close with one of these codes and nothing behind it; then we answer it."""
    event = peer.read()
    assert event[0] == "close" and event[1] in codes, event
    assert event[2], "a Close without a reason"
    peer.send(CLOSE, close_payload(event[1]))
    if peer.is_client:
        assert not peer.fill(), "bytes behind a Close"


# ---- masks ----

@clause("6455:5.1-1", "6455:5.3-1", "6455:10.3-1")
def test_a_client_masks_each_frame_with_a_key_of_its_own():
    with Client().open() as peer:
        for n in range(200):
            peer.send(TEXT, b"the same")
            assert peer.read() == ("message", TEXT, b"the same")
        masks = list(peer.masks)
        leave(peer)
    assert len(masks) == len(set(masks)) == 200
    counts = [sum(mask[i] >> bit & 1 for mask in masks) for i in range(4) for bit in range(8)]
    assert all(40 < count < 160 for count in counts), "bits of the keys are not even"


@clause("6455:5.1-2")
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_a_frame_without_a_mask_ends_a_server(server, opcode):
    with server.open() as peer:
        peer.send(opcode, close_payload(1000), mask=None)
        fails_with(peer, 1002)


@clause("6455:5.1-3")
def test_a_server_masks_nothing(server):
    with server.open() as peer:  # which raises at a mask
        for opcode, want in ((TEXT, ("message", TEXT, b"x")), (PING, ("pong", b"x"))):
            peer.send(opcode, b"x")
            assert peer.read() == want
        leave(peer)


@clause("6455:5.1-4")
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_a_masked_frame_ends_a_client(opcode):
    with Client().open() as peer:
        peer.send(opcode, close_payload(1000), mask=b"\1\2\3\4")
        fails_with(peer, 1002)


@clause("6455:5.3-2")
@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\2\3\4", b"\x80\0\0\1"])
def test_payload_is_unmasked_with_the_key_in_turn(server, mask):
    with server.open() as peer:
        for size in (1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, 1001):
            payload = bytes(range(256)) * 4
            peer.send(BINARY, payload[:size], mask=mask)
            assert peer.read() == ("message", BINARY, payload[:size])
        leave(peer)


@clause("6455:5.3-2", "6455:5.2-5")
def test_the_frames_of_section_5_7(server):
    with server.open() as peer:
        peer.raw(bytes.fromhex("818537fa213d7f9f4d5158"))
        assert peer.read_frame() == (0x81, b"Hello")
        peer.raw(bytes.fromhex("898537fa213d7f9f4d5158"))
        assert peer.read_frame() == (0x8A, b"Hello")
        peer.raw(bytes.fromhex("82fe0100 00000000") + bytes(256))
        assert peer.read_frame() == (0x82, bytes(256))
        peer.raw(bytes.fromhex("82ff0000000000010000 00000000") + bytes(65536))
        assert peer.read_frame() == (0x82, bytes(65536))
        leave(peer)
    with Client().open() as peer:
        peer.raw(bytes.fromhex("810548656c6c6f"))
        assert peer.read() == ("message", TEXT, b"Hello")
        peer.raw(bytes.fromhex("010348656c 80026c6f"))
        assert peer.read() == ("message", TEXT, b"Hello")
        peer.raw(bytes.fromhex("890548656c6c6f"))
        assert peer.read() == ("pong", b"Hello")
        leave(peer)


# ---- lengths ----

@clause("6455:5.2-4", "6455:5.2-5")
def test_lengths_are_sent_in_their_shortest_form(sut):
    with sut.open() as peer:  # which raises at a longer form
        for size in (0, 1, 125, 126, 127, 65535, 65536, 65537):
            peer.send(BINARY, bytes(size))
            assert peer.read() == ("message", BINARY, bytes(size))
        leave(peer)


@clause("6455:5.2-6")
@pytest.mark.parametrize("form, size", [(16, 0), (16, 125), (64, 0), (64, 126), (64, 65535)])
def test_a_longer_form_than_needed_fails(sut, form, size):
    with sut.open() as peer:
        peer.send(BINARY, bytes(size), form=form)
        fails_with(peer, 1002)


@clause("6455:5.2-3")
@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1])
def test_the_highest_bit_of_a_length_fails(sut, length):
    with sut.open() as peer:
        peer.send(BINARY, b"x", declare=length, form=64)
        fails_with(peer, 1002)


@clause("6455:10.4-1")
@pytest.mark.parametrize("length", [(1 << 63) - 1, 1 << 40, 2 << 30, (32 << 20) + 1])
def test_a_length_over_the_limit_fails_before_its_payload_comes(sut, length):
    with sut.open() as peer:
        peer.send(BINARY, b"x", declare=length, form=64)
        fails_with(peer, 1009)


@clause("6455:10.4-1")
@pytest.mark.parametrize("kind", ["server", "client"])
def test_limits_hold_over_all_fragments(kind):
    sut = (Server if kind == "server" else Client)("--max-message", "65536")
    try:
        with sut.open() as peer:
            peer.send_message(BINARY, bytes(65536), fragment=1000)
            assert peer.read() == ("message", BINARY, bytes(65536))
            peer.send_message(BINARY, bytes(65537), fragment=1000)
            fails_with(peer, 1009)
        with sut.open() as peer:
            peer.raw(peer.frame(BINARY, fin=False) + peer.frame(0, fin=False) * 100_000)
            fails_with(peer, 1008)
    finally:
        sut.close()


# ---- messages and control frames ----

@clause("6455:5.4-4", "6455:6.2-1")
def test_fragments_are_joined_in_order(sut):
    rng = random.Random(6455)
    with sut.open() as peer:
        for _ in range(30):
            pieces = [rng.randbytes(rng.choice((0, 1, 7, 125, 126, 3000))) for _ in range(9)]
            wire = b""
            for n, piece in enumerate(pieces):
                wire += peer.frame(0 if n else BINARY, piece, fin=n == 8)
                if rng.random() < .3:
                    wire += peer.frame(PONG, b"nobody asked")
            peer.raw(wire, rng.choice((0, 1000)))
            assert peer.read() == ("message", BINARY, b"".join(pieces))
        leave(peer)


@clause("6455:5.5.3-3")
def test_of_many_pings_at_once_the_last_is_answered(sut):
    with sut.open() as peer:
        peer.raw(b"".join(peer.frame(PING, b"%d" % n) for n in range(5000)))
        answered = []
        while not answered or answered[-1] != 4999:
            kind, payload = peer.read()
            assert kind == "pong"
            answered.append(int(payload))
        assert answered == sorted(set(answered))
        leave(peer)


@clause("6455:10.4-1", "6455:7.1.7-2")
def test_pings_without_end_that_nobody_reads_the_answers_of_fail(server):
    with server.open() as peer:
        flood = b"".join(peer.frame(PING, b"p" * 125) for _ in range(500))
        peer.sock.settimeout(20)
        for _ in range(4000):
            peer.raw(flood)
            if peer.is_gone:
                return
        while (event := peer.read())[0] == "pong":
            pass
        assert event[:2] == ("close", 1008)


@clause("6455:7.1.7-1", "6455:6.1-1", "6455:7.1.7-2")
@pytest.mark.parametrize("fault", [frame(TEXT, b"x", rsv=2), frame(3), frame(0, b"x")],
                         ids=["rsv", "opcode", "continuation"])
def test_nothing_is_answered_behind_a_fault(sut, fault):
    with sut.open() as peer:
        if peer.is_client:  # the same with a mask
            fault = fault[:1] + bytes([fault[1] | 0x80]) + b"\0\0\0\0" + fault[2:]
        peer.raw(peer.frame(TEXT, b"before") + fault + peer.frame(PING, b"p") +
                 peer.frame(TEXT, b"after"))
        assert peer.read() == ("message", TEXT, b"before")
        fails_with(peer, 1002)


@clause("6455:10.7-1")
@pytest.mark.parametrize("seed", range(40))
def test_noise_ends_with_a_close_that_says_why(server, seed):
    rng = random.Random(seed)
    with server.open() as peer:
        peer.raw(rng.randbytes(4000))
        event = peer.read()
        while event[0] in ("pong", "message"):
            event = peer.read()
        assert event[0] == "close" and event[1] in (1002, 1007, 1009), event
        while peer.fill():
            pass


# ---- closing ----

@clause("6455:5.5.1-6", "6455:5.5.1-4")
def test_a_server_ends_the_connection_right_after_both_closes(server):
    with server.open() as peer:
        leave(peer)
        before = time.monotonic()
        assert not peer.fill() and not peer.buffer
        assert time.monotonic() - before < 1.5


@clause("6455:5.5.1-7")
def test_a_client_waits_for_the_server_to_end_the_connection():
    with Client().open() as peer:
        leave(peer)
        with pytest.raises(TimeoutError):
            peer.fill(0.3)


@clause("6455:5.5.1-6")
@pytest.mark.parametrize("answers", [False, True])
def test_a_peer_that_stays_is_cut_in_time(sut, answers):
    with sut.open() as peer:
        if answers:
            leave(peer)
        else:
            peer.send(3)
            assert peer.read()[:2] == ("close", 1002)
        before = time.monotonic()
        assert not peer.fill(10)
        assert time.monotonic() - before < 6


@clause("6455:5.5.1-8", "6455:5.5.1-4")
def test_both_sides_may_close_at_once(sut):
    with sut.open() as peer:
        # The fault makes it send a Close of its own, which crosses ours.
        peer.raw(peer.frame(TEXT, b"\xff") + peer.frame(CLOSE, close_payload(1000)))
        assert peer.read()[:2] == ("close", 1007)
        if peer.is_client:
            assert not peer.fill() and not peer.buffer


@clause("6455:7.1.1-1")
def test_a_close_arrives_though_bytes_were_still_on_their_way(server):
    with server.open() as peer:
        payload = os.urandom(2 * MIB)
        peer.send(BINARY, payload)
        peer.send(3)
        peer.raw(bytes(200_000), 10_000)  # to nobody
        assert peer.read() == ("message", BINARY, payload)
        assert peer.read()[:2] == ("close", 1002)
        assert not peer.fill()


@clause("6455:5.5.1-2", "6455:8.1-1")
def test_every_close_it_sends_is_right(sut):
    # Peer raises at a code or a reason that must not be.
    for wire, code in (((TEXT, b"\xc0"), 1007), ((CLOSE, b"\x03\xe8\xff"), 1007),
                       ((CLOSE, struct.pack("!H", 1015)), 1002), ((CLOSE, b"\x03"), 1002)):
        with sut.open() as peer:
            peer.send(*wire)
            fails_with(peer, code)


# ---- through the relay ----

@clause("6455:5.4-7")
def test_the_relay_changes_no_byte_of_frames_that_are_not_its_own(shared):
    listener = Listener()
    try:
        relay = shared.relay()
        shared.http(relay, listener.port, name="frames")
        auth = f"Bearer {shared.token('alice')}"
        rng = random.Random(7)
        out = b"".join(frame(rng.choice((0, 1, 2, 3, 9, 11)), rng.randbytes(rng.choice((0, 5, 70000))),
                             fin=rng.random() < .5, rsv=rng.randrange(8),
                             mask=rng.choice((None, rng.randbytes(4)))) for _ in range(40))
        served = {}

        def serve():
            sock, _, fields, rest = listener.accept_raw()
            with sock:
                sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: "
                             b"Upgrade\r\nSec-WebSocket-Accept: " +
                             accept_of(fields["sec-websocket-key"][0]).encode() + b"\r\nSec-WebSocket-Extensions: x-unknown; a=1\r\n\r\n")
                while len(rest) < len(out):
                    rest += sock.recv(1 << 20)
                served.update(got=rest, extensions=fields["sec-websocket-extensions"])
                sock.sendall(xor(out, b"\x55\xaa\x33\xcc"))
        thread = threading.Thread(target=serve)
        thread.start()
        with connect(relay.port, "/t/frames/x", offer="x-unknown; a", Authorization=auth) as peer:
            assert peer.head["sec-websocket-extensions"] == ["x-unknown; a=1"]
            peer.raw(out)
            assert peer.take(len(out), 20) == xor(out, b"\x55\xaa\x33\xcc")
        thread.join(20)
        assert served == {"got": out, "extensions": ["x-unknown; a"]}
    finally:
        listener.close()


def test_the_peer_itself_sees_what_is_wrong():
    """The tests above rest on Peer raising at what no side may send."""
    wrong = [frame(TEXT, b"x", mask=b"abcd"), frame(TEXT, b"x", form=16), frame(PING, bytes(126)),
             frame(TEXT, b"\xff"), frame(CLOSE, b"\x03\xed"), frame(TEXT, b"x", rsv=4), frame(0, b"x"),
             frame(PING, fin=False), frame(CLOSE, b"x"), frame(TEXT, b"x", declare=9)]
    listener = Listener()
    for wire in wrong:
        with socket.create_connection(("127.0.0.1", listener.port)) as sock:
            sock.sendall(wire)
        with Peer(listener.sock.accept()[0], True) as peer, pytest.raises(Broken):
            peer.read()
    listener.close()
