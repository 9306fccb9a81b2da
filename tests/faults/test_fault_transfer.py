# SPDX-License-Identifier: MIT
"""Reads and writes that do less than asked, are interrupted or fail: whole bytes arrive, or the
consumer sees that they did not."""
import errno
import hashlib
import os
import threading
import time

import pytest
from client import Broken, Client
from culvert import wait_for

KIB, MIB = 1 << 10, 1 << 20


class Weak:
    """A relay and an agent whose calls can be made to fail, an echo service behind them."""

    def __init__(self, world, new_faults, **relay):
        self.world = world
        self.relay_faults, self.agent_faults = new_faults(), new_faults()
        self.service = world.service()
        self.relay = world.relay(env=self.relay_faults.env(), **relay)
        self.agent = world.http(self.relay, self.service.port, env=self.agent_faults.env())
        self.token = world.token("alice")

    def both(self):
        return self.relay_faults, self.agent_faults

    def clear(self):
        for faults in self.both():
            faults.clear()

    def echo(self, size, chunked=False, timeout=60):
        body = os.urandom(size)
        with Client(self.relay.port, timeout=timeout) as client:
            client.request("POST", "/t/home/x", self.token, chunked=chunked,
                           body=[body[:size // 3], body[size // 3:]] if chunked else body)
            response = client.response()
        assert response.status == 200 and response.is_complete
        assert hashlib.sha256(response.body).digest() == hashlib.sha256(body).digest()

    def is_well(self):
        try:
            self.echo(1000, timeout=5)
        except (AssertionError, OSError, Broken):
            return False
        return True


@pytest.fixture
def weak(world, new_faults):
    return Weak(world, new_faults)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_one_byte_at_a_time(weak, chunked):
    for faults in weak.both():
        faults.shorten("socket_read", 1)
        faults.shorten("socket_write", 1)
    weak.echo(6 * KIB, chunked)
    assert all(faults.hits("socket_write") > 6 * KIB for faults in weak.both())


@pytest.mark.parametrize("direction", ["socket_read", "socket_write"])
def test_transfers_of_any_length_between_interruptions(weak, direction):
    for faults in weak.both():
        faults.shorten(direction, 3000, chance=0.7)
        faults.fail(direction, errno.EINTR, chance=0.2)
    weak.echo(MIB)
    for faults in weak.both():
        faults.fail(direction, errno.EAGAIN, chance=0.2)
    weak.echo(MIB, chunked=True)


def test_a_link_is_set_up_in_pieces(world, new_faults):
    """From the first byte of the upgrade on, on both sides."""
    relay_faults, agent_faults = new_faults(), new_faults()
    for faults in (relay_faults, agent_faults):
        faults.shorten("socket_read", 3)
        faults.shorten("socket_write", 3)
        faults.fail("socket_read", errno.EINTR, chance=0.1)
    service = world.service()
    relay = world.relay(env=relay_faults.env())
    world.http(relay, service.port, env=agent_faults.env())
    assert relay.fetch("/t/home/x", world.token("alice"), "POST", body=b"whole").body == b"whole"


def test_tls_in_pieces(world, new_faults, authority):
    from cryptography.hazmat.primitives.asymmetric import ec
    from test_auth import Key
    from test_tls import Secure
    relay_faults, agent_faults = new_faults(), new_faults()
    for faults in (relay_faults, agent_faults):
        for direction in ("socket_read", "socket_write"):
            faults.shorten(direction, 700, chance=0.8)
            faults.fail(direction, errno.EINTR, chance=0.1)
    secure = Secure(world, authority, Key(ec.generate_private_key(ec.SECP256R1()), "ES256"),
                    env=relay_faults.env())
    secure.agent(env=agent_faults.env())
    for direction in ("socket_read", "socket_write"):
        for faults in (relay_faults, agent_faults):
            faults.fail(direction, errno.EAGAIN, chance=0.2)
    body = os.urandom(512 * KIB)
    assert secure.fetch(method="POST", body=body, timeout=60).body == body


@pytest.mark.parametrize("call", ["epoll_wait"])
def test_an_interrupted_wait_is_waited_again(weak, call):
    for faults in weak.both():
        faults.fail(call, errno.EINTR, chance=0.5)
    weak.echo(MIB)
    assert all(faults.hits(call) for faults in weak.both())


ERRORS = [("socket_read", errno.ECONNRESET), ("socket_read", errno.ETIMEDOUT),
          ("socket_read", errno.ENOMEM), ("socket_write", errno.EPIPE),
          ("socket_write", errno.ECONNRESET), ("socket_write", errno.ENOBUFS),
          ("socket_write", errno.ENOMEM)]


@pytest.mark.parametrize(("call", "error"), ERRORS,
                         ids=[f"{call}-{errno.errorcode[error]}" for call, error in ERRORS])
@pytest.mark.parametrize("side", ["relay", "agent"])
def test_a_connection_that_fails_ends_alone(weak, side, call, error):
    """Under load one call in a hundred fails: no answer is both whole and wrong, nothing ends, and
    once the faults are over all is as before."""
    faults = getattr(weak, f"{side}_faults")
    oddities, whole = [], []
    is_over = threading.Event()

    def consumer(number):
        body = hashlib.sha512(b"%d" % number).digest() * 700
        while not is_over.is_set():
            try:
                with Client(weak.relay.port, timeout=20) as client:
                    for _ in range(3):
                        client.request("POST", "/t/home/x", weak.token, body=body)
                        response = client.response()
                        if response is None:
                            break
                        if response.status == 200 and response.is_complete:
                            (whole if response.body == body else oddities).append(response)
            except OSError:
                pass
            except Exception as problem:  # noqa: BLE001 - told at the end
                oddities.append(repr(problem))
            time.sleep(0.005)

    consumers = [threading.Thread(target=consumer, args=(n,)) for n in range(3)]
    for thread in consumers:
        thread.start()
    try:
        faults.fail(call, error, chance=0.01, count=25)
        wait_for(lambda: faults.hits(call) >= 8, 30, "faults")
        faults.clear()
        wait_for(weak.is_well, 30, "requests that work again")
    finally:
        is_over.set()
        for thread in consumers:
            thread.join()
    assert whole and not oddities, oddities[:3]
    assert weak.relay.process.poll() is None and weak.agent.process.poll() is None
    weak.echo(64 * KIB)


def test_the_agents_dial_fails_and_is_tried_again(world, new_faults):
    faults = new_faults()
    faults.fail("connect", errno.ENETUNREACH, count=2)
    service = world.service()
    relay = world.relay()
    agent = world.http(relay, service.port, env=faults.env())
    assert faults.hits("connect") == 2
    # The service's side: told as such, the link stays.
    faults.fail("connect", errno.ENOBUFS, count=1)
    token = world.token("alice")
    assert relay.fetch("/t/home/x", token).status in (502, 503)
    assert relay.fetch("/t/home/x", token).status == 200
    assert len(agent.find("tunnel_published")) == 1
