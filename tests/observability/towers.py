# SPDX-License-Identifier: MIT
"""Debian's Prometheus and Alertmanager, run for a test on loopback ports of their own."""
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import culvert
import pytest
from culvert import wait_for

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Tower:
    """A program with an HTTP API."""

    def __init__(self, world, program, words, port):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
        self.world, self.program, self.words, self.port = world, program, words, port
        self.process = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        env = self.world.env({"GOMAXPROCS": "1"})
        self.process = self.world.spawn(self.program, *self.words, env=env,
                                        stdout=subprocess.DEVNULL)
        wait_for(self.is_ready, 30, f"answer of {self.program}", interval=0.05)

    def is_ready(self):
        assert self.process.poll() is None, self.process.log_path.read_text()[-2000:]
        try:
            with DIRECT.open(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def get(self, path, **query):
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        try:
            with DIRECT.open(url, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {query}: {error.read().decode()}") from None

    def kill(self):
        self.process.kill()
        self.process.wait(10)


def alertmanager(world, receiver):
    """Tells the receiver at once; otherwise as deploy/observability has it."""
    port = culvert.free_port()
    config = world.write("alertmanager.yml", json.dumps({
        "route": {"receiver": "test", "group_by": ["alertname", "service"], "group_wait": "0s",
                  "group_interval": "1s", "repeat_interval": "1h"},
        "receivers": [{"name": "test", "webhook_configs": [
            {"url": f"{receiver.url}/alerts", "send_resolved": True}]}]}))
    return Tower(world, "prometheus-alertmanager", [
        "--config.file", config, "--storage.path", world.folder / "alertmanager",
        "--web.listen-address", f"127.0.0.1:{port}", "--cluster.listen-address=",
        "--log.level=warn"], port)


def prometheus(world, config):
    port = culvert.free_port()
    return Tower(world, "prometheus", [
        "--config.file", config, "--storage.tsdb.path", world.folder / "prometheus",
        "--web.listen-address", f"127.0.0.1:{port}", "--log.level=warn"], port)
