# SPDX-License-Identifier: MIT
"""SSH servers of other makers that let a client in without a secret, for our client's engine.

Each has `port` and the name of a destination that echoes (`echo`, as HOST:PORT); each forwards what
tcpip-forward asks for on loopback, and knows an end of one direction alone or does not. They begin a
key exchange about every REKEY bytes.
"""
import asyncio
import os
import shutil
import subprocess
import threading
import warnings

import pytest
from bulk import Echo
from culvert import free_port, wait_for
from npm import node_environment
from sshpeers import HERE, REKEY, START_S, is_open

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import asyncssh

USER = "culvert"  # the name that our client gives


def host_key(world):
    path = world.folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


class SshServer:
    has_half_close = True


class Sshd(SshServer):
    """OpenSSH's server. Method `none` wants an account without a password: one that exists only
    for it, by libnss-wrapper."""

    def __init__(self, world, rekey=REKEY):
        if not shutil.which("sshd", path="/usr/sbin"):
            pytest.skip("openssh-server is not installed")
        self.service = Echo()
        self.echo = f"127.0.0.1:{self.service.port}"
        self.port = free_port()
        uid = os.getuid() or 1000  # whoever is not root cannot let in others
        accounts = {
            "passwd": f"sshd:x:105:65534::/run/sshd:/usr/sbin/nologin\n"
                      f"{USER}::{uid}:{uid}::/nonexistent:/bin/false\n",
            "shadow": f"sshd:!:1::::::\n{USER}::1:0:99999:7:::\n",
            "group": f"nogroup:x:65534:\n{USER}:x:{uid}:\n"}
        env = {f"NSS_WRAPPER_{name.upper()}": str(world.write(name, text))
               for name, text in accounts.items()}
        config = world.write("sshd_config", f"""
ListenAddress 127.0.0.1:{self.port}
HostKey {host_key(world)}
PidFile none
UsePAM no
PasswordAuthentication yes
PermitEmptyPasswords yes
RekeyLimit {rekey}
AllowTcpForwarding yes
""")
        # Where root's keeps its unprivileged half; the package's own service makes it at boot.
        if os.getuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        process = world.spawn("/usr/sbin/sshd", "-D", "-e", "-f", config,
                              env=world.env({**env, "LD_PRELOAD": "libnss_wrapper.so"}))

        def look():
            assert process.poll() is None, process.log_path.read_text()
            return is_open(self.port)
        wait_for(look, START_S, "sshd")

    def close(self):
        self.service.close()


class AsyncSshServer(SshServer):
    echo = "echo:7"

    def __init__(self, world):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

        async def pump(reader, writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username):
                return False

            def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
                return pump if dest_host == "echo" else False

            def server_requested(self, listen_host, listen_port):
                return True

        async def start():
            self.listener = await asyncssh.create_server(
                Server, "127.0.0.1", 0, rekey_bytes=REKEY // 4,
                server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")])
            return self.listener.sockets[0].getsockname()[1]
        self.port = asyncio.run_coroutine_threadsafe(start(), self.loop).result(START_S)

    def close(self):
        self.loop.call_soon_threadsafe(self.listener.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


class Ssh2Server(SshServer):
    echo = "echo:7"
    has_half_close = False  # EOF is followed by CLOSE

    def __init__(self, world):
        self.port = free_port()
        process = world.spawn("/usr/bin/env", "node", HERE / "ssh2_peer.js", "server",
                              host_key(world), self.port, REKEY, env=node_environment(world),
                              stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n", process.log_path.read_text()
        threading.Thread(target=process.stdout.read, daemon=True).start()

    def close(self):
        pass


SERVERS = {"sshd": Sshd, "asyncssh": AsyncSshServer, "ssh2": Ssh2Server}
