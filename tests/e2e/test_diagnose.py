# SPDX-License-Identifier: MIT
"""`culvert diagnose`: each stage of the way fails for real, and is the one that is named."""
import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import signal
import socket
import ssl
import threading
import time

import pytest
from chaos import Chaos
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from culvert import free_port, wait_for
from test_auth import AUDIENCE, ISSUER, Key
from test_tls import Proxy, far, key  # noqa: F401 - fixtures

STAGES = ["dns", "tcp", "proxy", "tls", "upgrade", "token", "ssh", "tunnel", "service", "data",
          "latency", "throughput"]


def diagnose(world, url, *args, token="a.b.c", code=0, env=None, timeout=60):
    """The report's tests by name, and its summary."""
    world.secrets.add(token)
    done = world.run("diagnose", "--server", url, "--json", *args, timeout=timeout, check=code,
                     env={"CULVERT_TOKEN": token, **(env or {})})
    assert token not in done.stdout + done.stderr
    report = json.loads(done.stdout)
    tests = {test["name"]: test for test in report["tests"]}
    assert list(tests) == STAGES
    summary = report["summary"]
    assert summary["exit_code"] == code and summary["ok"] == (code == 0)
    assert summary["total"] == len(STAGES) == sum(summary[k] for k in
                                                  ("passed", "failed", "skipped"))
    for test in tests.values():
        assert test["details"]["finding"] and test["duration_ms"] >= 0
        assert not (test["passed"] and (test["skipped"] or test["error"] or test["code"]))
    return tests, summary


def failed(tests, summary, name, code, text=""):
    """`name` failed with that code, everything before it did not, everything behind was not tried."""
    assert summary["first_failure"] == name, json.dumps(tests[summary["first_failure"]], indent=1)
    test = tests[name]
    assert test["code"] == code and text in test["error"] and test["suggestion"], test
    place = STAGES.index(name)
    assert all(tests[stage]["passed"] or tests[stage]["skipped"] for stage in STAGES[:place])
    for stage in STAGES[place + 1:]:
        assert tests[stage]["skipped"] and (stage == "service" or name in tests[stage]["error"])
    return test


class Fake:
    """Answers one request of each connection with what `answer(head)` gives, and closes."""

    def __init__(self, answer, tls=None):
        self.answer, self.tls = answer, tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while True:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), conn:
                conn.settimeout(10)
                if self.tls:
                    conn = self.tls.wrap_socket(conn, server_side=True)  # noqa: PLW2901
                head = b""
                while b"\r\n\r\n" not in head:
                    data = conn.recv(65536)
                    if not data:
                        break
                    head += data
                else:
                    conn.sendall(self.answer(head))
                    conn.shutdown(socket.SHUT_WR)
                    while conn.recv(65536):
                        pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(15)


@pytest.fixture
def fake(world):
    def make(answer, tls=None):
        made = Fake(answer, tls)
        world.cleanups.append(made.close)
        return f"{'wss' if tls else 'ws'}://localhost:{made.port}"
    return make


def said(status, *fields, body=""):
    lines = [f"HTTP/1.1 {status} x", *fields, f"Content-Length: {len(body)}", "", body]
    return lambda head: "\r\n".join(lines).encode()


# -- all is well -----------------------------------------------------------------------------------

def test_all_is_well_with_a_token_for_one_tunnel_and_nothing_is_published(world):
    relay = world.relay()
    service = world.service()
    tests, summary = diagnose(world, relay.url, service.port,
                              token=world.token("alice", "--tunnel", "home"))
    assert summary["passed"] == len(STAGES)
    data = tests["data"]["details"]
    assert data["bytes"] == 1 << 20 and data["sha256_sent"] == data["sha256_received"]
    assert tests["latency"]["details"]["samples"] == 20
    assert tests["latency"]["details"]["mean_ms"] >= tests["latency"]["details"]["min_ms"] > 0
    assert tests["throughput"]["details"]["mbit_per_second"] > 0
    assert tests["token"]["details"]["tunnels"] == ["home"]
    assert abs(tests["upgrade"]["details"]["clock_skew_s"]) <= 2
    assert tests["ssh"]["details"]["host_key"].startswith("SHA256:")
    assert not relay.find("tunnel_published") and not relay.find("publish_refused")
    # Whoever runs it once more meets a relay that has forgotten the first.
    wait_for(lambda: relay.find("link_down"), what="end of the link")


def test_for_people(world):
    relay = world.relay()
    done = world.run("diagnose", "--server", relay.url, env={"CULVERT_TOKEN": world.token()},
                     check=0)
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines[:12]] == STAGES
    assert lines[-1] == "All is well."
    done = world.run("diagnose", "--server", relay.url, env={"CULVERT_TOKEN": "a.b.c"})
    assert done.returncode == 3 and "token failed first." in done.stdout
    assert "FAILED  token" in done.stdout and "TUNNEL_002" in done.stdout


def test_it_may_be_interrupted(world):
    hole = socket.create_server(("127.0.0.1", 0))  # accepts, says nothing
    running = world.start("diagnose", "diagnose", "--server",
                          f"ws://localhost:{hole.getsockname()[1]}", env={"CULVERT_TOKEN": "a.b.c"})
    wait_for(lambda: b"tls" in running.stdout, what="the stages before")
    running.signal(signal.SIGINT)
    running.stop(code=1)
    assert b"Stopped before the end" in running.stdout
    hole.close()


def test_the_path_is_nobody_elses(world):
    """Only the link that asked for it reaches the way around, and only itself."""
    relay = world.relay()
    command = world.stdio_command(relay)
    done = world.spawn("ssh", "-o", f"ProxyCommand={command}", "-o", "StrictHostKeyChecking=no",
                       "-o", "UserKnownHostsFile=/dev/null", "-W", "diagnose@culvert:7", "relay",
                       env=world.env({"CULVERT_TOKEN": world.token()}))
    assert done.wait(30) != 0
    assert "tunnel-unknown" in done.log_path.read_text()


# -- the network -----------------------------------------------------------------------------------

def test_a_name_that_is_not_there(world):
    tests, summary = diagnose(world, "wss://no-such-relay.invalid", code=4)
    failed(tests, summary, "dns", "TUNNEL_022", "no-such-relay.invalid")


def test_a_port_where_nobody_listens(world):
    tests, summary = diagnose(world, f"ws://localhost:{free_port()}", code=4)
    test = failed(tests, summary, "tcp", "TUNNEL_001", "refused")
    assert [c["connected"] for c in test["details"]["connections"]] == [False, False]
    assert "port" in test["suggestion"]


def test_a_proxy_that_wants_a_password(world, far):  # noqa: F811
    proxy = Proxy(world, "secret")
    env = {"CULVERT_CA_FILE": str(far.authority.ca)}
    tests, summary = diagnose(world, far.url, code=4, token=far.token, env={
        **env, "HTTPS_PROXY": f"http://user:wrong@127.0.0.1:{proxy.port}"})
    test = failed(tests, summary, "proxy", "TUNNEL_023", "40")
    assert "wrong" not in json.dumps(test)
    assert tests["dns"]["details"]["host"] == "127.0.0.1"
    tests, summary = diagnose(world, far.url, token=far.token, env={
        **env, "HTTPS_PROXY": f"http://user:secret@127.0.0.1:{proxy.port}"})
    assert tests["proxy"]["details"]["has_user"] is True
    assert tests["tls"]["details"]["version"] == "TLSv1.3"
    assert tests["tls"]["details"]["days_left"] in (1, 2)


# -- TLS -------------------------------------------------------------------------------------------

def certificate(folder, name="localhost", begins=-1, ends=1):
    """A self-signed certificate for one name, valid between these days from now."""
    private = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"test {name}")])
    names = x509.SubjectAlternativeName([
        x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("192.0.2.7"))])
    made = x509.CertificateBuilder(subject, subject, private.public_key(), 7) \
        .not_valid_before(now + datetime.timedelta(days=begins)) \
        .not_valid_after(now + datetime.timedelta(days=ends)) \
        .add_extension(names, False) \
        .add_extension(x509.BasicConstraints(True, None), True).sign(private, hashes.SHA256())
    path = folder / f"{name}{begins}.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret = path.with_suffix(".key")
    secret.write_bytes(private.private_bytes(serialization.Encoding.PEM,
                                             serialization.PrivateFormat.PKCS8,
                                             serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, secret)
    return path, context


@pytest.mark.parametrize("made, is_trusted, text, advice", [
    ({}, False, "issued by CN=test localhost", "--ca-file"),
    ({"begins": -9, "ends": -2}, True, "expired", "renew"),
    ({"begins": 3, "ends": 9}, True, "not yet valid", "clock"),
    ({"name": "other.example"}, True, "it is for other.example, 192.0.2.7", "name"),
])
def test_a_certificate_that_is_not_good(world, fake, made, is_trusted, text, advice):
    path, context = certificate(world.folder, **made)
    url = fake(said(200), tls=context)
    tests, summary = diagnose(world, url, code=3,
                              env={"CULVERT_CA_FILE": str(path)} if is_trusted else None)
    test = failed(tests, summary, "tls", "TUNNEL_020", text)
    assert advice in test["suggestion"]
    about = test["details"]["certificate"]
    assert about["subject"] == f"CN=test {made.get('name', 'localhost')}"
    assert about["not_before"] < about["not_after"]


def test_tls_where_there_is_none(world):
    relay = world.relay()
    tests, summary = diagnose(world, f"wss://localhost:{relay.port}", code=4)
    failed(tests, summary, "tls", "TUNNEL_020", "does not speak TLS")


# -- who answers -----------------------------------------------------------------------------------

@pytest.mark.parametrize("answer, code, text", [
    (said(302, "Location: http://login.example/hello"), "TUNNEL_009", "captive portal"),
    (said(200, "Content-Type: text/html", body="<html>Welcome, please log in"), "TUNNEL_009",
     "captive portal"),
    (said(403, "Server: squid/5", "Via: 1.1 box"), "TUNNEL_009", "squid/5 via 1.1 box"),
    (said(404), "TUNNEL_009", "404"),
    (said(503, "Content-Type: application/problem+json", body='{"detail":"resting"}'),
     "TUNNEL_004", "resting"),
    (lambda head: b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "TUNNEL_009", "no HTTP server"),
    (lambda head: b"", "TUNNEL_001", "without an answer"),
])
def test_somebody_else_answers(world, fake, answer, code, text):
    tests, summary = diagnose(world, fake(answer), code=1 if code == "TUNNEL_004" else 4)
    failed(tests, summary, "upgrade", code, text)


def test_nobody_answers_the_upgrade(world):
    hole = socket.create_server(("127.0.0.1", 0))
    tests, summary = diagnose(world, f"ws://localhost:{hole.getsockname()[1]}", code=4,
                              env={"CULVERT_CONNECT_RELAY_TIMEOUT": "300ms"})
    hole.close()
    failed(tests, summary, "upgrade", "TUNNEL_001", "did not answer the upgrade")


# -- the token -------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def signer():
    return Key(ec.generate_private_key(ec.SECP256R1()), "ES256")


@pytest.fixture
def strict(world, signer):
    jwks = world.write("jwks.json", json.dumps({"keys": [signer.jwk]}))
    return world.relay(dev=False, config=f"""
trusted_proxy: [192.0.2.0/24, 127.0.0.1/32]
auth: {{jwks_file: {jwks}, issuer: '{ISSUER}', audience: ['{AUDIENCE}']}}
""")


def test_each_claim_is_told_apart(world, strict, signer):
    now = int(time.time())
    stranger = Key(ec.generate_private_key(ec.SECP256R1()), "ES256")
    forger = Key(ec.generate_private_key(ec.SECP256R1()), "ES256", kid=signer.kid)
    for token, claim, code, text in [
        (signer.sign(exp=now - 3600), "exp", "TUNNEL_003", "expired"),
        (signer.sign(nbf=now + 3600), "nbf", "TUNNEL_002", "not valid yet"),
        (signer.sign(iss="https://else.example/"), "iss", "TUNNEL_002", "https://else.example/"),
        (signer.sign(aud=["https://else.example"]), "aud", "TUNNEL_002", "https://else.example"),
        (stranger.sign(), "kid", "TUNNEL_002", "unknown key"),
        (forger.sign(), "signature", "TUNNEL_002", "bad token signature"),
        ("not.a.token", None, "TUNNEL_002", "malformed"),
    ]:
        tests, summary = diagnose(world, strict.url, token=token, code=3)
        test = failed(tests, summary, "token", code, text)
        assert test["details"].get("claim") == claim
    tests, summary = diagnose(world, strict.url, token=signer.sign())
    assert tests["token"]["details"]["sub"] == "alice"


def test_no_token(world, strict):
    done = world.run("diagnose", "--server", strict.url, "--json", check=3)
    tests = {test["name"]: test for test in json.loads(done.stdout)["tests"]}
    assert tests["upgrade"]["skipped"] and tests["token"]["code"] == "TUNNEL_002"
    assert "CULVERT_TOKEN" in tests["token"]["suggestion"]


def test_a_clock_that_is_wrong_is_named(world, fake, signer):
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 7200))
    body = json.dumps({"code": "TUNNEL_003", "title": "token expired"})
    url = fake(said(401, "Content-Type: application/problem+json", f"Date: {date}", body=body))
    tests, summary = diagnose(world, url, token=signer.sign(), code=3)
    test = failed(tests, summary, "token", "TUNNEL_003")
    assert "timedatectl" in test["suggestion"]
    assert 7190 <= tests["upgrade"]["details"]["clock_skew_s"] <= 7200
    assert "ahead of" in tests["upgrade"]["details"]["finding"]


# -- SSH and the link ------------------------------------------------------------------------------

def test_another_host_key(world):
    relay = world.relay()
    tests, summary = diagnose(world, relay.url, token=world.token(), code=3,
                              env={"CULVERT_HOST_KEY_FINGERPRINT": "SHA256:" + "A" * 43})
    failed(tests, summary, "ssh", "TUNNEL_021", "host_key_fingerprint")


def upgraded(behind):
    """A WebSocket that speaks culvert.v1 as far as the upgrade, and then this."""
    def answer(head):
        name = b"sec-websocket-key:"
        given = next(line[len(name):].strip() for line in head.split(b"\r\n")
                     if line.lower().startswith(name))
        accept = base64.b64encode(hashlib.sha1(
            given + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        return (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: " + accept +
                b"\r\nSec-WebSocket-Protocol: culvert.v1\r\n\r\n" + behind)
    return answer


@pytest.mark.parametrize("behind, codes", [
    (b"\x82\x0dSSH-1.0-old\r\n", {"TUNNEL_008"}),
    (b"\xff\xff\xff\xff", {"TUNNEL_009"}),
    (b"", {"TUNNEL_028"}),
])
def test_no_ssh_behind_the_upgrade(world, fake, behind, codes):
    world.token()
    done = world.run("diagnose", "--server", fake(upgraded(behind)), "--json",
                     env={"CULVERT_TOKEN": "a.b.c"})
    report = json.loads(done.stdout)
    assert report["summary"]["first_failure"] == "ssh"
    test = report["tests"][STAGES.index("ssh")]
    assert test["code"] in codes, test
    assert done.returncode in (1, 4)


def test_a_relay_that_does_not_lead_back(world):
    """There is one stream, and the way around needs two."""
    relay = world.relay(env={"SSH_MAX_CHANNELS": "1"})
    tests, summary = diagnose(world, relay.url, token=world.token(), code=4,
                              env={"CULVERT_CONNECT_RELAY_TIMEOUT": "2s"})
    test = failed(tests, summary, "tunnel", "TUNNEL_001", "led back")
    assert "ssh.max_channels" in test["suggestion"]


@pytest.mark.parametrize("how", ["cut", "hole"])
def test_a_link_that_breaks_under_load(world, how):
    relay = world.relay()
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    chaos.bytes_per_s = 400_000

    def break_it():
        wait_for(lambda: chaos.bytes[False] > 200_000, 40, "bytes on the way", interval=0.001)
        if how == "cut":
            chaos.cut()
        else:
            chaos.mode = "hole"
    breaker = threading.Thread(target=break_it)
    breaker.start()
    tests, summary = diagnose(world, chaos.url, token=world.token(), code=4,
                              env={"CULVERT_WS_PONG_TIMEOUT": "1s"})
    breaker.join()
    assert tests["tunnel"]["passed"]
    failed(tests, summary, "data", "TUNNEL_001")


# -- local services --------------------------------------------------------------------------------

def test_a_local_service_that_is_down_is_told_beside_the_rest(world):
    relay = world.relay()
    service = world.service()
    down = free_port()
    tests, summary = diagnose(world, relay.url, service.port, f"127.0.0.1:{down}",
                              token=world.token(), code=1)
    assert summary["first_failure"] == "service" and summary["failed"] == 1
    assert tests["throughput"]["passed"]
    assert tests["service"]["code"] == "TUNNEL_013" and str(down) in tests["service"]["error"]
    up, no = tests["service"]["details"]["connections"]
    assert up["connected"] and not no["connected"]
    # The services of a configuration file are looked at, whatever becomes of the relay.
    config = world.write("agent.yaml", f"server: ws://localhost:{down}\n"
                         f"tunnels: [{{name: home, target: {service.port}}}]\n")
    done = world.run("diagnose", "-c", config, "--json", env={"CULVERT_TOKEN": "a.b.c"}, check=4)
    tests = {test["name"]: test for test in json.loads(done.stdout)["tests"]}
    assert tests["service"]["passed"] and tests["tcp"]["code"] == "TUNNEL_001"


def test_targets_are_checked(world):
    done = world.run("diagnose", "nonsense:0", "--server", "ws://localhost:1",
                     env={"CULVERT_TOKEN": "a.b.c"})
    assert done.returncode == 2 and "target" in done.stderr
    done = world.run("diagnose", env={"CULVERT_TOKEN": "a.b.c"})
    assert done.returncode == 2 and "server" in done.stderr
