# SPDX-License-Identifier: MIT
"""The life of an agent's token: handed in anew over the link, expired with a grace, refused."""
import json
import os
import signal
import time

import pytest
from client import Client
from cryptography.hazmat.primitives.asymmetric import ec
from culvert import wait_for
from test_auth import AUDIENCE, ISSUER, Key

SLOW = ["/slow/20/0.25", "/slow/60/0.1"]
SKEWLESS = "auth:\n  clock_skew: 0s\n  expiry_grace: 3s\n"


def put(path, token):
    """As a careful writer does it: never half a token."""
    new = path.with_suffix(".new")
    new.write_text(token + "\n")
    os.replace(new, path)


def fresh(world, ttl, sub="alice", *args):
    """A token of its own each time: the world would give the same again."""
    done = world.run("token", "--dev", "--sub", sub, "--ttl", ttl, *args, check=0)
    world.secrets.add(done.stdout.strip())
    return done.stdout.strip()


def slow(conn, request):
    """/slow/COUNT/PAUSE: so many lines, one after each pause."""
    count, pause = request.path.split("/")[2:4]
    conn.start_chunked()
    for i in range(int(count)):
        conn.chunk(b"line %d\n" % i)
        time.sleep(float(pause))
    conn.end_chunks()


class Renewing:
    def __init__(self, world, ttl="4s", config=SKEWLESS):
        self.world = world
        self.service = world.service({path: slow for path in SLOW})
        self.relay = world.relay(config=config)
        self.file = world.folder / "token"
        put(self.file, fresh(world, ttl))
        self.token = world.token("alice")
        self.agent = world.start("agent:alice/home", "http", self.service.port, "--server",
                                 self.relay.url, "--name", "home", "--token-file", self.file)
        self.agent.wait_log("tunnel_published")

    def fetch(self, target="/"):
        return self.relay.fetch(f"/t/home{target}", self.token)


def test_a_fresh_token_keeps_the_link(world):
    scene = Renewing(world)
    begun = time.monotonic()
    for _ in range(2):
        seen = len(scene.relay.find("token_renewed"))
        put(scene.file, fresh(world, "4s"))
        wait_for(lambda seen=seen: len(scene.relay.find("token_renewed")) > seen, 10, "renewal")
        assert scene.fetch().status == 200
    put(scene.file, fresh(world, "1h"))
    wait_for(lambda: any(r["leftMs"] > 3500000 for r in scene.agent.find("token_renewed")), 10,
             "the long one")
    wait_for(lambda: time.monotonic() - begun > 5, 10, "the first token's end", 0.1)
    assert scene.fetch().status == 200
    assert len(scene.agent.find("link_up")) == 1 and not scene.relay.find("link_down")


def test_the_relay_asks_in_time(world):
    """The file changes only after the relay has asked."""
    scene = Renewing(world, ttl="6s")
    scene.agent.wait_log("relay_says", text="token_expiring")
    put(scene.file, fresh(world, "1h"))
    scene.agent.wait_log("token_renewed")
    assert len(scene.agent.find("link_up")) == 1


def test_an_expired_token_ends_the_link_after_a_grace(world):
    scene = Renewing(world, ttl="3s")
    with Client(scene.relay.port, timeout=30) as client:
        client.request("GET", "/t/home/slow/20/0.25", scene.token)
        head = client.head()
        scene.relay.wait_log("token_ended")
        refused = scene.fetch()
        assert refused.status == 503 and refused.json()["code"] == "TUNNEL_012"
        client.body(head)  # whole, or cut by the grace's end
    ended = scene.relay.wait_log("link_down")
    assert ended["reason"] == "AUTH_EXPIRED"
    put(scene.file, fresh(world, "1h"))
    wait_for(lambda: scene.fetch().status == 200, 30, "the agent is back with a fresh token", 0.2)


def test_a_fresh_token_in_the_grace_makes_the_link_whole(world):
    scene = Renewing(world, ttl="2s", config="auth:\n  clock_skew: 0s\n  expiry_grace: 20s\n")
    with Client(scene.relay.port, timeout=30) as client:
        client.request("GET", "/t/home/slow/60/0.1", scene.token)
        head = client.head()
        scene.relay.wait_log("token_ended")
        assert scene.fetch().status == 503
        put(scene.file, fresh(world, "1h"))
        scene.agent.wait_log("token_renewed")
        assert scene.fetch().status == 200
        client.body(head)
    assert len(scene.agent.find("link_up")) == 1


def test_another_users_token_is_not_taken(world):
    scene = Renewing(world, ttl="1h")
    put(scene.file, fresh(world, "1h", "mallory"))
    refused = scene.agent.wait_log("token_refused")
    assert refused["level"] == "warn"
    assert scene.relay.find("token_refused")[0]["userId"] == "alice"
    assert scene.fetch().status == 200 and not scene.relay.find("token_renewed")
    put(scene.file, fresh(world, "1h"))
    scene.agent.wait_log("token_renewed")


def test_fewer_rights_take_names_back(world):
    scene = Renewing(world, ttl="1h")
    put(scene.file, fresh(world, "1h", "alice", "--tunnel", "other"))
    scene.relay.wait_log("tunnel_withdrawn")
    assert scene.fetch().status == 503


def test_a_token_of_the_environment_is_said_not_to_be_renewable(world):
    service = world.service()
    relay = world.relay(config=SKEWLESS)
    agent = world.http(relay, service.port, token=fresh(world, "3s"))
    assert agent.wait_log("token_not_renewable")["level"] == "warn"
    relay.wait_log("token_ended")


def command_agent(world, relay, port, line):
    config = world.write("agent.yaml", f"server: {relay.url}\ntoken_command: >-\n  {line}\n"
                         f"tunnels:\n  - name: home\n    target: '{port}'\n")
    return world.start("agent", "agent", "-c", config)


def test_token_command(world):
    service = world.service()
    relay = world.relay(config=SKEWLESS)
    runs = world.folder / "runs"
    put(world.folder / "next", fresh(world, "5s"))
    agent = command_agent(world, relay, service.port,
                          f"echo run >> {runs}; cat {world.folder}/next")
    agent.wait_log("tunnel_published")
    assert runs.read_text().count("run") == 1
    put(world.folder / "next", fresh(world, "1h"))
    agent.wait_log("token_renewed")
    assert runs.read_text().count("run") == 2
    assert relay.fetch("/t/home/", world.token("alice")).status == 200
    assert len(agent.find("link_up")) == 1


@pytest.mark.parametrize("line, text", [
    ("echo no >&2; exit 3", "ended with code 3"),
    ("true", "printed nothing"),
    ("head -c 100000 /dev/zero", "more than"),
    ("echo two words", "characters"),
    ("kill -9 $$", "signal 9"),
])
def test_a_bad_token_command(world, line, text):
    service = world.service()
    relay = world.relay()
    agent = command_agent(world, relay, service.port, line)
    agent.wait_log("connect_failed", text=text)
    agent.stop()


def test_a_token_command_that_hangs_holds_nobody_up(world):
    service = world.service()
    relay = world.relay()
    agent = command_agent(world, relay, service.port, "sleep 600")
    agent.wait_log("connecting")
    begun = time.monotonic()
    agent.stop()
    assert time.monotonic() - begun < 10


def test_a_key_that_is_new(world):
    """The fresh token is signed by a key that the relay does not know yet."""
    old, new = (Key(ec.generate_private_key(ec.SECP256R1()), "ES256") for _ in range(2))
    jwks = world.write("jwks.json", json.dumps({"keys": [old.jwk]}))
    config = (f"auth:\n  jwks_file: {jwks}\n  issuer: {ISSUER}\n  audience: [{AUDIENCE}]\n"
              "  expiry_grace: 3s\n")
    relay = world.relay(config=config)
    service = world.service()
    file = world.folder / "token"
    put(file, old.sign())
    agent = world.start("agent", "http", service.port, "--server", relay.url, "--name", "home",
                        "--token-file", file)
    agent.wait_log("tunnel_published")
    put(file, new.sign())
    agent.wait_log("token_refused")
    jwks.write_text(json.dumps({"keys": [old.jwk, new.jwk]}))
    relay.signal(signal.SIGHUP)
    agent.wait_log("token_renewed", timeout=30)


def key_config(jwks, grace):
    return (f"auth:\n  jwks_file: {jwks}\n  issuer: {ISSUER}\n  audience: [{AUDIENCE}]\n"
            f"  expiry_grace: {grace}\n")


def test_a_key_that_is_taken_out_ends_its_links(world):
    old, new = (Key(ec.generate_private_key(ec.SECP256R1()), "ES256") for _ in range(2))
    jwks = world.write("jwks.json", json.dumps({"keys": [old.jwk, new.jwk]}))
    relay = world.relay(config=key_config(jwks, "1s"))
    service = world.service()
    agents = {}
    for name, key in (("old", old), ("new", new)):
        put(world.folder / name, key.sign())
        agents[name] = world.start(name, "http", service.port, "--server", relay.url, "--name", name,
                                   "--token-file", world.folder / name)
        agents[name].wait_log("tunnel_published")
    assert relay.fetch("/t/old/", new.sign()).status == 200
    jwks.write_text(json.dumps({"keys": [{**new.jwk, "kid": "renamed"}]}))
    relay.signal(signal.SIGHUP)
    relay.wait_log("token_ended", reason="key_removed")
    wait_for(lambda: len(relay.find("link_down")) == 1, 20, "the link of the old key is gone")
    assert relay.fetch("/t/old/", old.sign()).status == 401
    assert not agents["new"].find("link_detached")
    # Its agent may come back with a token of a key that is there, whatever that is called now.
    put(world.folder / "old", new.sign(headers={"kid": "renamed"}))
    wait_for(lambda: relay.fetch("/t/old/", new.sign(headers={"kid": "renamed"})).status == 200, 60,
             "the agent is back")


def test_a_key_that_is_rotated_keeps_its_links(world):
    old, new = (Key(ec.generate_private_key(ec.SECP256R1()), "ES256") for _ in range(2))
    jwks = world.write("jwks.json", json.dumps({"keys": [old.jwk, new.jwk]}))
    relay = world.relay(config=key_config(jwks, "20s"))
    service = world.service()
    file = world.folder / "token"
    put(file, old.sign())
    agent = world.start("agent", "http", service.port, "--server", relay.url, "--name", "home",
                        "--token-file", file)
    agent.wait_log("tunnel_published")
    put(file, new.sign())
    agent.wait_log("token_renewed")
    jwks.write_text(json.dumps({"keys": [new.jwk]}))
    relay.signal(signal.SIGHUP)
    relay.wait_log("reload_keys")
    wait_for(lambda: relay.fetch("/t/home/", old.sign()).status == 401, 10, "the old key is out")
    time.sleep(1.5)  # links are looked at once a second
    assert relay.fetch("/t/home/", new.sign()).status == 200
    assert len(agent.find("link_up")) == 1 and not relay.find("token_ended")
