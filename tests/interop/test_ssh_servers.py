# SPDX-License-Identifier: MIT
"""The agent's side of the engines: our SSH client against other makers' servers, and our WebSocket
client against other makers' WebSocket servers."""
import subprocess
import threading

import pytest
from bulk import LONG_MIB, MIB, SHORT_MIB, echoed
from culvert import PEERS, free_port, wait_for
from interop_plugin import Stopwatch
from sshpeers import HERE, REKEY, START_S, is_open
from sshservers import SERVERS, Sshd

SIZES = [SHORT_MIB, pytest.param(LONG_MIB, marks=pytest.mark.long)]


@pytest.fixture
def server_of(world):
    started = []

    def start(name):
        started.append(SERVERS[name](world))
        return started[-1]

    yield start
    for server in started:
        server.close()


class Client:
    """tests/peers/ssh_peer as a client, its lines collected."""

    def __init__(self, world, server, begun_by, *options):
        limit = REKEY if begun_by == "both" else 1 << 30
        self.process = world.spawn(PEERS / "ssh_peer", "client", "--connect",
                                   f"127.0.0.1:{server.port}", "--rekey-bytes", limit, *options,
                                   stdout=subprocess.PIPE)
        self.lines = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        self.lines += (line.decode().rstrip() for line in self.process.stdout)

    def rekeys(self):
        return self.lines.count("rekeyed")


@pytest.mark.parametrize("begun_by", ["server", "both"])
@pytest.mark.parametrize("mib", SIZES)
@pytest.mark.parametrize("name", SERVERS)
def test_our_client_reaches(world, server_of, row, name, mib, begun_by):
    server = server_of(name)
    with Stopwatch(mib) as watch:
        client = Client(world, server, begun_by, "--open", server.echo, "--bytes", mib * MIB)
        assert client.process.wait(120) == 0, client.lines
    client.thread.join()
    assert f"ok {mib * MIB} bytes" in client.lines
    assert client.rekeys() >= max(1, mib // 4)
    row.note(f"{name} server", "open", "tcp", mib, watch.rate, watch.rate,
             f"{client.rekeys()} {begun_by}")


@pytest.mark.parametrize("begun_by", ["server", "both"])
@pytest.mark.parametrize("mib", SIZES)
@pytest.mark.parametrize("name", SERVERS)
def test_our_client_publishes(world, server_of, row, name, mib, begun_by):
    server = server_of(name)
    port = free_port()
    client = Client(world, server, begun_by, "--forward", f"localhost:{port}")
    wait_for(lambda: is_open(port), START_S, "forwarded port")
    with Stopwatch(mib) as watch:
        echoed(port, mib * MIB, half_close=server.has_half_close)
    client.process.terminate()
    client.thread.join()
    assert client.rekeys() >= max(1, mib // 4)
    row.note(f"{name} server", "forward", "tcp", mib, watch.rate, watch.rate,
             f"{client.rekeys()} {begun_by}")


@pytest.mark.parametrize("mib", SIZES)
@pytest.mark.parametrize("kind", ["websockify", "websockets"])
def test_our_websocket_through_a_foreign_server(world, row, kind, mib):
    """`culvert stdio` to another maker's WebSocket server, with OpenSSH at both ends."""
    # Key exchanges are not the matter here; OpenSSH counts bytes as blocks, so has many more.
    server = Sshd(world, rekey=16 * REKEY)
    port, local = free_port(), free_port()
    bridge = world.spawn("/usr/bin/python3", HERE / "ws_server.py", kind, port, server.port,
                         env=world.env({"PYTHONWARNINGS": "ignore"}))

    def look():
        assert bridge.poll() is None, bridge.log_path.read_text()
        return is_open(port)
    wait_for(look, START_S, kind)
    command = f"{world.stdio_command(None, url=f'ws://127.0.0.1:{port}')}"
    ssh = world.spawn("/usr/bin/ssh", "-F", "none", "-N", "-T", "-o", f"ProxyCommand={command}",
                      "-o", f"UserKnownHostsFile={world.folder}/known", "-o",
                      "StrictHostKeyChecking=accept-new", "-o",
                      "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{local}:{server.echo}",
                      "culvert@server", env=world.env({"CULVERT_TOKEN": world.token()}))

    def listens():
        assert ssh.poll() is None, ssh.log_path.read_text()
        return is_open(local)
    wait_for(listens, START_S, "local port of ssh")
    with Stopwatch(mib) as watch:
        echoed(local, mib * MIB)
    server.close()
    row.note("openssh to sshd", "reach", f"stdio to {kind}", mib, watch.rate, watch.rate)
