# SPDX-License-Identifier: MIT
"""Requests that wait for a stream: their order, their bounds, what they are told; and how long a
request may take."""
import contextlib
import threading
import time

import pytest
from culvert import wait_for

ONE = """
server: {url}
tunnels:
  - {{name: home, target: '{port}', concurrency: 1{more}}}
"""


class Gate:
    """A service with one slot: holds what comes until it is let through, and notes the order."""

    def __init__(self):
        self.order = []
        self.permits = threading.Semaphore(0)

    def __call__(self, conn, request):
        conn.read_body(request)
        self.order.append(request.path.rpartition("/")[2])
        if not self.permits.acquire(timeout=60):
            return False
        conn.reply(body=b"done")
        return True

    def open(self, count=1):
        for _ in range(count):
            self.permits.release()


class OneSlot:
    def __init__(self, world, relay_env=None, more="", workers=None):
        self.gate = Gate()
        self.service = world.service(default=self.gate)
        self.relay = world.relay(env=relay_env, workers=workers)
        config = world.write("agent.yaml", ONE.format(url=self.relay.url, port=self.service.port,
                                                      more=more))
        self.token = world.token("alice")
        self.agent = world.start("agent", "agent", "-c", config,
                                 env={"CULVERT_TOKEN": self.token})
        self.agent.wait_log("tunnel_published")
        self.admin = world.token("root", "--admin")
        self.clients = []

    def ask(self, name, **headers):
        from client import Client
        client = Client(self.relay.port, timeout=60)
        client.request("GET", f"/t/home/{name}", self.token,
                       headers=[(k.replace("_", "-"), v) for k, v in headers.items()])
        self.clients.append(client)
        return client

    def streams(self):
        return self.relay.fetch("/api/tunnel/diagnostics", self.admin).json()["streams"]

    def wait_streams(self, count):
        """That many are in use or wait."""
        wait_for(lambda: self.streams() == count, 20, f"{count} streams")

    def close(self):
        self.gate.open(2000)
        for client in self.clients:
            client.close()


@pytest.fixture
def slot(world):
    with contextlib.ExitStack() as stack:
        def make(**kw):
            made = OneSlot(world, **kw)
            stack.callback(made.close)
            return made
        yield make


def fill(slot, count):
    """One that holds the slot, and so many that wait, one after the other."""
    slot.ask("first")
    wait_for(lambda: slot.gate.order, 20, "the first at the service")
    for n in range(count):
        slot.ask(f"w{n}")
        slot.wait_streams(n + 2)


def test_a_service_with_one_slot_gets_one_request_at_a_time(slot):
    one = slot()
    fill(one, 5)
    assert one.gate.order == ["first"]
    one.gate.open(6)
    assert [c.response().status for c in one.clients] == [200] * 6
    assert one.gate.order == ["first", "w0", "w1", "w2", "w3", "w4"]


def test_priorities_go_first_and_the_oldest_within_one(slot):
    one = slot()
    fill(one, 0)
    asked = [("a", {"Culvert_Priority": "background"}), ("b", {"Priority": "u=6"}),
             ("c", {"Culvert_Priority": "batch"}), ("d", {}),
             ("e", {"Culvert_Priority": "Interactive", "Priority": "u=7"}),
             ("f", {"Priority": "u=4, i"}), ("g", {"Priority": "nonsense="})]
    for number, (name, headers) in enumerate(asked):
        one.ask(name, **headers)
        one.wait_streams(number + 2)
    one.gate.open(len(asked) + 1)
    wait_for(lambda: len(one.gate.order) == len(asked) + 1, 20, "all of them")
    assert one.gate.order == ["first", "d", "e", "g", "c", "f", "a", "b"]


def test_background_work_is_not_starved(slot):
    one = slot(relay_env={"CULVERT_QUEUE_AGEING": "200ms"})
    fill(one, 0)
    one.ask("late", Culvert_Priority="background")
    one.wait_streams(2)
    time.sleep(0.5)  # it ages: two priorities
    one.ask("fresh")
    one.wait_streams(3)
    one.gate.open(3)
    wait_for(lambda: len(one.gate.order) == 3, 20, "all of them")
    assert one.gate.order == ["first", "late", "fresh"]


@pytest.mark.parametrize("header", [("Culvert-Priority", "urgent"), ("Culvert-Priority", ""),
                                    ("Culvert-Timeout", "soon"), ("Culvert-Timeout", "0"),
                                    ("Culvert-Timeout", "-1"), ("Culvert-Timeout", "9" * 40)])
def test_wishes_that_make_no_sense_are_refused(shared_home, header):
    seen = len(shared_home.service.requests)
    answer = shared_home.fetch("/x", headers=[header])
    assert answer.status == 400 and answer.json()["code"] == "TUNNEL_016"
    assert header[0] in answer.json()["detail"]
    assert len(shared_home.service.requests) == seen


def test_wishes_do_not_reach_the_service(shared_home):
    answer = shared_home.fetch("/x", headers=[("Culvert-Priority", "batch"),
                                              ("Culvert-Timeout", "20s")])
    assert answer.status == 200
    names = [name.lower() for name, _ in shared_home.service.requests[-1].headers]
    assert not [name for name in names if name.startswith("culvert-")]


def test_a_full_queue_says_so_at_once_and_a_nearly_full_one_beforehand(slot):
    one = slot(relay_env={"CULVERT_QUEUE_SIZE": "10"})
    fill(one, 10)
    begin = time.monotonic()
    answer = one.ask("over").response()
    assert time.monotonic() - begin < 5
    problem = answer.json()
    assert answer.status == 503 and problem["code"] == "TUNNEL_006"
    assert problem["queue_position"] == 11 and problem["estimated_wait_ms"] >= 0
    assert int(answer.get("Retry-After")) >= 1
    assert answer.get("Culvert-Backpressure") == "queued=10, size=10"
    assert "over" not in one.gate.order
    # The queue empties: from under 80 % on nobody is told to hold back.
    said = []
    for client in one.clients[:11]:
        one.gate.open()
        said.append(client.response().get("Culvert-Backpressure"))
    assert said[0] is not None and said[-1] is None
    assert sorted(v is None for v in said) == [v is None for v in said]


def test_a_consumer_that_goes_away_makes_room(slot):
    one = slot(relay_env={"CULVERT_QUEUE_SIZE": "10"})
    fill(one, 10)
    one.clients.pop(5).close()
    one.wait_streams(10)
    one.ask("new")
    one.wait_streams(11)
    one.gate.open(20)
    wait_for(lambda: len(one.gate.order) == 11, 20, "all of them")
    assert "w4" not in one.gate.order and one.gate.order[-1] == "new"


@pytest.mark.parametrize("workers", [1, 4])
def test_one_users_full_queue_is_not_anothers(slot, world, workers):
    one = slot(relay_env={"CULVERT_QUEUE_SIZE": "10"}, workers=workers)
    other = world.service()
    world.http(one.relay, other.port, sub="bob", name="bobs")
    fill(one, 10)
    assert one.ask("over").response().status == 503
    for _ in range(20):
        answer = one.relay.fetch("/t/bobs/x", world.token("bob"))
        assert answer.status == 200 and answer.get("Culvert-Backpressure") is None


def test_a_queue_is_its_users_over_all_of_his_links(slot, world):
    """Ten places, not ten for each link."""
    one = slot(relay_env={"CULVERT_QUEUE_SIZE": "10"})
    gate = Gate()
    service = world.service(default=gate)
    second = world.http(one.relay, service.port, name="second",
                        env={"SSH_MAX_CHANNELS": "1"})
    assert second
    fill(one, 6)
    from client import Client
    clients = []
    for _ in range(12):
        client = Client(one.relay.port, timeout=60)
        client.request("GET", "/t/second/x", one.token)
        clients.append(client)
    statuses = []
    for client in clients:
        client.sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            statuses.append(client.response().status)
    assert statuses and set(statuses) == {503}
    assert len(clients) - len(statuses) <= 5  # one at the service, four that wait
    gate.open(100)
    for client in clients:
        client.close()


def test_an_agent_that_takes_fewer_streams_than_the_relay_would_open_is_waited_for(slot, world):
    """Nobody fails because two programs were told different numbers."""
    one = slot()
    gate = Gate()
    service = world.service(default=gate)
    world.http(one.relay, service.port, name="narrow", env={"SSH_MAX_CHANNELS": "2"})
    from client import Client
    clients = []
    for number in range(7):
        client = Client(one.relay.port, timeout=60)
        client.request("GET", f"/t/narrow/{number}", one.token)
        clients.append(client)
    one.wait_streams(7)
    wait_for(lambda: len(gate.order) == 2, 20, "two at the service")
    for served in range(3, 8):
        gate.open()
        wait_for(lambda n=served: len(gate.order) == n, 20, f"{served} at the service")
    gate.open(2)
    assert [client.response().status for client in clients] == [200] * 7
    for client in clients:
        client.close()


def test_waiting_ends_in_503_with_its_place(slot):
    one = slot(more=", timers: {first_byte: 1s}")
    one.ask("first", Culvert_Timeout="60s")
    wait_for(lambda: one.gate.order, 20, "the first at the service")
    second = one.ask("second", Culvert_Timeout="60s")
    one.wait_streams(2)
    third = one.ask("third")
    answer = third.response()
    assert answer.status == 503 and answer.json()["code"] == "TUNNEL_015"
    assert answer.json()["queue_position"] == 2 and answer.json()["hop"] == "link"
    one.gate.open(3)
    assert second.response().status == 200


# ---- time ----

def silent(conn, request):
    conn.read_body(request)
    conn.wait_gone(30)
    return False


def test_a_request_says_how_long_it_would_wait(scene):
    home = scene(routes={"/hold": silent})
    begin = time.monotonic()
    answer = home.fetch("/hold", headers=[("Culvert-Timeout", "700")])
    assert 0.6 < time.monotonic() - begin < 10
    assert answer.status == 504 and answer.json()["code"] == "TUNNEL_007"
    assert answer.json()["hop"] == "service"


def test_what_it_may_ask_for_is_bounded(scene):
    home = scene(routes={"/hold": silent}, relay_env={"CULVERT_TIMERS_ASKED_MAX": "500ms"})
    begin = time.monotonic()
    assert home.fetch("/hold", headers=[("Culvert-Timeout", "1h")]).status == 504
    assert time.monotonic() - begin < 10


def test_a_request_may_wait_longer_than_its_tunnel_does(scene):
    def late(conn, request):
        conn.read_body(request)
        time.sleep(1.5)
        conn.reply(body=b"late")
        return True
    home = scene(routes={"/late": late}, relay_env={"CULVERT_TIMERS_FIRST_BYTE": "500ms"})
    assert home.fetch("/late").status == 504
    assert home.fetch("/late", headers=[("Culvert-Timeout", "20s")]).status == 200


def test_an_answer_that_goes_on_is_cut_at_the_time_that_was_asked_for(scene):
    def drip(conn, request):
        conn.read_body(request)
        conn.start_chunked("application/x-ndjson")
        with contextlib.suppress(Exception):
            for _ in range(100):
                conn.chunk(b"{}\n")
                time.sleep(0.1)
        return False
    home = scene(routes={"/drip": drip})
    begin = time.monotonic()
    with home.client() as client:
        client.request("GET", "/t/home/drip", home.token, headers=[("Culvert-Timeout", "1s")])
        head = client.head()
        assert head.status == 200
        seen = b""
        with contextlib.suppress(Exception):
            while client.fill():
                pass
        seen = client.buffer
    assert b"TUNNEL_007" in seen and b'"hop":"service"' in seen.replace(b'": "', b'":"')
    assert time.monotonic() - begin < 8


def test_time_spent_waiting_counts_and_the_hop_says_so(slot):
    one = slot()
    fill(one, 1)
    answer = one.ask("third", Culvert_Timeout="400ms").response()
    assert answer.status in (503, 504)
    assert answer.json()["hop"] == "link"
