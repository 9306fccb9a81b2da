# SPDX-License-Identifier: MIT
"""A local HTTP service with scripted behaviour: what stands behind the agent in these tests.

It reads plain sockets, so that a test can see every byte that arrives and send any byte it likes,
valid or not. A route is a function `route(conn, request)`; it writes the answer and returns False
when the connection is to be closed.
"""
import contextlib
import hashlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

RAW_KEPT = 1 << 20


@dataclass
class Request:
    method: str
    target: str
    version: str
    headers: list  # (name, value) as they came
    head: bytes
    trailers: list = field(default_factory=list)
    body: bytes = b""
    pieces: list = field(default_factory=list)  # (monotonic seconds, bytes) as read

    @property
    def path(self):
        return self.target.partition("?")[0]

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default


class Gone(Exception):
    """The other side closed or reset the connection."""


class Conn:
    def __init__(self, service, sock):
        self.service = service
        self.sock = sock
        self.buffer = b""
        self.raw = bytearray()
        self.closed_at = None

    def _fill(self):
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            raise Gone(str(error)) from error
        if not data:
            raise Gone("end of stream")
        self.service.note(self, data)
        self.buffer += data

    def read_until(self, mark):
        while mark not in self.buffer:
            self._fill()
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    def read_exactly(self, count):
        while len(self.buffer) < count:
            self._fill()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_request(self):
        head = self.read_until(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        headers = []
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        return Request(method, target, version, headers, head)

    def read_body(self, request, keep=True, pause=0.0):
        """Reads the body; gives its length and SHA-256. Pieces are kept with their times."""
        digest = hashlib.sha256()
        total = 0

        def take(data):
            nonlocal total
            total += len(data)
            digest.update(data)
            if keep:
                request.pieces.append((time.monotonic(), data))
            if pause:
                time.sleep(pause)

        if (request.get("Transfer-Encoding") or "").lower() == "chunked":
            while True:
                size = int(self.read_until(b"\r\n").split(b";")[0], 16)
                if size == 0:
                    break
                left = size
                while left:
                    if not self.buffer:
                        self._fill()
                    data, self.buffer = self.buffer[:left], self.buffer[left:]
                    left -= len(data)
                    take(data)
                assert self.read_exactly(2) == b"\r\n"
            while (line := self.read_until(b"\r\n")) != b"\r\n":
                name, _, value = line.decode("latin-1").partition(":")
                request.trailers.append((name, value.strip()))
        else:
            left = int(request.get("Content-Length") or 0)
            while left:
                if not self.buffer:
                    self._fill()
                data, self.buffer = self.buffer[:left], self.buffer[left:]
                left -= len(data)
                take(data)
        if keep:
            request.body = b"".join(data for _, data in request.pieces)
        return total, digest.hexdigest()

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise Gone(str(error)) from error
        self.service.sent_bytes += len(data)

    def reply(self, status=200, body=b"", headers=(), reason="OK"):
        head = f"HTTP/1.1 {status} {reason}\r\n"
        for name, value in headers:
            head += f"{name}: {value}\r\n"
        if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
            head += f"Content-Length: {len(body)}\r\n"
        self.send(head.encode("latin-1") + b"\r\n" + body)

    def start_chunked(self, content_type="text/plain", headers=()):
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.send(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{lines}"
                  "Transfer-Encoding: chunked\r\n\r\n".encode())

    def chunk(self, data):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end_chunks(self, trailers=()):
        lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
        self.send(f"0\r\n{lines}\r\n".encode())

    def reset(self):
        """Closes with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def wait_gone(self, timeout):
        """Seconds until the other side closes; raises TimeoutError."""
        start = time.monotonic()
        self.sock.settimeout(timeout)
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    break
        except (ConnectionError, BrokenPipeError):
            pass
        finally:
            with contextlib.suppress(OSError):
                self.sock.settimeout(None)
        return time.monotonic() - start


def echo(conn, request):
    """Answers with the body it got, and the request line in X-Request-Line."""
    conn.read_body(request)
    conn.reply(body=request.body, headers=[("Content-Type", "application/octet-stream"),
                                           ("X-Request-Line", f"{request.method} {request.target}")])
    return True


class Service:
    """Listens on a loopback port of its own until close()."""

    def __init__(self, routes=None, default=echo, family=socket.AF_INET, port=0):
        self.routes = dict(routes or {})
        self.default = default
        self.requests = []
        self.connections = []
        self.received_bytes = 0
        self.sent_bytes = 0
        self.faults = []
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
        self.listener.listen(512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, path, route):
        self.routes[path] = route
        return self

    def note(self, conn, data):
        with self.lock:
            self.received_bytes += len(data)
            if len(conn.raw) < RAW_KEPT:
                conn.raw += data

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            conn = Conn(self, sock)
            with self.lock:
                self.connections.append(conn)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            while True:
                request = conn.read_request()
                with self.changed:
                    self.requests.append(request)
                    self.changed.notify_all()
                route = self.routes.get(request.path, self.default)
                if route(conn, request) is False:
                    break
        except Gone:
            pass
        except Exception as error:  # noqa: BLE001 - shown by the test's fixture
            self.faults.append(repr(error))
        finally:
            conn.closed_at = time.monotonic()
            conn.close()

    def wait_requests(self, count=1, timeout=10):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= count, timeout), \
                f"the service saw {len(self.requests)} of {count} requests"
            return self.requests[count - 1]

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for conn in list(self.connections):
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RDWR)
            conn.close()
