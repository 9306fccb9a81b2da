# SPDX-License-Identifier: MIT
"""How much a user, an address and everybody together may ask, and what the answers say about it."""
import re
import select
import time

import pytest
from attack import UPGRADE
from chaos import Chaos
from client import Client
from culvert import wait_for

OFF = {"RATE_LIMIT_IP_RPM": "0", "RATE_LIMIT_FREE_RPM": "0"}


def limited(scene, config=None, **env):
    return scene(relay_env={**OFF, **env}, config=config)


def take(home, count, target="/x", token=None, **kw):
    return [home.relay.fetch(f"/t/home{target}", token or home.token, **kw) for _ in range(count)]


def statuses(answers):
    return [a.status for a in answers]


def test_a_user_of_the_free_tier_has_a_hundred_a_minute(scene):
    home = scene(relay_env={"RATE_LIMIT_FREE_RPM": None, "RATE_LIMIT_IP_RPM": None})
    with home.client() as client:
        answers = []
        for _ in range(110):
            client.request("GET", "/t/home/x", home.token)
            answers.append(client.response())
    assert statuses(answers)[:100] == [200] * 100
    assert statuses(answers).count(429) >= 5  # a token flows in every 0.6 s
    first, last = answers[0], answers[-1]
    assert first.get("RateLimit-Policy") == '"user";q=100;w=60'
    assert first.get("RateLimit") == '"user";r=99;t=1'
    assert first.get("X-RateLimit-Limit") == "100"
    assert first.get("X-RateLimit-Remaining") == "99"
    assert abs(int(first.get("X-RateLimit-Reset")) - time.time()) < 10
    assert last.json()["code"] == "TUNNEL_005" and last.json()["hop"] == "relay"
    assert last.get("RateLimit").startswith('"user";r=0;t=')
    assert last.get("Retry-After") == "1"
    assert first.get("Retry-After") is None


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_share_what_a_user_has(scene, workers):
    home = limited(scene, RATE_LIMIT_FREE_RPM="40")
    answers = take(home, 60)
    assert 40 <= statuses(answers).count(200) <= 45
    other = home.world.token("bob")
    assert home.relay.fetch("/t/home/x", other).status == 404


def test_what_is_refused_does_not_reach_the_service_and_time_heals(scene):
    home = limited(scene, RATE_LIMIT_FREE_RPM="30")
    answers = take(home, 31)
    assert statuses(answers) == [200] * 30 + [429]
    seen = len(home.service.requests)
    assert seen == 30
    assert 1 <= int(answers[-1].get("Retry-After")) <= 2
    wait_for(lambda: take(home, 1)[0].status == 200, 10, "a token", interval=0.3)


TIERS = """
limits:
  default_tier: slow
tiers:
  - {name: slow, requests_per_minute: 10}
  - {name: bursty, requests_per_minute: 600, burst: 5}
  - {name: open, requests_per_minute: 0}
"""


def test_any_number_of_tiers_comes_from_the_configuration(scene):
    home = limited(scene, config=TIERS)
    world = home.world
    assert statuses(take(home, 20, token=world.token("a", "--tier", "open"))) == [404] * 20
    # free has no limit in this environment.
    assert statuses(take(home, 11, token=world.token("b"))).count(429) == 0
    nobody = take(home, 11, token=world.token("c", "--tier", "unheard-of"))
    assert statuses(nobody) == [404] * 10 + [429]
    assert nobody[0].get("RateLimit-Policy") == '"user";q=10;w=60'
    with home.client() as client:
        answers = []
        for _ in range(30):
            client.request("GET", "/t/home/x", world.token("d", "--tier", "bursty"))
            answers.append(client.response())
    assert 5 <= statuses(answers).count(404) <= 15 and 429 in statuses(answers)
    assert answers[0].get("RateLimit-Policy") == '"user";q=5;w=1'


def test_tiers_that_make_no_sense_are_refused(world):
    for config, word in [("tiers: [{name: Gold}]", "a-z"),
                         ("tiers: [{name: x}, {name: x}]", "twice"),
                         ("tiers: [{links: 2}]", "name"),
                         ("limits: {default_tier: gold}", "default_tier")]:
        path = world.write("c.yaml", "listen: 127.0.0.1:1\n" + config)
        done = world.run("config", "check", "-c", path)
        assert done.returncode != 0 and word in done.stdout + done.stderr, config


def test_an_address_has_its_own_limit_over_all_users(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="50")
    users = [home.world.token(f"u{n}") for n in range(5)]
    answers = [home.relay.fetch("/t/home/x", users[n % 5]) for n in range(60)]
    assert 8 <= statuses(answers).count(429) <= 10
    assert answers[-1].json()["detail"] == "too many requests from this address"
    assert answers[-1].get("RateLimit-Policy") == '"address";q=50;w=60'
    # Another one is not touched, and neither are probes.
    with Client(home.relay.port, source="127.0.0.2") as client:
        client.request("GET", "/t/home/x", home.token)
        assert client.response().status == 200
    assert home.relay.fetch("/livez").status == 200


def test_the_whole_relay_has_a_limit(scene):
    home = limited(scene, RATE_LIMIT_GLOBAL_RPM="600", RATE_LIMIT_GLOBAL_BURST="10")
    with home.client() as client:
        answers = []
        for _ in range(40):
            client.request("GET", "/t/home/x", home.token)
            answers.append(client.response())
    assert 429 in statuses(answers) and statuses(answers)[:10] == [200] * 10
    refused = next(a for a in answers if a.status == 429)
    assert refused.get("RateLimit-Policy") == '"relay";q=10;w=1'


def test_the_services_own_numbers_stay(scene):
    def route(conn, request):
        conn.read_body(request)
        conn.reply(body=b"x", headers=[("X-RateLimit-Limit", "7"), ("RateLimit", '"model";r=3')])
        return True
    home = limited(scene, RATE_LIMIT_FREE_RPM="100")
    home.service.routes["/x"] = route
    answer = take(home, 1)[0]
    assert answer.all("X-RateLimit-Limit") == ["7"]
    assert sorted(v.split(";")[0] for v in answer.all("RateLimit")) == ['"model"', '"user"']


def upgrade_status(home, number=0, token=None, source="127.0.0.1"):
    with Client(home.relay.port, source=source) as client:
        client.request("GET", "/tunnel", token or home.token, headers=[
            *UPGRADE, ("Sec-WebSocket-Protocol", "ssh")])
        return client.head().status


def test_upgrades_are_counted_apart(scene):
    home = limited(scene, config="limits: {ip: {upgrades_per_minute: 12}}\n",
                   RATE_LIMIT_IP_RPM="1000")
    got = [upgrade_status(home) for _ in range(16)]
    assert got[:11] == [101] * 11 and 429 in got[11:]  # the agent's own was the first
    assert take(home, 1)[0].status == 200
    assert upgrade_status(home, source="127.0.0.3") == 101


CLAIM = {"Culvert-Link": "a" * 32, "Culvert-Resume": "1", "Culvert-Nonce": "b" * 64,
         "Culvert-Received": "0", "Culvert-Proof": "c" * 64}


@pytest.mark.parametrize("fault,first", [("unknown", 410), ("unreadable", 400), ("token", 401),
                                         ("no token", 401), ("protocol", 403)])
def test_calling_it_a_resume_takes_no_upgrade_out_of_the_count(scene, fault, first):
    home = limited(scene, config="limits: {ip: {upgrades_per_minute: 12}}\n",
                   RATE_LIMIT_IP_RPM="1000")
    claim = {**CLAIM, "Culvert-Proof": "zz"} if fault == "unreadable" else CLAIM
    token = {"token": "x.y.z", "no token": None}.get(fault, home.token)
    protocol = "nonsense" if fault == "protocol" else "culvert.v1"
    got = []
    for _ in range(16):
        with home.client() as client:
            client.request("GET", "/tunnel", token, headers=[
                *UPGRADE, ("Sec-WebSocket-Protocol", protocol), *claim.items()])
            got.append(client.head().status)
    assert got[:6] == [first] * 6 and 429 in got[6:], got
    assert take(home, 1)[0].status == 200


def test_a_link_that_is_taken_up_without_end_counts_like_new_ones(scene):
    """A token and a link of one's own are no way around the limit of upgrades: each resume costs
    the relay a handshake, a line in the log and a socket that lingers."""
    home = limited(scene, config="limits: {ip: {upgrades_per_minute: 10}}\n",
                   RATE_LIMIT_IP_RPM="100000")
    chaos = Chaos(home.relay.port)
    home.world.cleanups.append(chaos.close)
    agent = home.world.http(home.relay, home.service.port, name="restless", url=chaos.url)
    for n in range(200):
        chaos.cut()
        wait_for(lambda n=n: len(agent.find("link_resumed")) > n or agent.find("resume_failed"),
                 10, "the link to be back")
        if agent.find("resume_failed"):
            break
    assert 60 <= len(agent.find("link_resumed")) <= 90
    assert "429" in str(agent.find("resume_failed")[0])
    # It goes on at the rate that is granted, and nobody else has noticed.
    assert take(home, 1)[0].status == 200
    wait_for(lambda: home.relay.fetch("/t/restless/x", home.token).status == 200, 30,
             "the link once more")


def test_a_users_upgrades_are_counted_apart(scene):
    home = limited(scene, RATE_LIMIT_FREE_RPM="6")
    got = [upgrade_status(home, source=f"127.0.1.{n}") for n in range(8)]
    assert got.count(429) >= 2
    assert statuses(take(home, 6)) == [200] * 6


def test_links_are_what_the_tier_grants(world):
    relay = world.relay(env={"RATE_LIMIT_FREE_CONN": "1", "RATE_LIMIT_PREMIUM_CONN": "2"})
    service = world.service()
    world.http(relay, service.port, name="a", sub="alice")
    second = world.http(relay, service.port, name="b", sub="alice", ready=False)
    second.expect_error("too many links")
    assert second.wait() == 3
    second.stop(3)
    premium = world.token("bob", "--tier", "premium")
    for name in ("a", "b"):
        world.http(relay, service.port, name=name, sub="bob", token=premium)


# ---- failures ----

def bad(home, source="127.0.0.1"):
    begin = time.monotonic()
    with Client(home.relay.port, source=source) as client:
        client.request("GET", "/t/home/x", home.token[:-6] + "AAAAAA")
        answer = client.response()
    assert answer.status == 401
    return time.monotonic() - begin


def test_failed_authentications_are_slowed_and_nobody_else(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="100000", CULVERT_LIMITS_AUTH_PENALTY="400ms")
    quick = [bad(home) for _ in range(10)]
    slow = [bad(home) for _ in range(4)]
    # The loop counts whole milliseconds, from when it woke.
    assert slow[0] >= 0.095 and slow[1] >= 0.195 and slow[2] >= 0.395 and slow[3] >= 0.395
    assert max(quick) < 3
    home.relay.wait_log("auth_slowed")
    # A good token from there, and a bad one from elsewhere, are answered as ever.
    begin = time.monotonic()
    assert take(home, 1)[0].status == 200
    assert min(bad(home, "127.0.0.4") for _ in range(3)) < slow[3]
    assert time.monotonic() - begin < 5


def test_a_missing_token_is_no_failure(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="100000")
    for _ in range(30):
        assert home.relay.fetch("/t/home/x").status == 401
    assert not home.relay.find("auth_slowed")


def test_who_leaves_while_its_answer_is_held_back_leaves_nothing(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="100000",
                   config="limits: {auth_penalty: 60s, ip: {auth_failures_per_minute: 1}}\n")
    held = []
    for _ in range(12):
        client = home.client()
        client.request("POST", "/t/home/x", home.token[:-6] + "AAAAAA", body=b"x" * 1000)
        held.append(client)
    home.relay.wait_log("auth_slowed")
    for client in held:
        client.close()
    admin = home.world.token("root", "--admin")
    wait_for(lambda: home.relay.fetch("/api/tunnel/diagnostics", admin).json()["connections"] <= 1,
             10, "end of the connections")


# ---- connections ----

def test_connections_of_an_address_are_capped(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="100000", config="limits: {ip: {connections: 8}}\n")
    held = []
    for _ in range(7):  # and the agent's
        client = Client(home.relay.port)
        client.request("GET", "/livez")
        assert client.response().status == 200
        held.append(client)
    more = Client(home.relay.port)
    assert more.is_closed(5)
    assert upgrade_status(home, source="127.0.0.9") == 101
    held.pop().close()
    wait_for(lambda: answers(home), 10, "room for one more")


def answers(home):
    try:
        return home.relay.fetch("/livez").status == 200
    except (AssertionError, OSError):
        return False


def test_half_open_connections_are_capped(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="100000", config="limits: {ip: {half_open: 5}}\n")
    silent = [Client(home.relay.port) for _ in range(6)]  # workers take them in any order
    def closed():
        return [c for c in silent if select.select([c.sock], [], [], 0)[0]]
    wait_for(closed, 5, "one too many")
    assert len(closed()) == 1
    kept = next(c for c in silent if c not in closed())
    kept.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
    assert kept.response().status == 200
    wait_for(lambda: answers(home), 10, "room for one more")


# ---- behind a balancer ----

PROXY = "trusted_proxy: [127.0.0.1/32, 10.0.0.0/8]\n"


def ask_as(home, value, header="X-Forwarded-For", source="127.0.0.1"):
    with Client(home.relay.port, source=source) as client:
        headers = [(header, v) for v in ([value] if isinstance(value, str) else value)]
        client.request("GET", "/t/home/x", home.token, headers=headers)
        return client.response().status


@pytest.mark.parametrize("header,form", [("X-Forwarded-For", "{}"),
                                         ("Forwarded", 'for="{}";proto=https')])
def test_behind_a_balancer_the_client_is_whom_it_names(scene, header, form):
    home = limited(scene, RATE_LIMIT_IP_RPM="10",
                   config=PROXY + f"trusted_header: {header.lower()}\n")
    def ask(value):
        return ask_as(home, value, header)
    assert [ask(form.format("192.0.2.1")) for _ in range(11)] == [200] * 10 + [429]
    assert ask(form.format("192.0.2.2")) == 200
    # What stands in front of the first address that is no proxy is that client's own word.
    forged = form.format("203.0.113.7") + ", " + form.format("192.0.2.1")
    assert ask(forged) == 429
    assert ask([form.format("203.0.113.7"), form.format("192.0.2.1")]) == 429
    assert ask(form.format("192.0.2.1") + ", " + form.format("10.1.1.1")) == 429
    # A /64 is one subscriber.
    v6 = [ask(form.format(f"[2001:db8::{n:x}]")) for n in range(12)]
    assert v6[:10] == [200] * 10 and 429 in v6
    assert ask(form.format("[2001:db8:0:1::1]")) == 200


def test_strangers_cannot_say_who_they_are(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="10", config="trusted_proxy: [10.0.0.0/8]\n")
    got = [ask_as(home, f"192.0.2.{n}") for n in range(12)]
    assert 429 in got


def test_only_the_configured_header_counts(scene):
    home = limited(scene, RATE_LIMIT_IP_RPM="10", config=PROXY)
    for n in range(12):  # the balancer's own, without a client: not counted
        assert ask_as(home, f"for=192.0.2.{n}", "Forwarded") == 200
    with home.client() as client:
        got = []
        for n in range(12):
            client.request("GET", "/t/home/x", home.token, headers=[
                ("Forwarded", f"for=192.0.2.{n}"), ("X-Forwarded-For", "192.0.2.77")])
            got.append(client.response().status)
    assert got == [200] * 10 + [429] * 2


def test_a_flood_of_refusals_fills_no_log(scene):
    home = limited(scene, RATE_LIMIT_FREE_RPM="10")
    with home.client() as client:
        for _ in range(500):
            client.request("GET", "/t/home/x", home.token)
            client.response()
    lines = [r for r in home.relay.find("request_refused") if re.search("rate limit", str(r))]
    assert len(lines) < 100


# ---- bandwidth ----

def timed(home, token, size):
    begin = time.monotonic()
    assert len(home.relay.fetch(f"/t/home/{size}", token).body) == size
    return time.monotonic() - begin


def test_a_tier_may_have_a_bandwidth(scene):
    def bulk(conn, request):
        conn.read_body(request)
        conn.reply(body=b"x" * int(request.path.rpartition("/")[2]))
        return True
    home = limited(scene, config="ssh: {window: 64KiB}\n"
                                 "timers: {idle: 1s}\n"
                                 "tiers: [{name: thin, requests_per_minute: 0, bandwidth: 1MiB}]\n")
    home.service.default = bulk
    assert timed(home, home.world.token("alice", "--tier", "thin"), 4 << 20) > 2
    assert timed(home, home.token, 1 << 20) < 2


def test_a_tiers_bandwidth_is_for_uploads_too(scene):
    home = limited(scene, config="limits: {body_idle_timeout: 1s}\n"
                                 "timers: {first_byte: 1s}\n"
                                 "tiers: [{name: thin, requests_per_minute: 0, bandwidth: 1MiB}]\n")
    thin = home.world.token("alice", "--tier", "thin")
    body = bytes(range(256)) * (4 << 12)  # 4 MiB
    for token, is_slow in ((home.token, False), (thin, True)):
        begin = time.monotonic()
        answer = home.relay.fetch("/t/home/up", token, "POST", body=body)
        assert answer.status == 200
        assert home.service.requests[-1].body == body
        assert (time.monotonic() - begin > 2) == is_slow


# ---- PROXY protocol ----

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def announced(home, header, pieces=1):
    """The status of a request behind this header; None: the connection was closed."""
    with Client(home.relay.port) as client:
        step = -(-len(header) // pieces) or 1
        try:
            for at in range(0, len(header), step):
                client.send(header[at:at + step])
                time.sleep(0.05 if pieces > 1 else 0)
            client.request("GET", "/t/home/x", home.token)
        except ConnectionError:
            return None
        answer = client.response()
        return answer.status if answer else None


def v1(address):
    return f"PROXY TCP4 {address} 198.51.100.1 5000 443\r\n".encode()


def v2(last):
    return V2 + b"\x21\x11\0\x0c\xc0\0\2" + bytes([last]) + b"\xc6\x33\x64\1\x13\x88\1\xbb"


def test_a_balancer_announces_whose_connection_it_is(world):
    """Trusted is 127.0.0.1 alone: the agent comes from there too, and cannot say PROXY."""
    from types import SimpleNamespace
    relay = world.relay(env={"RATE_LIMIT_IP_RPM": "10"}, ready=False,
                        config="trusted_proxy: [127.0.0.1/32]\nproxy_protocol: true\n")
    home = SimpleNamespace(relay=relay, token=world.token("alice"))
    wait_for(lambda: reaches(home), 20, "the relay")
    assert [announced(home, v1("192.0.2.1")) for _ in range(11)] == [404] * 10 + [429]
    assert announced(home, v2(1)) == 429  # the same address in the other version
    assert announced(home, v2(2), pieces=4) == 404
    assert announced(home, v1("192.0.2.3"), pieces=4) == 404
    assert announced(home, V2 + b"\x20\0\0\0") == 404  # its own health check
    for wrong in (b"", b"PROXY nonsense\r\n", V2 + b"\x11\x11\0\0"):
        assert announced(home, wrong) is None
    relay.wait_log("announce_failed")
    # From elsewhere such a header is no HTTP, and none is needed.
    with Client(relay.port, source="127.0.0.2") as client:
        client.send(v1("192.0.2.9"))
        client.request("GET", "/livez")
        assert client.response().status == 400
    with Client(relay.port, source="127.0.0.2") as client:
        client.request("GET", "/livez")
        assert client.response().status == 200


def reaches(home):
    try:
        return announced(home, v1("203.0.113.1")) == 404
    except OSError:
        return False


def test_who_announces_nothing_is_closed_in_time(world):
    from types import SimpleNamespace
    relay = world.relay(env={"CULVERT_LIMITS_HEADER_TIMEOUT": "1s"}, ready=False,
                        config="trusted_proxy: [127.0.0.1/32]\nproxy_protocol: true\n")
    home = SimpleNamespace(relay=relay, token=world.token("alice"))
    wait_for(lambda: reaches(home), 20, "the relay")
    begin, before = time.monotonic(), relay.cpu_seconds()
    with Client(relay.port) as client:
        client.send(b"PROXY TCP4 192")
        assert client.is_closed(10)
    assert time.monotonic() - begin < 8
    assert relay.cpu_seconds() - before < 0.5  # it was not looked at again and again
