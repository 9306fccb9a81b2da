# SPDX-License-Identifier: MIT
"""Foreign SSH clients, unmodified, through `culvert stdio`: publish and reach, and nothing else."""
import asyncio
import hashlib
import subprocess
import warnings

import pytest
from client import Client, fetch
from culvert import BIN, free_port, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import asyncssh

MIB = 1 << 20


class Peers:
    """A relay and a service; SSH clients that authenticate through the environment."""

    def __init__(self, world):
        self.world = world
        self.service = world.service()
        self.relay = world.relay()
        self.token = world.token("alice")
        self.command = world.stdio_command(self.relay)
        self.known_hosts = world.folder / "ssh_known_hosts"

    def env(self, token=None):
        return self.world.env({"CULVERT_TOKEN": token or self.token})

    def ssh(self, *args, user="alice", token=None):
        return self.world.spawn(
            "/usr/bin/ssh", "-F", "none", "-N", "-T", "-o", f"ProxyCommand={self.command}",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o",
            "StrictHostKeyChecking=accept-new", "-o", "ExitOnForwardFailure=yes",
            "-o", "BatchMode=yes", *args, f"{user}@relay", env=self.env(token))

    def fetch(self, name="home", target="/x", **kw):
        return self.relay.fetch(f"/t/{name}{target}", self.token, **kw)

    def wait_published(self, name="home"):
        wait_for(lambda: self.fetch(name).status == 200, 15, f"tunnel {name}", interval=0.1)

    def until_open(self, process, port):
        def look():
            assert process.poll() is None, process.log_path.read_text()
            try:
                Client(port, timeout=1).close()
                return True
            except OSError:
                return False
        wait_for(look, 15, "local port of ssh", interval=0.05)


@pytest.fixture
def peers(world):
    return Peers(world)


# -- OpenSSH ---------------------------------------------------------------------------------------

def test_openssh_publishes(peers):
    peers.ssh("-R", f"home:80:127.0.0.1:{peers.service.port}")
    peers.wait_published()
    assert peers.fetch(method="POST", body=b"hello").body == b"hello"
    assert peers.service.requests[-1].get("Host") == "localhost"


def test_openssh_reaches_a_tunnel_of_our_agent(peers):
    peers.world.http(peers.relay, peers.service.port)
    port = free_port()
    ssh = peers.ssh("-L", f"{port}:home:80")
    peers.until_open(ssh, port)
    for number in range(5):
        body = b"%d" % number
        assert fetch(port, "/x", method="POST", body=body).body == body


def test_openssh_publishes_and_reaches_raw_tcp(peers):
    def raw(conn, request):
        conn.reply(body=request.head)
    peers.service.default = raw
    peers.ssh("-R", f"raw:2222:127.0.0.1:{peers.service.port}")
    port = free_port()
    ssh = peers.ssh("-L", f"{port}:raw:2222")
    peers.until_open(ssh, port)

    def answers():
        try:
            return fetch(port, "/", host="untouched", timeout=5).body
        except (OSError, AssertionError):
            return None
    assert b"Host: untouched" in wait_for(answers, 10, "answer through the raw tunnel",
                                          interval=0.2)


def test_two_names_over_one_openssh(peers):
    peers.ssh("-R", f"one:80:127.0.0.1:{peers.service.port}",
              "-R", f"two:80:127.0.0.1:{peers.service.port}")
    peers.wait_published("one")
    peers.wait_published("two")


@pytest.mark.parametrize("direction", ["up", "down"])
def test_100_mib_intact_while_openssh_rekeys_every_16_kib(peers, direction):
    size = 100 * MIB
    block = hashlib.sha256(b"seed").digest() * 2048
    count = size // len(block)
    want = hashlib.sha256(block * count).hexdigest()

    def down(conn, request):
        conn.read_body(request)
        conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for _ in range(count):
            conn.send(block)

    def up(conn, request):
        conn.reply(body="{} {}".format(*conn.read_body(request, keep=False)).encode())
    peers.service.on("/down", down).on("/up", up)
    peers.ssh("-o", "RekeyLimit=16K", "-R", f"home:80:127.0.0.1:{peers.service.port}")
    peers.wait_published()
    if direction == "down":
        digest = hashlib.sha256()
        with Client(peers.relay.port, timeout=120) as client:
            client.request("GET", "/t/home/down", peers.token)
            response = client.response(keep=False, on_piece=digest.update)
        assert response.is_complete and digest.hexdigest() == want
    else:
        with Client(peers.relay.port, timeout=120) as client:
            client.send(f"POST /t/home/up HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n"
                        f"Authorization: Bearer {peers.token}\r\n\r\n".encode())
            for _ in range(count):
                client.send(block)
            assert client.response().body.decode() == f"{size} {want}"


def run_ssh(peers, *args):
    return subprocess.run(
        ["/usr/bin/ssh", "-F", "none", "-o", f"ProxyCommand={peers.command}", "-o",
         f"UserKnownHostsFile={peers.known_hosts}", "-o", "StrictHostKeyChecking=accept-new",
         "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", *args],
        env=peers.env(), input=b"", capture_output=True, timeout=30)


def test_shells_commands_and_subsystems_are_refused(peers):
    assert run_ssh(peers, "alice@relay", "true").returncode == 255
    assert run_ssh(peers, "-T", "alice@relay").returncode == 255
    assert run_ssh(peers, "-s", "alice@relay", "sftp").returncode == 255


@pytest.mark.parametrize("target", ["127.0.0.1:22", "localhost:80", "[::1]:80", "example.org:80",
                                    "nothing:80"])
def test_the_relay_dials_nothing_on_a_peers_word(peers, target):
    done = run_ssh(peers, "-W", target, "alice@relay")
    assert done.returncode == 255
    assert b"open failed" in done.stderr or b"prohibited" in done.stderr


def test_a_local_port_of_the_machine_is_not_reached(peers):
    run_ssh(peers, "-W", f"127.0.0.1:{peers.service.port}", "alice@relay")
    assert not peers.service.connections


@pytest.mark.parametrize("spec", ["home:0", "Bad_Name:80", "..:80", "-home:80", "*:80",
                                  "a.b:80", "x" * 64 + ":80"])
def test_names_and_ports_that_are_not_given(peers, spec):
    done = run_ssh(peers, "-N", "-R", f"{spec}:127.0.0.1:{peers.service.port}", "alice@relay")
    assert done.returncode == 255, done.stderr


def test_another_users_tunnel_is_not_reached(peers):
    peers.world.http(peers.relay, peers.service.port, sub="bob")
    done = run_ssh(peers, "-W", "home:80", "alice@relay")
    assert done.returncode == 255 and not peers.service.connections


def test_the_ssh_user_name_means_nothing(peers):
    peers.ssh("-R", f"home:80:127.0.0.1:{peers.service.port}", user="bob")
    peers.wait_published()
    assert peers.relay.fetch("/t/home/x", peers.world.token("bob")).status == 404


def test_more_channels_than_allowed_are_refused_with_the_reason(peers):
    """direct-tcpip beyond the limit of 10: resource shortage, and the session lives on."""
    peers.world.http(peers.relay, peers.service.port)

    async def run():
        async with await connect(peers) as connection:
            opened = [await connection.open_connection("home", 80) for _ in range(10)]
            with pytest.raises(asyncssh.ChannelOpenError) as failure:
                await connection.open_connection("home", 80)
            assert failure.value.code == asyncssh.OPEN_RESOURCE_SHORTAGE
            reader, writer = opened[0]
            writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_http_tunnel_reached_by_ssh_keeps_its_rules(peers):
    peers.world.http(peers.relay, peers.service.port, "--preset", "ollama")
    port = free_port()
    ssh = peers.ssh("-L", f"{port}:home:80")
    peers.until_open(ssh, port)
    assert fetch(port, "/api/tags").status == 200
    assert fetch(port, "/api/pull", method="POST", body=b"{}").status == 403
    with Client(port) as client:
        client.send(b"GET /api/tags HTTP/1.1\nHost: h\n\n")
        assert client.response().status == 400


def test_an_openssh_that_is_killed_frees_its_name(peers):
    ssh = peers.ssh("-R", f"home:80:127.0.0.1:{peers.service.port}")
    peers.wait_published()
    ssh.kill()
    wait_for(lambda: peers.fetch().status == 503, 10, "offline answer")
    peers.world.http(peers.relay, peers.service.port)
    assert peers.fetch().status == 200


# -- asyncssh --------------------------------------------------------------------------------------

def connect(peers, **kw):
    command = ["/usr/bin/env", f"CULVERT_TOKEN={peers.token}",
               f"CULVERT_STATE_DIR={peers.world.state}", str(BIN), "stdio", "--server",
               peers.relay.url]
    return asyncssh.connect("relay", proxy_command=command, username="alice", known_hosts=None,
                            client_keys=None, config=None, **kw)


@pytest.mark.parametrize("cipher", ["aes256-gcm@openssh.com", "aes128-gcm@openssh.com",
                                    "chacha20-poly1305@openssh.com"])
def test_asyncssh_publishes_with_every_cipher(peers, cipher):
    async def run():
        async with connect(peers, encryption_algs=[cipher]) as connection:
            await connection.forward_remote_port("home", 80, "127.0.0.1", peers.service.port)
            body = bytes(range(256)) * 4096
            response = await asyncio.to_thread(peers.fetch, method="POST", body=body)
            assert response.body == body
    asyncio.run(asyncio.wait_for(run(), 30))


def test_asyncssh_reaches(peers):
    peers.world.http(peers.relay, peers.service.port)

    async def run():
        async with connect(peers) as connection:
            reader, writer = await connection.open_connection("home", 80)
            writer.write(b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
    asyncio.run(asyncio.wait_for(run(), 30))


def test_asyncssh_withdraws_a_name(peers):
    async def run():
        async with connect(peers) as connection:
            listener = await connection.forward_remote_port("home", 80, "127.0.0.1",
                                                            peers.service.port)
            assert (await asyncio.to_thread(peers.fetch)).status == 200
            listener.close()
            await listener.wait_closed()
            for _ in range(100):
                if (await asyncio.to_thread(peers.fetch)).status != 200:
                    return
                await asyncio.sleep(0.05)
            pytest.fail("the name is still there")
    asyncio.run(asyncio.wait_for(run(), 30))


def test_asyncssh_is_told_at_shutdown(peers):
    async def run():
        connection = await connect(peers)
        peers.relay.signal(15)
        await connection.wait_closed()
    asyncio.run(asyncio.wait_for(run(), 30))
    assert peers.relay.wait() == 0


# -- dropbear --------------------------------------------------------------------------------------

def dbclient(peers, *args):
    return peers.world.spawn("/usr/bin/dbclient", "-y", "-y", "-N", "-T", "-J", peers.command,
                             *args, "alice@relay", env=peers.env())


def test_dbclient_publishes(peers):
    dbclient(peers, "-R", f"home:80:127.0.0.1:{peers.service.port}")
    peers.wait_published()
    body = bytes(range(256)) * 4096
    assert peers.fetch(method="POST", body=body).body == body


def test_dbclient_reaches(peers):
    peers.world.http(peers.relay, peers.service.port)
    port = free_port()
    process = dbclient(peers, "-L", f"{port}:home:80")
    peers.until_open(process, port)
    assert fetch(port, "/x", method="POST", body=b"hello").body == b"hello"


# -- libssh ----------------------------------------------------------------------------------------

def test_libssh_publishes(peers, libssh_client):
    process = peers.world.spawn(libssh_client, "publish", peers.command, "home", "3",
                                env=peers.env(), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"published\n", process.log_path.read_text()
    for _ in range(3):
        assert peers.fetch().body == b"from libssh"
    assert process.wait(15) == 0, process.log_path.read_text()


def test_libssh_reaches(peers, libssh_client):
    peers.world.http(peers.relay, peers.service.port)
    done = subprocess.run([libssh_client, "reach", peers.command, "home"], env=peers.env(),
                          capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"HTTP/1.1 200")


def test_libssh_is_refused_what_a_tunnel_does_not_need(peers, libssh_client):
    done = subprocess.run([libssh_client, "refused", peers.command], env=peers.env(),
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
