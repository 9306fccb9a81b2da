# SPDX-License-Identifier: MIT
"""Rows 30 and 31: TLS that is old, half, plain or restless, and certificates that change under load."""
import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
from attack import IS_SANITIZED
from client import Client
from culvert import raise_descriptor_limit, wait_for
from lag import without_lag
from tls_raw import UPDATE_NOT_REQUESTED, UPDATE_REQUESTED, RawTls

HANDSHAKE_S = 4


class Files:
    """What the relay reads: copies that tests may change."""

    def __init__(self, folder, authority):
        self.authority = authority
        self.cert, self.key = folder / "relay.pem", folder / "relay.key"
        self.renew()

    def renew(self):
        cert, key = self.authority.issue()
        shutil.copy(key, self.key)
        shutil.copy(cert, self.cert)


@pytest.fixture(scope="module")
def files(tmp_path_factory, authority):
    return Files(tmp_path_factory.mktemp("certificates"), authority)


@pytest.fixture(scope="module")
def target(make_target, files, authority):
    raise_descriptor_limit(8192)
    return make_target(env={"CULVERT_LIMITS_HANDSHAKE_TIMEOUT": f"{HANDSHAKE_S}s",
                            "CULVERT_LIMITS_HEADER_TIMEOUT": "2s"},
                       ca=authority.ca,
                       config=f"tls:\n  cert_file: {files.cert}\n  key_file: {files.key}\n")


def serial(target):
    with target.client() as client:
        return client.sock.getpeercert()["serialNumber"]


# ---- row 30 ----

@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2"])
def test_row_30_old_versions_are_refused(target, version):
    def handshake(*options):
        return subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{target.relay.port}", "-CAfile",
             target.ca, *options], input=b"", capture_output=True, timeout=20)
    with target.attack():
        assert b"TLSv1.3" in handshake("-tls1_3").stdout
        for _ in range(5):
            old = handshake(version, "-cipher", "ALL:@SECLEVEL=0")
            assert old.returncode != 0 and b"Cipher is (NONE)" in old.stdout


@pytest.mark.parametrize("words", [
    b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n", b"\x80\x2e\x01\x00\x02" + bytes(64), bytes(600),
    b"\x16\x03\x01\xff\xff\x01" + bytes(600), b"\x17\x03\x03\x40\x00" + bytes(600),
], ids=["http", "http/2", "ssh", "sslv2", "zeros", "long record", "data first"])
def test_row_30_what_is_no_tls_gets_no_answer(target, words):
    with target.attack():
        crowd = [Client(target.relay.port) for _ in range(20)]
        for client in crowd:
            client.send(words)
        for client in crowd:
            client.is_closed()
            assert client.eof and b"HTTP" not in client.buffer
            client.close()


def hello():
    """A ClientHello, as Python's ssl makes it."""
    context = ssl.create_default_context()
    made = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), made, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return made.read()
    raise AssertionError("a handshake without a server")


@pytest.mark.parametrize("what", ["silence", "half a hello", "hello and silence"])
def test_row_30_two_thousand_half_handshakes(target, what):
    """Each is ended by its deadline, none takes what others need."""
    whole = hello()
    said = {"silence": b"", "half a hello": whole[:len(whole) // 2],
            "hello and silence": whole}[what]
    count = 500 if IS_SANITIZED else 2000
    pace_s = 0
    if said == whole:
        # A signature each: at a pace that one core bears beside what else it does just now.
        pace_s = 4 * seconds_per_hello(target, whole)
        count = min(count, int(10 / pace_s))
    with target.attack(peak_kib=(600 if IS_SANITIZED else 200) * 1024):
        crowd = open_crowd(target, said, count, pace_s)
        last = time.monotonic()
        assert wait_closed(crowd) == count
        assert time.monotonic() - last < HANDSHAKE_S + 10


def seconds_per_hello(target, said):
    seen = []
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", target.relay.port), 15) as sock:
            begin = time.monotonic()
            sock.sendall(said)
            assert sock.recv(1)
            seen.append(time.monotonic() - begin)
    return sorted(seen)[len(seen) // 2]


def open_crowd(target, said, count, pace_s=0):
    crowd, begin = [], time.monotonic()
    for number in range(count):
        sock = socket.create_connection(("127.0.0.1", target.relay.port), 15)
        if said:
            sock.sendall(said)
        crowd.append(sock)
        time.sleep(max(0, begin + number * pace_s - time.monotonic()))
    return crowd


def wait_closed(crowd):
    """How many the relay has ended."""
    ended = 0
    for sock in crowd:
        sock.settimeout(HANDSHAKE_S + 12)
        with contextlib.suppress(TimeoutError):
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass
            ended += 1
        sock.close()
    return ended


@pytest.mark.timing
def test_row_30_a_burst_of_handshakes_leaves_others_their_turn(target):
    """Five hundred signatures are wanted at once; a connection that is there goes on."""
    said = hello()

    def burst():
        for sock in open_crowd(target, said, 500):
            sock.close()
    without_lag(target, burst)


@pytest.mark.parametrize("kind", [UPDATE_NOT_REQUESTED, UPDATE_REQUESTED])
def test_row_30_key_updates_without_end(target, kind):
    """A hundred thousand of them, all there at once: the connection ends after a few."""
    with target.attack():
        before = target.relay.cpu_seconds()
        with RawTls(target.relay.port) as peer:
            for _ in range(20_000):
                peer.key_update(kind)
            flood = peer.records()
            with pytest.raises(OSError):  # noqa: PT012 - which of the writes fails is open
                for _ in range(200):
                    peer.sock.sendall(flood)
        spent = target.relay.cpu_seconds() - before
        # Bob's own requests cost something too.
        assert spent < (10 if IS_SANITIZED else 1), f"{spent} s of CPU"


def test_row_30_a_few_key_updates_are_followed(target):
    with target.attack(), RawTls(target.relay.port) as peer:
        for kind in (UPDATE_NOT_REQUESTED, UPDATE_REQUESTED) * 5:
            peer.key_update(kind)
            peer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            peer.flush()
            assert peer.read().startswith(b"HTTP/1.1 200 ")


def test_row_30_records_of_one_byte_without_end(target):
    with target.attack():
        with RawTls(target.relay.port) as peer:
            peer.write(b"POST /t/home/x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n"
                       + target.auth().encode() + b"\r\n")
            for _ in range(100_000):
                peer.write(b"x")
            peer.flush()
            assert peer.read().startswith(b"HTTP/1.1 200 ")


def test_row_30_half_a_record_in_a_request(target):
    """A record that never ends has the time that a head has, not for ever."""
    with RawTls(target.relay.port, timeout=60) as peer:
        peer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = peer.records()
        peer.sock.sendall(data[:-1])
        answer = peer.read()
        assert answer == b"" or b" 408 " in answer


# ---- row 31 ----

def reload(target):
    since = len(target.relay.records)
    target.relay.signal(signal.SIGHUP)
    return target.relay.wait_log("reload_tls", since=since), since


def test_row_31_a_replaced_certificate_is_taken_and_connections_go_on(target, files):
    with target.attack():
        before = serial(target)
        with target.client() as opened:
            files.renew()
            assert reload(target)[0]["level"] == "info"
            assert serial(target) != before
            opened.request("GET", "/t/home/x", target.token)
            assert opened.response().status == 200
        assert target.fetch().status == 200


DAMAGE = {
    "cert is garbage": lambda f: f.cert.write_text("garbage"),
    "cert is empty": lambda f: f.cert.write_text(""),
    "cert is gone": lambda f: f.cert.unlink(),
    "cert is half written": lambda f: f.cert.write_bytes(f.cert.read_bytes()[:-200]),
    "cert of another key": lambda f: shutil.copy(f.authority.issue()[0], f.cert),
    "key is garbage": lambda f: f.key.write_text("garbage"),
    "key is gone": lambda f: f.key.unlink(),
    "key is half written": lambda f: f.key.write_bytes(f.key.read_bytes()[:100]),
    "key of another cert": lambda f: shutil.copy(f.authority.issue()[1], f.key),
    "a folder": lambda f: (f.cert.unlink(), f.cert.mkdir()),
    "both gone": lambda f: (f.cert.unlink(), f.key.unlink()),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_row_31_a_broken_certificate_leaves_the_old_one(target, files, name):
    with target.attack():
        before = serial(target)
        try:
            DAMAGE[name](files)
            record, since = reload(target)
            assert record["level"] == "warn" and record["detail"], record
            assert serial(target) == before
            assert target.fetch().status == 200
            assert len(target.relay.find("reload_tls", since=since)) == 1, "one line"
        finally:
            if files.cert.is_dir():
                files.cert.rmdir()
            files.renew()
        assert reload(target)[0]["level"] == "info"
        assert serial(target) != before


def test_row_31_a_hundred_reloads_under_load(target, files):
    """Good and broken ones in turn; every handshake and every request meanwhile succeeds."""
    over, faults, done = threading.Event(), [], []

    def load():
        while not over.is_set():
            try:
                with target.client() as client:
                    client.request("POST", "/t/home/x", target.token, body=b"under load")
                    response = client.response()
                    if response.status != 200 or response.body != b"under load":
                        faults.append(response)
                done.append(1)
            except Exception as error:  # noqa: BLE001 - reported
                faults.append(repr(error))

    pairs = [files.authority.issue() for _ in range(4)]
    since = len(target.relay.records)
    with target.attack(log_lines=500, log_bytes=200_000):
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(100):
                if number % 5 == 4:
                    files.cert.write_text("half")
                else:
                    for source, copy in zip(pairs[number % 4], (files.cert, files.key),
                                            strict=True):
                        shutil.copy(source, copy)
                target.relay.signal(signal.SIGHUP)
                wait_for(lambda due=number + 1: len(
                    target.relay.find("reload_tls", since=since)) == due, 20, "log line")
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert not faults, faults[:3]
    assert len(done) > 20, "no load"
    found = target.relay.find("reload_tls", since=since)
    assert len(found) == 100
    assert [r["level"] for r in found].count("warn") == 20
