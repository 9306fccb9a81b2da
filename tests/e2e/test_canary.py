# SPDX-License-Identifier: MIT
"""Whether the service behind a tunnel is up: found out by requests, and by canaries where there are
none; told by the relay's API and health page and by `culvert status`."""
import json
import threading
import time

import pytest
from client import Client
from culvert import wait_for
from scene import Scene
from test_admin_api import API, Api

OFTEN = {"CULVERT_CANARY_INTERVAL": "400ms"}
AGENT = "culvert-canary/"


def canaries(service):
    return [r for r in service.requests if r.get("User-Agent", "").startswith(AGENT)]


def tunnel(api, name="home"):
    return next(t for t in api.ask("GET", f"{API}/tunnels")["tunnels"] if t["name"] == name)


def wait_state(api, state, name="home", timeout=20):
    def look():
        found = tunnel(api, name)
        return found if found["state"] == state else None
    return wait_for(look, timeout, f"state {state}")


def wait_looks(api, count):
    """That many canaries have found out something: each makes the age of what was seen drop."""
    ages = []

    def look():
        ages.append(tunnel(api)["seen"]["age_ms"])
        return sum(b < a for a, b in zip(ages, ages[1:], strict=False)) >= count
    wait_for(look, 30, "canaries", interval=0.02)


def agent_says(world):
    agents = json.loads(world.run("status", "--json").stdout)["agents"]
    return {t["name"]: t["health"] for a in agents for t in a["tunnels"]}


def held(conn, request):
    conn.wait_gone(30)
    return False


class Switch:
    """A route that can be changed while the service runs."""

    def __init__(self):
        self.route = None

    def __call__(self, conn, request):
        if self.route:
            return self.route(conn, request)
        conn.reply(200, b"ok")
        return None


def test_up_down_and_up_again(world):
    api = Api(world, relay_env=OFTEN)
    seen = wait_state(api, "active")["seen"]
    assert seen["by"] == "canary" and seen["code"] is None and seen["latency_ms"] < 20000
    first = canaries(api.scene.service)[0]
    assert (first.method, first.target) == ("HEAD", "/") and first.get("Connection") == "close"
    assert not first.get("X-Forwarded-For") and not first.get("Authorization")
    assert wait_for(lambda: agent_says(world) == {"home": "active"}, 10, "the agent's word")
    assert "the service answers" in world.run("status").stdout
    port = api.scene.service.port
    api.scene.service.close()
    world.services.remove(api.scene.service)
    assert wait_state(api, "service_down")["seen"]["code"] == "TUNNEL_013"
    assert api.relay.wait_log("tunnel_health", state="service_down")["tunnel"] == "home"
    wait_for(lambda: agent_says(world) == {"home": "service_down"}, 10, "the agent's word")
    assert "THE SERVICE IS DOWN" in world.run("status").stdout
    assert api.scene.agent.wait_log("service_health", state="service_down")["level"] == "warn"
    services = api.relay.fetch("/health").json()["parts"]["services"]
    wait_for(lambda: api.relay.fetch("/health").json()["parts"]["services"]["service_down"] == 1,
             10, "the page")
    assert set(services) == {"unknown", "active", "service_slow", "service_down", "agent_offline"}
    world.service(port=port)
    wait_state(api, "active")


def test_slow_and_loading(world):
    switch = Switch()
    api = Api(world, routes={"/": switch}, relay_env={
        **OFTEN, "CULVERT_CANARY_SLOW": "1s", "CULVERT_CANARY_TIMEOUT": "2500ms"})
    wait_state(api, "active")
    switch.route = lambda conn, request: (time.sleep(1.3), conn.reply(200, b""))[1]
    assert wait_state(api, "service_slow")["seen"]["latency_ms"] >= 1000
    switch.route = lambda conn, request: conn.reply(503, b"loading model")
    wait_for(lambda: (t := tunnel(api))["state"] == "service_slow" and
             t["seen"]["latency_ms"] < 900, 20, "a service that says it is loading")
    switch.route = held
    wait_for(lambda: tunnel(api)["seen"]["code"] == "TUNNEL_007", 20, "a service that says nothing")
    assert tunnel(api)["state"] == "service_slow"
    switch.route = None
    wait_state(api, "active")


def nonsense(conn, request):
    conn.send(b"SSH-2.0-nonsense\r\n")
    return False


def closes(conn, request):
    return False


@pytest.mark.parametrize("route", [nonsense, closes], ids=["nonsense", "closes"])
def test_what_is_no_answer(world, route):
    api = Api(world, routes={"/": route}, relay_env=OFTEN)
    assert wait_state(api, "service_down")["seen"]["code"] == "TUNNEL_027"


def test_an_agent_that_is_gone(world):
    api = Api(world, relay_env=OFTEN)
    wait_state(api, "active")
    api.scene.agent.kill()
    found = wait_state(api, "agent_offline")
    assert found["links"][0]["state"] == "detached"


@pytest.mark.parametrize("args, yaml, want", [
    (["--preset", "ollama"], None, ("GET", "/api/tags")),
    (["--preset", "openai"], None, ("GET", "/v1/models")),
    ([], "canary: /healthz?deep=1", ("GET", "/healthz?deep=1")),
    ([], "canary: /secret\n    allow: [GET /other]", None),
    ([], "canary: connect", None),
    ([], "kind: tcp", None),
], ids=range(6))
def test_what_is_asked(world, args, yaml, want):
    service = world.service()
    relay = world.relay(env=OFTEN)
    if yaml:
        path = world.write("agent.yaml", f"server: {relay.url}\ntunnels:\n  - name: home\n    "
                                         f"target: 127.0.0.1:{service.port}\n    {yaml}\n")
        agent = world.start("agent", "agent", "-c", path,
                            env={"CULVERT_TOKEN": world.token("alice")})
        agent.wait_log("tunnel_published")
    else:
        world.http(relay, service.port, *args)
    token = world.token("alice")

    def state():
        return relay.fetch(f"{API}/tunnels", token).json()["tunnels"][0]["state"]
    wait_for(lambda: state() == "active", 20, "an active tunnel")
    assert {(r.method, r.target) for r in service.requests} == ({want} if want else set())


def test_off(world):
    service = world.service()
    relay = world.relay(env=OFTEN)
    path = world.write("agent.yaml", f"server: {relay.url}\ntunnels:\n"
                       f"  - {{name: quiet, target: '{service.port}', canary: 'off'}}\n"
                       f"  - {{name: loud, target: '{service.port}', canary: /loud}}\n")
    agent = world.start("agent", "agent", "-c", path, env={"CULVERT_TOKEN": world.token("alice")})
    agent.wait_log("tunnel_published", tunnel="loud")
    wait_for(lambda: len(service.requests) >= 3, 20, "canaries")
    assert {r.path for r in service.requests} == {"/loud"}
    tunnels = relay.fetch(f"{API}/tunnels", world.token("alice")).json()["tunnels"]
    assert {t["name"]: t["state"] for t in tunnels} == {"quiet": "unknown", "loud": "active"}


def test_a_bad_setting_of_a_tunnel_is_refused(world):
    service, relay = world.service(), world.relay()
    path = world.write("agent.yaml", f"server: {relay.url}\ntunnels:\n  - name: home\n    "
                                     f"target: '{service.port}'\n    canary: \"/a b\"\n")
    agent = world.start("agent", "agent", "-c", path, env={"CULVERT_TOKEN": world.token("alice")})
    agent.expect_error("canary is auto, connect, off or a path")
    agent.wait_log(text="canary is auto, connect, off or a path")


def test_without_canaries_requests_tell(home):
    def state():
        return home.relay.fetch(f"{API}/tunnels", home.token).json()["tunnels"][0]
    assert state()["state"] == "unknown" and state()["seen"] is None
    assert "nobody has seen its service yet" in home.world.run("status").stdout
    assert home.fetch("/x").status == 200
    assert state()["state"] == "active" and state()["seen"]["by"] == "request"
    home.service.close()
    home.world.services.remove(home.service)
    wait_for(lambda: home.fetch("/x").status == 502, 10, "502")
    assert state()["state"] == "service_down"


def test_traffic_needs_no_canary(world):
    scene = Scene(world, relay_env={"CULVERT_CANARY_INTERVAL": "6s"})

    def ask_for(seconds):
        ends = time.monotonic() + seconds
        with Client(scene.relay.port) as client:
            while time.monotonic() < ends:
                client.request("GET", "/t/home/", scene.token)
                assert client.response().status == 200
                time.sleep(0.02)
    ask_for(2)  # the first canary may have been faster
    before = len(canaries(scene.service))
    ask_for(6)
    assert len(canaries(scene.service)) == before


def test_canaries_count_for_nothing(world):
    api = Api(world, relay_env={**OFTEN, "CB_FAILURE_THRESHOLD": "2"})
    wait_state(api, "active")
    for key in ("requests", "streams", "links"):
        assert api.relay.fetch("/api/tunnel/diagnostics", api.admin).json()[key] == (key == "links")
    api.scene.service.close()
    world.services.remove(api.scene.service)
    wait_state(api, "service_down")
    port = api.scene.service.port
    wait_looks(api, 3)  # more failures than the breaker takes, were they any
    shown = api.ask("GET", f"{API}/breakers")["breakers"]
    assert all(b["state"] == "closed" and b["count"] == 0 for b in shown)
    world.service(port=port)
    wait_state(api, "active")
    assert api.scene.fetch("/").status == 200
    assert api.ask("GET", f"{API}/usage")["total"]["requests"] == 1


def test_a_canary_that_hangs_holds_nobody_up(world):
    api = Api(world, routes={"/": held, "/fast": lambda conn, request: conn.reply(200, b"x")},
              relay_env=OFTEN)
    wait_for(lambda: canaries(api.scene.service), 20, "a canary that hangs")
    threads = [threading.Thread(target=api.scene.fetch, args=("/fast",)) for _ in range(20)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 9, "less than a canary may take"
    assert tunnel(api)["state"] in ("active", "service_slow")


def test_a_tunnel_of_one_at_a_time_is_not_held_by_a_canary(world):
    service = world.service({"/": held, "/fast": lambda conn, request: conn.reply(200, b"x")})
    relay = world.relay(env={**OFTEN, "CULVERT_CANARY_TIMEOUT": "60s"})
    path = world.write("agent.yaml", f"server: {relay.url}\ntunnels:\n  - name: home\n    "
                                     f"target: '{service.port}'\n    concurrency: 1\n")
    agent = world.start("agent", "agent", "-c", path, env={"CULVERT_TOKEN": world.token("alice")})
    agent.wait_log("tunnel_published")
    wait_for(lambda: canaries(service), 20, "a canary that hangs")
    assert relay.fetch("/t/home/fast", world.token("alice"), timeout=30).status == 200


def test_links_and_relays_end_in_the_middle_of_a_canary(world):
    scene = Scene(world, routes={"/": held}, relay_env={**OFTEN, "CULVERT_CANARY_TIMEOUT": "60s"})
    wait_for(lambda: canaries(scene.service), 20, "a canary that hangs")
    scene.agent.stop()
    world.http(scene.relay, scene.service.port)
    seen = len(canaries(scene.service))
    wait_for(lambda: len(canaries(scene.service)) > seen, 20, "another one")
    scene.relay.stop()
