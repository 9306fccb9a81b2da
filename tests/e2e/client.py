# SPDX-License-Identifier: MIT
"""A consumer that sees everything: raw bytes out, answers in with the time of every piece.

Deliberately strict: an answer that breaks the rules of RFC 9112 raises, and `is_complete` tells a
body that ended by its framing from one that was cut.
"""
import contextlib
import socket
import ssl
import time
from dataclasses import dataclass, field


class Broken(Exception):
    """The answer is not valid HTTP/1.1."""


@dataclass
class Response:
    status: int
    reason: str
    version: str
    headers: list
    body: bytes = b""
    pieces: list = field(default_factory=list)  # (monotonic seconds, bytes)
    trailers: list = field(default_factory=list)
    interim: list = field(default_factory=list)  # (status, headers) of 1xx before it
    is_complete: bool = False

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def json(self):
        import json
        return json.loads(self.body)


class Client:
    def __init__(self, port, host="127.0.0.1", timeout=15, tls=None, server_name=None,
                 receive_buffer=None, source=None):
        self.port = port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(timeout)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=server_name or host)
        self.buffer = b""
        self.eof = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def request(self, method, target, token=None, headers=(), body=None, version="HTTP/1.1",
                host="relay.test", chunked=False, trailers=()):
        """Sends one request; `body` may be bytes or an iterable of bytes (then chunked)."""
        lines = [f"{method} {target} {version}"]
        if host is not None:
            lines.append(f"Host: {host}")
        if token:
            lines.append(f"Authorization: Bearer {token}")
        lines += [f"{name}: {value}" for name, value in headers]
        is_chunked = chunked or (body is not None and not isinstance(body, bytes))
        if is_chunked:
            lines.append("Transfer-Encoding: chunked")
        elif body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        if is_chunked:
            for piece in [body] if isinstance(body, bytes) else body:
                self.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            tail = "".join(f"{name}: {value}\r\n" for name, value in trailers)
            self.send(f"0\r\n{tail}\r\n".encode())
        elif body:
            self.send(body)

    def fill(self):
        if self.eof:
            return False
        try:
            data = self.sock.recv(262144)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.eof = True
            return False
        self.buffer += data
        return True

    def wait_bytes(self):
        """Waits until something of the body is there."""
        while not self.buffer:
            assert self.fill(), "closed before a byte of the body"

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self.fill():
                return None
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        if b"\r" in line or b"\n" in line:
            raise Broken(f"bare CR or LF in {line!r}")
        return line

    def _fields(self):
        fields = []
        while True:
            line = self._line()
            if line is None:
                raise Broken("closed in the fields")
            if not line:
                return fields
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon or not name or name != name.strip():
                raise Broken(f"field {line!r}")
            fields.append((name, value.strip()))

    def head(self):
        """Reads one response head, 1xx ones before it included. None at a close before it."""
        interim = []
        while True:
            line = self._line()
            if line is None:
                if interim or self.buffer:
                    raise Broken(f"closed inside a head: {self.buffer!r}")
                return None
            parts = line.decode("latin-1").split(" ", 2)
            if len(parts) < 2 or parts[0] not in ("HTTP/1.1", "HTTP/1.0"):
                raise Broken(f"status line {line!r}")
            response = Response(int(parts[1]), parts[2] if len(parts) > 2 else "", parts[0],
                                self._fields())
            if response.status >= 200 or response.status == 101:
                response.interim = interim
                return response
            interim.append((response.status, response.headers))

    def _take(self, response, count, keep):
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        response.pieces.append((time.monotonic(), data if keep else len(data)))
        return len(data)

    def response(self, method="GET", keep=True, on_piece=None):
        """One whole response, or as much of it as there is; None when closed before its head."""
        response = self.head()
        if response is None:
            return None
        self.body(response, method, keep, on_piece)
        return response

    def body(self, response, method="GET", keep=True, on_piece=None):
        """Reads the body after head()."""
        def take(count):
            if on_piece:
                on_piece(self.buffer[:count])
            return self._take(response, count, keep)

        lengths = response.all("Content-Length")
        codings = response.all("Transfer-Encoding")
        if lengths and codings:
            raise Broken("Content-Length and Transfer-Encoding")
        if len(set(lengths)) > 1:
            raise Broken("two Content-Length")
        if method == "HEAD" or response.status in (101, 204, 304):
            if codings and response.status in (101, 204):
                raise Broken(f"Transfer-Encoding on a {response.status}")
            response.is_complete = True
        elif codings:
            if codings != ["chunked"]:
                raise Broken(f"Transfer-Encoding {codings}")
            self._chunks(response, take)
        elif lengths:
            left = int(lengths[0])
            while left and (self.buffer or self.fill()):
                left -= take(left)
            response.is_complete = left == 0
        else:
            while self.buffer or self.fill():
                take(len(self.buffer))
            response.is_complete = True
        if keep:
            response.body = b"".join(data for _, data in response.pieces)
        return response

    def _chunks(self, response, take):
        while True:
            line = self._line()
            if line is None:
                return
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            while size:
                if not self.buffer and not self.fill():
                    return
                size -= take(size)
            while len(self.buffer) < 2:
                if not self.fill():
                    return
            if self.buffer[:2] != b"\r\n":
                raise Broken("no CRLF after a chunk")
            self.buffer = self.buffer[2:]
        response.trailers = self._fields()
        response.is_complete = True

    def is_closed(self, timeout=10):
        """True when the other side closes in time with nothing more to say."""
        self.sock.settimeout(timeout)
        try:
            while self.fill():
                pass
        except TimeoutError:
            return False
        return not self.buffer


def fetch(port, target, token=None, method="GET", **kw):
    """One request on a connection of its own."""
    options = {name: kw.pop(name) for name in ("tls", "server_name", "timeout") if name in kw}
    with Client(port, **options) as client:
        client.request(method, target, token, **kw)
        response = client.response(method)
        assert response is not None, "closed without an answer"
        return response
