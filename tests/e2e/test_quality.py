# SPDX-License-Identifier: MIT
"""How good a link is, as `culvert status` tells it."""
import json

import pytest
from chaos import Chaos
from culvert import wait_for


def quality(world):
    done = world.run("status", "--json", check=0)
    return json.loads(done.stdout)["agents"][0]["links"][0]["quality"]


@pytest.fixture
def path(world):
    chaos = Chaos(world.relay().port)
    world.cleanups.append(chaos.close)
    return chaos


def test_whoever_asks_gets_fresh_figures(world, path):
    world.http(path, world.service().port)
    seen = wait_for(lambda: (q := quality(world))["grade"] != "unknown" and q, what="a grade")
    assert seen["latency_ms"] >= 0 and seen["loss_percent"] == 0 and seen["missed"] == 0
    assert seen["latency_ms"] < 200 or seen["grade"] == "poor"


def test_a_slow_way_is_poor(world, path):
    path.delay_s = 0.15
    world.http(path, world.service().port)
    seen = wait_for(lambda: (q := quality(world))["grade"] == "poor" and q, 40, "poor quality")
    assert seen["latency_ms"] >= 200
    assert "poor" in world.run("status", check=0).stdout


def test_a_connection_that_breaks_counts_as_loss(world, path):
    agent = world.http(path, world.service().port)
    wait_for(lambda: quality(world)["grade"] != "unknown", what="a grade")
    path.cut()
    agent.wait_log("link_resumed")
    seen = quality(world)
    assert seen["missed"] >= 1 and seen["loss_percent"] >= 100 / 64
