# SPDX-License-Identifier: MIT
"""A stream survives the loss of the connection below it: not a byte is lost or doubled, nobody sees
more than a pause; and where it cannot survive, it ends honestly and in time."""
import hashlib
import threading
import time

import pytest
from chaos import Chaos
from client import Client
from culvert import wait_for


@pytest.fixture
def chaos_home(world):
    relay = world.relay()
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    service = world.service()
    agent = world.http(relay, service.port, url=chaos.url)

    class Home:
        pass
    home = Home()
    home.world, home.relay, home.chaos, home.service, home.agent = \
        world, relay, chaos, service, agent
    home.token = world.token()
    return home


def test_a_cut_is_resumed(chaos_home):
    assert chaos_home.relay.fetch("/t/home/x", chaos_home.token).status == 200
    chaos_home.chaos.cut()
    chaos_home.agent.wait_log("link_resumed")
    chaos_home.relay.wait_log("link_resumed")
    assert chaos_home.relay.fetch("/t/home/x", chaos_home.token).status == 200
    assert len(chaos_home.agent.find("tunnel_published")) == 1
    assert not chaos_home.relay.find("link_down")
