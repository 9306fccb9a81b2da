# SPDX-License-Identifier: MIT
"""Who the strangers talk to: our engine alone on a socket (tests/peers/ssh_peer), server or client,
and the relay behind a WebSocket."""
import re
import socket
import subprocess
import threading

from attack import Pump, Target
from culvert import PEERS, World, wait_for
from stranger import Stranger

PEER = PEERS / "ssh_peer"


class Program:
    """ssh_peer, with the lines that it prints."""

    def __init__(self, *words):
        self.lines = []
        self.process = subprocess.Popen([PEER, *map(str, words)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def find(self, pattern):
        return next((m for m in (re.search(pattern, line) for line in list(self.lines)) if m), None)

    def wait(self, pattern):
        return wait_for(lambda: self.find(pattern), 30, f"{pattern!r} in {self.lines}")

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.reader.join(10)
        self.process.stdout.close()
        assert not self.find("Sanitizer|runtime error|does not hold"), self.lines


class Alone:
    """ssh_peer as a server: connect() as often as one likes."""
    kind = "alone"

    def __init__(self, *options):
        self.program = Program("server", "--listen", "127.0.0.1:0", *options)
        self.port = int(self.program.wait(r"listening (\d+)")[1])

    def connect(self):
        return Stranger.connect(self.port)

    def close(self):
        self.program.close()


class Relay:
    """The relay's /tunnel with the subprotocol ssh."""
    kind = "relay"

    def __init__(self, folder):
        self.world = World(folder, 1)
        # Hundreds of sessions from one address in a minute, by one user, are what is wanted here.
        self.target = Target(self.world, home=False, env={
            "RATE_LIMIT_IP_RPM": 0, "RATE_LIMIT_FREE_RPM": 0, "MAX_CONNECTIONS_PER_USER": 100})

    def connect(self):
        pump = Pump(self.target)
        peer = Stranger.connect(pump.port)
        peer.on_close = pump.close
        return peer

    def close(self):
        self.target.bobs.close()
        self.world.close()
