#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Mixed load for a long time, with cuts, churn and slow readers: what must stay as it is.

    tests/load/soak.py --build FOLDER [--minutes 30] [--json FILE]

Four users' agents reach the relay through proxies that cut, half-close and swallow connections
every few seconds. Meanwhile their consumers send small requests, downloads, uploads and event
streams, and check every byte; others read slowly and go away in the middle, or hang up in the
middle of a head; and twenty more links at a time come and go. Cuts are resumed underneath, so that
no answer may be wrong, short or an error. Memory and descriptors of relay and agents are sampled;
memory must not rise by more than its own noise, and descriptors must be what they were once all is
quiet.

test_soak.py runs the short form.
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parent / "bench")]

BODY = bytes(range(256)) * 8192  # 2 MiB
DIGEST = hashlib.sha256(BODY).hexdigest()
USERS = 4
EVENTS, EVENT_PAUSE_S = 60, 0.05
ENOUGH_KIB = 128 << 10  # for the relay, and for all agents together


def routes():
    def small(conn, request):
        conn.read_body(request, keep=False)
        conn.reply(body=b"small")
        return True

    def download(conn, request):
        conn.reply(body=BODY)
        return True

    def upload(conn, request):
        _, digest = conn.read_body(request, keep=False)
        conn.reply(body=digest.encode())
        return True

    def events(conn, request):
        conn.start_chunked("text/event-stream")
        for number in range(EVENTS):
            conn.chunk(b"data: %d\n\n" % number)
            time.sleep(EVENT_PAUSE_S)
        conn.end_chunks()
        return True
    return {"/small": small, "/down": download, "/up": upload, "/events": events}


class Soak:
    def __init__(self, world, seed=1):
        from chaos import Chaos
        self.world, self.random = world, random.Random(seed)
        self.service = world.service(routes())
        env = {"LOG_LEVEL": "info"}
        self.relay = world.relay(env=env)
        self.proxies, self.agents = [], []
        for number in range(USERS):
            proxy = Chaos(self.relay.port)
            world.cleanups.append(proxy.close)
            self.proxies.append(proxy)
            self.agents.append(world.http(self.relay, self.service.port, sub=self.user(number),
                                          url=proxy.url, env=env))
        self.is_over = threading.Event()
        self.faults, self.counts, self.samples = [], {}, []
        self.lock = threading.Lock()

    @staticmethod
    def user(number):
        return f"soak{number}"

    # -- consumers: each does one thing again and again ----------------------------------------

    def client(self, **kw):
        from client import Client
        return Client(self.relay.port, timeout=60, **kw)

    def ask(self, client, number, path, method="GET", **kw):
        client.request(method, f"/t/home{path}", self.world.token(self.user(number)), **kw)
        answer = client.response(method)
        assert answer is not None and answer.status == 200 and answer.is_complete, \
            f"{path}: {answer and (answer.status, answer.is_complete, answer.body[:300])}"
        return answer

    def small(self, number):
        with self.client() as client:
            for _ in range(100):
                assert self.ask(client, number, "/small").body == b"small"
                self.is_over.wait(0.005)

    def download(self, number):
        with self.client() as client:
            assert hashlib.sha256(self.ask(client, number, "/down").body).hexdigest() == DIGEST

    def upload(self, number):
        with self.client() as client:
            assert self.ask(client, number, "/up", "POST", body=BODY).body.decode() == DIGEST

    def events(self, number):
        with self.client() as client:
            body = self.ask(client, number, "/events").body
            assert body == b"".join(b"data: %d\n\n" % n for n in range(EVENTS)), body[-100:]

    def slow(self, number):
        """Takes a fifth of a download, piece by piece, and goes."""
        with self.client(receive_buffer=16384) as client:
            client.request("GET", "/t/home/down", self.world.token(self.user(number)))
            client.head()
            for _ in range(50):
                client.sock.recv(8192)
                self.is_over.wait(0.02)

    def rude(self, number):
        """Hangs up in the middle of a head, and in the middle of an answer."""
        token = self.world.token(self.user(number))
        with self.client() as client:
            client.send(b"GET /t/home/small HTTP/1.1\r\nHost: relay.test\r\nX-Half")
        with self.client() as client:
            client.request("GET", "/t/home/down", token)
            client.sock.recv(100)
        self.is_over.wait(0.1)

    # -- what disturbs them --------------------------------------------------------------------

    def cut(self, _):
        proxy, kind = self.random.choice(self.proxies), self.random.randrange(4)
        if kind < 2:
            proxy.cut(is_reset=kind == 0)
        elif kind == 2:
            proxy.half_close(is_up=self.random.random() < 0.5)
        else:
            with proxy.outage():
                self.is_over.wait(1)
        self.is_over.wait(2)

    def churn(self, number):
        """Twenty links of other users come up, and go."""
        from routes import Crowd
        crowd = Crowd(self.world, self.relay, self.service.port, 20)
        assert crowd.line()["up"] == 20
        crowd.end()
        self.world.cleanups.pop()  # it has ended, and there will be many

    def _repeat(self, work, number):
        name = work.__name__
        while not self.is_over.is_set():
            try:
                work(number)
                with self.lock:
                    self.counts[name] = self.counts.get(name, 0) + 1
            except Exception:
                with self.lock:
                    self.faults.append(f"{name}, user {number}: {traceback.format_exc()}")
                if len(self.faults) > 20:
                    return
                self.is_over.wait(1)

    # -- samples -------------------------------------------------------------------------------

    def sample(self):
        from machine import private_kib
        self.samples.append({
            "at": time.monotonic(),
            "relay_kib": private_kib([self.relay.pid]),
            "agents_kib": sum(private_kib([agent.pid]) for agent in self.agents),
            "relay_fds": self.relay.descriptors(),
            "agents_fds": sum(agent.descriptors() for agent in self.agents)})
        return self.samples[-1]

    def run(self, seconds, is_patient=False):
        before = self.sample()
        works = [(self.small, 0), (self.small, 1), (self.download, 1), (self.upload, 2),
                 (self.events, 3), (self.events, 2), (self.slow, 1), (self.slow, 3),
                 (self.rude, 0), (self.cut, 0), (self.churn, 0)]
        threads = [threading.Thread(target=self._repeat, args=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.faults) <= 20:
            time.sleep(max(0.5, seconds / 600))
            self.sample()
            self.service.requests.clear()  # the service keeps what it got; only here too much
            self.service.connections[:] = [c for c in self.service.connections
                                           if c.sock.fileno() >= 0]
        self.is_over.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread} does not end"
        return self.judge(before, is_patient)

    def judge(self, before, is_patient):
        from culvert import wait_for

        # The agents' connections to the service end a minute after their last request.
        kept = 0 if is_patient else 10 * USERS

        def quiet():
            now = self.sample()
            return now["relay_fds"] <= before["relay_fds"] and \
                now["agents_fds"] <= before["agents_fds"] + kept
        try:
            wait_for(quiet, 120 if is_patient else 20, "descriptors as before", interval=0.5)
        except AssertionError as error:
            self.faults.append(f"{error}: {before} → {self.samples[-1]}")
        slopes = {name: slope(self.samples, name) for name in ("relay_kib", "agents_kib")}
        for name, found in slopes.items():
            if is_patient and found["growth"] > max(3 * found["noise"], 2048):
                self.faults.append(f"{name} grows: {found}")
            # A short run is mostly warming up.
            if self.samples[-1][name] > ENOUGH_KIB:
                self.faults.append(f"{name}: {self.samples[-1][name]}")
        for agent in self.agents:
            agent.stop()  # while their proxies are still there
        return {"counts": self.counts, "faults": self.faults, "before": before,
                "after": self.samples[-1], "slopes": slopes}


def slope(samples, name):
    """How a figure moved over the last two thirds: KiB an hour by least squares, the growth that
    this is over the time measured, and the scatter around it."""
    part = samples[len(samples) // 3:]
    times = [sample["at"] - part[0]["at"] for sample in part]
    values = [sample[name] for sample in part]
    rate, start = statistics.linear_regression(times, values)
    noise = statistics.pstdev(value - start - rate * at for at, value in zip(times, values))
    return {"kib_per_hour": round(rate * 3600), "growth": round(rate * times[-1]),
            "noise": round(noise), "mean": round(statistics.mean(values))}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    os.environ["CULVERT_BUILD"] = str(Path(arguments.build).resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    from culvert import World
    folder = Path(tempfile.mkdtemp(prefix="culvert-soak-"))
    world = World(folder)
    try:
        soak = Soak(world)
        result = soak.run(60 * arguments.minutes, is_patient=True)
        if arguments.json:
            Path(arguments.json).write_text(json.dumps({**result, "samples": soak.samples}))
    finally:
        world.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=1))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
