# SPDX-License-Identifier: MIT
"""The metrics of a relay: what the page is, who gets it, and that all of it is there from the
start. That each number moves when its event happens: test_metrics_events.py."""
import re
import shutil
import subprocess

import prometheus
import pytest
from client import Client
from culvert import ROOT, free_port, wait_for

# What may stand in a label, besides the pairs of errors: docs/metrics.md.
ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (\w+) \| (.*?) \| .* \|$")


def documented(*sections):
    """name → (type, {label: values or None}) of docs/metrics.md."""
    rows, section = {}, ""
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        match = ROW.match(line)
        if section not in sections or not match:
            continue
        labels = {}
        for part in match[3].split("; ") if match[3] != "–" else []:
            names, _, values = part.partition(": ")
            for name in names.split(", "):
                labels[name] = set(re.findall(r"`([^`]+)`", values)) or None
        rows[match[1]] = (match[2], labels)
    return rows


def fetch(port, path="/metrics", method="GET", **headers):
    with Client(port) as client:
        client.request(method, path, headers=list(headers.items()))
        return client.response(method)


@pytest.fixture(scope="module")
def watched(shared):
    port = free_port()
    relay = shared.relay("--metrics-listen", f"127.0.0.1:{port}")
    wait_for(lambda: fetch(port, "/livez").status == 200, what="the second listener")
    return relay, port


def test_every_name_is_there_from_the_start_with_all_its_labels(watched):
    page = prometheus.read(fetch(watched[1]))
    rows = documented("Relay and agent", "Relay alone")
    assert len(rows) > 50 and set(page.families) == set(rows)
    for name, (kind, labels) in rows.items():
        assert page.families[name]["TYPE"] == kind
        sample = name + "_count" if kind == "histogram" else name
        for label, values in labels.items():
            found = page.values(sample, label)
            if values:
                assert found == values, (name, label)
            elif label == "tier":
                assert found == {"none", "free", "premium", "enterprise"}
            elif label == "error_code":
                assert found == {path.stem for path in (ROOT / "docs/errors").glob("TUNNEL_*.md")}


def test_prometheus_own_linter_has_nothing_but_milliseconds_to_complain_of(watched):
    promtool = shutil.which("promtool")
    assert promtool, "promtool is in Debian's package prometheus: tools/deps test"
    page = fetch(watched[1]).body
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True,
                          timeout=30, check=False)
    complaints = [line for line in (done.stdout + done.stderr).decode().splitlines()
                  if line.strip() and "_ms " not in line.replace("_ms:", "_ms ")]
    assert not complaints


def test_openmetrics_for_who_accepts_it(watched):
    text = prometheus.read(fetch(watched[1]))
    opened = prometheus.read(fetch(watched[1], Accept="application/openmetrics-text"), True)
    assert {name.removesuffix("_total") for name in text.families} == set(opened.families)
    assert set(text.samples) == set(opened.samples)
    assert opened.families["tunnel_request_duration_seconds"]["UNIT"] == "seconds"


def test_head_and_other_methods(watched):
    head = fetch(watched[1], method="HEAD")
    assert head.status == 200 and head.body == b"" and int(head.get("Content-Length")) > 1000
    assert head.get("Vary") == "Accept" and "no-store" in head.get("Cache-Control")
    assert fetch(watched[1], method="POST").status == 405


def test_the_public_listener_wants_an_admin(watched, shared):
    relay, _ = watched
    assert relay.fetch("/metrics").status in (401, 404)
    path = "/api/tunnel/metrics"
    assert relay.fetch(path).status == 401
    assert relay.fetch(path, shared.token()).status == 403
    prometheus.read(relay.fetch(path, shared.token("root", "--admin")))


def test_switched_off_there_is_no_page(world):
    relay = world.relay(env={"CULVERT_METRICS_ENABLED": "false"})
    admin = world.token("root", "--admin")
    assert relay.fetch("/api/tunnel/metrics", admin).status == 404
