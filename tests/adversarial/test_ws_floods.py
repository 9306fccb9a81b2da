# SPDX-License-Identifier: MIT
"""Rows 3 to 5: frames that announce too much, that never end, that nobody asked for."""
import contextlib
import time

import pytest
from attack import IS_SANITIZED, SLACK, close_code, frame, reset, upgrade
from culvert import wait_for

IDENT = b"SSH-2.0-attack\r\n"
MIB_KIB = 1024
FLAT_KIB = (100 if IS_SANITIZED else 8) * MIB_KIB


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(home=False, env={
        "CULVERT_SSH_HANDSHAKE_TIMEOUT": "20s", "MAX_CONNECTIONS_PER_USER": "500"})


# ---- row 3 ----

LENGTHS = {"2^63-1": (1 << 63) - 1, "2^62": 1 << 62, "2^32": 1 << 32, "2 GiB": 2 << 30,
           "1 MiB and a byte": (1 << 20) + 1}


@pytest.mark.parametrize("protocol", ["ssh", "culvert.v1"])
@pytest.mark.parametrize("name", LENGTHS)
def test_row_03_a_length_beyond_reason_is_refused_at_once(target, protocol, name):
    """The header is enough: nothing of the payload comes."""
    with target.attack(peak_kib=FLAT_KIB), upgrade(target, protocol, timeout=5) as client:
        started = time.monotonic()
        client.send(frame(0x82, b"", length=LENGTHS[name]))
        assert close_code(client) == 1009 and client.eof
        assert time.monotonic() - started < 1 * SLACK


def test_row_03_a_length_that_is_allowed_takes_no_memory(target):
    """Three hundred links announce 1 MiB each and say no more."""
    with target.attack(peak_kib=3 * FLAT_KIB + 300 * 128, log_lines=700):
        crowd = [upgrade(target, ("ssh", "culvert.v1")[n % 2]) for n in range(300)]
        for client in crowd:
            client.send(frame(0x82, IDENT, length=1 << 20))
        assert target.counters()["links"] == 301
        for client in crowd:
            reset(client.sock)


def test_row_03_two_gibibytes_and_silence_in_a_message(target):
    """The same behind frames that were good."""
    with target.attack(peak_kib=FLAT_KIB), upgrade(target, "ssh", timeout=5) as client:
        client.send(frame(0x02, IDENT[:5]) + frame(0x00, b"", length=2 << 30))
        assert close_code(client) == 1009 and client.eof


# ---- row 4 ----

@pytest.mark.parametrize("protocol", ["ssh", "culvert.v1"])
@pytest.mark.parametrize("first, payload, codes", [
    (0x02, b"", {1008}), (0x02, b"S", {1002, 1008}), (0x01, b"", {1003, 1008}),
    (0x01, b" ", {1003, 1008})], ids=["empty", "one byte", "empty text", "one byte of text"])
def test_row_04_continuations_without_end(target, protocol, first, payload, codes):
    count = 100_000
    cpu = target.relay.cpu_seconds()
    with target.attack(peak_kib=FLAT_KIB), upgrade(target, protocol, timeout=5) as client:
        data = frame(first, payload) + frame(0x00, payload) * count
        sent = 0
        with contextlib.suppress(OSError):
            for at in range(0, len(data), 6000):
                client.send(data[at:at + 6000])
                sent = at
        assert close_code(client) in codes
        wait_for(lambda: target.counters()["links"] == 1, 5, "end of the link")
    assert sent <= len(data)
    # Dropping what still comes costs next to nothing.
    assert target.relay.cpu_seconds() - cpu < 3 * SLACK


# ---- row 5 ----

@pytest.mark.parametrize("protocol", ["ssh", "culvert.v1"])
def test_row_05_pings_from_a_peer_that_never_reads(target, protocol):
    """Its pongs fill the sockets between; then it is closed with 1008."""
    since = len(target.relay.records)
    with target.attack(peak_kib=FLAT_KIB), upgrade(target, protocol, timeout=5,
                                                   receive_buffer=4096) as client:
        burst = frame(0x89, b"p" * 125) * 500
        sent = 0
        while not target.relay.find("link_down", since=since) and sent < 2000:
            try:
                client.send(burst)
            except OSError:
                break
            sent += 1
        down = wait_for(lambda: target.relay.find("link_down", since=since), 5, "end")[-1]
        assert down["reason"] == "WS_POLICY", down
        assert sent < 2000, "a million pings were taken"
        assert close_code(client) in (1008, None)  # a reset may overtake what it never read


FLOODS = {
    "pings": frame(0x89, b"p" * 125), "empty pings": frame(0x89), "pongs": frame(0x8a),
    "empty frames": frame(0x82), "acks": frame(0x81, b'{"type":"ack","received":0}'),
    "unknown types": frame(0x81, b'{"type":"later"}'),
    "events": frame(0x81, b'{"type":"event","code":"x","message":"' + b"y" * 300 + b'"}'),
    "notices": frame(0x81, b'{"type":"notice","code":"replaced","tunnel":"mine","message":"no"}'),
    "lines": frame(0x82, b"x" * 1000), "idents": frame(0x82, b"SSH-2.0-" + b"x" * 300),
}


@pytest.mark.parametrize("name", FLOODS)
def test_row_05_floods_from_peers_that_never_read(target, name):
    """The link ends, or what comes costs nothing that grows."""
    flood = FLOODS[name]
    with target.attack(peak_kib=2 * FLAT_KIB):
        crowd = [upgrade(target, timeout=1, receive_buffer=4096) for _ in range(3)]
        burst = flood * (200_000 // len(flood))
        for _ in range(5):
            for client in crowd:
                with contextlib.suppress(OSError):
                    client.send(burst)
        for client in crowd:
            reset(client.sock)
