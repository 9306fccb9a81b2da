# SPDX-License-Identifier: MIT
"""Reads and writes that do less than asked, are interrupted or fail: whole bytes arrive, or the
consumer sees that they did not."""
import errno
import os

import pytest
from culvert import wait_for

KIB, MIB = 1 << 10, 1 << 20


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
    with weak.load():
        faults.fail(call, error, chance=0.01, count=25)
        weak.until(faults, call, 8)
        faults.clear()
        wait_for(weak.is_well, 30, "requests that work again")
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
