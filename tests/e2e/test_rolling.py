# SPDX-License-Identifier: MIT
"""Relays behind a TCP balancer are restarted one after the other, under load: nobody notices."""
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import sse
from client import Client, fetch
from culvert import free_port, wait_for
from test_servers import start_agent
from test_takeover import Load, read_events, successor

HAPROXY = """
defaults
    mode tcp
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    retries 3
    option redispatch 1
listen stats
    bind 127.0.0.1:{stats}
    mode http
    stats enable
    stats uri /
frontend consumers
    bind 127.0.0.1:{port}
    default_backend relays
backend relays
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
{servers}
"""
CHANNELS = {"SSH_MAX_CHANNELS": 200}  # streams and requests side by side


def balancer(world, relays):
    """(port, wait_up): the latter returns once the relay with that number gets connections."""
    port, stats = free_port(), free_port()
    servers = "".join(f"    server r{n} 127.0.0.1:{relay.port} check inter 200ms fall 1 rise 1\n"
                      for n, relay in enumerate(relays))
    config = world.write("haproxy.cfg", HAPROXY.format(port=port, stats=stats,
                                                              servers=servers))
    world.spawn("/usr/sbin/haproxy", "-db", "-f", config)

    def look():
        try:
            return fetch(port, "/livez").status == 200
        except (OSError, AssertionError):
            return False
    wait_for(look, 20, "a balancer")

    def wait_up(number):
        def is_up():
            rows = fetch(stats, "/;csv").body.decode().splitlines()
            return any(row.startswith(f"relays,r{number},") and ",UP," in row for row in rows)
        wait_for(is_up, 20, f"relay {number} in the balancer")
    return port, wait_up


class Streams:
    def __init__(self, service, port, token, streams, seconds):
        self.faults, begun = [], threading.Semaphore(0)
        count = sse.serve(service, seconds)
        self.threads = [threading.Thread(target=read_events, daemon=True,
                                         args=(port, token, count, self.faults, begun))
                        for _ in range(streams)]
        for thread in self.threads:
            thread.start()
        for _ in self.threads:
            assert begun.acquire(timeout=30)

    def check(self):
        for thread in self.threads:
            thread.join(90)
            assert not thread.is_alive(), "a stream does not end"
        assert not self.faults, self.faults[:5]


def start(world, env, count=2, links=2):
    service = world.service()
    relays = [world.relay(env={**CHANNELS, **env}) for _ in range(count)]
    agent = start_agent(world, [{"url": relay.url} for relay in relays], service.port, links=links,
                        extra="reconnect: {return_after: 1s}", env=CHANNELS)
    for relay in relays:
        relay.wait_log("tunnel_published", timeout=30)
    return SimpleNamespace(service=service, relays=relays, agent=agent, token=world.token())


def restart(world, relay, env):
    """As a service manager does; that the agents are back is not waited for."""
    relay.signal(signal.SIGTERM)
    assert relay.wait(60) == 0
    return world.relay(port=relay.port, env={**CHANNELS, **env})


@pytest.mark.parametrize("grace, rounds, rate, streams", [
    ("0", 1, 100, 10), ("1s", 1, 100, 10),
    pytest.param("0", 4, 200, 20, marks=pytest.mark.long),
    pytest.param("1s", 4, 200, 20, marks=pytest.mark.long)])
def test_a_rolling_restart_loses_nothing(world, grace, rounds, rate, streams):
    env = {"CULVERT_TIMERS_AGENT_RETURN": "15s", "CULVERT_SHUTDOWN_GRACE": grace}
    scene = start(world, env)
    port, wait_up = balancer(world, scene.relays)
    load = Load(port, scene.token, rate=rate, threads=8)
    relays = list(scene.relays)
    for _ in range(rounds):
        for n in range(2):
            cut = Streams(scene.service, port, scene.token, streams, 4)
            before = load.done
            relays[n] = restart(world, relays[n], env)
            wait_up(n)
            cut.check()
            wait_for(lambda seen=before: load.done > seen + rate, 60, "requests afterwards")
    faults = load.stop()
    assert not faults, (len(faults), load.done, faults[:5])
    print(f"{load.done} requests and {streams} streams each over {2 * rounds} restarts, grace "
          f"{grace}: none failed")


@pytest.mark.parametrize("rounds, rate, streams", [
    (1, 100, 10), pytest.param(5, 200, 20, marks=pytest.mark.long)])
def test_takeovers_behind_a_balancer_lose_nothing(world, rounds, rate, streams):
    """Two relays, one of which is replaced in place: its agents stay with it."""
    env = {"CULVERT_TIMERS_AGENT_RETURN": "15s"}
    scene = start(world, env)
    port, _ = balancer(world, scene.relays)
    load = Load(port, scene.token, rate=rate, threads=8)
    streams = Streams(scene.service, port, scene.token, streams, 4 + 2 * rounds)
    old, other = scene.relays
    for _ in range(rounds):
        before, since = load.done, len(scene.agent.records)
        new = successor(world, old, env={**CHANNELS, **env})
        new.wait_log("tunnel_published", timeout=30)
        stopping = scene.agent.wait_log("relay_stops", since=since)
        assert stopping["isHandedOver"] and stopping["relay"] == f"127.0.0.1:{old.port}"
        wait_for(lambda seen=before: load.done > seen + rate, 60, "requests afterwards")
        assert old.wait(60) == 0
        old = new
    streams.check()
    faults = load.stop()
    assert not faults, (len(faults), load.done, faults[:5])
    assert len(other.find("tunnel_published")) == 1, "no link went over to the other relay"


# ---- one by one ----------------------------------------------------------------------------------

def test_in_the_grace_everything_goes_on_but_readyz(world):
    env = {"CULVERT_SHUTDOWN_GRACE": "3s"}
    relay = world.relay(env=env)
    service = world.service()
    agent = world.http(relay, service.port)
    token = world.token()
    with Client(relay.port) as kept:
        kept.request("GET", "/t/home/x", token)
        assert kept.response().get("connection", "") != "close"
        relay.signal(signal.SIGTERM)
        relay.wait_log("grace_begin")
        agent.wait_log("relay_stops")
        wait_for(lambda: relay.fetch("/readyz").status == 503, 2, "readyz 503")
        assert relay.fetch("/livez").status == 200
        answer = relay.fetch("/t/home/x", token)
        assert answer.status == 200 and answer.get("connection") == "close"
        kept.request("GET", "/t/home/x", token)
        answer = kept.response()
        assert answer.status == 200 and answer.get("connection") == "close"
    assert not relay.find("drain_begin"), "the grace is not over"
    assert relay.wait() == 0
    begin, end = relay.find("grace_begin")[0], relay.find("drain_begin")[0]
    assert end["_at"] - begin["_at"] > 2.5


def test_a_second_signal_ends_the_grace(world):
    relay = world.relay(env={"CULVERT_SHUTDOWN_GRACE": "60s"})
    relay.signal(signal.SIGTERM)
    relay.wait_log("grace_begin")
    relay.signal(signal.SIGTERM)
    assert relay.wait(10) == 0
    relay.stopped = True


def ask_in_background(relay, target, token, answers):
    def run():
        try:
            answers.append(relay.fetch(target, token, timeout=30))
        except Exception as error:  # noqa: BLE001 - told by the test
            answers.append(error)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_request_waits_for_the_agent_of_a_new_relay(world):
    relay = world.relay(env={"CULVERT_TIMERS_AGENT_RETURN": "60s"})
    service = world.service()
    answers = []
    token = world.token()
    threads = [ask_in_background(relay, "/t/home/x", token, answers) for _ in range(20)]
    relay.wait_log("agent_awaited")
    assert relay.fetch("/t/home/x").status == 401, "nobody waits without a token"
    world.http(relay, service.port)
    for thread in threads:
        thread.join(30)
    assert [getattr(a, "status", a) for a in answers] == [200] * 20


def test_a_request_with_a_body_waits_as_well(world):
    relay = world.relay(env={"CULVERT_TIMERS_AGENT_RETURN": "60s"})
    service = world.service()
    body = bytes(range(256)) * 8192
    with Client(relay.port, timeout=30) as client:
        client.request("POST", "/t/home/x", world.token(), body=body)
        relay.wait_log("agent_awaited")
        world.http(relay, service.port)
        answer = client.response()
    assert answer.status == 200 and answer.body == body


def test_nobody_waits_longer_than_that(world):
    began = time.monotonic()
    relay = world.relay(env={"CULVERT_TIMERS_AGENT_RETURN": "2s"})
    answer = relay.fetch("/t/home/x", world.token())
    assert answer.status == 404 and 0.5 < time.monotonic() - began < 15
    began = time.monotonic()
    assert relay.fetch("/t/home/x", world.token()).status == 404
    assert time.monotonic() - began < 1.5, "the time is that after the start"


def test_who_waits_at_a_relay_that_stops_is_told(world):
    relay = world.relay(env={"CULVERT_TIMERS_AGENT_RETURN": "60s"})
    answers = []
    thread = ask_in_background(relay, "/t/home/x", world.token(), answers)
    relay.wait_log("agent_awaited")
    relay.signal(signal.SIGTERM)
    thread.join(30)
    assert answers[0].status == 503 and b"TUNNEL_0" in answers[0].body
    assert relay.wait() == 0


def test_who_gives_up_waiting_leaves_nothing(world):
    relay = world.relay(env={"CULVERT_TIMERS_AGENT_RETURN": "60s"})
    relay.fetch("/livez")
    before = relay.descriptors()
    for n in range(10):
        client = Client(relay.port)
        client.request("GET", "/t/home/x", world.token())
        wait_for(lambda want=n + 1: len(relay.find("agent_awaited")) == want, 20, "a wait")
        client.close()
    wait_for(lambda: relay.descriptors() <= before, 20, "all descriptors closed")


def test_a_development_relay_answers_at_once(world):
    relay = world.relay()
    began = time.monotonic()
    assert relay.fetch("/t/home/x", world.token()).status == 404
    assert time.monotonic() - began < 5 and not relay.find("agent_awaited")
