# SPDX-License-Identifier: MIT
"""A service that fails request after request is left alone for a while."""
import threading
import time

import pytest
from culvert import wait_for


class Moody:
    """A service that answers as it is told to."""

    def __init__(self):
        self.mood = "well"
        self.asked = 0
        self.held = threading.Event()

    def __call__(self, conn, request):
        conn.read_body(request)
        self.asked += 1
        mood = self.mood
        if mood == "reset":
            conn.reset()
            return False
        if mood == "silent":
            conn.wait_gone(20)
            return False
        if mood == "hold":
            self.held.wait(30)
        status = mood if isinstance(mood, int) else 200
        conn.reply(status, b"x")
        return True


class Fixture:
    def __init__(self, scene, agent_args=(), **env):
        self.moody = Moody()
        self.home = scene(routes={"/x": self.moody}, agent_args=agent_args,
                          relay_env={"CB_FAILURE_THRESHOLD": "5", "CB_RESET_TIMEOUT": "1500",
                                     **env})

    def ask(self, mood=None, **kw):
        if mood is not None:
            self.moody.mood = mood
        return self.home.fetch("/x", **kw)

    def is_open(self):
        """Whether a request is turned away without reaching the service."""
        before = self.moody.asked
        answer = self.ask()
        if answer.status != 503:
            return False
        assert answer.json()["code"] == "TUNNEL_004" and answer.json()["hop"] == "relay"
        assert int(answer.get("Retry-After")) >= 1
        assert self.moody.asked == before
        return True

    def open(self, mood="reset"):
        for _ in range(5):
            assert self.ask(mood).status in (502, 504)
        assert self.is_open()


@pytest.fixture
def breaker(scene):
    return lambda **kw: Fixture(scene, **kw)


@pytest.mark.parametrize("workers", [1, 4])
def test_five_failures_open_it_and_two_successes_close_it(breaker, workers):
    b = breaker()
    for _ in range(4):
        assert b.ask("reset").status == 502
    assert b.ask("well").status == 200  # not in a row
    b.open()
    b.home.relay.wait_log("breaker_state", state="open")
    b.moody.mood = "well"
    wait_for(lambda: not b.is_open(), 20, "a probe", interval=0.1)
    assert b.ask().status == 200
    b.home.relay.wait_log("breaker_state", state="closed")
    for _ in range(4):
        assert b.ask("reset").status == 502
    assert b.ask("well").status == 200


def test_one_probe_at_a_time_and_a_bad_one_opens_it_anew(breaker):
    b = breaker()
    b.open()
    b.moody.mood = "hold"
    probe = b.home.client(timeout=60)

    def try_probe():
        seen = b.moody.asked
        client = b.home.client(timeout=60)
        client.request("GET", "/t/home/x", b.home.token)
        time.sleep(0.2)
        if b.moody.asked > seen:
            return client
        client.close()
        return None
    probe.close()
    probe = wait_for(try_probe, 20, "a probe", interval=0.1)
    assert b.is_open() and b.is_open()  # while it is out
    b.moody.held.set()
    assert probe.response().status == 200
    assert b.ask("reset").status == 502
    assert b.is_open()


def test_a_service_that_is_not_there(scene, world):
    service = world.service()
    relay = world.relay(env={"CB_FAILURE_THRESHOLD": "5"})
    world.http(relay, service.port)
    service.close()
    token = world.token("alice")
    codes = [relay.fetch("/t/home/x", token).json()["code"] for _ in range(7)]
    assert codes == ["TUNNEL_013"] * 5 + ["TUNNEL_004"] * 2


def test_it_is_one_tunnels_and_outlives_the_agent(breaker, world):
    b = breaker(CB_RESET_TIMEOUT="60000")
    world.http(b.home.relay, b.home.service.port, name="other")
    world.http(b.home.relay, b.home.service.port, sub="bob", name="home")
    b.open()
    assert b.home.relay.fetch("/t/other/y", b.home.token).status == 200
    assert b.home.relay.fetch("/t/home/y", world.token("bob")).status == 200
    b.home.agent.stop()
    world.http(b.home.relay, b.home.service.port)
    assert b.is_open()


@pytest.mark.parametrize("mood", [400, 401, 404, 418, 429, 500, 502, 503, 504])
def test_what_a_service_says_is_no_failure(breaker, mood):
    b = breaker()
    for _ in range(8):
        assert b.ask(mood).status == mood
    assert b.ask("well").status == 200


def test_unless_that_is_the_operators_choice(breaker):
    b = breaker(CULVERT_BREAKER_COUNTS_STATUSES="true")
    for mood in (500, 404, 500, 404, 500, 404):
        assert b.ask(mood).status == mood
    for mood in (502, 503, 504, 502, 503):
        assert b.ask(mood).status == mood
    assert b.is_open()


def test_consumers_that_leave_or_err_never_count(breaker):
    b = breaker()
    b.moody.mood = "hold"
    for _ in range(8):
        seen = b.moody.asked
        client = b.home.client()
        client.request("GET", "/t/home/x", b.home.token)
        wait_for(lambda seen=seen: b.moody.asked > seen, 20, "the request at the service")
        client.close()
    for _ in range(8):
        with b.home.client() as client:
            client.send(f"POST /t/home/x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "
                        f"{b.home.token}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
            assert client.response().status == 400
    b.moody.held.set()
    assert b.ask("well").status == 200


def test_silence_counts_but_not_of_a_request_in_a_hurry(breaker):
    b = breaker(CULVERT_TIMERS_FIRST_BYTE="300ms")
    for _ in range(6):  # a limit of the request's own may be too short
        assert b.ask("silent", headers=[("Culvert-Timeout", "200")]).status == 504
    assert b.ask("well").status == 200
    b.open("silent")


def test_five_of_a_crowd_are_enough(breaker):
    """Eight at once that go well: what began before it opened changes nothing after."""
    b = breaker(CB_RESET_TIMEOUT="60000", SSH_MAX_CHANNELS="50")
    b.moody.mood = "hold"
    clients = []
    for _ in range(8):
        client = b.home.client(timeout=30)
        client.request("GET", "/t/home/x", b.home.token)
        clients.append(client)
    wait_for(lambda: b.moody.asked >= 8, 20, "all at the service")
    b.open()
    b.moody.held.set()  # eight successes, too late
    assert {client.response().status for client in clients} == {200}
    assert b.is_open()
