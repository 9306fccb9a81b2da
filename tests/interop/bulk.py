# SPDX-License-Identifier: MIT
"""Bytes in bulk that cannot be mixed up: every piece begins with its number, all of it is hashed.

A service has the routes /down?BYTES and /up; consumers of every kind call them and compare.
"""
import contextlib
import hashlib
import os
import socket
import threading

import culvert

MIB = 1 << 20
PIECE = 65536
_tail = os.urandom(PIECE - 8)
_digests = {}

# What a table row moves each way: little in every run, 100 MiB in `make test-long`.
IS_SANITIZED = "san" in culvert.BUILD.name
SHORT_MIB = 2 if IS_SANITIZED or "coverage" in culvert.BUILD.name else 16
LONG_MIB = 100


def pieces(size):
    for number in range(size // PIECE):
        yield number.to_bytes(8, "big") + _tail
    if size % PIECE:
        yield bytes(size % PIECE)


def digest_of(size):
    if size not in _digests:
        digest = hashlib.sha256()
        for piece in pieces(size):
            digest.update(piece)
        _digests[size] = digest.hexdigest()
    return _digests[size]


def file_of(path, size):
    with open(path, "wb") as file:
        for piece in pieces(size):
            file.write(piece)
    return path


def down(conn, request):
    conn.read_body(request, keep=False)
    size = int(request.target.partition("?")[2])
    conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    for piece in pieces(size):
        conn.send(piece)


def up(conn, request):
    """Answers with how many bytes came and their SHA-256."""
    if request.get("Expect"):
        conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    conn.reply(body="{} {}".format(*conn.read_body(request, keep=False)).encode())


ROUTES = {"/down": down, "/up": up}


def upload(client, target, size, token=None):
    """POSTs `size` bytes on a Client and checks what the service has got."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    client.send(f"POST {target} HTTP/1.1\r\nHost: h\r\n{authorization}"
                f"Content-Length: {size}\r\n\r\n".encode())
    for piece in pieces(size):
        client.send(piece)
    response = client.response("POST")
    assert response is not None, "closed without an answer"
    assert response.body.decode() == f"{size} {digest_of(size)}", response.status


def download(client, target, size, token=None):
    digest = hashlib.sha256()
    client.request("GET", f"{target}?{size}", token)
    response = client.response(keep=False, on_piece=digest.update)
    assert response is not None, "closed without an answer"
    assert response.is_complete, f"{response.status}, cut"
    assert digest.hexdigest() == digest_of(size)


class Echo:
    """A TCP service that sends back what it gets; `port`."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    @staticmethod
    def _serve(sock):
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(PIECE):
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.listener.close()


def echoed(port, size, timeout=120, half_close=True):
    """Sends `size` bytes to an echo behind `port`; the same must come back, then the end, if this
    side's end does not close the whole channel, as it does with some."""
    digest, count = hashlib.sha256(), 0
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:

        def send():
            for piece in pieces(size):
                sock.sendall(piece)
            if half_close:
                sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while (half_close or count < size) and (data := sock.recv(1 << 18)):
            digest.update(data)
            count += len(data)
        sender.join()
    assert count == size, f"{count} of {size} bytes came back"
    assert digest.hexdigest() == digest_of(size)
