# SPDX-License-Identifier: MIT
"""Prometheus' rules, Alertmanager's routes and Alloy's pipeline, by the programs that read them
where Debian has those; and a runbook and a test for each alert."""
import re
import subprocess

import alloy
import culvert
import pytest
import yaml

FOLDER = culvert.ROOT / "deploy/observability"
PROMETHEUS = FOLDER / "prometheus"
RUNBOOKS = culvert.ROOT / "docs/runbooks"
# What these say does not depend on how the program was built.
pytestmark = pytest.mark.skipif("asan" in culvert.INSTRUMENTS, reason="files, not the program")
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def run(*args, code=0):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules(name):
    text = (PROMETHEUS / "rules" / name).read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}


def test_prometheus_takes_the_configuration():
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    for name in ("recording.yml", "alerts.yml"):
        out = run("promtool", "check", "rules", PROMETHEUS / "rules" / name)
        assert "SUCCESS" in out and "duplicate" not in out


def test_every_alert_fires_and_clears():
    run("promtool", "test", "rules", *TESTS)
    proven = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            told = [bool(step["exp_alerts"]) for step in test["alert_rule_test"]]
            # Silent before, then firing, then over.
            if told[0] is False and True in told and told[-1] is False:
                proven.add(test["alert_rule_test"][0]["alertname"])
    assert proven == set(ALERTS)


@pytest.mark.parametrize("wrong", [
    # The mistakes that are easy to make (see deploy/observability/README.md): the tests see them.
    ('sum by (job) (rate(tunnel_requests_total{status=~"error|timeout"}[5m]))',
     'rate(tunnel_requests_total{status=~"error|timeout"}[5m])'),
    ('status!~"cancelled|rejected"', 'status!=""'),
    ("sum by (job, le) (rate(tunnel_request_overhead",
     "sum by (job) (rate(tunnel_request_overhead"),
    ('result!~"ok|missing"', 'result!="ok"'),
])
def test_a_wrong_query_is_noticed(tmp_path, wrong):
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
        for path in (PROMETHEUS / folder).glob("*.yml"):
            (tmp_path / folder / path.name).write_text(path.read_text())
    path = tmp_path / "rules/recording.yml"
    assert wrong[0] in path.read_text()
    path.write_text(path.read_text().replace(*wrong))
    run("promtool", "test", "rules", *sorted((tmp_path / "tests").glob("*.yml")), code=1)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["labels"]["service"] == "culvert" and "instance" not in rule["labels"]
    notes = rule["annotations"]
    page = RUNBOOKS / notes["runbook_url"].rpartition("/")[2]
    text = page.read_text()
    assert text.startswith(f"# {name}:") and f"**Severity**: {rule['labels']['severity']}." in text
    for section in ("What it means", "First look", "Causes", "Mend", "Links"):
        assert f"\n## {section}\n" in text
    assert page.name in (RUNBOOKS / "README.md").read_text()
    dashboards = [path.read_text() for path in (FOLDER / "grafana/dashboards").glob("*.json")]
    uid = notes["dashboard_url"].rpartition("/")[2]
    assert any(f'"uid": "{uid}"' in text for text in dashboards)


@pytest.mark.parametrize("path", [*RUNBOOKS.glob("*.md"), FOLDER / "README.md"],
                         ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_runbooks_name_what_there_is():
    """Settings, panels and routes that a page sends people to."""
    settings = (culvert.ROOT / "docs/configuration.md").read_text()
    routes = (culvert.ROOT / "docs/openapi.yaml").read_text()
    panels = "".join(p.read_text() for p in (FOLDER / "grafana/dashboards").glob("*.json"))
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        for name in re.findall(r"`((?:ssh|ws|link|timers|limits|queue|breaker|auth|log|metrics|"
                               r"incidents)\.[a-z_]+)`", text):
            assert f"`{name}`" in settings, f"{page.name}: {name}"
        for route in re.findall(r"`[A-Z]+ (/api/[^`]+)`", text):
            assert f"\n  {route}:" in routes, f"{page.name}: {route}"
        for title in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", text.partition("## First look")[2]):
            assert f'"title": "{title}"' in panels or title == "Targets", f"{page.name}: {title}"


def test_alertmanager_takes_the_configuration():
    run("amtool", "check-config", FOLDER / "alertmanager/alertmanager.yml")


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_goes_to_somebody(name):
    labels = [f"{k}={v}" for k, v in ALERTS[name]["labels"].items()]
    out = run("amtool", "config", "routes", "test", "--config.file",
              FOLDER / "alertmanager/alertmanager.yml", f"alertname={name}", *labels).split("\n")[0]
    expected = "on-call" if ALERTS[name]["labels"]["severity"] == "critical" else \
        "security" if name in ("CulvertConnectionStorm", "CulvertAuthenticationFailures") \
        else "on-call-day"
    assert out == expected


def test_inhibitions_name_alerts_that_exist():
    config = yaml.safe_load((FOLDER / "alertmanager/alertmanager.yml").read_text())
    for rule in config["inhibit_rules"]:
        names = re.findall(r"Culvert\w+", str(rule))
        assert set(names) <= set(ALERTS)


def test_alloy_could_read_its_configuration():
    text = (FOLDER / "alloy/config.alloy").read_text()
    top = alloy.parse(text)
    assert alloy.check(top) == []
    # Only what has few values makes streams.
    process = next(b for b in top.blocks if b.name == "loki.process")
    labels = next(b for b in process.blocks if b.name == "stage.labels")
    assert set(labels.arguments["values"]) == {"level", "component"}
    taken = next(b for b in process.blocks if b.name == "stage.json").arguments["expressions"]
    assert set(taken) >= set(labels.arguments["values"])


@pytest.mark.parametrize("old, new", [
    ("loki.write.loki.receiver", "loki.write.other.receiver"),
    ("expressions = {", "expression = {"),
    ('level     = "level",\n', 'level     = "level"\n'),
    ("stage.labels {", "stage.label {"),
    ('loki.write "loki"', 'loki.write'),
    ('source = "timestamp"', 'source : "timestamp"'),
])
def test_the_reader_of_alloy_sees_faults(old, new):
    text = (FOLDER / "alloy/config.alloy").read_text()
    assert old in text
    try:
        assert alloy.check(alloy.parse(text.replace(old, new)))
    except alloy.Fault:
        pass
