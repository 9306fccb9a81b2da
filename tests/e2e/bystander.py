# SPDX-License-Identifier: MIT
"""Another user, whose probes go on while a relay is attacked.

He and his service are a process of their own, so that an attacker who is busy in this one does not
make them wait. Each turn takes three times: a request through the relay, the same request to the
service itself, and a short sleep. The last two say what the machine does to everybody at that
moment: what they lose while the attack goes on is noise and not the relay's doing.
"""
import json
import math
import os
import queue
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from client import Client
from service import Service

PAUSE_S = 0.002
PER_CONNECTION = 5
PROBES_MIN = 50  # however short the attack
# How many processes wake up one after the other for a request through the relay, against one.
WAKE_UPS = 4


def p99(times):
    """The 99th percentile; of fewer than 200 all but the worst one."""
    ordered = sorted(times)
    return ordered[min(math.ceil(0.99 * len(ordered)) - 1, max(len(ordered) - 2, 0))]


@dataclass
class Samples:
    """Seconds."""

    probe: list = field(default_factory=list)
    control: list = field(default_factory=list)
    pause: list = field(default_factory=list)
    faults: list = field(default_factory=list)

    def add(self, other):
        for name in ("probe", "control", "pause", "faults"):
            getattr(self, name).extend(getattr(other, name))

    def noise(self):
        return max(p99(self.control), p99(self.pause) - PAUSE_S)


class Bystander:
    """Bob's process; he rests until start()."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
        self.service_port = self._read()

    @property
    def connections(self):
        """As many as his service has seen; good for len() only."""
        self._say("count")
        return range(self._read())

    def start(self, relay_port, path, token, ca=None):
        """Probes go to `path` of this relay from now on; over TLS, trusting the file `ca`."""
        self._say("start", relay_port, path, token, ca and str(ca))

    def stop(self):
        """What he saw since start()."""
        self._say("stop")
        return Samples(**self._read())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)

    def _say(self, *words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def _read(self):
        line = self.process.stdout.readline()
        assert line, "the bystander's process is gone"
        return json.loads(line)


class _Prober:
    def __init__(self, port, path, token, ca, samples):
        self.port, self.path, self.token, self.samples = port, path, token, samples
        self.tls = {"tls": ssl.create_default_context(cafile=ca), "server_name": "localhost"} \
            if ca else {}
        self.client = None
        self.count = 0

    def probe(self, times):
        body = b"bob %d" % self.count
        started = time.monotonic()
        try:
            if self.count % PER_CONNECTION == 0:
                self.close()
                self.client = Client(self.port, timeout=30, **self.tls)
            self.client.request("POST", self.path, self.token, body=body)
            response = self.client.response()
            if response is None or response.status != 200 or response.body != body:
                raise OSError(f"answer {response and response.status} to {self.path}")
            self.count += 1
        except Exception as error:  # noqa: BLE001 - reported
            if len(self.samples.faults) < 10:
                self.samples.faults.append(repr(error))
            self.count = 0
        times.append(time.monotonic() - started)

    def close(self):
        if self.client:
            self.client.close()
        self.client = None


def _say(value):
    print(json.dumps(value), flush=True)


def _forget(service):
    """What the service keeps for tests that look at it; returns how many connections went."""
    with service.lock:
        over = [conn for conn in service.connections if conn.closed_at]
        service.connections = [conn for conn in service.connections if not conn.closed_at]
        service.requests.clear()
    return len(over)


def _listen(commands):
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put(None)


def main():
    service = Service()
    _say(service.port)
    commands = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    samples, through, direct = None, None, None
    forgotten = 0
    while True:
        if samples is None or (not commands.empty() and len(samples.probe) >= PROBES_MIN):
            command = commands.get()
            if command is None:
                return
            word, *args = command
            if word == "start":
                samples = Samples()
                through = _Prober(*args, samples)
                direct = _Prober(service.port, "/control", None, None, samples)
            elif word == "stop":
                through.close()
                direct.close()
                _say(vars(samples))
                samples = None
            else:
                _say(forgotten + len(service.connections))
            continue
        if len(service.requests) > 1000:
            forgotten += _forget(service)
        through.probe(samples.probe)
        direct.probe(samples.control)
        started = time.monotonic()
        time.sleep(PAUSE_S)
        samples.pause.append(time.monotonic() - started)


if __name__ == "__main__":
    main()
