# SPDX-License-Identifier: MIT
"""The ways from a consumer to the service: none at all, `ssh -R`, culvert in several settings, the
floor programs. Each is up for the whole run and measured in turn."""
import os
import subprocess
from pathlib import Path

import culvert
from culvert import free_port, wait_for
from machine import is_open, user


class Route:
    """A base URL, a header that its requests need, and the processes that it costs, by end."""

    def __init__(self, name, url, pids=None, header=None, ca=None):
        self.name, self.url, self.header, self.ca = name, url, header, ca
        self.pids = pids or {}

    @property
    def port(self):
        return int(self.url.rpartition(":")[2].partition("/")[0])

    @property
    def path(self):
        return "/" + self.url.partition("://")[2].partition("/")[2]


class OpenSSH:
    """A private sshd, and clients that publish through it with -R."""

    def __init__(self, world):
        self.world = world
        self.port = free_port()
        folder = world.folder / "ssh"
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
                           check=True)
        config = folder / "sshd_config"
        config.write_text(f"""
Port {self.port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
MaxStartups 200
""")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self.daemon = world.spawn("/usr/sbin/sshd", "-D", "-f", config)
        self.folder = folder
        wait_for(lambda: is_open(self.port), what="sshd")

    def publish(self, target, via=None):
        """(port at which the target is reached, the client's process); `via`: another port for the
        connection to sshd, such as a delaying path."""
        port = free_port()
        client = self.world.spawn(
            "/usr/bin/ssh", "-F", "none", "-N", "-T", "-i", self.folder / "user",
            "-p", via or self.port, "-o", f"UserKnownHostsFile={self.folder}/known-{port}", "-o",
            "StrictHostKeyChecking=accept-new", "-o", "Ciphers=aes256-gcm@openssh.com",
            "-R", f"127.0.0.1:{port}:127.0.0.1:{target}", f"{user()}@127.0.0.1")
        wait_for(lambda: is_open(port), what="forwarded port of ssh")
        return port, client

    def route(self, target, via=None, name="ssh -R"):
        port, client = self.publish(target, via)
        return Route(name, f"http://127.0.0.1:{port}",
                     {"sshd": [self.daemon.pid], "ssh": [client.pid]})


def certificate(folder):
    """(authority, chain, key) files for 127.0.0.1."""
    ca, cert, key = (folder / name for name in ("ca.pem", "relay.pem", "relay.key"))
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
           "-nodes", "-days", "2"]
    subprocess.run([*new, "-subj", "/CN=bench authority", "-keyout", folder / "ca.key", "-out", ca,
                    "-addext", "keyUsage=critical,keyCertSign"], check=True, capture_output=True)
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-subj", "/CN=bench", "-keyout", key, "-out", folder / "csr"],
                   check=True, capture_output=True)
    extensions = folder / "ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    subprocess.run(["openssl", "x509", "-req", "-in", folder / "csr", "-CA", ca, "-CAkey",
                    folder / "ca.key", "-set_serial", "1", "-days", "2", "-extfile", extensions,
                    "-out", cert], check=True, capture_output=True)
    key.chmod(0o600)
    return ca, cert, key


class Culvert:
    """A relay; routes through it, each with an agent of its own."""

    def __init__(self, world, workers=0, channels=None, tls=None, config="", env=None):
        import ssl
        self.world = world
        self.env = {"LOG_LEVEL": "info", "MAX_CONNECTIONS_PER_USER": "100", **(env or {})}
        if channels:
            self.env["SSH_MAX_CHANNELS"] = str(channels)
        self.ca, words = None, {"config": config or None}
        if tls:
            self.ca, cert, key = tls
            words = {"config": f"{config}\ntls:\n  cert_file: {cert}\n  key_file: {key}\n",
                     "tls": ssl.create_default_context(cafile=str(self.ca))}
        self.relay = world.relay(env=self.env, workers=workers or os.cpu_count(), **words)

    def route(self, target, name, tunnel="home", via=None):
        """`via`: another port for the agent's connection."""
        env = dict(self.env)
        if self.ca:
            env["CULVERT_CA_FILE"] = str(self.ca)
        url = self.relay.url.replace(str(self.relay.port), str(via or self.relay.port))
        agent = self.world.http(self.relay, target, name=tunnel, env=env, url=url)
        return Route(name, f"{self.relay.http_url}/t/{tunnel}",
                     {"relay": [self.relay.pid], "agent": [agent.pid]},
                     f"Authorization: Bearer {self.world.token()}", self.ca)


class Crowd:
    """tests/load/load_agents: many users, each with an agent and the tunnel `home`."""

    def __init__(self, world, relay, target, links, per_second=0, ca=None, channels=10, first=0):
        self.tokens = world.folder / f"tokens-{relay.port}-{first}-{links}"
        config = world.write(
            f"crowd-{relay.port}-{first}-{links}.yaml",
            f"server: {relay.url}\nstate_dir: {world.state}\n"
            f"{f'ca_file: {ca}' if ca else ''}\nssh:\n  max_channels: {channels}\n"
            f"tunnels:\n  - name: home\n    target: {target}\n")
        self.process = world.spawn(program("load_agents"), config, links, per_second, self.tokens,
                                   first, stdout=subprocess.PIPE)

    def line(self):
        import json
        text = self.process.stdout.readline()
        assert text, f"load_agents ended: {self.process.log_path.read_text()[-2000:]}"
        return json.loads(text)

    def state(self):
        import signal
        self.process.send_signal(signal.SIGUSR1)
        return self.line()

    def end(self):
        self.process.terminate()
        state = self.line()
        assert self.process.wait(60) == 0
        return state


def program(name):
    folder = "load" if name.startswith("load_") else "bench"
    return culvert.BUILD / "tests" / folder / name


def floor(world, name, target):
    port = free_port()
    process = world.spawn(program(name), port, target)
    wait_for(lambda: is_open(port), what=name)
    return Route("floor", f"http://127.0.0.1:{port}", {"both": [process.pid]})


def delayed(world, target, one_way_ms, mib_per_second):
    """The port of a path to `target` that is that long."""
    port = free_port()
    world.spawn(program("delay"), port, target, one_way_ms, mib_per_second)
    wait_for(lambda: is_open(port), what="delay")
    return port
