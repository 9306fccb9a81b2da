# SPDX-License-Identifier: MIT
"""What goes through a tunnel while its link is put to the test: a download and an upload of known
bytes, event streams and conversations whose every line is numbered. Each must arrive whole: not a
byte, event or line is lost, doubled or out of order, and no request reaches the service twice."""
import hashlib
import itertools
import random
import re
import threading
import time

from client import Client
from culvert import wait_for

BLOCK = 65536
EVENTS_PER_S = 20
PATHS = ("/download", "/upload", "/events", "/echo")
UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
           ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")]


def echo_route(conn, request):
    """Upgrades and sends back what comes; the protocol inside is the test's own."""
    conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
              b"Upgrade: websocket\r\n\r\n")
    while True:
        data = conn.buffer
        conn.buffer = b""
        if data:
            conn.send(data)
        conn._fill()


class Load:
    """Streams and conversations go on until finish(), transfers until they are through.

    `scene` has relay, service and token. `size` 0: no transfers. The threads are born in the
    network namespace of the caller.
    """

    def __init__(self, scene, size=0, events=0, conversations=1, timeout=90):
        self.relay, self.service, self.token = scene.relay, scene.service, scene.token
        self.size = size
        self.timeout = timeout
        self.is_over = threading.Event()
        self.moved = {"download": 0, "upload": 0} if size else {}
        self.counts = []  # of each event stream and conversation
        self.faults = []
        self.jobs = [("download", self._download), ("upload", self._upload)] if size else []
        self.jobs += [("events", self._events)] * events
        self.jobs += [("conversation", self._converse)] * conversations
        self.block = random.Random(7).randbytes(BLOCK)
        (self.service.on("/download", self._serve_download).on("/upload", self._serve_upload)
         .on("/events", self._serve_events).on("/echo", echo_route))
        self.threads = [threading.Thread(target=self._run, args=job, daemon=True)
                        for job in self.jobs]
        for thread in self.threads:
            thread.start()
        wait_for(lambda: self._served() >= len(self.jobs), 60,
                 "all requests at the service")

    # -- the service ---------------------------------------------------------------------------

    def _served(self):
        return sum(r.path in PATHS for r in list(self.service.requests))

    def _serve_download(self, conn, request):
        conn.read_body(request)
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.size)
        for _ in range(self.size // BLOCK):
            conn.send(self.block)
        return True

    def _serve_upload(self, conn, request):
        total, digest = conn.read_body(request, keep=False)
        conn.reply(body=f"{total} {digest}".encode())
        return True

    def _serve_events(self, conn, request):
        conn.read_body(request)
        conn.start_chunked("text/event-stream")
        for n in itertools.count():
            conn.chunk(b"data: %d\n\n" % n)
            if self.is_over.wait(1 / EVENTS_PER_S):
                conn.chunk(b"data: last %d\n\n" % n)
                break
        conn.end_chunks()
        return True

    # -- the consumers -------------------------------------------------------------------------

    def _run(self, name, job):
        try:
            with Client(self.relay.port, timeout=self.timeout, tls=self.relay.tls,
                        server_name=self.relay.server_name) as client:
                job(client)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.faults.append(f"{name}: {error!r}")

    def _digest(self):
        whole = hashlib.sha256()
        for _ in range(self.size // BLOCK):
            whole.update(self.block)
        return whole.hexdigest()

    def _download(self, client):
        digest = hashlib.sha256()

        def take(piece):
            digest.update(piece)
            self.moved["download"] += len(piece)
        client.request("GET", "/t/home/download", self.token)
        response = client.response(keep=False, on_piece=take)
        assert response.status == 200 and response.is_complete, response
        assert digest.hexdigest() == self._digest(), "the download differs"

    def _upload(self, client):
        client.send(f"POST /t/home/upload HTTP/1.1\r\nHost: localhost\r\n"
                    f"Authorization: Bearer {self.token}\r\n"
                    f"Content-Length: {self.size}\r\n\r\n".encode())
        for _ in range(self.size // BLOCK):
            client.send(self.block)
            self.moved["upload"] += BLOCK
        response = client.response("POST")
        want = f"{self.size} {self._digest()}".encode()
        assert response.status == 200 and response.body == want, response.body

    def _events(self, client):
        client.request("GET", "/t/home/events", self.token)
        response = client.response()
        assert response.is_complete, "an event stream was cut"
        got = [int(n) for n in re.findall(rb"data: (\d+)\n\n", response.body)]
        last = int(re.search(rb"data: last (\d+)\n\n", response.body)[1])
        assert got == list(range(last + 1)), f"{len(got)} of {last + 1} events"
        self.counts.append(len(got))

    def _converse(self, client):
        client.request("GET", "/t/home/echo", self.token, headers=UPGRADE)
        assert client.head().status == 101
        for n in itertools.count():
            line = b"line %d\n" % n
            client.send(line)
            while b"\n" not in client.buffer:
                assert client.fill(), f"closed after {n} lines"
            got, _, client.buffer = client.buffer.partition(b"\n")
            assert got + b"\n" == line, (got, line)
            if self.is_over.wait(0.02):
                self.counts.append(n + 1)
                return

    # -- the test ------------------------------------------------------------------------------

    @property
    def progress(self):
        """How much of the faster transfer is through, 0 to 1."""
        return max(self.moved.values()) / self.size if self.size else 0

    def wait_progress(self, part, timeout=60):
        wait_for(lambda: self.faults or self.progress >= part, timeout,
                 f"progress {part:.2f}, not only {self.progress:.2f}")

    def finish(self, timeout=180):
        """Ends what is endless, waits for the rest; all must have gone well."""
        self.is_over.set()
        end = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0, end - time.monotonic()))
        hanging = sum(thread.is_alive() for thread in self.threads)
        assert not self.faults and not hanging, (hanging, self.faults[:5])
        assert not self.service.faults, self.service.faults[:5]
        assert self._served() == len(self.jobs), "a request was sent twice"
