# SPDX-License-Identifier: MIT
"""The audit log: what it tells, that its chain holds through rotation, kill -9, takeover and a full
disk, and that `culvert audit verify` names the first record that is not as it was written."""
import functools
import hashlib
import json
import random
import resource

import pytest
from client import Client
from culvert import wait_for
from scene import Scene as PlainScene
from test_takeover import successor

EVERYTHING = {"CULVERT_AUDIT_EVENTS": "link,auth,forward,limit,admin"}
Scene = functools.partial(PlainScene, relay_env=EVERYTHING)


def path_of(world, relay):
    return world.state / f"audit-127.0.0.1:{relay.port}.jsonl"


def records(path):
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append({"event": "cut", "text": line})
    return found


def wait_record(path, event, **fields):
    def look():
        return [r for r in records(path) if r["event"] == event
                and all(r.get(k) == v for k, v in fields.items())]
    return wait_for(look, 20, f"audit record {event} {fields}")[0]


def verify(world, *paths, code=0, args=()):
    done = world.run("audit", "verify", "--json", *args, *paths, check=code)
    return json.loads(done.stdout)


def chain_holds(lines):
    """The shape of docs/audit.md, checked without the program."""
    before = "0" * 64
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        body = line[:line.rindex(',"hash":"')]
        assert record["hash"] == hashlib.sha256(body.encode()).hexdigest()
        assert (record["seq"], record["prev"]) == (number, before)
        before = record["hash"]


@pytest.fixture
def ended(world):
    """A log of some twenty records, and its relay gone."""
    scene = Scene(world)
    for i in range(12):
        assert scene.fetch(f"/x{i}").status == 200
    scene.agent.stop()
    scene.relay.stop()
    return path_of(world, scene.relay)


def test_who_did_what(world):
    scene = Scene(world, relay_env={**EVERYTHING, "CULVERT_WORKERS": "2"})
    path = path_of(world, scene.relay)
    assert scene.fetch("/hello", method="POST", body=b"12345").status == 200
    assert scene.relay.fetch("/t/nothing/", scene.token).status == 404
    assert scene.relay.fetch("/t/home/", "junk").status == 401
    assert scene.relay.fetch("/t/home/").status == 401
    admin = world.token("root", "--admin")
    assert scene.relay.fetch("/api/tunnel/diagnostics", admin).status == 200
    wait_record(path, "connect", userId="alice")
    wait_record(path, "publish", tunnel="home", port=80, userId="alice")
    done = wait_record(path, "forward", method="POST")
    assert (done["userId"], done["tunnel"], done["status"]) == ("alice", "home", 200)
    assert done["bytesIn"] == 5 and done["bytesOut"] > 0 and done["whole"] is True
    assert done["client"] == "127.0.0.1"
    wait_record(path, "refused", userId="alice", status=404, reason="NO_TUNNEL")
    wait_record(path, "auth_failed", reason="malformed")
    wait_record(path, "auth_failed", reason="missing")
    wait_record(path, "auth_ok", userId="root", what="api")
    scene.agent.stop()
    wait_record(path, "disconnect", userId="alice")
    scene.relay.stop()
    assert [r["event"] for r in records(path)][-1] == "relay_stopped"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert not [token for token in world.secrets if token in text]
    chain_holds(text.splitlines())
    verdict = verify(world, path)
    assert verdict["good"] and verdict["records"] == len(text.splitlines())
    noted = scene.relay.find("audit_closed")[0]
    assert (noted["seq"], noted["hash"]) == (verdict["last"], verdict["hash"])


def test_what_is_not_wanted_is_not_kept(world):
    scene = PlainScene(world, config="audit:\n  events: [link]\n")
    assert scene.fetch("/").status == 200
    scene.agent.stop()
    scene.relay.stop()
    events = {r["event"] for r in records(path_of(world, scene.relay))}
    assert events == {"relay_started", "connect", "publish", "withdraw", "disconnect",
                      "relay_stopped"}


def test_a_relay_that_cannot_have_its_address_leaves_the_log_alone(world):
    """It says what to do, and the log is that of the relay which has the address."""
    relay = world.relay()
    wait_record(path_of(world, relay), "relay_started")
    before = path_of(world, relay).read_bytes()
    second = world.relay(port=relay.port, ready=False).expect_error("start_failed")
    failed = second.wait_log("start_failed")
    assert "--takeover" in failed["suggestion"] and failed["error"]["errno"] == "EADDRINUSE"
    second.stop(code=1)
    assert path_of(world, relay).read_bytes() == before


def test_none_at_all(world):
    scene = Scene(world, config="audit:\n  enabled: false\n")
    assert scene.fetch("/").status == 200
    scene.relay.stop()
    assert not path_of(world, scene.relay).exists()


def alter(lines):
    lines[7] = lines[7].replace('"alice"', '"mallo"', 1)
    return "altered", 8


def take_out(lines):
    del lines[7]
    return "missing", 9


def move(lines):
    lines.insert(9, lines.pop(7))
    return "missing", 9


def double(lines):
    lines.insert(9, lines[7])
    return "moved", 8


def forge(lines):
    """The record is hashed anew, so only the one behind it tells."""
    record = lines[7].replace('"alice"', '"mallo"', 1)
    body = record[:record.rindex(',"hash":"')]
    lines[7] = f'{body},"hash":"{hashlib.sha256(body.encode()).hexdigest()}"}}'
    return "replaced", 9


def junk(lines):
    lines[7] = "nothing of ours"
    return "no record", 8


def first(lines):
    lines[0] = lines[0].replace('"seq":1,', '"seq":2,')
    return "altered", 2


@pytest.mark.parametrize("harm", [alter, take_out, move, double, forge, junk, first])
def test_harm_is_found(world, ended, harm):
    lines = ended.read_text().splitlines()
    assert verify(world, ended)["good"]
    fault, seq = harm(lines)
    ended.write_text("".join(line + "\n" for line in lines))
    verdict = verify(world, ended, code=1)
    assert (verdict["fault"], verdict["seq"]) == (fault, seq)
    text = world.run("audit", "verify", ended, check=1).stdout
    assert f"record {seq} " in text and f"{ended}:" in text


def test_every_altered_byte_is_found(world, ended):
    whole = ended.read_bytes()
    choice = random.Random(1)
    for _ in range(40):
        at = choice.randrange(len(whole) - 1)
        bad = bytearray(whole)
        bad[at] ^= 1 << choice.randrange(8)
        ended.write_bytes(bytes(bad))
        assert verify(world, ended, code=1)["good"] is False, at


def test_the_end_cut_off_shows_against_a_noted_hash(world, ended):
    last = verify(world, ended)["hash"]
    assert verify(world, ended, args=("--noted", last))["good"]
    lines = ended.read_text().splitlines()
    ended.write_text("".join(line + "\n" for line in lines[:-2]))
    assert verify(world, ended)["good"]
    world.run("audit", "verify", "--noted", last, ended, check=1)


def test_wrong_usage(world, ended):
    world.run("audit", "verify", check=2)
    world.run("audit", "look", ended, check=2)
    world.run("audit", "verify", "--noted", "12", ended, check=2)
    world.run("audit", "verify", world.folder / "nothing", check=1)
    world.run("audit", "verify", world.folder, check=1)


def test_rotation_keeps_the_chain(world):
    config = "audit:\n  max_size: 2KiB\n  keep: 5\n"
    scene = Scene(world, config=config)
    path = path_of(world, scene.relay)
    # How many records share a batch, and so a file, is the machine's to say.
    for i in range(1000):
        assert scene.fetch(f"/{i}").status == 200
        numbers = rotated(path)
        if len(numbers) == 5 and numbers[0] > 1:
            break
    scene.agent.stop()
    scene.relay.stop()
    numbers = rotated(path)
    assert len(numbers) == 5 and numbers[0] > 1, "the oldest goes"
    parts = [path.with_name(f"{path.name}.{n}") for n in numbers]
    files = [*parts, path] if path.exists() else parts  # the last record may have filled it
    verdict = verify(world, *files)
    assert verdict["good"] and verdict["first"] > 1
    assert verify(world, *files[:2], *files[3:], code=1)["fault"] == "missing"
    assert verify(world, files[1], files[0], *files[2:], code=1)["fault"] == "moved"
    # A new process goes on with the youngest of them, also when the file itself is gone.
    path.unlink(missing_ok=True)
    last = verify(world, *parts)["last"]
    relay = world.relay(port=scene.relay.port, config=config)
    relay.stop()
    assert records(path)[0]["seq"] == last + 1
    assert verify(world, *parts, path)["good"]


def rotated(path):
    return sorted(int(p.name.rpartition(".")[2]) for p in path.parent.glob(path.name + ".*"))


def test_kill_in_the_middle(world):
    scene = Scene(world)
    path = path_of(world, scene.relay)
    for i in range(20):
        assert scene.fetch(f"/{i}").status == 200
    wait_record(path, "forward")
    scene.relay.kill()
    before = verify(world, path)
    assert before["good"]
    # What a power cut leaves of the last write: a part of a record.
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    verdict = verify(world, path)
    assert verdict["good"] and verdict["endIsCut"] and verdict["last"] == before["last"] - 1
    relay = world.relay(port=scene.relay.port)
    told = relay.wait_log("audit_recovered")
    assert told["level"] == "warn" and told["seq"] == before["last"]
    relay.stop()
    verdict = verify(world, path)
    assert verdict["good"] and verdict["cut"] == 1 and not verdict["endIsCut"]
    recovered = wait_record(path, "log_recovered")
    assert recovered["cutBytes"] > 0 and recovered["seq"] == before["last"]
    # … and what was cut cannot be made into something else afterwards.
    lines = path.read_text().splitlines()
    cut = next(i for i, r in enumerate(records(path)) if r["event"] == "cut")
    path.write_text("\n".join([*lines[:cut], lines[cut] + "x", *lines[cut + 1:]]) + "\n")
    assert verify(world, path, code=1)["fault"] == "no record"


def test_only_the_newline_is_missing(world, ended):
    last = verify(world, ended)["last"]
    ended.write_bytes(ended.read_bytes()[:-1])
    port = int(ended.name.rpartition(":")[2].split(".")[0])
    world.relay(port=port).stop()
    verdict = verify(world, ended)
    assert verdict["good"] and verdict["cut"] == 0 and verdict["last"] == last + 2


def test_what_is_no_audit_log_is_left_alone(world):
    path = world.write("notes", "my notes, not yours\n")
    relay = world.relay(config=f"audit:\n  file: {path}\n", ready=False)
    relay.expect_error("audit log")
    assert relay.wait() == 1
    relay.stopped = True
    assert path.read_text() == "my notes, not yours\n"


def test_two_relays_write_one_chain(world):
    """As they do while one takes over from the other."""
    scene = Scene(world)
    path = path_of(world, scene.relay)
    assert scene.fetch("/1").status == 200
    new = successor(world, scene.relay, env=EVERYTHING)
    for _ in range(5):
        assert new.fetch("/t/home/2", scene.token).status == 200
    scene.relay.wait()
    scene.relay.stopped = True
    assert new.fetch("/t/home/3", scene.token).status == 200
    scene.agent.stop()
    new.stop()
    assert verify(world, path)["good"]
    instances = {r["instance"] for r in records(path)}
    assert len(instances) == 2
    assert len([r for r in records(path) if r["event"] == "forward"]) >= 7


def test_a_full_disk_hurts_no_request(world):
    """/dev/full cannot be renamed to or truncated; a size limit of the process does as a disk."""
    small = 24 * 1024
    config = "log:\n  level: info\naudit:\n  fsync: always\n"
    scene = Scene(world, config=config)
    path = path_of(world, scene.relay)
    wait_record(path, "publish")
    limit_file_size(scene.relay.pid, small)
    for i in range(2500):
        assert scene.fetch(f"/{i}").status == 200
    scene.relay.wait_log("audit_unwritable")
    assert path.stat().st_size <= small
    limit_file_size(scene.relay.pid, -1)
    scene.relay.wait_log("audit_writable")
    lost = wait_record(path, "records_lost")
    kept = [r for r in records(path) if r["event"] == "forward"]
    assert lost["count"] > 0 and len(kept) + lost["count"] >= 2500
    scene.agent.stop()
    scene.relay.stop()
    verdict = verify(world, path)
    assert verdict["good"] and verdict["cut"] == 0


def limit_file_size(pid, size):
    unlimited = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (unlimited if size < 0 else size, unlimited))


def test_a_flood_of_bad_tokens_does_not_fill_it(world):
    relay = world.relay()
    path = path_of(world, relay)
    with Client(relay.port) as client:
        for i in range(600):
            client.request("GET", "/t/home/", f"junk{i}")
            assert client.response().status == 401
    relay.stop()
    failed = [r for r in records(path) if r["event"] == "auth_failed"]
    assert 50 <= len(failed) <= 600 and sum(1 + r["notRecorded"] for r in failed) <= 600
    assert verify(world, path)["good"]


def test_raw_streams_are_recorded(world):
    scene = Scene(world)
    world.tcp(scene.relay, scene.service.port, name="raw")
    _, port = world.forward(scene.relay, "raw")
    with Client(port) as client:
        client.request("POST", "/x", body=b"y" * 1000)
        assert client.response().status == 200
        opened = wait_record(path_of(world, scene.relay), "stream_open", userId="alice")
        assert opened["tunnel"] == "raw"
    closed = wait_record(path_of(world, scene.relay), "stream_close", userId="alice", tunnel="raw")
    assert closed["bytesIn"] > 1000 and closed["bytesOut"] > 0 and closed["durationMs"] >= 0
