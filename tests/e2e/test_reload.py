# SPDX-License-Identifier: MIT
"""SIGHUP and PATCH: what changes while the relay runs does so at once, on all workers, without a link
lost; what is wrong changes nothing and says why."""
import json
import signal
import threading

import pytest
from culvert import wait_for
from scene import Scene
from test_audit import path_of, wait_record

ENV = {"RATE_LIMIT_FREE_RPM": None, "CB_FAILURE_THRESHOLD": None, "LOG_LEVEL": "debug"}
BASE = "limits: {free: {requests_per_minute: %s}}\n"


class Live(Scene):
    def __init__(self, world, config):
        super().__init__(world, relay_env=ENV, config=config)
        self.file = world.folder / f"relay-{self.relay.port}.yaml"
        self.root = world.token("root", "--admin")

    def reload(self, config, event="reload_keys"):
        self.file.write_text(config)
        since = len(self.relay.records)
        self.relay.signal(signal.SIGHUP)
        self.relay.wait_log(event, since=since)
        return since

    def config(self, method="GET", status=200, **changes):
        body = json.dumps({k.replace("__", "."): v for k, v in changes.items()}).encode()
        response = self.relay.fetch("/api/tunnel/config", self.root, method,
                                    body=body if method == "PATCH" else None)
        assert response.status == status, response.body
        return response.json()

    def statuses(self, count, token=None):
        return [self.fetch("/x", token=token or self.token).status for _ in range(count)]

    def has_one_link(self):
        return len(self.relay.find("link_up")) == 1 and not self.relay.find("link_down")


def test_limits_are_read_again(world):
    home = Live(world, BASE % 5)
    assert 429 in home.statuses(8)
    home.reload(BASE % 6000)
    assert home.fetch("/x").get("X-RateLimit-Limit") == "6000"
    wait_for(lambda: home.statuses(1) == [200], 5, "more")
    record = wait_record(path_of(world, home.relay), "config_changed", by="SIGHUP")
    assert (record["key"], record["value"]) == ("limits.free.requests_per_minute", "6000")
    settings = home.config()["settings"]
    assert settings["limits.free.requests_per_minute"] == {"value": 6000, "origin": "file",
                                                           "change": "now"}
    assert home.has_one_link()


def test_tiers_come_and_go(world):
    home = Live(world, BASE % 7)
    token = world.token("alice", "--tier", "gold")
    def limit():
        return home.fetch("/x", token=token).get("X-RateLimit-Limit")
    assert limit() == "7"
    home.reload(BASE % 7 + "tiers: [{name: gold, requests_per_minute: 70}]\n")
    assert limit() == "70"
    for _ in range(5):  # what one reload leaves behind, a later one frees
        home.reload(BASE % 7 + "tiers: [{name: gold, requests_per_minute: 80}]\n")
        home.reload(BASE % 7 + "tiers: [{name: gold, requests_per_minute: 90}]\n")
    assert limit() == "90"
    home.reload(BASE % 7)
    assert limit() == "7"
    refused = home.config("PATCH", 422, tiers=[])
    assert "SIGHUP" in refused["problems"][0]["text"]
    assert home.has_one_link()


@pytest.mark.parametrize(("text", "key"), [
    ("limits: {free: {requests_per_minute: lots}}\n", "limits.free.requests_per_minute"),
    ("limits: {fre: 1}\n", "limits.fre"), ("limits: [\n", ""),
    ("limits: {default_tier: nobody}\n", "limits.default_tier"),
    ("limits: {line_bytes: 1MiB, head_bytes: 1KiB}\n", "limits.line_bytes")])
def test_a_bad_file_changes_nothing_and_says_why(world, text, key):
    home = Live(world, BASE % 50)
    since = home.reload("queue: {size: 20}\n" + text, "reload_settings")
    problem = home.relay.wait_log("reload_problem", since=since)
    assert problem["key"] == key and problem["file"].endswith(".yaml")
    assert home.relay.find("reload_settings", since=since)[0]["level"] == "warn"
    assert not home.relay.find("reload_keys", since=since)
    settings = home.config()["settings"]
    assert settings["queue.size"]["value"] == 100
    assert settings["limits.free.requests_per_minute"]["value"] == 50
    assert home.fetch("/x").get("X-RateLimit-Limit") == "50"
    home.reload(BASE % 60)
    assert home.fetch("/x").get("X-RateLimit-Limit") == "60"


def test_what_takes_a_restart_says_so_and_the_rest_is_changed(world):
    home = Live(world, BASE % 50)
    since = home.reload("ws_path: /other\n" + BASE % 51)
    assert home.relay.wait_log("reload_left", since=since)["key"] == "ws_path"
    assert home.fetch("/x").get("X-RateLimit-Limit") == "51"
    assert home.config()["settings"]["ws_path"]["value"] == "/tunnel"


def test_what_the_api_has_set_stays(world):
    home = Live(world, BASE % 50)
    home.config("PATCH", queue__size=33)
    since = home.reload("queue: {size: 44}\n" + BASE % 51)
    assert home.relay.wait_log("reload_left", since=since)["key"] == "queue.size"
    assert home.config()["settings"]["queue.size"] == {"value": 33, "origin": "api",
                                                       "change": "now"}
    assert home.fetch("/x").get("X-RateLimit-Limit") == "51"


def test_limits_breaker_and_queue_by_patch(world):
    home = Live(world, BASE % 1000)
    home.config("PATCH", limits__free__requests_per_minute=5, breaker__failures=1)
    assert 429 in home.statuses(8)
    home.config("PATCH", limits__free__requests_per_minute=0)
    assert home.statuses(10) == [200] * 10
    home.service.close()
    assert [s for s in home.statuses(3)][-1] == 503
    home.config("PATCH", breaker__failures=0)
    assert home.statuses(1) == [502]
    home.config("PATCH", 422, queue__size=9)
    home.config("PATCH", 422, queue__size=50, limits__default_tier="none")
    assert home.config()["settings"]["queue.size"]["value"] == 100
    assert home.has_one_link()


def test_changes_at_once_lose_nothing(world):
    home = Live(world, BASE % 0)
    done = []
    def change(key, values):
        for value in values:
            wait_for(lambda: home.relay.fetch(
                "/api/tunnel/config", home.root, "PATCH",
                body=json.dumps({key: value}).encode()).status == 200, 20, "a change")
        done.append(key)
    threads = [threading.Thread(target=change, args=(key, range(start, start + 15)))
               for key, start in (("queue.size", 20), ("breaker.failures", 10),
                                  ("limits.burst", 100))]
    for thread in threads:
        thread.start()
    for number in range(10):
        home.reload(BASE % 0 + f"limits2: {number}\n" if number % 2 else
                    BASE % 0 + f"timers: {{idle: {number + 30}s}}\n", "reload_settings")
    for thread in threads:
        thread.join()
    assert len(done) == 3
    settings = home.config()["settings"]
    assert [settings[k]["value"] for k in ("queue.size", "breaker.failures", "limits.burst")] == [
        34, 24, 114]
    assert settings["timers.idle"]["value"] == "38s"
