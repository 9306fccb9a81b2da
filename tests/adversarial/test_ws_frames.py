# SPDX-License-Identifier: MIT
"""Rows 2, 6 and 7: frames that break RFC 6455, text where none belongs, ends that are none."""
import contextlib
import itertools
import time

import pytest
from attack import SLACK, Cases, close_code, frame, reset, upgrade
from culvert import wait_for

IDENT = b"SSH-2.0-attack\r\n"
TCP_GONE_S = 5
GRACE_S = 1.5 * SLACK


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(home=False, env={
        "CULVERT_SSH_HANDSHAKE_TIMEOUT": "2s", "MAX_CONNECTIONS_PER_USER": "500"})


def close(code, reason=b""):
    return frame(0x88, code.to_bytes(2, "big") + reason)


BROKEN = {
    "unmasked": frame(0x82, IDENT, mask=None),
    "unmasked ping": frame(0x89, b"x", mask=None),
    "unmasked close": frame(0x88, b"\x03\xe8", mask=None),
    "unmasked empty": frame(0x82, b"", mask=None),
    "unmasked behind a masked one": frame(0x82, IDENT) + frame(0x82, b"x", mask=None),
    "compressed without deflate": frame(0xc2, IDENT),
    **{f"reserved bits {bits:#x}": frame(0x82 | bits << 4, IDENT) for bits in range(1, 8)},
    "reserved bit on a ping": frame(0xc9, b""),
    "reserved bit on a close": frame(0xa8, b"\x03\xe8"),
    **{f"opcode {code:#x}": frame(0x80 | code, IDENT) for code in (*range(3, 8), *range(11, 16))},
    **{f"opcode {code:#x}, empty, no FIN": frame(code, b"") for code in (3, 7, 0xb, 0xf)},
    "fragmented ping": frame(0x09, b"x"),
    "fragmented pong": frame(0x0a, b"x"),
    "fragmented close": frame(0x08, b"\x03\xe8"),
    "ping of 126 bytes": frame(0x89, b"x" * 126),
    "pong of 126 bytes": frame(0x8a, b"x" * 126),
    "close of 126 bytes": close(1000, b"x" * 124),
    "ping of 64 KiB": frame(0x89, b"x" * 65536),
    "continuation of nothing": frame(0x80, IDENT),
    "continuation behind a whole message": frame(0x82, IDENT) + frame(0x80, b"x"),
    "binary inside binary": frame(0x02, b"S") + frame(0x82, b"S"),
    "2^64-1": b"\x82\xff" + b"\xff" * 8 + b"mask",
    "2^63": b"\x82\xff\x80" + b"\0" * 7 + b"mask",
    "5 in 16 bits": b"\x82\xfe\x00\x05maskhello",
    "5 in 64 bits": b"\x82\xff" + b"\0" * 7 + b"\x05maskhello",
    "65535 in 64 bits": b"\x82\xff" + b"\0" * 6 + b"\xff\xff" + b"mask",
    **{f"close {code}": close(code) for code in
       (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)},
    "close of one byte": frame(0x88, b"x"),
}


def answer_to(target, protocol, data, is_split, timeout=5):
    """The close code that these frames are answered with; the relay closes TCP behind it."""
    with upgrade(target, protocol, timeout=timeout) as client:
        with contextlib.suppress(OSError):
            if is_split:
                for at in range(0, min(len(data), 40)):
                    client.send(data[at:at + 1])
                data = data[40:]
            client.send(data)
        code = close_code(client)
        assert client.eof, "the relay does not close"
        return code


@pytest.mark.parametrize("protocol", ["ssh", "culvert.v1"])
@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "bytewise"])
def test_row_02_07_frames_that_break_the_rules(target, protocol, is_split):
    cases = Cases()
    with target.attack(log_lines=3 * len(BROKEN)):
        for name, data in BROKEN.items():
            with cases.case(name):
                started = time.monotonic()
                assert answer_to(target, protocol, data, is_split) == 1002
                assert time.monotonic() - started < TCP_GONE_S
    cases.check()


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999, None])
def test_row_07_codes_that_are_allowed_are_answered(target, code):
    with upgrade(target, "ssh", timeout=5) as client:
        client.send(close(code, b"bye") if code else frame(0x88))
        assert close_code(client) in (code or 1005, 1000, 1005, 1006, 1011)
        assert client.eof


# ---- row 6 ----

TEXT = {
    "lone continuation": b"\x80", "lone lead": b"\xc3", "overlong slash": b"\xc0\xaf",
    "overlong NUL": b"\xe0\x80\x80", "overlong in four": b"\xf0\x80\x80\xaf",
    "surrogate": b"\xed\xa0\x80", "above 10FFFF": b"\xf4\x90\x80\x80", "five bytes": b"\xf8\x88\x80"
    b"\x80\x80", "FE": b"\xfe", "FF": b"\xff", "broken off": b'{"a":"\xe2\x82',
    "fault at the end": b'{"type":"ack","received":0}\xff',
}


def test_row_06_bad_utf_8_is_1007(target):
    cases = Cases()
    with target.attack():
        for (name, text), is_split in itertools.product(TEXT.items(), (False, True)):
            with cases.case(f"{name}, split {is_split}"):
                data = b"".join(frame(0x00 if at else 0x01, text[at:at + 1]) for at in
                                range(len(text))) + frame(0x80, b"") if is_split \
                    else frame(0x81, text)
                assert answer_to(target, "culvert.v1", data, False) == 1007
        for reason in (b"\xff", b"\xc3", b"ok\xed\xa0\x80"):
            with cases.case(f"close reason {reason}"):
                for protocol in ("ssh", "culvert.v1"):
                    assert answer_to(target, protocol, close(1000, reason), False) == 1007
    cases.check()


def test_row_06_text_on_a_binary_route_is_1003(target):
    cases = Cases()
    with target.attack():
        for data in (frame(0x81, b'{"type":"ack","received":0}'), frame(0x81, b""),
                     frame(0x01, b"x"), frame(0x01, b""), frame(0x81, IDENT),
                     frame(0x81, b"x" * 100_000), frame(0x82, IDENT) + frame(0x81, b"x"),
                     frame(0x81, b"\xff\xfe")):
            with cases.case(str(data[:30])):
                assert answer_to(target, "ssh", data, False) == 1003
    cases.check()


CONTROL = {
    "too long": frame(0x81, b" " * 20000),
    "in a hundred pieces": frame(0x01, b" " * 200) + frame(0x00, b" " * 200) * 100 + frame(0x80),
    "no JSON": frame(0x81, b"hello"),
    "no type": frame(0x81, b"{}"),
    "an array": frame(0x81, b"[1]"),
    "deep": frame(0x81, b'{"a":' * 2500 + b"1" + b"}" * 2500),
    "a doubled member": frame(0x81, b'{"type":"ack","received":0,"received":0}'),
    "an ack of what was not sent": frame(0x81, b'{"type":"ack","received":9007199254740991}'),
    "a negative ack": frame(0x81, b'{"type":"ack","received":-1}'),
    "a huge ack": frame(0x81, b'{"type":"ack","received":18446744073709551616}'),
    "an ack of half a byte": frame(0x81, b'{"type":"ack","received":0.5}'),
    "NUL in a code": frame(0x81, b'{"type":"event","code":"a\\u0000b","message":"x"}'),
    "a code that is too long": frame(0x81, b'{"type":"event","code":"' + b"x" * 5000 +
                                     b'","message":"x"}'),
}


def test_row_06_text_that_is_no_control_message_is_1008(target):
    cases = Cases()
    with target.attack():
        for (name, data), is_split in itertools.product(CONTROL.items(), (False, True)):
            with cases.case(f"{name}, split {is_split}"):
                assert answer_to(target, "culvert.v1", data, is_split) == 1008
    cases.check()


# ---- row 7: a peer that does not answer ----

ENDS = {
    "a bad code": close(999), "a good code": close(1000), "no code": frame(0x88),
    "one byte": frame(0x88, b"x"), "a broken frame": frame(0xf2, IDENT),
    "text": frame(0x81, b"x"), "a break inside a frame": frame(0x82, b"x", length=125),
    "silence": b"",
}


def is_gone(client):
    """The other side's socket is closed: what is sent is answered with a reset."""
    try:
        client.send(frame(0x8a))
    except OSError:
        return True
    return False


@pytest.mark.parametrize("is_reading", [False, True], ids=["deaf", "reading"])
def test_row_07_tcp_is_gone_though_the_peer_never_answers(target, is_reading):
    """The peers keep their sockets open, send no Close of their own and no FIN."""
    handshake_s = 2
    with target.attack():
        crowd = [upgrade(target, protocol, receive_buffer=4096)
                 for protocol in ("ssh", "culvert.v1") for _ in ENDS]
        for client, data in zip(crowd, itertools.cycle(ENDS.values()), strict=False):
            client.send(data)
            if is_reading:
                client.fill()
        started = time.monotonic()
        wait_for(lambda: all([is_gone(client) for client in crowd]),
                 handshake_s + TCP_GONE_S + GRACE_S, "end of every socket", interval=0.1)
        assert time.monotonic() - started > 0.5, "they are given time to answer"
        wait_for(lambda: target.counters()["links"] == 1, 2, "end of every link")
        for client in crowd:
            reset(client.sock)
