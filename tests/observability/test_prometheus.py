# SPDX-License-Identifier: MIT
"""A real Prometheus scrapes a real relay under load of every kind: each expression of a dashboard,
each rule and the inside of each alert finds something; and an alert goes through to Alertmanager."""
import contextlib
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import culvert
import pytest
import towers
import yaml
from culvert import wait_for
from receiver import Receiver

FOLDER = culvert.ROOT / "deploy/observability"
SCRAPES = 6
STREAM = [f"data: {json.dumps(event)}\n\n".encode() for event in [
    {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "a"}}]},
    {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "b"}}]},
    {"object": "chat.completion.chunk", "choices": [],
     "usage": {"prompt_tokens": 20, "completion_tokens": 40}}]] + [b"data: [DONE]\n\n"]


class Load:
    """Requests that go well, wait, fail, are refused; models that talk; agents that come and go."""

    def __init__(self, world):
        self.world = world
        self.metrics_port = culvert.free_port()
        self.relay = world.relay(
            "--metrics-listen", f"127.0.0.1:{self.metrics_port}",
            env={"CB_FAILURE_THRESHOLD": "3", "CB_RESET_TIMEOUT": "600000",
                 "RATE_LIMIT_FREE_RPM": "60", "SSH_MAX_CHANNELS": "2", "WS_PING_INTERVAL": "1000"})
        well = world.service({"/x": self.well, "/v1/chat/completions": self.talk})
        ill = world.service({"/x": lambda conn, request: conn.reset()})
        self.token = world.token("alice", "--tier", "premium")
        self.poor = world.token("bob", "--tier", "free")
        world.http(self.relay, well.port, token=self.token)
        world.http(self.relay, ill.port, name="ill", token=self.token)
        world.http(self.relay, well.port, sub="bob", token=self.poor)
        self.well_port = well.port
        self.stopped = threading.Event()
        self.faults = []
        self.threads = [threading.Thread(target=self.guard, args=(job,))
                        for job in (self.good, self.good, self.good, self.bad, self.models,
                                    self.agents)]
        for thread in self.threads:
            thread.start()
        world.cleanups.append(self.stop)

    @staticmethod
    def well(conn, request):
        conn.read_body(request)
        time.sleep(0.05)  # with three who ask and two streams, somebody waits
        conn.reply(200, b"x" * 1000)
        return True

    @staticmethod
    def talk(conn, request):
        conn.read_body(request)
        conn.start_chunked("text/event-stream")
        for event in STREAM:
            conn.chunk(event)
            time.sleep(0.03)  # a stream of no length has no speed
        conn.end_chunks()
        return True

    def guard(self, job):
        while not self.stopped.is_set():
            try:
                job()
            except Exception as error:  # noqa: BLE001 - told by the test
                self.faults.append(f"{job.__name__}: {error!r}")
                return

    def good(self):
        assert self.relay.fetch("/t/home/x", self.token).status == 200

    def bad(self):
        self.relay.fetch("/t/ill/x", self.token)
        self.relay.fetch("/t/nothing/x", self.token)
        self.relay.fetch("/t/home/x", "not.a.token")
        self.relay.fetch("/t/home/x", self.poor)
        time.sleep(0.01)

    def models(self):
        assert self.relay.fetch("/t/home/v1/chat/completions", self.token, "POST",
                                body=b"{}").status == 200
        time.sleep(0.02)

    def agents(self):
        agent = self.world.http(self.relay, self.well_port, name="guest", token=self.token)
        agent.stop()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)


def configure(world, relay_port, alertmanager_port):
    """Our own files, quicker: a scrape a second, alerts at once."""
    config = yaml.safe_load((FOLDER / "prometheus/prometheus.yml").read_text())
    config["global"].update(scrape_interval="1s", evaluation_interval="1s")
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{relay_port}"]}]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [
        {"targets": [f"127.0.0.1:{alertmanager_port}"]}]
    (world.folder / "rules").mkdir()
    for path in config["rule_files"]:
        rules = yaml.safe_load((FOLDER / "prometheus" / path).read_text())
        for rule in rules["groups"][0]["rules"]:
            if "alert" in rule:
                rule["for"] = "1s"
        world.write(path, json.dumps(rules))
    return world.write("prometheus.yml", json.dumps(config))


def expressions():
    """(where, expression, labels that its legend names) of dashboards, rules and alerts."""
    for path in (FOLDER / "grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == "prometheus":
                    expr = re.sub(r"\$(job|instance)", ".*", target["expr"])
                    yield (f"{path.stem}: {panel['title']}",
                           expr.replace("$__rate_interval", "5s"),
                           re.findall(r"{{(\w+)}}", target["legendFormat"]))
    for name in ("recording", "alerts"):
        for rule in yaml.safe_load((FOLDER / f"prometheus/rules/{name}.yml").read_text()
                                   )["groups"][0]["rules"]:
            # The inside of an alert: without what it is compared to.
            yield (rule.get("alert") or rule["record"],
                   re.sub(r"\s(>|==)\s[\d./ ]+(?=\sand\s|$)", "", rule["expr"].strip()), [])


# What nothing is to be had of in such a short time; they find series, of NaN.
RARE = re.compile(r"tunnel_connection_duration_seconds|tunnel_websocket_ping_rtt")


@pytest.fixture
def site(world):
    receiver = Receiver(world)
    alertmanager = towers.alertmanager(world, receiver)
    load = Load(world)
    prometheus = towers.prometheus(
        world, configure(world, load.metrics_port, alertmanager.port))
    return load, prometheus, alertmanager


def query(prometheus, expr):
    return prometheus.get("/api/v1/query", query=expr)["data"]["result"]


def look(prometheus, where, expr, labels):
    """What is wrong with an expression; None: nothing."""
    found = query(prometheus, expr)
    if not found:
        return f"{where}: nothing\n{expr}"
    for label in labels:
        if not all(series["metric"].get(label) for series in found):
            return f"{where}: no label {label}\n{expr}"
    if all(series["value"][1] == "NaN" for series in found) and not RARE.search(expr):
        return f"{where}: no number\n{expr}"
    return None


def test_every_expression_finds_something(site):
    load, prometheus, alertmanager = site
    # A number of scrapes, and a request of every kind between the first and the last of them.
    wait_for(lambda: query(prometheus, f"count_over_time(up[1m]) >= {SCRAPES}"), 60, "scrapes",
             interval=0.2)
    assert query(prometheus, "up")[0]["value"][1] == "1"
    every = list(expressions())
    assert len(every) > 100

    def complaints():
        with ThreadPoolExecutor(6) as pool:
            return [c for c in pool.map(lambda e: look(prometheus, *e), every) if c]
    # A slow machine gets a second look: scrapes may have come late.
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not complaints(), 20, "an answer to all", interval=1)
    assert "\n".join(complaints()) == ""
    assert not load.faults
    # The load has an open breaker, and Prometheus says so to Alertmanager.
    alerts = wait_for(lambda: [a for a in alertmanager.get("/api/v2/alerts")
                               if a["labels"]["alertname"] == "CulvertBreakerOpen"],
                      30, "an alert", interval=0.2)
    assert alerts[0]["labels"]["job"] == "culvert" and "instance" not in alerts[0]["labels"]
    assert alerts[0]["annotations"]["runbook_url"].endswith("/breaker-open.md")
    groups = prometheus.get("/api/v1/rules")["data"]["groups"]
    assert [r["lastError"] for g in groups for r in g["rules"] if r.get("lastError")] == []
