# SPDX-License-Identifier: MIT
"""A relay and an agent whose calls can be made to fail, and load on them meanwhile."""
import contextlib
import hashlib
import os
import threading
import time

from client import Broken, Client
from culvert import wait_for


class Weak:
    """A relay and an agent whose calls can be made to fail, an echo service behind them."""

    def __init__(self, world, new_faults, **relay):
        self.world = world
        self.relay_faults, self.agent_faults = new_faults(), new_faults()
        self.service = world.service()
        self.relay = world.relay(env=self.relay_faults.env(), **relay)
        self.agent = world.http(self.relay, self.service.port, env=self.agent_faults.env())
        self.token = world.token("alice")

    def both(self):
        return self.relay_faults, self.agent_faults

    def clear(self):
        for faults in self.both():
            faults.clear()

    def echo(self, size, chunked=False, timeout=60):
        body = os.urandom(size)
        with Client(self.relay.port, timeout=timeout) as client:
            client.request("POST", "/t/home/x", self.token, chunked=chunked,
                           body=[body[:size // 3], body[size // 3:]] if chunked else body)
            response = client.response()
        assert response.status == 200 and response.is_complete
        assert hashlib.sha256(response.body).digest() == hashlib.sha256(body).digest()

    def until(self, faults, kind, count, timeout=60):
        """Waits until that many calls have been changed."""
        def look():
            for process in (self.relay, self.agent):
                assert process.process.poll() is None, process.tail()
            return faults.hits(kind) >= count
        try:
            wait_for(look, timeout, f"faults of {kind}")
        except AssertionError as missing:
            tails = "\n".join(process.tail() for process in (self.relay, self.agent))
            raise AssertionError(f"{missing}: {faults.hits(kind)} of {count}\n{tails}") from None

    def is_well(self):
        try:
            self.echo(1000, timeout=5)
        except (AssertionError, OSError, Broken):
            return False
        return True

    @contextlib.contextmanager
    def load(self, consumers=3):
        """Requests all the time. No answer may be both whole and wrong, and nothing may end."""
        oddities, whole = [], []
        is_over = threading.Event()

        def consume(number):
            body = hashlib.sha512(b"%d" % number).digest() * 700
            while not is_over.is_set():
                try:
                    self._ask(body, whole, oddities)
                except OSError:
                    pass
                except Exception as problem:  # noqa: BLE001 - told at the end
                    oddities.append(repr(problem))
                time.sleep(0.005)

        threads = [threading.Thread(target=consume, args=(n,)) for n in range(consumers)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: whole, 20, "answers before any fault")
            yield whole
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert whole and not oddities, oddities[:3]
        for process in (self.relay, self.agent):
            assert process.process.poll() is None, process.tail()

    def _ask(self, body, whole, oddities):
        with Client(self.relay.port, timeout=20) as client:
            for _ in range(3):
                client.request("POST", "/t/home/x", self.token, body=body)
                response = client.response()
                if response is None:
                    break
                if response.status == 200 and response.is_complete:
                    (whole if response.body == body else oddities).append(response)
