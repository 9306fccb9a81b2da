# SPDX-License-Identifier: MIT
"""Several links of one tunnel: its concurrency counts over all of them, whoever waits goes by priority
and age wherever it waits, and to another link as soon as that has room."""
import threading
import time

import pytest
from culvert import wait_for

AGENT = """
server: {url}
links: {links}
ssh: {{max_channels: {channels}}}
tunnels:
  - {{name: home, target: '{port}', concurrency: {concurrency}}}
"""


class Hall:
    """A service that holds what comes, and knows how many it holds."""

    def __init__(self, world, links=2, channels=10, concurrency=0, workers=2):
        self.world = world
        self.lock = threading.Lock()
        self.inside, self.most, self.order, self.doors = 0, 0, [], {}
        self.service = world.service({"/hold": self.hold})
        self.service.default = self.hold
        self.relay = world.relay(workers=workers, env={"CULVERT_QUEUE_SIZE": "200",
                                                       "CULVERT_SSH_MAX_CHANNELS": str(channels)})
        self.token = world.token("alice")
        self.agent = world.start("agent:links", "agent", "-c", world.write("links.yaml", AGENT.format(
            url=self.relay.url, port=self.service.port, links=links, channels=channels,
            concurrency=concurrency)), env={"CULVERT_TOKEN": self.token})
        wait_for(lambda: len(self.relay.find("tunnel_published")) == links, 20, "all links")
        self.answers, self.threads = {}, []

    def door(self, name):
        with self.lock:
            return self.doors.setdefault(name, threading.Event())

    def hold(self, conn, request):
        conn.read_body(request)
        name = request.path.rpartition("/")[2]
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.order.append(name)
        opened = self.door(name).wait(60)
        with self.lock:
            self.inside -= 1
        if opened:
            conn.reply(body=name.encode())
        return opened

    def ask(self, name, **headers):
        def run():
            self.answers[name] = self.relay.fetch(
                f"/t/home/hold/{name}", self.token, timeout=60,
                headers=[(k.replace("_", "-"), v) for k, v in headers.items()]).status
        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)

    def waiting(self):
        response = self.relay.fetch("/api/tunnel/queue", self.token)
        return [w["request_id"] for w in response.json()["waiting"]]

    def ask_and_wait(self, name, count, **headers):
        self.ask(name, **headers)
        wait_for(lambda: len(self.waiting()) == count, 20, f"{count} that wait")

    def open(self, *names):
        for name in names:
            self.door(name).set()

    def end(self):
        for thread in self.threads:
            thread.join(60)
        assert set(self.answers.values()) <= {200}
        assert len(self.answers) == len(self.threads)


@pytest.mark.parametrize(("links", "concurrency", "workers"), [(2, 1, 2), (3, 2, 2), (3, 2, 1)])
def test_concurrency_counts_over_all_links(world, links, concurrency, workers):
    hall = Hall(world, links=links, concurrency=concurrency, workers=workers)
    names = [f"n{number}" for number in range(24)]
    for name in names:
        hall.ask(name)
    wait_for(lambda: len(hall.waiting()) == len(names) - concurrency, 20, "all but those wait")
    for count in range(len(names)):
        wait_for(lambda: len(hall.order) > count, 20, "the next")  # noqa: B023
        hall.open(hall.order[count])
    hall.end()
    assert hall.most == concurrency
    assert sorted(hall.order) == sorted(names)


def test_who_waits_goes_by_priority_and_age_wherever_it_waits(world):
    hall = Hall(world, links=3, concurrency=1)
    hall.ask("first")
    wait_for(lambda: hall.order == ["first"], 20, "the first")
    asked = [("b1", "background"), ("i1", "interactive"), ("t1", "batch"), ("i2", "interactive"),
             ("b2", "background"), ("t2", "batch"), ("i3", "interactive")]
    for number, (name, priority) in enumerate(asked, 1):
        hall.ask_and_wait(name, number, Culvert_Priority=priority)
    for count in range(len(asked) + 1):
        wait_for(lambda: len(hall.order) > count, 20, "the next")  # noqa: B023
        hall.open(hall.order[count])
    hall.end()
    assert hall.order == ["first", "i1", "i2", "i3", "t1", "t2", "b1", "b2"]


@pytest.mark.parametrize("workers", [1, 2])
def test_who_waits_moves_to_the_link_that_has_room(world, workers):
    hall = Hall(world, links=2, channels=1, workers=workers)
    for name in ("one", "two"):
        hall.ask(name)
    wait_for(lambda: len(hall.order) == 2, 20, "one on each link")
    waiting = []
    for number in range(4):
        waiting.append(f"w{number}")
        hall.ask_and_wait(waiting[-1], number + 1)
    # One link stays busy: all of them, wherever they waited, go over the other.
    hall.open("two", *waiting)
    wait_for(lambda: len(hall.order) == 6, 20, "all that waited")
    assert "one" not in hall.answers
    hall.open("one")
    hall.end()
    # And the other way round.
    for name in ("three", "four"):
        hall.ask(name)
    wait_for(lambda: len(hall.order) == 8, 20, "one on each link")
    hall.ask_and_wait("last", 1)
    hall.open("three", "last")
    wait_for(lambda: "last" in hall.answers, 20, "the last")
    hall.open("four")
    hall.end()


def test_a_link_that_ends_leaves_its_place_to_who_waits(world):
    hall = Hall(world, links=2, concurrency=2)
    for name in ("one", "two"):
        hall.ask(name)
    wait_for(lambda: len(hall.order) == 2, 20, "both at work")
    for number in range(3):
        hall.ask_and_wait(f"w{number}", number + 1)
    links = hall.relay.fetch("/api/tunnel/tunnels", hall.token).json()["tunnels"][0]["links"]
    hall.relay.fetch(f"/api/tunnel/links/{links[0]['id']}", hall.token, "DELETE")
    hall.open("one", "two", "w0", "w1", "w2")
    for thread in hall.threads:
        thread.join(60)
    assert [hall.answers[f"w{n}"] for n in range(3)] == [200] * 3
    begin = time.monotonic()
    hall.open("after")
    assert hall.relay.fetch("/t/home/hold/after", hall.token).status == 200
    assert time.monotonic() - begin < 10
