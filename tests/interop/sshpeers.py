# SPDX-License-Identifier: MIT
"""Five SSH clients that publish (-R) and reach (-L) through any bridge to the relay.

Each `publish` and `reach` starts the client and returns when its tunnel or port is there. A client
begins a key exchange by itself about every REKEY bytes; dropbear alone cannot be told to.
"""
import asyncio
import shlex
import subprocess
import threading
import warnings
from pathlib import Path

from culvert import BIN, free_port, wait_for
from npm import node_environment

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import asyncssh

HERE = Path(__file__).parent
REKEY = 1 << 20
START_S = 60


def is_open(port):
    import socket
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Peer:
    """A client with its bridge: `command` is the ProxyCommand as words."""
    begins_rekeys = True

    def __init__(self, world, relay, bridge, libssh_pump=None):
        self.world, self.relay, self.libssh_pump = world, relay, libssh_pump
        self.url = f"{relay.url}/tunnel"
        if bridge == "stdio":
            self.command = [str(BIN), "stdio", "--server", relay.url]
        else:
            self.command = ["/usr/bin/python3", str(HERE / "bridge.py"), bridge, self.url]

    def env(self):
        return self.world.env({"CULVERT_TOKEN": self.world.token(), "PYTHONWARNINGS": "ignore"})

    @property
    def proxy_command(self):
        return shlex.join(self.command)

    def wait_published(self, process=None):
        def look():
            assert process is None or process.poll() is None, process.log_path.read_text()
            return self.relay.fetch("/t/home/ready", self.world.token()).status == 200
        wait_for(look, START_S, "published tunnel", interval=0.05)

    def wait_open(self, process, port):
        def look():
            assert process.poll() is None, process.log_path.read_text()
            return is_open(port)
        wait_for(look, START_S, "local port", interval=0.05)

    def publish(self, port):
        self.wait_published(self.start("publish", port))

    def reach(self):
        port = free_port()
        self.wait_open(self.start("reach", port), port)
        return port

    def close(self):
        pass


class OpenSsh(Peer):
    def start(self, mode, port):
        return self.world.spawn(
            "/usr/bin/ssh", "-F", "none", "-N", "-T", "-o",
            f"ProxyCommand={self.proxy_command}", "-o", f"RekeyLimit={REKEY}", "-o",
            f"UserKnownHostsFile={self.world.folder}/known", "-o",
            "StrictHostKeyChecking=accept-new", "-o", "ExitOnForwardFailure=yes", "-o",
            "BatchMode=yes", *(["-R", f"home:80:127.0.0.1:{port}"] if mode == "publish" else
                               ["-L", f"127.0.0.1:{port}:home:80"]), "alice@relay",
            env=self.env())


class Dropbear(Peer):
    begins_rekeys = False  # only after 1 GiB or 8 hours

    def start(self, mode, port):
        return self.world.spawn(
            "/usr/bin/dbclient", "-y", "-y", "-N", "-T", "-J", self.proxy_command,
            *(["-R", f"home:80:127.0.0.1:{port}"] if mode == "publish" else
              ["-L", f"127.0.0.1:{port}:home:80"]), "alice@relay", env=self.env())


class LibSsh(Peer):
    def start(self, mode, port):
        process = self.world.spawn(self.libssh_pump, mode, self.proxy_command, "home", port, REKEY,
                                   env=self.env(), stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n", process.log_path.read_text()
        return process


class Ssh2(Peer):
    def start(self, mode, port):
        env = {**node_environment(self.world), "CULVERT_TOKEN": self.world.token()}
        process = self.world.spawn("/usr/bin/env", "node", HERE / "ssh2_peer.js", mode, "home",
                                   port, REKEY, *self.command, env=env, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n", process.log_path.read_text()
        threading.Thread(target=process.stdout.read, daemon=True).start()
        return process


class AsyncSsh(Peer):
    """In a thread of this process, since asyncssh is a library."""

    def publish(self, port):
        async def use(connection):
            await connection.forward_remote_port("home", 80, "127.0.0.1", port)
        self._run(use)
        self.wait_published()

    def reach(self):
        async def use(connection):
            listener = await connection.forward_local_port("127.0.0.1", 0, "home", 80)
            return listener.get_port()
        return self._run(use)

    def _run(self, use):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

        async def start():
            env = [f"{name}={value}" for name, value in self.env().items()
                   if name.startswith("CULVERT_") or name == "PYTHONWARNINGS"]
            self.connection = await asyncssh.connect(
                "relay", proxy_command=["/usr/bin/env", *env, *self.command], username="alice",
                known_hosts=None, client_keys=None, config=None, rekey_bytes=REKEY // 4)
            return await use(self.connection)
        return asyncio.run_coroutine_threadsafe(start(), self.loop).result(START_S)

    def close(self):
        async def end():
            self.connection.close()
            await self.connection.wait_closed()
        asyncio.run_coroutine_threadsafe(end(), self.loop).result(30)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


PEERS = {"openssh": OpenSsh, "asyncssh": AsyncSsh, "dbclient": Dropbear, "libssh": LibSsh,
         "ssh2": Ssh2}
