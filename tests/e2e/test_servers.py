# SPDX-License-Identifier: MIT
"""An agent with several relays: it picks, fails over, comes back, and cuts no stream for it."""
import contextlib
import json
import signal
import threading
import time

import pytest
import sse
from chaos import Chaos
from client import Client
from culvert import free_port, wait_for

WRONG_KEY = "SHA256:" + "A" * 43


def start_agent(world, servers, target, links=1, extra="", env=None):
    """`servers`: mappings with a url each."""
    config = world.write("agent.yaml", f"servers: {json.dumps(servers)}\nlinks: {links}\n"
                         f"{extra}\ntunnels: [{{name: home, target: '{target}'}}]\n")
    return world.start("agent", "agent", "-c", config,
                       env={"CULVERT_TOKEN": world.token(), **(env or {})})


def published(relay, since=0):
    return relay.wait_log("tunnel_published", since=since, timeout=30)


class Events(threading.Thread):
    """A stream of events through `relay`, read to its end in the background."""

    def __init__(self, world, service, relay, seconds):
        super().__init__(daemon=True)
        self.count = sse.serve(service, seconds)
        self.client = Client(relay.port, timeout=60)
        self.client.request("GET", "/t/home/events", world.token())
        self.head = self.client.head()
        self.client.wait_bytes()
        self.response = None
        self.start()

    def run(self):
        with contextlib.suppress(Exception), self.client:
            self.response = self.client.body(self.head)

    def check(self):
        self.join(60)
        assert self.response, "the stream broke"
        sse.check(self.response, self.count)


@pytest.fixture
def service(world):
    return world.service()


def ask(relay, world):
    return relay.fetch("/t/home/x", world.token()).status


# ---- which one -----------------------------------------------------------------------------------

def test_the_preferred_relay_is_taken(world, service):
    second, first = world.relay(), world.relay()
    agent = start_agent(world, [{"url": second.url, "priority": 5}, {"url": first.url}],
                        service.port)
    published(first)
    assert ask(first, world) == 200
    up = agent.find("link_up")
    assert [r["relay"] for r in up] == [f"127.0.0.1:{first.port}"]
    assert ask(second, world) == 404


def test_links_spread_over_equal_relays(world, service):
    relays = [world.relay() for _ in range(3)]
    agent = start_agent(world, [{"url": r.url} for r in relays], service.port, links=3)
    for relay in relays:
        published(relay)
        assert ask(relay, world) == 200
    assert len(agent.find("link_up")) == 3


def test_a_server_of_the_environment_stands_instead_of_the_list(world, service):
    first, second = world.relay(), world.relay()
    config = world.write("agent.yaml", f"servers: [{{url: '{first.url}'}}]\n"
                         f"tunnels: [{{name: home, target: '{service.port}'}}]\n")
    world.start("agent", "agent", "-c", config,
                env={"CULVERT_TOKEN": world.token(), "CULVERT_SERVER": second.url})
    published(second)
    assert ask(first, world) == 404


@pytest.mark.parametrize("text, complaint", [
    ("server: ws://127.0.0.1:1\nservers: [{url: 'ws://127.0.0.1:2'}]", "beside server"),
    ("servers: [{url: 'ws://127.0.0.1:2'}, {url: 'ws://127.0.0.1:2'}]", "same as that of [0]"),
    ("servers: [{url: 'ws://127.0.0.1:2', weight: 0}]", "weight"),
    ("servers: [{url: 'ws://127.0.0.1:2', weight: 101}]", "weight"),
    ("servers: [{url: 'ws://127.0.0.1:2', priority: -1}]", "priority"),
    ("servers: [{url: 'ftp://127.0.0.1:2'}]", "url"),
    ("servers: [{priority: 1}]", "url"),
    ("servers: [{url: 'ws://127.0.0.1:2', host_key_fingerprint: abc}]", "host_key_fingerprint"),
])
def test_a_wrong_list_is_told(world, text, complaint):
    config = world.write("agent.yaml", f"{text}\ntunnels: [{{name: home, target: '80'}}]\n")
    done = world.run("config", "check", "-c", config)
    assert done.returncode == 1 and complaint in done.stdout + done.stderr


def test_plain_text_to_another_machine_is_refused_in_the_list_too(world):
    config = world.write("agent.yaml", "servers: [{url: 'ws://127.0.0.1:1'}, "
                         "{url: 'ws://192.0.2.1:1'}]\ntunnels: [{name: home, target: '80'}]\n")
    done = world.run("agent", "-c", config, env={"CULVERT_TOKEN": world.token()})
    assert done.returncode == 2 and "192.0.2.1" in done.stderr


def test_each_relay_has_its_own_host_key(world, service):
    """One that shows another key than its own is passed over; the other is used."""
    first, second = world.relay(), world.relay()
    agent = start_agent(world, [{"url": first.url, "host_key_fingerprint": WRONG_KEY},
                                {"url": second.url, "priority": 1}], service.port)
    published(second)
    assert ask(second, world) == 200
    assert agent.find("connect_failed", text="host key")
    assert not first.find("tunnel_published")


# ---- over to the next ----------------------------------------------------------------------------

def test_a_relay_that_is_down_at_the_start_is_passed_over_and_taken_later(world, service):
    port = free_port()
    second = world.relay()
    agent = start_agent(world, [{"url": f"ws://127.0.0.1:{port}"},
                                {"url": second.url, "priority": 1}], service.port, extra="reconnect: {return_after: 1s}")
    began = time.monotonic()
    published(second)
    assert time.monotonic() - began < 10
    events = Events(world, service, second, 8)
    first = world.relay(port=port)
    published(first)
    second.wait_log("tunnel_withdrawn", timeout=30)
    assert ask(first, world) == 200
    assert agent.find("relay_changed")
    events.check()
    second.wait_log("link_down", timeout=30)
    assert len(first.find("tunnel_published")) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_failover_and_return(world, service, number):
    first, second = world.relay(), world.relay()
    agent = start_agent(world, [{"url": first.url}, {"url": second.url, "priority": 1}],
                        service.port, extra="reconnect: {return_after: 1s}")
    published(first)
    began = time.monotonic()
    if number == signal.SIGKILL:
        first.kill()
    else:
        first.stop()
    published(second)
    took = time.monotonic() - began
    assert took < 30
    assert ask(second, world) == 200
    print(f"over to the next in {took:.1f} s")
    events = Events(world, service, second, 6)
    again = world.relay(port=first.port)
    published(again)
    second.wait_log("tunnel_withdrawn", timeout=30)
    assert ask(again, world) == 200
    events.check()
    assert agent.process.poll() is None


def test_one_comes_back_as_the_other_goes(world, service):
    """The first has been away for long, which is no reason to wait when the second dies."""
    first, second = world.relay(), world.relay()
    agent = start_agent(world, [{"url": first.url}, {"url": second.url, "priority": 1}],
                        service.port)
    published(first)
    first.kill()
    published(second)
    since = len(agent.records)
    agent.wait_log("relay_trial_failed", since=since, timeout=30)
    second.kill()
    again = world.relay(port=first.port)
    began = time.monotonic()
    published(again)
    assert time.monotonic() - began < 20
    assert ask(again, world) == 200


def test_a_relay_that_drains_finishes_what_it_has(world, service):
    first, second = world.relay(), world.relay()
    start_agent(world, [{"url": first.url}, {"url": second.url, "priority": 1}], service.port)
    published(first)
    events = Events(world, service, first, 5)
    first.signal(signal.SIGTERM)
    published(second)
    assert ask(second, world) == 200
    assert first.process.poll() is None, "it waits for the stream"
    events.check()
    assert first.wait() == 0


def test_a_relay_that_refuses_with_503_is_left_for_the_next(world, service):
    busy = world.service()

    def refuse(conn, request):
        conn.reply(503, b"draining", [("Retry-After", "60")])
        return False
    busy.on("/tunnel", refuse)
    second = world.relay()
    agent = start_agent(world, [{"url": f"ws://127.0.0.1:{busy.port}"},
                                {"url": second.url, "priority": 1}], service.port)
    published(second)
    assert ask(second, world) == 200
    assert agent.find("connect_failed")
    time.sleep(3)
    assert len(busy.requests) == 1, "it asked to be left alone"


@pytest.mark.parametrize("outage", ["refusing", pytest.param("hole", marks=pytest.mark.long)])
def test_a_link_that_waits_is_substituted_and_its_streams_go_on(world, service, outage):
    first, second = world.relay(), world.relay()
    chaos = Chaos(first.port)
    world.cleanups.append(chaos.close)
    agent = start_agent(world, [{"url": chaos.url}, {"url": second.url, "priority": 1}],
                        service.port, extra="reconnect: {return_after: 1s}")
    published(first)
    events = Events(world, service, first, 13)
    if outage == "hole":
        chaos.mode = "hole"
    chaos.is_refusing = outage == "refusing"
    chaos.cut()
    agent.wait_log("relay_away", timeout=30)
    published(second)
    assert ask(second, world) == 200
    since = len(first.records)
    chaos.mode, chaos.is_refusing = "pass", False
    first.wait_log("link_resumed", timeout=30)
    published(first, since=since)  # by another link, before or after that
    second.wait_log("link_down", timeout=30)
    assert ask(first, world) == 200
    events.check()
    agent.stop()  # ahead of what carries it


def test_a_short_outage_moves_nothing(world, service):
    first, second = world.relay(), world.relay()
    chaos = Chaos(first.port)
    world.cleanups.append(chaos.close)
    agent = start_agent(world, [{"url": chaos.url}, {"url": second.url, "priority": 1}],
                        service.port)
    published(first)
    events = Events(world, service, first, 4)
    chaos.cut()
    agent.wait_log("link_resumed")
    events.check()
    assert not agent.find("relay_away") and not second.find("tunnel_published")
    agent.stop()


def test_when_all_are_away_the_link_that_waits_goes_on(world, service):
    """Nothing can be reached for longer than a link waits before it looks elsewhere."""
    relays = [world.relay(), world.relay()]
    paths = [Chaos(relay.port) for relay in relays]
    world.cleanups += [path.close for path in paths]
    agent = start_agent(world, [{"url": path.url, "priority": n} for n, path in enumerate(paths)],
                        service.port)
    published(relays[0])
    events = Events(world, service, relays[0], 11)
    for path in paths:
        path.is_refusing = True
        path.cut()
    agent.wait_log("relay_away", timeout=30)
    for path in paths:
        path.is_refusing = False
    relays[0].wait_log("link_resumed", timeout=30)
    events.check()
    assert wait_for(lambda: ask(relays[0], world) == 200, 20, "an answer")
    agent.stop()


def test_links_come_back_to_an_equal_relay(world, service):
    first, second = world.relay(), world.relay()
    start_agent(world, [{"url": first.url}, {"url": second.url}], service.port, links=2,
                extra="reconnect: {return_after: 1s}")
    published(first)
    published(second)
    first.stop()
    wait_for(lambda: len(second.find("tunnel_published")) == 2, 30, "both links at one relay")
    again = world.relay(port=first.port)
    published(again)
    second.wait_log("tunnel_withdrawn", timeout=30)
    assert ask(again, world) == 200 and ask(second, world) == 200
    time.sleep(2)
    assert len(again.find("tunnel_published")) == 1, "it does not go back and forth"


def test_an_agent_with_several_relays_stops_at_once(world, service):
    first, second = world.relay(), world.relay()
    agent = start_agent(world, [{"url": first.url}, {"url": second.url}], service.port, links=2)
    published(first)
    published(second)
    began = time.monotonic()
    agent.stop()
    assert time.monotonic() - began < 5
    for relay in first, second:
        wait_for(lambda at=relay: ask(at, world) == 503, 10, "an offline answer")
