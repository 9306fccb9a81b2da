# SPDX-License-Identifier: MIT
"""The SSH transport layer alone against foreign peers: ciphers, compression, keys changed by us."""
import asyncio
import socket
import subprocess
import time

import asyncssh
import pytest

from culvert import PEERS, free_port

HANDSHAKE = PEERS / "ssh_handshake"
CIPHERS = [
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
]


class Server:
    """One connection's worth of ssh_handshake as a server."""

    def __init__(self, *options):
        self.port = free_port()
        self.process = subprocess.Popen(
            [HANDSHAKE, "server", str(self.port), *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "listening\n"

    def wait(self):
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server():
    started = []

    def start(*options):
        started.append(Server(*options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


def wait_for_keys(server, count, timeout=15):
    """Reads the server's lines until it has changed keys so often."""
    lines, end = [], time.monotonic() + timeout
    while time.monotonic() < end:
        line = server.process.stdout.readline()
        assert line, lines
        lines.append(line)
        if line == f"kex {count}\n":
            return lines
    raise AssertionError(lines)


@pytest.mark.parametrize("compression", ["no", "yes"])
@pytest.mark.parametrize("cipher", CIPHERS)
def test_openssh_shakes_hands_and_follows_a_rekey(server, cipher, compression):
    ours = server("zlib=1", "rekey=1", "seconds=15")
    ssh = subprocess.Popen(
        ["ssh", "-F", "/dev/null", "-p", str(ours.port), "-c", cipher, "-N",
         "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
         "-o", f"Compression={compression}", "-o", "ServerAliveInterval=1", "u@127.0.0.1"],
        stderr=subprocess.PIPE, text=True)
    try:
        lines = wait_for_keys(ours, 2)
        assert any(line.endswith(f"{cipher}\n") for line in lines)
    finally:
        ssh.terminate()
        ssh.communicate()
    code, output = ours.wait()
    assert code == 0, output


def test_dropbear_shakes_hands_and_follows_a_rekey(server):
    ours = server("rekey=1", "seconds=15")
    client = subprocess.Popen(
        ["dbclient", "-y", "-y", "-K", "1", "-p", str(ours.port), "-N", "u@127.0.0.1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_keys(ours, 2)
    finally:
        client.terminate()
        client.wait()
    code, output = ours.wait()
    assert code == 0, output


@pytest.mark.parametrize("options", [[], ["guess=1"], ["zlib=1"]])
@pytest.mark.parametrize("cipher", CIPHERS)
def test_our_client_shakes_hands_with_asyncssh(cipher, options):
    class Open(asyncssh.SSHServer):
        def begin_auth(self, username):
            return False

    async def run():
        key = asyncssh.generate_private_key("ssh-ed25519")
        listener = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Open, server_host_keys=[key],
            compression_algs=["zlib@openssh.com", "none"], rekey_bytes=8192)
        client = await asyncio.create_subprocess_exec(
            HANDSHAKE, "client", str(listener.sockets[0].getsockname()[1]), f"ciphers={cipher}", "rekey=2000",
            *options, stdout=asyncio.subprocess.PIPE)
        output, _ = await client.communicate()
        listener.close()
        return client.returncode, output.decode(), key.get_fingerprint("sha256")

    code, output, fingerprint = asyncio.run(run())
    assert code == 0, output
    assert f"host key {fingerprint}\n" in output
    assert "kex 1\n" in output


@pytest.mark.parametrize("said", [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"SSH-1.5-old\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"SSH-2.0-" + b"x" * 9000,
])
def test_what_is_not_ssh_is_refused_at_once(server, said):
    ours = server()
    with socket.create_connection(("127.0.0.1", ours.port)) as peer:
        peer.sendall(said)
        code, output = ours.wait()
    assert code == 1
    assert "end SSH_" in output
