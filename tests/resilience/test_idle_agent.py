# SPDX-License-Identifier: MIT
"""An agent that has nothing to do does nothing."""
import time
from pathlib import Path

import pytest


def wakeups(process):
    """How often any of its threads has gone to sleep by itself since it was started."""
    total = 0
    for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def rest(world, figure, seconds):
    relay = world.relay()
    service = world.service()
    agent = world.http(relay, service.port)
    assert relay.fetch("/t/home/x", world.token()).status == 200
    # A link that has just been busy asks once more whether it lives, and acknowledges.
    time.sleep(8)
    before = wakeups(agent), agent.cpu_seconds()
    time.sleep(seconds)
    slept, cpu = wakeups(agent) - before[0], agent.cpu_seconds() - before[1]
    figure(f"an idle agent in {seconds} s: {slept} wakeups, {cpu * 1000:.0f} ms of CPU")
    return slept


@pytest.mark.timing
def test_an_idle_agent_sleeps(world, figure):
    assert rest(world, figure, 12) <= 6


@pytest.mark.long
@pytest.mark.timing
def test_an_idle_agent_wakes_for_its_heartbeats_only(world, figure):
    assert rest(world, figure, 60) <= 20
