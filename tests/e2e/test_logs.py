# SPDX-License-Identifier: MIT
"""What log records have in them, and the log in a file."""
import json
import re
import signal
import time

from culvert import wait_for

ALWAYS = {"timestamp", "level", "message", "component", "event", "service", "version", "instance"}


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_says_who_what_and_when(world, home):
    answer = home.fetch("/")
    home.relay.fetch("/t/none/", home.token)
    home.agent.stop()
    home.relay.wait_log("link_down")
    first = set()
    for process in (home.relay, home.agent):
        ids = {record.get("instance") for record in process.find() if "instance" in record}
        assert len(ids) == 1 and re.fullmatch(r"[0-9a-f]{16}", ids.pop())
        for record in process.find():
            assert record.keys() >= ALWAYS - {"instance"}, record
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["timestamp"])
            assert record["level"] in ("error", "warn", "info", "debug", "trace")
            assert record["service"] == "culvert"
            first.add(record["event"])
    served = home.relay.find("request", correlationId=answer.get("X-Request-Id"))[0]
    assert re.fullmatch(r"[0-9a-f]{32}", served["trace_id"])
    assert re.fullmatch(r"[0-9a-f]{16}", served["span_id"])
    assert served["userId"] == "alice"
    refused = home.relay.wait_log("request_refused", tunnel=None)
    assert refused["error"]["code"] == "TUNNEL_011" and refused["error"]["message"]
    ids = {home.relay.find(event)[0]["connectionId"] for event in ("link_up", "link_down")}
    assert len(ids) == 1 and re.fullmatch(r"[0-9a-f]{32}", ids.pop())


def test_each_reconnection_has_number_delay_and_reason(world):
    from culvert import free_port
    agent = world.http(type("Relay", (), {"url": f"ws://127.0.0.1:{free_port()}"}), 1,
                       "--log-level", "debug", ready=False, token=world.token())
    failed = agent.wait_log("connect_failed", failures=2)
    assert failed["attempt"] == 2 and failed["delayMs"] >= 0
    assert failed["error"]["code"].startswith("TUNNEL_") and failed["error"]["message"]


def test_a_slow_first_byte_is_told(scene):
    def slow(conn, request):
        time.sleep(5.2)
        conn.reply()
        return True
    home = scene(routes={"/slow": slow})
    answer = home.fetch("/slow")
    told = home.relay.wait_log("slow_request", correlationId=answer.get("X-Request-Id"))
    assert told["firstByteMs"] >= 5000 and told["tunnel"] == "home" and told["userId"] == "alice"
    assert told["level"] == "warn" and "trace_id" in told


def test_signals_change_the_level_up_and_down(home):
    for process in (home.relay, home.agent):
        assert process.level == "debug"
        process.signal(signal.SIGUSR2)
    wait_for(lambda: home.fetch("/").status == 200 and not
             home.relay.find("request", since=len(home.relay.records) - 1), 5, "quieter relay")
    seen = len(home.relay.records)
    home.fetch("/")
    assert not home.relay.find("request", since=seen)
    home.relay.signal(signal.SIGUSR1)
    wait_for(lambda: home.fetch("/").status == 200 and home.relay.find("request", since=seen), 5,
             "louder relay")


def test_the_log_goes_into_a_file_and_is_renamed_when_it_is_full(scene, world):
    path = world.folder / "relay.log"
    home = scene(config=f"log:\n  file: {path}\n  max_size: 8KiB\n  keep: 2\n",
                 agent_env={"CULVERT_LOG_FILE": None})
    assert path.stat().st_mode & 0o777 == 0o600 and not home.relay.lines
    answers = [home.fetch("/").get("X-Request-Id") for _ in range(60)]
    kept = [path, path.with_name("relay.log.1"), path.with_name("relay.log.2")]
    wait_for(lambda: all(file.exists() for file in kept), 5, "renamed files")
    assert not path.with_name("relay.log.3").exists()
    assert all(file.stat().st_size <= 8192 for file in kept)
    wait_for(lambda: answers[-1] in path.read_text(), 5, "the last request")
    ids = [record["correlationId"] for file in reversed(kept) for record in records(file)
           if record["event"] == "request"]
    assert ids == answers[-len(ids):]  # none is lost or twice
    assert not any(home.token in file.read_text() for file in kept)


def test_a_log_that_was_moved_away_is_begun_anew(scene, world):
    path, moved = world.folder / "relay.log", world.folder / "moved.log"
    home = scene(relay_env={"CULVERT_LOG_FILE": path}, agent_env={"CULVERT_LOG_FILE": None})
    home.fetch("/")
    path.rename(moved)
    home.relay.signal(signal.SIGHUP)
    wait_for(lambda: path.exists() and "reload_keys" in path.read_text(), 5, "new file")
    length = moved.stat().st_size
    home.fetch("/")
    assert moved.stat().st_size == length
    path.unlink()  # without a word to the relay: within a second
    wait_for(lambda: home.fetch("/").status == 200 and path.exists(), 5, "new file")


def test_the_agent_has_a_log_file_too(home, world):
    path = world.folder / "agent.log"
    agent = world.http(home.relay, home.service.port, name="two", ready=False,
                       env={"CULVERT_LOG_FILE": path})
    wait_for(lambda: path.exists() and "tunnel_published" in path.read_text(), 20, "log file")
    path.rename(world.folder / "moved.log")
    agent.signal(signal.SIGHUP)
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    agent.stopped = True
    assert "shutdown" in path.read_text() and not agent.lines


def test_a_log_file_that_cannot_be_opened_is_an_error(world):
    for path in ("/nowhere/relay.log", str(world.folder)):
        done = world.run("server", "--dev", "--listen", "127.0.0.1:0",
                         env={"CULVERT_LOG_FILE": path})
        assert done.returncode == 1 and "TUNNEL_" in done.stderr and path in done.stderr
