# SPDX-License-Identifier: MIT
"""Operators are told of what is wrong, once, and of its end; and no request waits for that. With a
real Alertmanager: tests/observability/test_alertmanager.py."""
import json
import os
import time

import pytest
from culvert import wait_for
from receiver import Receiver

QUICK = {"CB_FAILURE_THRESHOLD": "3", "CB_RESET_TIMEOUT": "300", "CB_SUCCESS_THRESHOLD": "1",
         "CULVERT_INCIDENTS_DEBOUNCE": "0s", "CULVERT_INCIDENTS_CALM": "1s",
         "CULVERT_INCIDENTS_REPEAT": "1s",
         "CULVERT_INCIDENTS_RUNBOOK_URL": "https://docs.example.org/runbooks",
         "CULVERT_INCIDENTS_DASHBOARD_URL": "https://grafana.example.org/d"}


class Scene:
    def __init__(self, world, **env):
        self.world = world
        self.is_ill = False
        self.receiver = Receiver(world)
        self.service = world.service({"/x": self.answer})
        self.env = {**QUICK, "CULVERT_INCIDENTS_WEBHOOK_URL": self.receiver.url + "/hook", **env}
        self.relay = world.relay(env=self.env)
        world.http(self.relay, self.service.port)
        self.token = world.token("alice")

    def answer(self, conn, request):
        conn.read_body(request)
        if self.is_ill:
            conn.reset()
            return False
        conn.reply(200, b"x")
        return True

    def ask(self, **kw):
        return self.relay.fetch("/t/home/x", self.token, **kw)

    def break_it(self):
        self.is_ill = True
        for _ in range(3):
            assert self.ask().status == 502
        assert self.ask().status in (502, 503)

    def mend_it(self):
        self.is_ill = False
        wait_for(lambda: self.ask().status == 200, 20, "a good answer", interval=0.1)

    def told(self, status):
        return self.receiver.bodies(status=status)

    def file(self):
        path = self.world.state / f"incidents-127.0.0.1:{self.relay.port}.json"
        return json.loads(path.read_text())["incidents"] if path.exists() else []


def test_a_breaker_is_told_once_and_its_end_once(world):
    s = Scene(world)
    s.break_it()
    wait_for(lambda: s.told("firing"), 20, "an incident")
    told = s.told("firing")[0]
    assert told["labels"]["alertname"] == "CulvertBreakerOpen"
    assert told["labels"]["tunnel"] == "home" and told["labels"]["severity"] == "critical"
    assert told["runbook_url"] == "https://docs.example.org/runbooks/breaker-open.md"
    assert told["dashboard_url"] == "https://grafana.example.org/d/culvert-errors"
    assert told["ends_at"] is None and told["context"]["links"] == 1
    assert [t["tunnel"] for t in told["context"]["affected_tunnels"]] == ["home"]
    # The id is the one that the management API knows.
    breakers = s.relay.fetch("/api/tunnel/breakers", s.token).json()["breakers"]
    assert told["labels"]["breaker"] in [b["id"] for b in breakers]
    s.mend_it()
    wait_for(lambda: s.told("resolved"), 20, "its end")
    over = s.told("resolved")[0]
    assert over["incident"] == told["incident"] and over["starts_at"] == told["starts_at"]
    assert over["ends_at"] > over["starts_at"]
    assert len(s.receiver.posts) == 2
    keys = [p["headers"]["Idempotency-Key"] for p in s.receiver.posts]
    assert len(set(keys)) == 2 and told["incident"] in keys[0]
    # Nobody's name or address, and no token.
    for post in s.receiver.posts:
        assert "alice" not in json.dumps(post["body"]) and "127.0.0.1" not in \
            json.dumps(post["body"])


def test_failing_requests_and_a_storm_are_told(world):
    """What a relay sees of the last minutes, with the codes of what went wrong."""
    s = Scene(world, CB_FAILURE_THRESHOLD="0", CULVERT_INCIDENTS_STORM_PER_SECOND="1")
    s.is_ill = True
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
               ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]

    def told():
        assert s.ask().status == 502
        assert s.relay.fetch("/tunnel", "not.a.token", headers=upgrade).status == 401
        return {body["labels"]["alertname"]: body for body in s.told("firing")}
    both = {"CulvertErrorRatioHigh", "CulvertConnectionStorm"}
    found = wait_for(lambda: set(told()) >= both and told(), 60, "both incidents", interval=0.1)
    errors = found["CulvertErrorRatioHigh"]
    assert "100.0 %" in errors["summary"] and errors["labels"]["severity"] == "critical"
    assert errors["context"]["failed_5m"] >= 10
    codes = {e["code"]: e["count"] for e in errors["context"]["last_errors"]}
    assert codes.get("TUNNEL_013", 0) + codes.get("TUNNEL_027", 0) + codes.get("TUNNEL_019", 0) > 0
    assert found["CulvertConnectionStorm"]["labels"]["severity"] == "warning"
    assert "attempts a second" in found["CulvertConnectionStorm"]["summary"]


def test_what_nobody_took_is_told_after_kill_9(world):
    s = Scene(world)
    s.receiver.mood = 500
    s.break_it()
    wait_for(lambda: s.receiver.tries and s.file(), 20, "a try that fails")
    s.relay.kill()
    s.is_ill = False
    s.receiver.mood = 200
    s.relay = world.relay(port=s.relay.port, env=s.env)
    wait_for(lambda: s.told("resolved"), 30, "what was in the outbox")
    assert [p["body"]["status"] for p in s.receiver.posts] == ["firing", "resolved"]
    assert len({p["body"]["incident"] for p in s.receiver.posts}) == 1


def test_what_was_told_is_not_told_again_after_a_restart(world):
    s = Scene(world)
    s.break_it()
    wait_for(lambda: s.told("firing"), 20, "an incident")
    wait_for(lambda: s.file() and s.file()[0]["webhook"] == "firing", 20, "the file")
    s.relay.stop()
    s.relay = world.relay(port=s.relay.port, env=s.env)
    wait_for(lambda: s.told("resolved"), 30, "its end")
    assert len(s.told("firing")) == 1


def test_a_receiver_that_refuses_is_not_asked_again(world):
    s = Scene(world)
    s.receiver.mood = 422
    s.break_it()
    s.relay.wait_log("incident_refused", receiver="webhook")
    tries = s.receiver.tries
    s.receiver.mood = 200
    s.mend_it()
    wait_for(lambda: s.told("resolved"), 20, "its end")
    assert tries == 1 and not s.told("firing")


@pytest.mark.parametrize("mood", ["hang", 500, "gone"])
def test_no_request_waits_for_a_receiver(world, mood):
    s = Scene(world)
    other = world.service({"/y": lambda conn, request: conn.reply(200, b"y")})
    world.http(s.relay, other.port, name="other")
    if mood == "gone":
        s.receiver.close()
    else:
        s.receiver.mood = mood
    s.break_it()
    if mood != "gone":
        wait_for(lambda: s.receiver.tries, 20, "a try")
    else:
        s.relay.wait_log("incident_untold", receiver="webhook")
    end = time.monotonic() + 1.5
    count = 0
    while time.monotonic() < end:
        assert s.relay.fetch("/t/other/y", s.token).status == 200
        count += 1
    assert count > 5


def test_a_folder_that_cannot_be_written_changes_nothing(world):
    s = Scene(world)
    wait_for(lambda: world.state.exists(), 5)
    path = world.state / f"incidents-127.0.0.1:{s.relay.port}.json"
    path.mkdir()  # a file cannot take its place, whoever runs this
    (path / "x").touch()
    s.break_it()
    wait_for(lambda: s.told("firing"), 20, "an incident")
    s.relay.wait_log("incidents_unsaved")
    s.mend_it()
    wait_for(lambda: s.told("resolved"), 20, "its end")


def test_a_file_of_nonsense_is_begun_anew(world):
    s = Scene(world)
    s.relay.stop()
    path = world.state / f"incidents-127.0.0.1:{s.relay.port}.json"
    path.write_text('{"version":1,"incidents":[{"kind":"breaker"}]}')
    s.relay = world.relay(port=s.relay.port, env=s.env)
    s.relay.wait_log("incidents_unreadable")
    s.mend_it()
    s.break_it()
    wait_for(lambda: s.told("firing"), 20, "an incident")


def test_nothing_of_it_unless_asked_for(home):
    threads = [open(f"/proc/{home.relay.pid}/task/{t}/comm").read()
               for t in os.listdir(f"/proc/{home.relay.pid}/task")]
    assert not home.relay.find("incident_told") and len(threads) <= 8
    assert not list(home.world.state.glob("incidents-*"))


def test_addresses_are_shown_to_nobody(world):
    """Those of chat services are as good as a password."""
    path = world.write("relay.yaml", "listen: [127.0.0.1:8080]\nincidents:\n"
                       "  webhook_url: https://hooks.example.org/verysecret\n"
                       "  alertmanager_url: https://me:verysecret@alerts.example.org\n")
    done = world.run("config", "show", "--dev", "-c", path, check=0)
    assert "webhook_url" in done.stdout
    assert "verysecret" not in done.stdout + done.stderr


@pytest.mark.parametrize("setting, value", [
    ("ALERTMANAGER_URL", "ftp://x"), ("WEBHOOK_URL", "not a url"), ("CALM", "0s"),
    ("ERROR_PERCENT", "0"), ("STORM_PER_SECOND", "0")])
def test_bad_settings_are_refused(world, setting, value):
    done = world.run("server", "--dev", env={f"CULVERT_INCIDENTS_{setting}": value})
    assert done.returncode == 1 and f"incidents.{setting.lower()} " in done.stderr
