# SPDX-License-Identifier: MIT
"""Dashboards as files: what tools/dashboards writes, what Grafana's published types allow, and what
an operator may expect of every panel. That their expressions find something is in
test_prometheus.py."""
import json
import re
import subprocess
import sys
from pathlib import Path

import culvert
import npm
import pytest

HERE = Path(__file__).parent
FOLDER = culvert.ROOT / "deploy/observability/grafana/dashboards"
FILES = sorted(FOLDER.glob("*.json"))
# Grafana has none of these any more.
REMOVED = {"graph", "singlestat", "table-old", "grafana-singlestat-panel", "grafana-piechart-panel",
           "grafana-worldmap-panel"}
# What these say does not depend on how the program was built.
pytestmark = pytest.mark.skipif("asan" in culvert.INSTRUMENTS, reason="files, not the program")
UNITS = {"short", "s", "Bps", "bytes", "ops", "reqps", "percentunit"}


def panels(dashboard):
    return [p for p in dashboard["panels"] if p["type"] != "row"]


def test_they_are_what_the_tool_writes():
    done = subprocess.run([sys.executable, culvert.ROOT / "tools/dashboards", "--check"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_panel_says_what_it_shows(path):
    dashboard = json.loads(path.read_text())
    names = {v["name"] for v in dashboard["templating"]["list"]}
    assert {"datasource", "job", "instance"} <= names
    assert len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"])
    for p in panels(dashboard):
        where = f"{path.stem}: {p['title']}"
        assert p["title"] and len(p["description"]) > 10 and p["description"][-1] == ".", where
        assert p["type"] not in REMOVED and "alert" not in p, where
        defaults = p["fieldConfig"]["defaults"]
        assert defaults["unit"] in UNITS, where
        steps = defaults["thresholds"]["steps"]
        assert steps[0]["value"] is None, where
        values = [s["value"] for s in steps[1:]]
        assert values == sorted(values), where
        kind = "loki" if p["type"] == "logs" else "prometheus"
        for source in (p["datasource"], *(t["datasource"] for t in p["targets"])):
            assert source["type"] == kind and source["uid"] == \
                ("${loki}" if kind == "loki" else "${datasource}"), where
        for target in p["targets"]:
            # Each selector keeps to the relays that were chosen.
            selectors = re.findall(r"\b(?:tunnel|process)_\w+|\bup\b", target["expr"])
            chosen = target["expr"].count('job=~"$job", instance=~"$instance"')
            assert kind == "loki" or len(selectors) == chosen > 0, f"{where}: {target['expr']}"
            # What the legend names is there to be named.
            for label in re.findall(r"{{(\w+)}}", target.get("legendFormat", "")):
                grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
                assert not grouped or any(label in g.split(", ") for g in grouped), where


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_panels_do_not_overlap(path):
    taken = set()
    for p in json.loads(path.read_text())["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"])
                 for y in range(g["y"], g["y"] + g["h"])}
        assert g["x"] + g["w"] <= 24 and not cells & taken, p["title"]
        taken |= cells


def compile_types(folder, **sources):
    """What the TypeScript compiler has against these dashboards, each a list of a file's name."""
    paths = []
    for name, dashboards in sources.items():
        paths.append(folder / f"{name}.ts")
        paths[-1].write_text((HERE / "dashboard.ts").read_text() + "".join(
            f"export const d{i}: OurDashboard = {json.dumps(d)};\n"
            for i, d in enumerate(dashboards)))
    done = subprocess.run(
        ["node", folder / "node_modules/typescript/bin/tsc", "--noEmit", "--strict",
         "--skipLibCheck", "--target", "es2022", "--module", "esnext", "--moduleResolution",
         "bundler", *paths], cwd=folder, capture_output=True, text=True, timeout=120)
    return done.stdout


def test_grafanas_types_take_them_and_refuse_what_has_gone():
    """Each of the spoiled ones is one error: the check can fail."""
    folder = npm.install(HERE, "observability")

    def spoil(change):
        dashboard = json.loads((FOLDER / "health.json").read_text())
        change(dashboard, next(p for p in dashboard["panels"] if p["type"] == "timeseries"))
        return dashboard
    spoiled = [
        spoil(lambda d, p: p.update(type="graph")),
        spoil(lambda d, p: p["options"].update(nullPointMode="connected")),
        spoil(lambda d, p: p["options"]["tooltip"].update(mode="all")),
        spoil(lambda d, p: p["fieldConfig"]["defaults"]["custom"].update(drawStyle="curve")),
        spoil(lambda d, p: p.pop("description")),
        spoil(lambda d, p: p["targets"][0].update(expression="up")),
        spoil(lambda d, p: d["templating"]["list"][0].update(type="range")),
        spoil(lambda d, p: d.update(rows=[])),
    ]
    good = [json.loads(path.read_text()) for path in FILES]
    found = compile_types(folder, good=good, spoiled=spoiled)
    assert "good.ts" not in found, found
    lines = {int(n) for n in re.findall(r"spoiled\.ts\((\d+),", found)}
    first = (HERE / "dashboard.ts").read_text().count("\n") + 1
    assert lines == set(range(first, first + len(spoiled))), found
