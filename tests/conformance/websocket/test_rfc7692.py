# SPDX-License-Identifier: MIT
"""RFC 7692, clause by clause, on the engine as a server and as a client."""
import random
import zlib

import pytest

from test_rfc6455_handshake import meet
from ws_sut import WS_ECHO, Client
from ws_wire import BINARY, CLOSE, PING, TEXT, close_payload, extension, leave

pytestmark = pytest.mark.skipif(not WS_ECHO.exists(), reason=f"{WS_ECHO} is not built")
clause = pytest.mark.clause
PLAIN = "permessage-deflate"
MIB = 1 << 20


def compressed(sut, offer=f"{PLAIN}; client_max_window_bits", answer=None):
    """A connection with permessage-deflate."""
    return sut.open(offer=offer, answer=lambda offered: answer or {})


def agreed(server, *offers):
    """The parameters of the server's answer, None for no extension."""
    with server.open(offer=list(offers)) as peer:
        params = extension(peer.head.get("sec-websocket-extensions", []))
        peer.send(TEXT, b"still there")
        assert peer.read() == ("message", TEXT, b"still there")
        leave(peer)
    return params


# ---- negotiation, server ----

@pytest.mark.parametrize("param", [
    pytest.param(param, id=f"{key}-{param}", marks=clause("7692:5-1", f"7692:{key}"))
    for key, params in {
        "7-1": ("x", "x=1", "window_bits=9", "server_max_window_bit=9"),
        "7-2": ("server_max_window_bits", "client_max_window_bits=", "server_max_window_bits=yes"),
        "7-3": ("server_no_context_takeover; server_no_context_takeover",
                "client_max_window_bits; client_max_window_bits=10",
                "server_max_window_bits=9; server_max_window_bits=9"),
        "7.1.1.1-3": ("server_no_context_takeover=1", "client_no_context_takeover=true"),
        "7.1.2-1": tuple(f"{side}_max_window_bits={bits}" for side in ("server", "client")
                         for bits in ("7", "16", "08", "010", "0", "15x", "+9", "99999999999")),
    }.items() for param in params])
def test_offers_that_are_wrong_are_declined(server, param):
    try:
        params = agreed(server, f"{PLAIN}; {param}")
    except AssertionError as refused:
        # A field that breaks the grammar refuses the whole request (RFC 6455 §9.1).
        assert "400" in str(refused) and param.endswith(("=", "+9"))
        return
    assert params is None
    # … and a good one behind it is taken.
    assert agreed(server, f"{PLAIN}; {param}, {PLAIN}") == {}


@clause("7692:5-3")
def test_the_first_offer_that_fits_is_taken(server):
    assert agreed(server, f"x-other, {PLAIN}; server_max_window_bits=10, {PLAIN}") == \
        {"server_max_window_bits": "10"}
    assert agreed(server, "x-other", f"{PLAIN}; nonsense", f"{PLAIN}; server_no_context_takeover") \
        == {"server_no_context_takeover": None}
    assert agreed(server, "x-other, y-other; z") is None


@clause("7692:7.1.1.1-1")
def test_takeover_that_is_given_up_is_said(server):
    assert "server_no_context_takeover" in agreed(server, f"{PLAIN}; server_no_context_takeover")
    both = agreed(server, f"{PLAIN}; server_no_context_takeover; client_no_context_takeover")
    assert "server_no_context_takeover" in both


@clause("7692:7.1.2.1-1", "7692:7.1.2-1")
@pytest.mark.parametrize("bits", range(8, 16))
def test_the_answer_keeps_to_the_window_that_was_offered(server, bits):
    params = agreed(server, f"{PLAIN}; server_max_window_bits={bits}")
    assert 8 <= int(params["server_max_window_bits"]) <= bits


@clause("7692:7.1.2.2-1")
def test_a_client_that_names_no_window_is_told_none(server):
    for offer in (PLAIN, f"{PLAIN}; server_max_window_bits=9"):
        assert "client_max_window_bits" not in agreed(server, offer)
    value = agreed(server, f"{PLAIN}; client_max_window_bits=9").get("client_max_window_bits")
    assert value is None or 8 <= int(value) <= 9


# ---- negotiation, client ----

@pytest.mark.parametrize("params", [
    pytest.param(params, id=f"{key}-{params}", marks=clause("7692:5-2", f"7692:{key}"))
    for key, all_ in {
        "7-4": ({"x": None}, {"x": "1"}),
        "7-5": ({"server_max_window_bits": None}, {"server_max_window_bits": "7"},
                {"server_max_window_bits": "16"}, {"server_no_context_takeover": "1"}),
        "7-6": ({"server_no_context_takeover": None, "server_no_context_takeover ": None},),
        "7.1.2-1": ({"server_max_window_bits": "09"}, {"client_max_window_bits": "x"}),
        "7.1.2.2-2": ({"client_max_window_bits": None}, {"client_max_window_bits": "16"}),
    }.items() for params in all_])
def test_a_client_fails_at_an_answer_that_is_wrong(params):
    words = [k if v is None else f"{k}={v}" for k, v in params.items()]
    meet(extra=f"Sec-WebSocket-Extensions: {'; '.join([PLAIN, *words])}\r\n")


# ---- RSV1 ----

@clause("7692:6-1", "7692:6-2", "7692:7.2.1-1")
def test_only_the_first_frame_of_a_compressed_message_is_marked(sut):
    with compressed(sut) as peer:
        noise = random.Random(1).randbytes(3 * MIB)
        peer.send_message(BINARY, noise)
        firsts, data = [], b""
        while not firsts or not firsts[-1] & 0x80:
            first, payload = peer.read_frame()
            firsts.append(first)
            data += payload
        assert len(firsts) > 1 and firsts[0] == 0x42
        assert {first & 0x7f for first in firsts[1:]} == {0}
        assert not data.endswith(b"\0\0\xff\xff")
        assert peer.deflate.inflate(data) == noise
        leave(peer)


@pytest.mark.parametrize("frames", [
    pytest.param(((TEXT, False, 4), (0, True, 4)), id="continuation", marks=clause("7692:6-2")),
    pytest.param(((TEXT, False, 0), (0, True, 4)), id="only-continuation", marks=clause("7692:6-2")),
    pytest.param(((PING, True, 4),), id="ping", marks=clause("7692:6-3", "7692:6.1-1")),
    pytest.param(((CLOSE, True, 4),), id="close", marks=clause("7692:6-3", "7692:6.1-1")),
    pytest.param(((TEXT, True, 6),), id="rsv2", marks=clause("6455:5.2-1")),
])
def test_a_mark_in_the_wrong_place_fails(sut, frames):
    with compressed(sut) as peer:
        for opcode, fin, rsv in frames:
            peer.send(opcode, b"", fin=fin, rsv=rsv)
        assert peer.read()[:2] == ("close", 1002)
        peer.send(CLOSE, close_payload(1002))


@clause("6455:5.2-1", "7692:6-1")
def test_without_the_extension_a_mark_fails(sut):
    with sut.open() as peer:
        peer.send(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00", rsv=4)
        assert peer.read()[:2] == ("close", 1002)
        peer.send(CLOSE, close_payload(1002))


@clause("7692:6-4", "7692:6.1-1")
def test_plain_messages_and_pings_between_compressed_ones(sut):
    with compressed(sut) as peer:
        for n in range(10):
            peer.send_message(TEXT, b"compressed %d" % n)
            peer.send(TEXT, b"plain %d" % n)
            assert peer.read() == ("message", TEXT, b"compressed %d" % n)
            assert peer.read() == ("message", TEXT, b"plain %d" % n)
        data = peer.deflate.compress(b"in two frames")
        peer.raw(peer.frame(TEXT, data[:3], fin=False, rsv=4) + peer.frame(PING, b"between") +
                 peer.frame(0, data[3:]))
        assert peer.read() == ("pong", b"between")
        assert peer.read() == ("message", TEXT, b"in two frames")
        leave(peer)


# ---- windows and takeover ----

def revealing(bits):
    """Data that wants a window of more than `bits`: what comes again is further back."""
    block = random.Random(bits).randbytes((1 << bits) + 300)
    return block + block + b"a" * 1000


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("takeover", [True, False])
@clause("7692:7.1.2.1-2", "7692:7.1.1.1-2")
def test_a_server_uses_no_larger_window_than_agreed(server, bits, takeover):
    offer = f"{PLAIN}; server_max_window_bits={bits}" + \
        ("" if takeover else "; server_no_context_takeover")
    with compressed(server, offer) as peer:  # which inflates with just that window
        assert peer.deflate.their_bits <= bits and peer.deflate.their_takeover == takeover
        for _ in range(2):
            payload = revealing(bits)
            peer.send_message(BINARY, payload)
            assert peer.read() == ("message", BINARY, payload)
        leave(peer)


@pytest.mark.parametrize("bits", range(8, 16))
@pytest.mark.parametrize("takeover", [True, False])
@clause("7692:7.1.2.2-3", "7692:7.1.1.2-1")
def test_a_client_uses_no_larger_window_than_agreed(bits, takeover):
    answer = {"client_max_window_bits": bits}
    if not takeover:
        answer["client_no_context_takeover"] = None
    with compressed(Client(), answer=answer) as peer:
        for _ in range(2):
            payload = revealing(bits)
            peer.send_message(BINARY, payload)
            assert peer.read() == ("message", BINARY, payload)
        leave(peer)


@pytest.mark.parametrize("bits", range(8, 16))
def test_a_peer_may_use_the_window_it_announced(sut, bits):
    """Their side of it: our data refers as far back as was agreed."""
    offer = f"{PLAIN}; client_max_window_bits={bits}"
    with compressed(sut, offer, {"server_max_window_bits": bits}) as peer:
        peer.deflate.our_bits = max(bits, 9) if bits > 8 else 8
        for _ in range(3):
            payload = random.Random(1).randbytes((1 << bits) - 300 if bits > 8 else 100) * 2
            peer.send_message(BINARY, payload)
            assert peer.read() == ("message", BINARY, payload)
        leave(peer)


# ---- data ----

HELLO = "f248cdc9c90700"


@clause("7692:7.2.2-1")
@pytest.mark.parametrize("wire", [
    pytest.param((HELLO,), id="one-block", marks=clause("7692:7.2.3.1-1")),
    pytest.param((HELLO, "f200110000"), id="takeover", marks=clause("7692:7.2.3.2-1")),
    pytest.param(("000500faff48656c6c6f00",), id="stored", marks=clause("7692:7.2.3.3-1")),
    pytest.param(("f348cdc9c9070000", HELLO), id="final", marks=clause("7692:7.2.3.4-1")),
    pytest.param(("f248050000 00ffffcac9c90700",), id="two-blocks", marks=clause("7692:7.2.3.5-1")),
])
def test_the_examples_of_section_7_2_3(sut, wire):
    with compressed(sut) as peer:
        for data in wire:
            peer.send(TEXT, bytes.fromhex(data), rsv=4)
            assert peer.read() == ("message", TEXT, b"Hello")
        leave(peer)
    with compressed(sut) as peer:  # in frames of one byte
        for data in map(bytes.fromhex, wire):
            last = len(data) - 1
            peer.raw(b"".join(peer.frame(0 if n else TEXT, data[n:n + 1], fin=n == last,
                                         rsv=0 if n else 4) for n in range(len(data))))
            assert peer.read() == ("message", TEXT, b"Hello")
        leave(peer)


@clause("7692:7.2.1-2")
def test_an_empty_message_is_one_byte(sut):
    with compressed(sut) as peer:
        peer.send(TEXT, b"\0", rsv=4)
        assert peer.read_frame() == (0xC1, b"\0")
        leave(peer)


@clause("7692:7.2.2-2")
@pytest.mark.parametrize("data", ["ff", "0605", "000500ffff48656c6c6f00", "ed", "f248cdc9c907"])
def test_damaged_data_fails(sut, data):
    with compressed(sut) as peer:
        peer.send(BINARY, bytes.fromhex(data), rsv=4)
        assert peer.read()[:2] == ("close", 1002)
        peer.send(CLOSE, close_payload(1002))


@clause("6455:8.1-1")
@pytest.mark.parametrize("payload", [b"\xff", b"ok\xed\xa0\x80", b"ends early \xe2\x82"])
def test_compressed_text_is_checked_as_text(sut, payload):
    with compressed(sut) as peer:
        peer.send_message(TEXT, payload)
        assert peer.read()[:2] == ("close", 1007)
        peer.send(CLOSE, close_payload(1007))


@clause("7692:8-1", "6455:10.4-1")
def test_a_small_frame_that_inflates_without_end_fails(sut):
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(bomb.compress(bytes(MIB)) for _ in range(40)) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(data) < 60_000
    with compressed(sut) as peer:
        peer.send(BINARY, data[:-4], rsv=4)
        assert peer.read()[:2] == ("close", 1009)
        peer.send(CLOSE, close_payload(1009))
