# SPDX-License-Identifier: MIT
"""Tunnels that their owner shares: who is let in, by subject, group or without a token; what who is
not let in can find out (nothing); on whose account a request counts; when it ends."""
import json
import threading

import pytest
from client import Client
from culvert import wait_for
from scene import Scene
from test_audit import path_of, wait_record

PUBLIC = {"CULVERT_SHARING": "public"}
EVERYTHING = {"CULVERT_AUDIT_EVENTS": "link,auth,forward,limit,admin"}
# The request's id has no fixed length.
VARYING = {"x-request-id", "content-length", "date", "ratelimit", "x-ratelimit-remaining",
           "x-ratelimit-reset"}


class Shared(Scene):
    """Alice's `home` with what she shares it with."""

    def __init__(self, world, *share, routes=None, **kw):
        args = [word for who in share for word in (
            ("--public",) if who == "public" else ("--share", who))]
        super().__init__(world, agent_args=args, routes=routes, **kw)

    def ask(self, who, target="/t/alice~home/x", **kw):
        token = self.world.token(who) if isinstance(who, str) else who and self.world.token(*who)
        return self.relay.fetch(target, token, **kw)


def sight(response):
    """All of an answer that does not change from one request to the next."""
    body = response.body
    if body.startswith(b"{"):
        body = json.dumps({k: v for k, v in json.loads(body).items() if k != "request_id"})
    return (response.status, response.reason,
            [(n, v) for n, v in response.headers if n.lower() not in VARYING], body)


# -- who is let in ---------------------------------------------------------------------------------

def test_users_whom_the_owner_names_are_let_in(world):
    home = Shared(world, "bob,sub:carol")
    assert home.ask("bob").status == 200
    assert home.ask("carol").status == 200
    assert home.ask("alice").status == 200  # the long way to one's own
    assert home.ask("alice", "/t/home/x").status == 200
    assert home.service.requests[0].target == "/x"
    record = home.agent.wait_log("tunnel_shared")
    assert record["path"] == "/t/alice~home/"


def test_whoever_is_not_named_sees_a_tunnel_that_does_not_exist(world):
    home = Shared(world, "bob,group:lab")
    world.http(home.relay, home.service.port, name="own")
    for token in ("mallory", ("dave", "--group", "other"), ("erin", "--group", "bob"),
                  ("group:lab",), ("Bob",), ("bob ",)):
        absent = sight(home.ask(token, "/t/alice~gone/x"))
        assert absent[0] == 404
        for path in ("/t/alice~home/x", "/t/alice~own/x", "/t/nobody~home/x", "/t/alice%00~home/x",
                     "/t/alice~home", "/t/ALICE~home/x"):
            assert sight(home.ask(token, path)) == absent, (token, path)
    assert home.ask("bob", "/t/home/x").status == 404  # his own, which he has not
    assert not home.service.requests


def test_groups_come_from_the_token(world):
    home = Shared(world, "group:lab,group:two words")
    assert home.ask(("bob", "--group", "lab")).status == 200
    assert home.ask(("carol", "--group", "x", "--group", "two words")).status == 200
    assert home.ask(("lab",)).status == 404
    assert home.ask(("dave", "--group", "la", "--group", "labs")).status == 404


def test_a_token_for_some_tunnels_is_for_ones_own(world):
    home = Shared(world, "bob")
    limited = ("bob", "--tunnel", "home")
    assert home.ask(limited).status == 403
    assert home.ask(limited, "/t/nobody~gone/").status == 403
    assert home.ask(("alice", "--tunnel", "home")).status == 200
    assert home.ask(("alice", "--tunnel", "other")).status == 403


@pytest.mark.parametrize(("subject", "written"), [
    ("auth0|12/3", ["auth0%7C12%2F3", "auth0%7c12%2f3"]), ("a~b", ["a%7Eb", "a~b"]),
    ("al@ex.org", ["al@ex.org", "al%40ex.org"]), ("\u00e4 %2F", ["%C3%A4%20%252F"])])
def test_any_subject_can_be_an_owner(world, subject, written):
    routes = {"/x": lambda conn, request: conn.reply(302, headers=[
        ("Location", "/y"), ("Set-Cookie", "a=b; Path=/")])}
    service = world.service(routes)
    relay = world.relay()
    agent = world.http(relay, service.port, "--share", "bob", sub=subject)
    assert agent.wait_log("tunnel_shared")["path"] == f"/t/{written[0]}~home/"
    for owner in written:
        response = relay.fetch(f"/t/{owner}~home/x", world.token("bob"))
        assert response.status == 302
        assert response.get("Location") == f"/t/{owner}~home/y"
        assert response.get("Set-Cookie") == f"a=b; Path=/t/{owner}~home/"
        slash = relay.fetch(f"/t/{owner}~home", world.token("bob"))
        assert (slash.status, slash.get("Location")) == (308, f"/t/{owner}~home/")
    for owner in ("a;Domain=x", "a|b", "%zz", ""):
        assert relay.fetch(f"/t/{owner}~home/x", world.token("bob")).status in (400, 404)


def test_rules_hold_for_guests(world):
    home = Scene(world)
    world.start("agent:ruled", "agent", "-c", world.write("agent.yaml", f"""
server: {home.relay.url}
tunnels:
  - {{name: ruled, target: {home.service.port}, allow: ["GET /v1/*"], share: [bob, "group:g"]}}
"""), env={"CULVERT_TOKEN": home.token}).wait_log("tunnel_published")
    bob = world.token("bob")
    assert home.relay.fetch("/t/alice~ruled/v1/x", bob).status == 200
    for target in ("/", "/v2", "/v1/../x"):
        assert home.relay.fetch(f"/t/alice~ruled{target}", bob).status == 403
    assert home.relay.fetch("/t/alice~ruled/v1/x", bob, "POST", body=b"").status == 403


# -- anybody ---------------------------------------------------------------------------------------

def test_a_public_tunnel_needs_no_token(world):
    home = Shared(world, "public", relay_env={**PUBLIC, **EVERYTHING})
    assert home.ask(None).status == 200
    assert home.ask("mallory").status == 200
    basic = home.ask(None, headers=[("Authorization", "Basic eDp5")])
    assert basic.status == 200
    assert home.service.requests[-1].get("Authorization") == "Basic eDp5"
    assert home.ask(None, headers=[("Authorization", "Bearer a.b.c")]).status == 401
    assert home.ask(None, "/t/home/x").status == 401
    forward = wait_record(path_of(world, home.relay), "forward", userId="(anonymous)")
    assert (forward["owner"], forward["tunnel"]) == ("alice", "home")


def test_without_a_token_nothing_is_seen_that_is_not_public(world):
    home = Shared(world, "bob", relay_env=PUBLIC)
    absent = sight(home.ask(None, "/t/alice~gone/x"))
    assert absent[0] == 401
    assert sight(home.ask(None)) == absent
    assert sight(home.ask(None, "/t/nobody~home/x")) == absent
    assert sight(home.ask(None, "/t/home/x")) == absent


def test_public_is_refused_where_the_operator_does_not_permit_it(world):
    service = world.service()
    relay = world.relay()
    agent = world.http(relay, service.port, "--public", ready=False)
    refused = agent.wait_log("tunnel_refused")
    assert "no public tunnels" in json.dumps(refused)
    assert relay.fetch("/t/home/x", world.token("alice")).status == 404
    assert not relay.find("tunnel_published")  # nor without its rules, for a moment
    agent.expect_error("gave_up")
    assert agent.wait(20) == 3
    agent.stop(code=3)


def test_sharing_is_switched_off_while_it_runs(world):
    home = Shared(world, "bob", "public", relay_env=PUBLIC)
    root = world.token("root", "--admin")
    steps = [("public", 200, 200), ("users", 200, 401), ("none", 404, 401), ("public", 200, 200)]
    for sharing, bob, nobody in steps:
        assert home.relay.fetch("/api/tunnel/config", root, "PATCH",
                                body=json.dumps({"sharing": sharing}).encode()).status == 200
        assert (home.ask("bob").status, home.ask(None).status) == (bob, nobody)
    assert home.ask("alice").status == 200


# -- apart -----------------------------------------------------------------------------------------

def test_no_connection_of_the_service_is_shared(world):
    home = Shared(world, "bob", "public", relay_env=PUBLIC, routes={
        "/who": lambda conn, request: conn.reply(200, b"%d" % id(conn))})
    def serve(who):
        return home.ask(who, "/t/alice~home/who").body
    first = {who: serve(who) for who in ("alice", "bob", None)}
    assert len(set(first.values())) == 3
    for who, conn in first.items():
        assert serve(who) == conn  # its own again


def test_a_guest_sees_nothing_of_the_owner_in_the_api(world):
    home = Shared(world, "bob")
    assert home.ask("bob").status == 200
    bob = world.token("bob")
    def ask(what, token, method="GET"):
        return home.relay.fetch(f"/api/tunnel/{what}", token, method)
    assert ask("tunnels", bob).json()["tunnels"] == []
    assert ask("breakers", bob).json()["breakers"] == []
    assert ask("queue", bob).json()["waiting"] == []
    own = ask("tunnels", home.token).json()["tunnels"][0]
    assert (own["share"], own["public"]) == (["bob"], False)
    assert ask(f"links/{own['links'][0]['id']}", bob, "DELETE").status == 404
    breaker = ask("breakers", home.token).json()["breakers"][0]["id"]
    assert ask(f"breakers/{breaker}", bob, "DELETE").status == 404
    for page in ("config", "diagnostics", "revocations"):
        assert ask(page, bob).status == 403


def test_requests_count_for_who_asks(world):
    home = Shared(world, "bob", "public",
                  relay_env={**PUBLIC, **EVERYTHING, "RATE_LIMIT_FREE_RPM": "5"})
    statuses = [home.ask("bob").status for _ in range(7)]
    assert statuses[:5] == [200] * 5 and statuses[-1] == 429
    assert home.ask("alice").status == 200
    nobody = [home.ask(None) for _ in range(7)]
    assert [r.status for r in nobody][:5] == [200] * 5 and nobody[-1].status == 429
    assert nobody[0].get("RateLimit").startswith('"address";')
    assert home.ask("alice").status == 200
    forward = wait_record(path_of(world, home.relay), "forward", userId="bob")
    assert (forward["owner"], forward["tunnel"]) == ("alice", "home")
    own = wait_record(path_of(world, home.relay), "forward", userId="alice")
    assert "owner" not in own
    publish = wait_record(path_of(world, home.relay), "publish", tunnel="home")
    assert publish["shared"] == "public"


# -- the end ---------------------------------------------------------------------------------------

def stream_for_ever(conn, request):
    conn.start_chunked("text/event-stream")
    while True:
        conn.chunk(b"data: x\n\n")
        threading.Event().wait(0.05)


def test_a_guest_whose_token_is_revoked_is_out_at_once(world):
    home = Shared(world, "bob", routes={"/stream": stream_for_ever})
    with Client(home.relay.port) as client:
        client.request("GET", "/t/alice~home/stream", world.token("bob"))
        client.wait_bytes()
        root = world.token("root", "--admin")
        done = home.relay.fetch("/api/tunnel/revocations", root, "POST", body=b'{"sub":"bob"}')
        assert done.status == 201
        assert not client.response().is_complete
    assert home.ask("bob").status == 401
    assert home.ask("alice", "/t/home/x").status == 200


def test_guests_are_told_that_the_agent_is_away_and_strangers_nothing(world):
    home = Shared(world, "bob")
    home.agent.stop()
    wait_for(lambda: home.ask("bob").status == 503, 10, "agent offline")
    assert home.ask("bob").json()["code"] == home.ask("alice").json()["code"]
    assert home.ask("mallory").status == 404


def test_an_owner_who_thinks_better_of_it(world):
    home = Shared(world, "bob")
    assert home.ask("bob").status == 200
    home.agent.stop()
    world.http(home.relay, home.service.port)
    assert home.ask("bob").status == 404
    assert home.ask("alice").status == 200


def test_what_cannot_be_shared_is_told_before_it_is_tried(world):
    relay = world.relay()
    for tunnel in ('{name: t, kind: tcp, target: 1, share: [bob]}',
                   '{name: t, target: 1, share: [' + ",".join(["bob"] * 65) + ']}'):
        path = world.write("bad.yaml", f"server: {relay.url}\ntunnels: [{tunnel}]\n")
        done = world.run("config", "check", "-c", path, check=1)
        assert "share" in done.stdout + done.stderr
