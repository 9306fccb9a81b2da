# SPDX-License-Identifier: MIT
"""TLS 1.3 on the relay and the agent; proxies on the way."""
import base64
import contextlib
import json
import re
import shutil
import socket
import ssl

import pytest
from client import Client
from culvert import AGENT_READY, free_port, wait_for
from test_auth import AUDIENCE, ISSUER, Key


@pytest.fixture(scope="module")
def key():
    from cryptography.hazmat.primitives.asymmetric import ec
    return Key(ec.generate_private_key(ec.SECP256R1()), "ES256")


class Secure:
    """A relay with a certificate, the echo service, and tokens for it."""

    def __init__(self, world, authority, key, names="DNS:localhost,IP:127.0.0.1",
                 listen="127.0.0.1", **kw):
        self.world, self.authority, self.key = world, authority, key
        cert, private = authority.issue(names)
        self.cert = world.folder / "relay.pem"
        self.private = world.folder / "relay.key"
        shutil.copy(cert, self.cert)
        shutil.copy(private, self.private)
        jwks = world.write("jwks.json", json.dumps({"keys": [key.jwk]}))
        self.service = world.service()
        self.relay = world.relay(dev=False, host=listen, tls=authority.context(),
                                 server_name="localhost", config=f"""
tls:
  cert_file: {self.cert}
  key_file: {self.private}
auth:
  jwks_file: {jwks}
  issuer: {ISSUER}
  audience: [{AUDIENCE}]
""", **kw)
        self.token = key.sign()

    def agent(self, url=None, env=None, ready=True):
        url = url or f"wss://localhost:{self.relay.port}"
        return self.world.http(self.relay, self.service.port, url=url, token=self.token,
                               ready=ready, env={"CULVERT_CA_FILE": str(self.authority.ca),
                                                 **(env or {})})

    def fetch(self, target="/t/home/x", **kw):
        return self.relay.fetch(target, self.token, **kw)



@pytest.fixture
def secure(world, authority, key):
    return Secure(world, authority, key)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.tsan
def test_requests_through_tls_on_both_legs(secure):
    secure.agent()
    for number in range(12):
        body = b"%d" % number * 1000
        assert secure.fetch(method="POST", body=body).body == body


def test_forwarding_fields_say_https(secure):
    secure.agent()
    secure.fetch()
    assert secure.service.requests[-1].get("X-Forwarded-Proto") == "https"


def test_the_agent_wants_a_trusted_certificate(secure):
    agent = secure.agent(env={"CULVERT_CA_FILE": None}, ready=False)
    agent.expect_error(".*")
    agent.wait_log(text="TUNNEL_020")
    assert not agent.find(AGENT_READY)
    agent.kill()


def test_the_agent_wants_the_right_name(world, authority, key):
    secure = Secure(world, authority, key, names="DNS:localhost")
    agent = secure.agent(url=f"wss://127.0.0.1:{secure.relay.port}", ready=False)
    agent.expect_error(".*")
    agent.wait_log(text="TUNNEL_020")
    assert not agent.find(AGENT_READY)
    agent.kill()


def test_the_agent_refuses_tls_1_2(secure, authority):
    cert, private = authority.issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, private)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server(("127.0.0.1", 0)) as server:
        agent = secure.agent(url=f"wss://localhost:{server.getsockname()[1]}", ready=False)
        agent.expect_error(".*")
        server.settimeout(15)
        sock, _ = server.accept()
        with pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(sock, server_side=True)
        sock.close()
    agent.wait_log(text="TUNNEL_0")
    agent.kill()


def test_without_tls_or_a_trusted_proxy_the_relay_does_not_start(world, key):
    jwks = world.write("jwks.json", json.dumps({"keys": [key.jwk]}))
    config = world.write("c.yaml", f"auth: {{jwks_file: {jwks}, issuer: i, audience: [a]}}\n")
    done = world.run("server", "-c", config, "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode in (1, 2)
    assert "tls" in done.stderr.lower()


def test_dev_binds_loopback_only(world):
    done = world.run("server", "--dev", "--listen", f"0.0.0.0:{free_port()}")
    assert done.returncode in (1, 2)
    assert "loopback" in done.stderr.lower() or "--dev" in done.stderr


# -- proxies ---------------------------------------------------------------------------------------

def own_address():
    """An address of this machine that is not loopback, since loopback never goes through a proxy."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("192.0.2.254", 9))
            address = probe.getsockname()[0]
            if not address.startswith("127."):
                return address
    pytest.fail("this test needs an address other than loopback")


class Proxy:
    """tinyproxy, with or without a password."""

    def __init__(self, world, password=None):
        self.port = free_port()
        self.log = world.folder / f"tinyproxy-{self.port}.log"
        config = world.write(f"tinyproxy-{self.port}.conf", f"""
Port {self.port}
Listen 127.0.0.1
Timeout 600
LogFile "{self.log}"
LogLevel Connect
MaxClients 50
{f'BasicAuth user {password}' if password else ''}
""")
        world.spawn("/usr/bin/tinyproxy", "-d", "-c", config)
        wait_for(self._is_up, what="tinyproxy")

    def _is_up(self):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def connects(self):
        text = self.log.read_text() if self.log.exists() else ""
        return len(re.findall(r": CONNECT \S+ HTTP", text))


@pytest.fixture
def far(world, authority, key):
    """A relay on an address that is not loopback."""
    address = own_address()
    secure = Secure(world, authority, key, names=f"IP:{address},DNS:localhost", listen="0.0.0.0",
                    ready=False)
    wait_for(lambda: _reaches(address, secure.relay.port), 20, "relay")
    secure.url = f"wss://{address}:{secure.relay.port}"
    return secure


def _reaches(address, port):
    with contextlib.suppress(OSError):
        socket.create_connection((address, port), 1).close()
        return True
    return False


@pytest.mark.parametrize("password", [None, "p%61ss"])
def test_through_an_http_proxy(world, far, password):
    proxy = Proxy(world, "pass" if password else None)
    user = f"user:{password}@" if password else ""
    far.agent(url=far.url, env={"HTTPS_PROXY": f"http://{user}127.0.0.1:{proxy.port}"})
    assert far.fetch(method="POST", body=b"through").body == b"through"
    assert proxy.connects() == 1


def test_a_proxy_from_the_configuration(world, far):
    proxy = Proxy(world)
    far.agent(url=far.url, env={"CULVERT_PROXY": f"http://127.0.0.1:{proxy.port}"})
    assert far.fetch().status == 200
    assert proxy.connects() == 1


def test_a_refused_password_is_told(world, far):
    proxy = Proxy(world, "right")
    agent = far.agent(url=far.url, ready=False,
                      env={"HTTPS_PROXY": f"http://user:wrong@127.0.0.1:{proxy.port}"})
    agent.expect_error(".*")
    agent.wait_log(text="TUNNEL_023")
    agent.kill()
    secret = base64.b64encode(b"user:wrong").decode()
    assert all("wrong@" not in line and secret not in line for line in agent.lines)


def test_no_proxy_is_honoured(world, far):
    proxy = Proxy(world)
    host = far.url.split("//")[1].rsplit(":", 1)[0]
    far.agent(url=far.url, env={"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": host})
    assert far.fetch().status == 200
    assert proxy.connects() == 0


def test_loopback_never_goes_through_a_proxy(home, world):
    proxy = Proxy(world)
    world.http(home.relay, home.service.port, name="other",
               env={"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}",
                    "HTTP_PROXY": f"http://127.0.0.1:{proxy.port}",
                    "http_proxy": f"http://127.0.0.1:{proxy.port}"})
    assert proxy.connects() == 0
