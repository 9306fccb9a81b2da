# SPDX-License-Identifier: MIT
"""Our SSH engine alone, over plain TCP, against OpenSSH, dropbear and asyncssh, as server and as
client: bytes both ways, keys exchanged under load, every cipher."""
import asyncio
import hashlib
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest

from culvert import PEERS, free_port, wait_for

PEER = PEERS / "ssh_peer"
MIB = 1 << 20
CIPHERS = [
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
]


class Process:
    """A child whose output lines are collected; stopped at the end of the test."""

    def __init__(self, *command):
        self.lines = []
        self.popen = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(line.rstrip())

    def find(self, pattern):
        for line in list(self.lines):
            match = re.search(pattern, line)
            if match:
                return match
        return None

    def wait(self, pattern, timeout=20):
        return wait_for(lambda: self.find(pattern), timeout, f"{pattern!r} in {self.lines[-20:]}")

    def stop(self):
        # OpenSSH 9.2 loses a signal that comes just before it sleeps in poll().
        while self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(1)
            except subprocess.TimeoutExpired:
                continue
        self.thread.join(10)
        assert not self.find("Sanitizer|runtime error|bug:"), self.lines


@pytest.fixture
def run():
    processes = []

    def start(*command):
        processes.append(Process(*command))
        return processes[-1]

    yield start
    for process in reversed(processes):
        process.stop()


@pytest.fixture
def server(run):
    def start(*options):
        process = run(PEER, "server", "--listen", "127.0.0.1:0", *options)
        process.port = int(process.wait(r"listening (\d+)")[1])
        return process

    return start


@pytest.fixture
def echo():
    """A TCP service that echoes; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def openssh(port, *options):
    return ["ssh", "-N", "-F", "/dev/null", "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "ExitOnForwardFailure=yes",
            "-v", "-p", port, *options, "alice@127.0.0.1"]


def exchange(port, size, timeout=120):
    """Sends `size` random bytes to an echo behind `port`; both hashes must be equal."""
    block = os.urandom(MIB)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:

        def send():
            left = size
            while left:
                part = block[:min(left, len(block))]
                sent.update(part)
                connection.sendall(part)
                left -= len(part)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        count = 0
        while data := connection.recv(1 << 18):
            received.update(data)
            count += len(data)
        sender.join()
    assert count == size
    assert received.digest() == sent.digest()


def open_port(port):
    def is_open():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(is_open, 20, f"listener on {port}")
    return port


@pytest.mark.parametrize("cipher", CIPHERS)
def test_openssh_exchanges_keys_under_load_both_directions(run, server, echo, cipher):
    peer = server()
    local = free_port()
    run(*openssh(peer.port, "-c", cipher, "-o", "RekeyLimit=16K", "-L", f"{local}:echo:7",
                 "-R", f"home:80:127.0.0.1:{echo}"))
    remote = int(peer.wait(r"forward home 80 (\d+)")[1])
    exchange(open_port(local), 10 * MIB)
    exchange(remote, 10 * MIB)


@pytest.mark.parametrize("way, size", [("L", 100 * MIB), ("R", 30 * MIB)])
def test_openssh_moves_data_while_both_rekey(run, server, echo, way, size):
    peer = server("--rekey-bytes", 50000)
    local = free_port()
    client = run(*openssh(peer.port, "-o", "RekeyLimit=16K", "-L", f"{local}:echo:7",
                          "-R", f"home:80:127.0.0.1:{echo}"))
    remote = int(peer.wait(r"forward home 80 (\d+)")[1])
    exchange(open_port(local) if way == "L" else remote, size)
    client.stop()
    kex_count = int(peer.wait(r"end kex=(\d+)")[1])
    assert kex_count > 100


def test_openssh_with_compression(run, server):
    peer = server("--compress")
    local = free_port()
    client = run(*openssh(peer.port, "-C", "-L", f"{local}:echo:7"))
    exchange(open_port(local), 10 * MIB)
    assert client.find("compression: zlib@openssh.com")


def test_openssh_many_channels_at_once(run, server):
    peer = server("--rekey-bytes", 1000000)
    local = free_port()
    run(*openssh(peer.port, "-L", f"{local}:echo:7"))
    open_port(local)
    failures = []

    def one():
        try:
            exchange(local, MIB)
        except (AssertionError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_openssh_sessions_and_other_hosts_are_refused(run, server):
    peer = server()
    command = openssh(peer.port)
    command.remove("-N")
    shell = run(*command, "id")
    assert shell.popen.wait(20) == 255
    assert shell.find("unknown channel type")
    local = free_port()
    client = run(*openssh(peer.port, "-L", f"{local}:10.0.0.1:80"))
    with socket.create_connection(("127.0.0.1", open_port(local)), 20) as connection:
        assert connection.recv(1) == b""
    client.wait("administratively prohibited")


@pytest.mark.skipif(not shutil.which("dbclient"), reason="dropbear is not installed")
@pytest.mark.parametrize("way", ["L", "R"])
def test_dropbear(run, server, echo, way):
    peer = server("--rekey-bytes", 1000000)
    local = free_port()
    run("dbclient", "-y", "-y", "-N", "-T", "-p", peer.port,
        *(["-L", f"{local}:echo:7"] if way == "L" else ["-R", f"home:80:127.0.0.1:{echo}"]),
        "alice@127.0.0.1")
    port = open_port(local) if way == "L" else int(peer.wait(r"forward home 80 (\d+)")[1])
    exchange(port, 20 * MIB)


async def asyncssh_echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def asyncssh_exchange(reader, writer, size):
    block = os.urandom(size)

    async def send():
        for start in range(0, size, 65536):
            writer.write(block[start:start + 65536])
            await writer.drain()
        writer.write_eof()

    sender = asyncio.create_task(send())
    received = bytearray()
    while data := await reader.read(65536):
        received += data
    await sender
    assert hashlib.sha256(received).digest() == hashlib.sha256(block).digest()


@pytest.mark.parametrize("cipher", CIPHERS)
def test_asyncssh_client(server, cipher):
    asyncssh = pytest.importorskip("asyncssh")
    peer = server("--rekey-bytes", 300000)

    async def scene():
        async with asyncssh.connect("127.0.0.1", peer.port, username="alice", known_hosts=None,
                                    client_keys=None, config=None, encryption_algs=[cipher],
                                    rekey_bytes=200000) as connection:
            reader, writer = await connection.open_connection("echo", 7)
            await asyncssh_exchange(reader, writer, 4 * MIB)
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.open_connection("10.0.0.1", 80)
            with pytest.raises(asyncssh.ChannelOpenError):
                await connection.run("id")
            await connection.start_server(lambda host, port: asyncssh_echo, "home", 80)
            port = int(peer.wait(r"forward home 80 (\d+)")[1])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncssh_exchange(reader, writer, 4 * MIB)

    asyncio.run(asyncio.wait_for(scene(), 60))


@pytest.mark.parametrize("cipher", CIPHERS)
def test_asyncssh_server(run, cipher):
    asyncssh = pytest.importorskip("asyncssh")

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username):
            return False

        def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
            return asyncssh_echo if dest_host == "echo" else False

    async def scene():
        key = asyncssh.generate_private_key("ssh-ed25519")
        listener = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key],
                                                encryption_algs=[cipher], rekey_bytes=500000)
        port = listener.sockets[0].getsockname()[1]
        client = run(PEER, "client", "--connect", f"127.0.0.1:{port}", "--open", "echo:7",
                     "--bytes", 4 * MIB, "--rekey-bytes", 300000)
        code = await asyncio.get_running_loop().run_in_executor(None, client.popen.wait, 60)
        assert code == 0, client.lines
        listener.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


@pytest.mark.parametrize("options", [[], ["--compress"], ["--rekey-bytes", 16384]])
def test_both_ends_ours(run, server, options):
    peer = server(*options)
    client = run(PEER, "client", "--connect", f"127.0.0.1:{peer.port}", "--open", "echo:7",
                 "--bytes", 20 * MIB, *options)
    assert client.popen.wait(60) == 0, client.lines
    refused = run(PEER, "client", "--connect", f"127.0.0.1:{peer.port}", "--open", "10.0.0.1:80",
                  "--bytes", 10, *options)
    assert refused.popen.wait(60) == 1
    refused.wait("refused 1")


def test_forwarding_with_both_ends_ours(run, server):
    peer = server()
    run(PEER, "client", "--connect", f"127.0.0.1:{peer.port}", "--forward", "home:80")
    port = int(peer.wait(r"forward home 80 (\d+)")[1])
    exchange(port, 20 * MIB)


def test_what_is_not_ssh_is_refused_at_once(server):
    peer = server()
    for opening in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + 600 * b"x"):
        with socket.create_connection(("127.0.0.1", peer.port), 10) as connection:
            connection.sendall(opening)
            received = b""
            while True:
                try:
                    data = connection.recv(4096)
                except ConnectionResetError:
                    break
                if not data:
                    break
                received += data
            assert received.startswith(b"SSH-2.0-") or received == b""
