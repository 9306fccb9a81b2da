# SPDX-License-Identifier: MIT
"""All agents of a relay come back at once when it does."""
import contextlib
import os
import resource
import signal
import subprocess
import time

import pytest
from culvert import BIN, raise_descriptor_limit, wait_for


class Crowd:
    """Many `culvert http` processes of as many users, their logs in files."""

    def __init__(self, world, relay, target, count):
        self.world = world
        self.processes = []
        self.logs = []
        world.cleanups.append(self.end)
        for n in range(count):
            log = world.folder / f"agent-{n}.log"
            self.logs.append(log)
            env = world.env({"CULVERT_TOKEN": world.token(f"user{n // 10}"), "LOG_LEVEL": "info"})
            with open(log, "wb") as file:
                self.processes.append(subprocess.Popen(
                    [BIN, "http", str(target), "--server", relay.url, "--name", f"home{n % 10}"],
                    env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
                    start_new_session=True))

    def said(self, event):
        """How often each has said it."""
        mark = f'"event":"{event}"'
        return [log.read_text().count(mark) for log in self.logs]

    def end(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def come_back(world, figure, count, away_s):
    raise_descriptor_limit(min(4 * count + 1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    env = {"LOG_LEVEL": "info", "CULVERT_LIMITS_MAX_LINKS_PER_USER": "10"}
    relay = world.relay(env=env)
    service = world.service()
    crowd = Crowd(world, relay, service.port, count)

    def tunnels(of):
        return of.fetch("/health", host="localhost").json()["tunnels"]
    wait_for(lambda: tunnels(relay) == count, 240, f"{count} tunnels", interval=0.1)
    relay.kill()
    time.sleep(away_s)
    relay = world.relay(port=relay.port, env=env)
    began = time.monotonic()
    wait_for(lambda: tunnels(relay) == count, 120, f"{count} tunnels again", interval=0.05)
    took = time.monotonic() - began
    assert all(process.poll() is None for process in crowd.processes), "an agent has given up"
    for n in range(0, count, max(1, count // 20)):
        token = world.token(f"user{n // 10}")
        assert relay.fetch(f"/t/home{n % 10}/x", token).status == 200, f"agent {n}"
    figure(f"{count} agents back at once after {away_s} s: all after {took:.1f} s")
    crowd.end()
    assert all(process.returncode == 0 for process in crowd.processes)
    return took


@pytest.mark.timing
def test_a_hundred_agents_come_back_at_once(world, figure):
    assert come_back(world, figure, 100, 2) < 10


@pytest.mark.long
@pytest.mark.timing
def test_a_thousand_agents_come_back_at_once(world, figure):
    assert come_back(world, figure, 1000, 5) < 30
