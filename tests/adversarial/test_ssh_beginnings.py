# SPDX-License-Identifier: MIT
"""Rows 25, 26 and 28: peers that stop at some point of SSH's beginning, talk about something else,
want to be somebody, or exchange keys all the time."""
import hashlib
import sys
import threading
import time
from pathlib import Path

import pytest
from attack import IS_SANITIZED
from culvert import raise_descriptor_limit, wait_for
from ws_socket import WsSocket

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance" / "ssh"))
from stranger import (  # noqa: E402
    AUTH_FAILURE,
    AUTH_REQUEST,
    AUTH_SUCCESS,
    CONFIRMATION,
    DEBUG,
    ECDH_INIT,
    GLOBAL,
    IGNORE,
    OPEN_FAILURE,
    SERVICE_ACCEPT,
    SERVICE_REQUEST,
    UNIMPLEMENTED,
    Ended,
    Stranger,
    string,
)

DEADLINE_S = 4
CROWD = 200 if IS_SANITIZED else 1000


@pytest.fixture(scope="module")
def target(make_target):
    raise_descriptor_limit(8192)
    return make_target(env={"CULVERT_SSH_HANDSHAKE_TIMEOUT": f"{DEADLINE_S}s",
                            "MAX_CONNECTIONS_PER_USER": "5000"})


def stranger(target):
    return Stranger(WsSocket(target), True)


def is_ended(peer, timeout=10):
    peer.sock.settimeout(timeout)
    try:
        while peer.sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


# ---- row 25 ----

def say_nothing(peer):
    pass


def say_half_a_banner(peer):
    peer.raw(b"SSH-2.0-str")


def say_a_banner(peer):
    peer.raw(peer.version + b"\r\n")


def say_half_an_offer(peer):
    say_a_banner(peer)
    peer.raw(peer.packet(peer.init())[:100])


def say_an_offer(peer):
    say_a_banner(peer)
    peer.raw(peer.packet(peer.init()))


def exchange_keys(peer):
    peer.hello()
    peer.exchange()


def ask_for_the_service(peer):
    exchange_keys(peer)
    peer.send(SERVICE_REQUEST, string("ssh-userauth"))


@pytest.mark.parametrize(("step", "count"), [
    (say_nothing, CROWD), (say_half_a_banner, CROWD), (say_a_banner, CROWD),
    (say_half_an_offer, CROWD), (say_an_offer, CROWD), (exchange_keys, 60),
    (ask_for_the_service, 60),
    pytest.param(exchange_keys, 1000, marks=pytest.mark.long),
    pytest.param(ask_for_the_service, 1000, marks=pytest.mark.long)])
def test_row_25_silence_ends_with_the_deadline(target, step, count):
    """Whatever has been said before, and however many there are: gone, and not before long."""
    # Each is two lines of the log, link up or not.
    with target.attack(peak_kib=300 * 1024, log_lines=2 * count + 200, log_bytes=2_000_000):
        crowd = []
        for _ in range(count):
            peer = stranger(target)
            step(peer)
            crowd.append(peer)
        last = time.monotonic()
        assert all(is_ended(peer, DEADLINE_S + 15) for peer in crowd)
        assert time.monotonic() - last < DEADLINE_S + 12
        for peer in crowd:
            peer.sock.close()


@pytest.mark.long
def test_row_25_the_deadline_without_any_setting(make_target):
    target = make_target()
    begin = time.monotonic()
    with stranger(target) as peer:
        assert is_ended(peer, 40)
    assert time.monotonic() - begin < 31


@pytest.mark.parametrize("words", [
    b"SSH-2.0-" + b"x" * 8192, b"x" * 8192, b"SSH-2.0-" + b"x" * 300 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"SSH-1.5-old\r\n", b"SSH-1.99-both\r\n" * 3, b"\r\n" * 50,
    b"SSH-2.0-a\0b\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(500), b"ssh-2.0-x\r\n",
    b"PRI * HTTP/2.0\r\n\r\n", bytes(8192),
], ids=["8 KiB banner", "8 KiB of a line", "banner too long", "http", "ssh 1", "three banners",
        "empty lines", "nul", "tls", "small letters", "http/2", "zeros"])
def test_row_25_words_that_are_no_ssh_end_it_at_once(target, words):
    with target.attack():
        begin = time.monotonic()
        for _ in range(10):
            with stranger(target) as peer:
                peer.raw(words)
                assert is_ended(peer)
        assert time.monotonic() - begin < DEADLINE_S, "at once, not with the deadline"


@pytest.mark.parametrize("kind", [IGNORE, DEBUG, UNIMPLEMENTED])
@pytest.mark.parametrize("phase", ["before keys", "before login", "after login"])
def test_row_25_floods_of_messages_that_mean_nothing(target, kind, phase):
    body = {IGNORE: string("x" * 200), DEBUG: b"\0" + string("x" * 200) + string(""),
            UNIMPLEMENTED: b"\0\0\0\1"}[kind]
    with target.attack():
        before = target.relay.cpu_seconds()
        with stranger(target) as peer:
            peer.hello()
            if phase == "before keys":
                peer.offer(strict=False)
            else:
                peer.exchange()
            if phase == "after login":
                peer.authenticate()
            try:
                for _ in range(30):
                    peer.raw(b"".join(peer.pack(kind, body) for _ in range(100)))
            except (Ended, OSError):
                pass
            if phase != "after login":
                assert is_ended(peer, DEADLINE_S + 10)
        assert target.relay.cpu_seconds() - before < (20 if IS_SANITIZED else 2)


# ---- row 26 ----

def asked(target):
    peer = stranger(target)
    exchange_keys(peer)
    peer.send(SERVICE_REQUEST, string("ssh-userauth"))
    peer.expect(SERVICE_ACCEPT)
    return peer


@pytest.mark.parametrize("method", ["password", "publickey", "keyboard-interactive", "hostbased",
                                    "gssapi-with-mic", "", "none\0"])
def test_row_26_five_hundred_tries_are_a_few(target, method):
    """Each refusal says the same, then the connection is over."""
    with target.attack(), asked(target) as peer:
        refusals = []
        try:
            for number in range(500):
                peer.send(AUTH_REQUEST, string("alice"), string("ssh-connection"), string(method),
                          b"\0", string(f"password {number}"))
                refusals.append(peer.expect(AUTH_FAILURE).data)
        except (Ended, AssertionError):
            pass
        assert 1 <= len(refusals) <= 20 and len(set(refusals)) == 1
        assert is_ended(peer)


def test_row_26_all_tries_at_once(target):
    with target.attack(), asked(target) as peer:
        peer.raw(b"".join(peer.pack(AUTH_REQUEST, string("a"), string("ssh-connection"),
                                    string("password"), b"\0", string("x")) for _ in range(500)))
        assert is_ended(peer)


NAMES = ["../../root", "a\0b", "$(reboot)", "`id`", ";id", "|id", "a b", "-oProxyCommand=id", "%n%s",
         "\r\nlevel: error", "mine", "bob", "", "x" * 255, "\ufeffalice", "' OR 1=1 --", "root"]


@pytest.mark.parametrize("name", NAMES)
def test_row_26_a_user_name_means_nothing(target, name):
    """Who one is, the token has said: bob's name gives nothing of bob's."""
    since = len(target.relay.records)
    with asked(target) as peer:
        peer.send(AUTH_REQUEST, string(name), string("ssh-connection"), string("none"))
        answer = peer.read()[0]
        assert answer in (AUTH_SUCCESS, AUTH_FAILURE)
        if answer == AUTH_SUCCESS:
            peer.ping()
            peer.send_open(7, host="mine", port=80)
            peer.expect(OPEN_FAILURE)
            peer.send_open(8, host="home", port=80)
            peer.expect(CONFIRMATION)
    for record in wait_for(lambda: target.relay.find("link_down", since=since), 5, "link_down"):
        assert record["userId"] == "alice"
    assert not target.relay.strangers, "nothing of a name makes lines of its own"


def test_row_26_names_of_64_kib_do_not_fit(target):
    with target.attack():
        for size in (300, 4096, 32000):
            with asked(target) as peer:
                peer.send(AUTH_REQUEST, string("x" * size), string("ssh-connection"),
                          string("none"))
                peer.expect(AUTH_FAILURE)
        with asked(target) as peer:
            peer.raw(peer.pack(AUTH_REQUEST, string("x" * 65536), string("ssh-connection"),
                               string("none")))
            assert is_ended(peer)


def test_row_26_two_users_in_one_session(target):
    """The first one counts; what comes behind is no second login (RFC 4252 §5.1)."""
    with target.attack(), asked(target) as peer:
        for name in ("alice", "bob"):
            peer.send(AUTH_REQUEST, string(name), string("ssh-connection"), string("none"))
        peer.expect(AUTH_SUCCESS)
        peer.ping()
        peer.send_open(7, host="mine", port=80)
        peer.expect(OPEN_FAILURE)


@pytest.mark.timing
def test_row_26_refusals_take_the_same_time(target):
    """Whatever the user and the method: medians over many sessions, in turn."""
    cases = [("alice", "password"), ("bob", "password"), ("nobody", "password"),
             ("alice", "publickey"), ("x" * 200, "password")]
    times = {case: [] for case in cases}
    for _ in range(25):
        for user, method in cases:
            with asked(target) as peer:
                request = peer.pack(AUTH_REQUEST, string(user), string("ssh-connection"),
                                    string(method), b"\0", string("x" * (220 - len(user))))
                begin = time.perf_counter()
                peer.raw(request)
                peer.expect(AUTH_FAILURE)
                times[user, method].append(time.perf_counter() - begin)
    medians = {case: sorted(seen)[len(seen) // 2] for case, seen in times.items()}
    assert max(medians.values()) - min(medians.values()) < 0.001, medians


# ---- row 28 ----

def test_row_28_rekeying_every_16_kib_under_load(make_target):
    """Both ends begin key exchanges all the time; the bytes stay whole, for bob too."""
    keys = {"CULVERT_SSH_REKEY_BYTES": "16KiB"}
    target = make_target(env=keys, home=False)
    agent = target.world.http(target.relay, target.service.port, env=keys)
    size = 1_000_000 if IS_SANITIZED else 6_000_000
    body = hashlib.sha256(b"seed").digest() * (size // 32)
    faults = []

    def load():
        try:
            response = target.fetch(method="POST", body=body, timeout=120)
            if response.status != 200 or response.body != body:
                faults.append(response.status)
        except Exception as error:  # noqa: BLE001 - reported
            faults.append(repr(error))
    with target.attack(peak_kib=300 * 1024):
        threads = [threading.Thread(target=load) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults
    assert agent.process.poll() is None


def test_row_28_a_client_that_rekeys_without_end(target):
    """Each costs two curve operations and a signature: many of them without data end it."""
    with target.attack(), stranger(target) as peer:
        peer.establish()
        with pytest.raises((Ended, AssertionError), match="limit exceeded|^$"):
            for _ in range(200):
                peer.exchange()
        assert 5 < peer.kex_count < 200
        assert is_ended(peer)


@pytest.mark.parametrize("lists", [{"kex": "ecdh-sha2-nistp256,curve25519-sha256"},
                                   {"host_key": "ssh-rsa,ssh-ed25519"}])
def test_row_28_a_wrong_first_guess_is_passed_over(target, lists):
    with target.attack(), stranger(target) as peer:
        peer.hello()
        peer.own_init = peer.init(guess=True, **lists)
        peer.raw(peer.packet(peer.own_init) + peer.pack(ECDH_INIT, string(bytes(65))))
        peer.take_offer()
        chosen = peer.agree()
        peer.swap_shares()
        peer.new_keys(chosen)
        peer.authenticate()
        peer.ping()


def test_row_28_an_offer_twice_ends_it(target):
    with target.attack():
        for is_first in (True, False):
            with stranger(target) as peer:
                peer.hello()
                if not is_first:
                    peer.exchange()
                    peer.authenticate()
                for _ in range(3):
                    peer.raw(peer.packet(peer.init()))
                assert is_ended(peer)


@pytest.mark.parametrize("message", [(IGNORE, string("x")), (DEBUG, b"\0" + string("") + string(""))],
                         ids=["ignore", "debug"])
@pytest.mark.parametrize("where", ["before the offer", "behind the offer"])
def test_row_28_a_message_smuggled_into_a_strict_exchange_ends_it(target, message, where):
    """What CVE-2023-48795 (Terrapin) needs; without strictness RFC 4253 §11 allows it."""
    with target.attack(), stranger(target) as peer:
        peer.hello()
        smuggled = peer.pack(*message) if where == "before the offer" else b""
        offer = peer.packet(peer.init())
        if where == "behind the offer":
            smuggled = peer.pack(*message)
            peer.raw(offer + smuggled)
        else:
            peer.raw(smuggled + offer)
        assert is_ended(peer)


def test_row_28_requests_in_a_key_exchange_end_it(target):
    with target.attack(), stranger(target) as peer:
        peer.establish()
        peer.offer()
        peer.send(GLOBAL, string("x@y"), b"\1")
        assert is_ended(peer, 60)
