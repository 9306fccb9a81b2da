# SPDX-License-Identifier: MIT
"""What users and tunnels did: /api/tunnel/history and /api/tunnel/usage, over restarts, kill -9 and
a disk that fails."""
import contextlib
import datetime
import sqlite3
import subprocess
import threading
import time

import pytest
from client import Client
from culvert import free_port, wait_for
from test_admin_api import API, Api

METRICS = ["requests", "errors", "cancelled", "success_rate", "latency_mean", "latency_p50",
           "latency_p95", "latency_p99", "first_byte_mean", "first_byte_p50", "first_byte_p95",
           "first_byte_p99", "bytes", "bytes_in", "bytes_out", "queue", "streams", "tokens",
           "prompt_tokens", "completion_tokens"]


def slow(conn, request):
    time.sleep(0.3)
    conn.reply(200, b"done")


def broken(conn, request):
    conn.reply(500, b"broken")


ROUTES = {"/slow": slow, "/broken": broken}


def file_of(world, port):
    return world.state / f"history-127.0.0.1:{port}.db"


def points(api, metric, token=None, **query):
    query = {"from": "-10m", "step": "60s", **query}
    target = f"{API}/history?metric={metric}&" + "&".join(f"{k}={v}" for k, v in query.items())
    return api.ask("GET", target, token)


def total(api, metric="requests", token=None, **query):
    return sum(p["value"] or 0 for p in points(api, metric, token, **query)["points"])


@pytest.fixture
def api(world):
    return Api(world, routes=ROUTES)


# -- what is told ----------------------------------------------------------------------------------

def test_numbers_are_there_at_once_and_ones_own(api):
    own = api.scene.token
    assert total(api, token=own) == 0
    for target in ["/"] * 6 + ["/slow"] * 2 + ["/broken"] * 2:
        api.scene.fetch(target, "POST", body=b"x" * 100)
    bob = api.world.http(api.relay, api.scene.service.port, sub="bob", name="lab")
    assert api.relay.fetch("/t/lab/", api.world.token("bob")).status == 200
    assert total(api, "requests", own) == 10
    assert total(api, "errors", own) == 2
    assert total(api, "bytes_in", own) == 1000
    assert total(api, "bytes", own) > total(api, "bytes_out", own) > 0
    day = {"from": "-23h", "step": "1d"}
    rate = [p["value"] for p in points(api, "success_rate", own, **day)["points"] if p["value"]]
    assert rate == [0.8]
    for sketch in ("latency", "first_byte"):
        p50, p99 = (max(p["value"] or 0 for p in points(api, f"{sketch}_{q}", own, **day)["points"])
                    for q in ("p50", "p99"))
        assert 0 < p50 < 300 * 0.98 < p99
    assert total(api, "streams", own) > 0.005
    # Others' are others', whatever is asked for.
    mallory = api.world.token("mallory")
    assert total(api, token=mallory) == total(api, token=mallory, tunnel="home") == 0
    assert total(api, token=own, tunnel="lab") == 0
    refused = api.ask("GET", f"{API}/history?metric=requests&user=alice", mallory, status=403)
    assert "user" in refused["detail"]
    # The admin's are everybody's.
    assert total(api) == 11
    assert total(api, user="alice") == 10 and total(api, user="bob") == 1
    assert total(api, tunnel="lab") == 1 and total(api, user="alice", tunnel="lab") == 0
    bob.stop()


def test_every_metric_has_a_value(api):
    assert api.scene.fetch("/").status == 200
    for metric in METRICS:
        answer = points(api, metric, api.scene.token)
        assert answer["metric"] == metric and answer["unit"]
        values = [p["value"] for p in answer["points"]]
        assert any(v is not None for v in values), metric
    unknown = api.ask("GET", f"{API}/history?metric=nothing", status=422)
    for metric in METRICS:
        assert metric in unknown["detail"]


def test_usage_since_the_start_and_of_late(api):
    own = api.scene.token
    assert api.ask("GET", f"{API}/usage", own)["tunnels"] == []
    for target in ("/", "/", "/broken"):
        api.scene.fetch(target)
    usage = api.ask("GET", f"{API}/usage", own)
    assert [(t["tunnel"], t["owner"]) for t in usage["tunnels"]] == [("home", "alice")]
    for numbers in (usage["total"], usage["recent"], usage["tunnels"][0]["total"],
                    usage["tunnels"][0]["recent"]):
        assert numbers["requests"] == 3 and numbers["errors"] == 1
        assert numbers["status_2xx"] == 2 and numbers["status_5xx"] == 1
        assert numbers["success_rate"] == 0.666667
        assert 0 < numbers["latency_ms"]["p50"] <= numbers["latency_ms"]["p99"]
    assert api.ask("GET", f"{API}/usage", api.world.token("mallory"))["tunnels"] == []
    assert api.ask("GET", f"{API}/usage?user=alice")["total"]["requests"] == 3
    assert api.ask("GET", f"{API}/usage?user=bob")["total"]["requests"] == 0
    api.ask("GET", f"{API}/usage?from=-5m", status=422)


def test_who_leaves_is_no_error(api):
    with Client(api.relay.port) as client:
        client.request("GET", "/t/home/slow", api.scene.token)
        wait_for(lambda: api.scene.service.requests, 10, "the request at the service")
    wait_for(lambda: total(api, "cancelled") == 1, 10, "a request that was given up")
    assert total(api, "errors") == 0
    assert points(api, "success_rate")["points"][-1]["value"] is None


def test_a_service_that_is_down_counts_as_errors(api):
    api.scene.service.close()
    api.world.services.remove(api.scene.service)
    assert api.scene.fetch("/").status == 502
    assert total(api, "errors") == total(api, "requests") == 1


# -- times -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("query, count", [
    ("from=-5m&to=now&step=60s", 6),
    ("from=now-5m&step=1m", 6),
    ("from=-1h&step=1h", 2),
    ("from=-3h&to=-2h&step=60s", (60, 61)),
    ("from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z&step=5m", 12),
    ("from=2026-01-01T01:00:00%2B01:00&to=2026-01-01T01:00:00Z&step=5m", 12),
    ("from=2026-01-01T00:00:30Z&to=2026-01-01T00:01:30Z&step=60s", 2),
    ("from=-2000m&step=60s", 2001),
    ("from=-90d", (360, 362)),
    ("", (60, 61)),
])
def test_times(shared_home, query, count):
    api = shared_home
    answer = api.relay.fetch(f"{API}/history?metric=requests&{query}".rstrip("&"), api.token)
    assert answer.status == 200, answer.body
    answer = answer.json()
    times = [datetime.datetime.fromisoformat(p["time"].replace("Z", "+00:00"))
             for p in answer["points"]]
    low, high = count if isinstance(count, tuple) else (count, count)
    assert low <= len(times) <= high
    assert all((b - a).total_seconds() == answer["step_s"]
               for a, b in zip(times, times[1:], strict=False))
    assert all(t.timestamp() % answer["step_s"] == 0 for t in times)


@pytest.mark.parametrize("query, word", [
    ("metric=requests&from=yesterday", "from"),
    ("metric=requests&from=%2B5m", "from"),
    ("metric=requests&from=-5", "from"),
    ("metric=requests&to=2026-02-30T00:00:00Z", "to"),
    ("metric=requests&from=now&to=-5m", "from"),
    ("metric=requests&from=-5m&to=-5m", "from"),
    ("metric=requests&from=-1h&step=30s", "step"),
    ("metric=requests&from=-1h&step=90s", "step"),
    ("metric=requests&from=-1h&step=0", "step"),
    ("metric=requests&from=-1h&step=60", "step"),
    ("metric=requests&from=-1h&step=999999d", "step"),
    ("metric=requests&from=-90d&step=60s", "step"),
    ("metric=requests&from=1970-01-01T00:00:00Z&to=9999-12-31T23:59:59Z&step=60s", "step"),
    ("metric=requests&from=-1h&from=-2h", "from"),
    ("metric=requests&tunnel=Home", "tunnel"),
    ("metric=requests&tunnel=a%2Fb", "tunnel"),
    ("metric=requests&tunnel=", "tunnel"),
    ("metric=requests&tunnel=a%00b", "tunnel"),
    ("metric=requests&tunnel=%zz", "tunnel"),
    ("metric=requests&tunnel=" + "a" * 300, "tunnel"),
    ("metric=requests&since=-1h", "known"),
    ("metric=requests&=", "known"),
    ("metric=", "metric"),
    ("from=-1h", "metric"),
])
def test_bad_queries_say_what_is_wrong(shared_home, query, word):
    answer = shared_home.relay.fetch(f"{API}/history?{query}", shared_home.token)
    assert answer.status == 422, answer.body
    assert word in answer.json()["detail"]


def test_the_largest_time_is_answered(shared_home):
    query = "from=1970-01-01T00:00:00Z&to=9999-12-31T23:59:59Z&step=2000d"
    answer = shared_home.relay.fetch(f"{API}/history?metric=requests&{query}", shared_home.token)
    assert answer.status == 200 and len(answer.json()["points"]) < 2000


# -- the file --------------------------------------------------------------------------------------

def restart(api, kill=False):
    port = api.relay.port
    if kill:
        api.relay.kill()
    else:
        api.relay.stop()
    api.relay = api.scene.relay = api.world.relay(port=port)
    wait_for(lambda: api.scene.fetch("/").status == 200, 20, "the tunnel")
    return api.relay


def test_it_survives_a_restart_and_kill_9(api):
    own = api.scene.token
    for _ in range(20):
        api.scene.fetch("/broken")
    restart(api)
    assert total(api, "errors", own) == 20
    ends = threading.Event()

    def load():
        while not ends.is_set():
            api.scene.fetch("/")
            api.relay.fetch(f"{API}/history?metric=requests", own)
    relay, threads = api.relay, []
    for _ in range(3):
        def guarded():
            try:
                load()
            except (OSError, AssertionError, EOFError):
                return
        threads.append(threading.Thread(target=guarded))
        threads[-1].start()
    wait_for(lambda: total(api, "requests", own) > 60, 20, "some load")
    relay.kill()
    ends.set()
    for thread in threads:
        thread.join()
    api.relay = api.scene.relay = api.world.relay(port=relay.port)
    assert total(api, "errors", own) == 20, "what was written is there"
    assert not api.relay.find("history_set_aside") and not api.relay.find("history_unwritable")


@pytest.mark.long
def test_a_minute_that_has_ended_survives_kill_9(api):
    own = api.scene.token
    for _ in range(10):
        api.scene.fetch("/broken")
    with sqlite3.connect(f"file:{file_of(api.world, api.relay.port)}?mode=ro", uri=True) as file:
        wait_for(lambda: file.execute("SELECT count(*) FROM minute").fetchone()[0] >= 2, 70,
                 "rows in the file", interval=0.5)
    restart(api, kill=True)
    assert total(api, "errors", own) == 10


def test_the_file_is_the_owners_and_has_no_secrets(api):
    api.scene.fetch("/secret-path?key=secret-query", headers=[("X-Secret", "secret-header")])
    port = api.relay.port
    api.scene.agent.stop()
    api.relay.stop()
    path = file_of(api.world, port)
    assert path.stat().st_mode & 0o777 == 0o600
    data = path.read_bytes()
    assert b"alice" in data and b"home" in data
    assert b"secret" not in data and b"127.0.0.1" not in data


def test_a_file_that_cannot_be_opened_hurts_nobody_and_is_tried_again(world):
    port = free_port()
    world.state.mkdir(mode=0o700, exist_ok=True)
    path = file_of(world, port)
    path.mkdir()
    service = world.service()
    relay = world.relay(port=port)
    world.http(relay, service.port)
    token = world.token("alice")
    assert relay.wait_log("history_unwritable")["level"] == "warn"
    for _ in range(20):
        assert relay.fetch("/t/home/", token).status == 200
    answer = relay.fetch(f"{API}/history?metric=requests", token)
    assert answer.status == 503 and answer.json()["code"] == "TUNNEL_029"
    usage = relay.fetch(f"{API}/usage", token)
    assert usage.json()["total"]["requests"] == 20
    path.rmdir()
    relay.wait_log("history_writable", timeout=30)
    assert len(relay.find("history_unwritable")) == 1
    answer = relay.fetch(f"{API}/history?metric=requests&from=-5m", token).json()
    assert sum(p["value"] for p in answer["points"]) == 20, "nothing was lost meanwhile"


@pytest.fixture
def small_disk(world):
    """The world's state folder on a file system of 4 MiB."""
    world.state.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "culvert-test",
                           world.state], capture_output=True)
    if done.returncode != 0:
        pytest.skip("mounting is not allowed here")
    # Behind the end of the processes, which is the world's first cleanup.
    world.cleanups.insert(0, lambda: subprocess.run(["umount", "-l", world.state], check=True))
    return world.state


def test_a_full_disk_hurts_nobody_and_loses_nothing_older(world, small_disk):
    api = Api(world)
    for _ in range(5):
        assert api.scene.fetch("/").status == 200
    restart(api)
    with open(small_disk / "filler", "wb", 0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    done = total(api)
    for _ in range(50):
        assert api.scene.fetch("/").status == 200
    assert total(api) == done + 50
    relay = api.relay
    relay.stop()  # writes the minute under way, or would
    assert relay.find("history_unwritable")
    (small_disk / "filler").unlink()
    api.relay = api.scene.relay = world.relay(port=relay.port)
    assert total(api) >= 5
    assert not api.relay.find("history_set_aside")
    api.scene.agent.stop()
    api.relay.stop()


def test_a_damaged_file_is_set_aside(world):
    port = free_port()
    world.state.mkdir(mode=0o700, exist_ok=True)
    path = file_of(world, port)
    path.write_bytes(b"this is no database" * 1000)
    relay = world.relay(port=port)
    assert relay.wait_log("history_set_aside")["level"] == "warn"
    assert path.with_name(path.name + ".broken").read_bytes().startswith(b"this is no")
    assert relay.fetch(f"{API}/history?metric=requests", world.token("alice")).status == 200
    assert not relay.find("history_unwritable")


def test_a_file_that_goes_is_made_anew(api):
    path = file_of(api.world, api.relay.port)
    assert api.scene.fetch("/").status == 200
    path.unlink()
    wait_for(path.exists, 10, "a new file")
    assert total(api) == 1


def test_without_a_history(world):
    api = Api(world, config="history:\n  enabled: false\n")
    assert api.scene.fetch("/").status == 200
    assert api.ask("GET", f"{API}/history?metric=requests", status=404)["detail"]
    assert api.ask("GET", f"{API}/usage")["total"]["requests"] == 1
    assert not file_of(world, api.relay.port).exists()


def test_more_tunnels_than_series_still_count_for_the_relay(world):
    api = Api(world, config="history:\n  series: 16\n", relay_args=("--workers", "1"))
    agents = [world.http(api.relay, api.scene.service.port, sub=f"user{i}") for i in range(20)]
    for i in range(20):
        assert api.relay.fetch("/t/home/", world.token(f"user{i}")).status == 200
    assert total(api) == 20
    assert len(api.ask("GET", f"{API}/usage")["tunnels"]) == 16
    for agent in agents:
        agent.stop()


def test_two_relays_share_a_state_folder(api):
    other = api.world.relay()
    assert other.fetch(f"{API}/history?metric=requests", api.admin).status == 200
    assert api.scene.fetch("/").status == 200
    answer = other.fetch(f"{API}/history?metric=requests", api.admin).json()
    assert sum(p["value"] for p in answer["points"]) == 0
    assert total(api) == 1
