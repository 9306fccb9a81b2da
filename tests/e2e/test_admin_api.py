# SPDX-License-Identifier: MIT
"""The management API: every answer is as docs/openapi.yaml says, rights hold, and what is changed or
revoked takes effect at once, on all workers and over a restart."""
import json
import threading
import time

import jsonschema
import pytest
import yaml
from client import Client
from culvert import ROOT, wait_for
from scene import Scene
from test_audit import path_of, wait_record

DOCUMENT = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
API = "/api/tunnel"


def resolve(schema):
    """References of the document as they are, for a validator that knows JSON alone."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            at = DOCUMENT
            for name in schema["$ref"].removeprefix("#/").split("/"):
                at = at[name]
            return resolve(at)
        return {key: resolve(value) for key, value in schema.items()}
    return [resolve(item) for item in schema] if isinstance(schema, list) else schema


def operation_of(method, target):
    for path, item in DOCUMENT["paths"].items():
        parts, asked = path.split("/"), target.split("?")[0].split("/")
        if len(parts) == len(asked) and all(p == a or p.startswith("{")
                                            for p, a in zip(parts, asked, strict=True)):
            return item.get(method.lower())
    return None


def check(method, target, response):
    """An answer is one that the document knows, and of the shape that it says."""
    operation = operation_of(method, target)
    assert operation, f"{method} {target} is not in docs/openapi.yaml"
    known = operation["responses"]
    said = resolve(known.get(str(response.status)) or known.get("default") or {})
    assert said, f"{method} {target}: {response.status} is not in docs/openapi.yaml"
    if "content" not in said:
        assert not response.body
        return None
    kind = response.get("Content-Type")
    assert kind in said["content"], f"{kind} is not in docs/openapi.yaml"
    if not kind.endswith("json"):
        return response.body
    value = json.loads(response.body)
    jsonschema.validate(value, said["content"][kind]["schema"],
                        cls=jsonschema.Draft202012Validator)
    return value


class Api:
    def __init__(self, world, **kw):
        self.world = world
        self.scene = Scene(world, **kw)
        self.relay = self.scene.relay
        self.admin = world.token("root", "--admin")

    def ask(self, method, target, token=None, body=None, status=200):
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        response = self.relay.fetch(target, token or self.admin, method, body=data)
        assert response.status == status, (response.status, response.body)
        return check(method, target, response)


@pytest.fixture
def api(world):
    return Api(world)


def test_every_call_of_the_document_is_there_and_wants_its_right(api):
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            target = path.replace("{id}", "0" * (32 if "links" in path else 16))
            body = b"{}" if "requestBody" in operation else None
            got = {who: api.relay.fetch(target, token, method.upper(), body=body)
                   for who, token in (("nobody", None), ("alice", api.scene.token),
                                      ("root", api.admin))}
            for response in got.values():
                check(method.upper(), target, response)
            if "security" in operation:
                assert got["nobody"].status == 200
                continue
            assert got["nobody"].status == 401
            assert (got["alice"].status == 403) == ("x-permission" in operation)
            assert got["root"].status not in (401, 403, 405)


def test_other_methods(api):
    response = api.relay.fetch(f"{API}/config", api.admin, "DELETE")
    assert response.status == 405 and response.get("Allow") == "GET, HEAD, PATCH"
    assert api.relay.fetch(f"{API}/tunnels", api.admin, "POST", body=b"{}").status == 405
    assert api.relay.fetch(f"{API}/nothing", api.admin).status == 404
    assert api.relay.fetch(f"{API}/links/a/b", api.admin, "DELETE").status == 404
    head = api.relay.fetch(f"{API}/config", api.admin, "HEAD")
    assert head.status == 200 and not head.body


def test_tunnels_are_ones_own_but_for_admins(api):
    bob = api.world.http(api.relay, api.scene.service.port, sub="bob", name="lab")
    own = api.ask("GET", f"{API}/tunnels", api.scene.token)["tunnels"]
    assert [(t["name"], t["owner"], t["links"][0]["state"]) for t in own] == [
        ("home", "alice", "up")]
    everything = api.ask("GET", f"{API}/tunnels")["tunnels"]
    assert sorted(t["name"] for t in everything) == ["home", "lab"]
    bob.stop()
    wait_for(lambda: len(api.ask("GET", f"{API}/tunnels")["tunnels"]) == 1, 10, "one less")


def test_a_link_is_closed(api):
    link = api.ask("GET", f"{API}/tunnels")["tunnels"][0]["links"][0]["id"]
    mallory = api.world.token("mallory")
    foreign = api.ask("DELETE", f"{API}/links/{link}", mallory, status=404)
    absent = api.ask("DELETE", f"{API}/links/{'0' * 32}", mallory, status=404)
    for answer in (foreign, absent):
        del answer["request_id"]
    assert foreign == absent
    api.ask("DELETE", f"{API}/links/xyz", status=404)
    api.ask("DELETE", f"{API}/links/{link}", api.scene.token, status=202)
    assert api.relay.wait_log("link_down")["reason"] == "LINK_CLOSED"
    wait_for(lambda: len(api.scene.agent.find("link_up")) == 2, 20, "the agent is back")
    wait_record(path_of(api.world, api.relay), "admin", action="close_link", by="alice")


# -- settings --------------------------------------------------------------------------------------

def test_settings_are_shown_with_their_origin(api):
    settings = api.ask("GET", f"{API}/config")["settings"]
    assert settings["listen"] == {"value": [f"127.0.0.1:{api.relay.port}"], "origin": "flag",
                                  "change": "restart"}
    assert settings["log.level"] == {"value": "debug", "origin": "environment", "change": "now"}
    assert settings["tls.cert_file"]["change"] == "reload"


def test_a_setting_is_changed_and_put_back(api):
    done = api.ask("PATCH", f"{API}/config", body={"limits.body_bytes": "1KiB",
                                                   "log.level": "info", "timers.idle": "2m"})
    assert sorted(done["changed"]) == ["limits.body_bytes", "log.level", "timers.idle"]
    assert api.scene.fetch("/", "POST", body=b"x" * 2000).status == 413
    settings = api.ask("GET", f"{API}/config")["settings"]
    assert settings["limits.body_bytes"] == {"value": "1KiB", "origin": "api", "change": "now"}
    wait_record(path_of(api.world, api.relay), "config_changed", key="limits.body_bytes",
                value="1KiB", by="root")
    api.ask("PATCH", f"{API}/config", body={"limits.body_bytes": None, "log.level": "debug"})
    assert api.scene.fetch("/", "POST", body=b"x" * 2000).status == 200


def test_the_log_level_is_changed(api):
    api.ask("PATCH", f"{API}/config", body={"log.level": "warn"})
    api.relay.wait_log("config_changed")  # and with it all that was said before
    seen = len(api.relay.records)
    assert api.scene.fetch("/").status == 200
    assert not [r for r in api.relay.records[seen:] if r["level"] in ("info", "debug")
                and r["event"] != "config_changed"]


@pytest.mark.parametrize("body, keys", [
    ({"timers.idle": "5 parsecs"}, ["timers.idle"]),
    ({"timers.idle": -3}, ["timers.idle"]),
    ({"timers.idle": {"a": 1}}, ["timers.idle"]),
    ({"timers.idle": 1.5}, ["timers.idle"]),
    ({"timers.idle": ["1s", "2s"]}, ["timers.idle"]),
    ({"nothing": 1, "": 2}, ["", "nothing"]),
    ({"workers": 3}, ["workers"]),
    ({"tls.cert_file": "/etc/passwd"}, ["tls.cert_file"]),
    ({"limits.line_bytes": "1MiB"}, ["limits.line_bytes"]),
    ({"cors.origins": ["https://a.example", "not an origin"]}, ["cors.origins"]),
    ({"timers.idle": "9s", "log.level": "loud"}, ["log.level"]),
])
def test_a_bad_change_changes_nothing(api, body, keys):
    before = api.ask("GET", f"{API}/config")
    answer = api.ask("PATCH", f"{API}/config", body=body, status=422)
    assert sorted({p["key"] for p in answer["problems"]}) == keys
    assert api.ask("GET", f"{API}/config") == before


@pytest.mark.parametrize("body, status", [
    (b"", 422), (b"[]", 422), (b"{", 422), (b'{"a":1,"a":2}', 422), (b"null", 422),
    (b'{"log.level":"a\\u0000b"}', 422), (b" " * 70000, 413), (b"[" * 60000, 422),
], ids=range(8))
def test_bodies_that_are_none(api, body, status):
    api.ask("PATCH", f"{API}/config", body=body, status=status)
    assert api.scene.fetch("/").status == 200


def test_a_body_in_chunks_and_one_that_never_ends(api):
    with Client(api.relay.port) as client:
        client.send(f"PATCH {API}/config HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.admin}"
                    "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"tim\r\n".encode())
        client.send(b'12\r\ners.idle":  "77s"}\r\n0\r\n\r\n')
        assert client.response().status == 200
    assert api.ask("GET", f"{API}/config")["settings"]["timers.idle"]["value"] == "77s"
    api.ask("PATCH", f"{API}/config", body={"limits.body_idle_timeout": "1s"})
    with Client(api.relay.port) as client:
        client.send(f"PATCH {API}/config HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.admin}"
                    "\r\nContent-Length: 50\r\n\r\n{".encode())
        assert client.response().status == 408


def test_many_change_settings_under_load(api):
    """Workers read the settings all the while."""
    ends = time.monotonic() + 3
    faults = []

    def load():
        with Client(api.relay.port) as client:
            while time.monotonic() < ends:
                client.request("GET", "/t/home/", api.scene.token)
                if (status := client.response().status) != 200:
                    faults.append(status)

    def change(seconds):
        while time.monotonic() < ends:
            data = json.dumps({"timers.idle": f"{seconds}s", "cors.origins": [
                f"https://{seconds}.example"]}).encode()
            status = api.relay.fetch(f"{API}/config", api.admin, "PATCH", body=data).status
            if status not in (200, 503):
                faults.append(status)

    threads = [threading.Thread(target=load) for _ in range(3)]
    threads += [threading.Thread(target=change, args=(100 + i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


# -- the queue -------------------------------------------------------------------------------------

def slow(conn, request):
    time.sleep(float(request.path.rpartition("/")[2]))
    conn.reply(200, b"done")


def test_the_queue(world):
    api = Api(world, routes={"/slow/4": slow}, config="ssh:\n  max_channels: 1\n")
    assert api.ask("GET", f"{API}/queue")["waiting"] == []
    answers = []

    def ask():
        answers.append(api.scene.fetch("/slow/4", timeout=60).status)
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(api.ask("GET", f"{API}/queue")["waiting"]) == 2, 10, "two that wait")
    own = api.ask("GET", f"{API}/queue", api.scene.token)
    assert [w["position"] for w in own["waiting"]] == [1, 2] and own["queued"] == 2
    assert {(w["tunnel"], w["owner"], w["priority"]) for w in own["waiting"]} == {
        ("home", "alice", "interactive")}
    others = api.ask("GET", f"{API}/queue", world.token("mallory"))
    assert others["waiting"] == [] and others["queued"] == 0
    for thread in threads:
        thread.join()
    assert answers == [200, 200, 200]


def test_who_asks_for_the_queue_and_goes(api):
    for _ in range(50):
        with Client(api.relay.port) as client:
            client.request("GET", f"{API}/queue", api.admin)
    assert api.ask("GET", f"{API}/queue")["waiting"] == []


def test_a_breaker_is_shown_and_reset(world):
    api = Api(world, relay_env={"CB_FAILURE_THRESHOLD": "2"})
    own = api.scene.token
    assert api.scene.fetch("/").status == 200
    api.scene.service.close()
    world.services.remove(api.scene.service)
    wait_for(lambda: api.scene.fetch("/").json()["code"] == "TUNNEL_004", 10, "an open breaker")
    shown = api.ask("GET", f"{API}/breakers", own)["breakers"]
    assert [(b["tunnel"], b["state"]) for b in shown] == [("home", "open")]
    mallory = world.token("mallory")
    assert api.ask("GET", f"{API}/breakers", mallory)["breakers"] == []
    api.ask("DELETE", f"{API}/breakers/{shown[0]['id']}", mallory, status=404)
    api.ask("DELETE", f"{API}/breakers/xyz", status=404)
    api.ask("DELETE", f"{API}/breakers/{shown[0]['id']}", status=204)
    assert api.ask("GET", f"{API}/breakers", own)["breakers"][0]["state"] == "closed"
    assert api.scene.fetch("/").json()["code"] == "TUNNEL_013"


# -- revocations -----------------------------------------------------------------------------------

def test_a_users_tokens_are_revoked(api):
    world = api.world
    bob = world.http(api.relay, api.scene.service.port, sub="bob", name="lab")
    assert api.scene.fetch("/").status == 200
    revoked = api.ask("POST", f"{API}/revocations", body={"sub": "alice", "reason": "stolen"},
                      status=201)
    refused = api.scene.fetch("/")
    assert refused.status == 401 and refused.json()["code"] == "TUNNEL_036"
    assert api.relay.wait_log("link_down", userId="alice")["reason"] == "AUTH_REVOKED"
    assert api.relay.fetch("/t/lab/", world.token("bob")).status == 200
    assert not api.relay.find("link_down", userId="bob") and bob.process.poll() is None
    listed = api.ask("GET", f"{API}/revocations")["revocations"]
    assert [(r["id"], r["sub"], r["by"], r["reason"]) for r in listed] == [
        (revoked["id"], "alice", "root", "stolen")]
    wait_record(path_of(world, api.relay), "admin", action="revoke", subject="alice", by="root")
    # … over a restart …
    port = api.relay.port
    bob.stop()
    api.scene.agent.stop(code=1 if api.scene.agent.process.poll() else 0)
    api.relay.stop()
    api.relay = world.relay(port=port)
    assert api.relay.fetch("/t/home/", api.scene.token).status == 401
    # … and until it is taken back.
    api.ask("DELETE", f"{API}/revocations/{revoked['id']}", status=204)
    assert api.relay.fetch("/t/home/", api.scene.token).status in (404, 503)
    api.ask("DELETE", f"{API}/revocations/{revoked['id']}", status=404)


def test_requests_under_way_end_with_their_token(world):
    api = Api(world, routes={"/slow/30": slow})
    with Client(api.relay.port, timeout=20) as client:
        client.request("GET", "/t/home/slow/30", api.scene.token)
        wait_for(lambda: api.scene.service.requests, 10, "the request at the service")
        api.ask("POST", f"{API}/revocations", body={"sub": "alice"}, status=201)
        assert client.response().status in (401, 502, 503)


def test_a_fresh_token_is_good_after_a_revocation_of_the_old(api):
    api.ask("POST", f"{API}/revocations", body={"sub": "bob", "issued_before":
                                                int(time.time()) - 100}, status=201)
    assert api.relay.fetch(f"{API}/tunnels", api.world.token("bob")).status == 200


@pytest.mark.parametrize("body", [
    {}, {"sub": ""}, {"sub": 3}, {"jti": "a", "sub": "b"}, {"sub": "x" * 256},
    {"sub": "a\nb"}, {"jti": "a", "issued_before": 5}, {"sub": "a", "issued_before": "now"},
    {"sub": "a", "issued_before": -1}, {"sub": "a", "expires_at": 5}, {"sub": "a", "more": 1},
    {"sub": "a", "reason": "x" * 300}, {"sub": "a", "reason": "\x07"},
    {"sub": "a", "issued_before": 1 << 62},
])
def test_bad_revocations(api, body):
    api.ask("POST", f"{API}/revocations", body=body, status=422)
    assert api.ask("GET", f"{API}/revocations")["revocations"] == []


def test_a_file_of_revocations_that_cannot_be_read_ends_the_start(world):
    relay = world.relay()
    port = relay.port
    relay.stop()
    path = world.state / f"revocations-127.0.0.1:{port}.json"
    path.write_text('[{"sub":')
    path.chmod(0o600)
    relay = world.relay(port=port, ready=False)
    relay.expect_error("revoked tokens would hold again")
    assert relay.wait() == 1
    relay.stopped = True
