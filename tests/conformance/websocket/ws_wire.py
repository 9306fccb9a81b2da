# SPDX-License-Identifier: MIT
"""A WebSocket peer over a raw socket that sends whatever it is told and reads strictly.

It shares nothing with the engine under test, nor with any library: the frames of RFC 6455 §5.2, the
compression of RFC 7692 §7.2 over zlib, and the two opening handshakes. What it reads must be right
to the bit: masks of the right side, shortest lengths, small control frames, UTF-8, a window no
larger than agreed; else it raises Broken.
"""
import base64
import contextlib
import hashlib
import os
import socket
import struct
import zlib
from dataclasses import dataclass

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TIMEOUT_S = 30


class Broken(Exception):
    """The other side did what no peer may do."""


def xor(data, mask):
    if not data:
        return b""
    repeated = (mask * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(len(data), "big")


def frame(opcode, payload=b"", fin=True, rsv=0, mask=None, form=0, declare=None):
    """One frame. `form` 16 or 64 writes a longer length than is needed; `declare` lies about it."""
    length = len(payload) if declare is None else declare
    bit = 0x80 if mask is not None else 0
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    if form == 64 or (not form and length > 65535):
        head = struct.pack("!BBQ", first, bit | 127, length)
    elif form == 16 or (not form and length > 125):
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = bytes([first, bit | length])
    return head + payload if mask is None else head + mask + xor(payload, mask)


def close_payload(code=None, reason=b""):
    return b"" if code is None else struct.pack("!H", code) + reason


@dataclass
class Deflate:
    """What was agreed on permessage-deflate, seen from here."""
    our_bits: int = 15
    our_takeover: bool = True
    their_bits: int = 15
    their_takeover: bool = True

    def __post_init__(self):
        self.compressor = self.inflater = None

    def compress(self, data):
        if self.compressor is None or not self.our_takeover:
            # zlib makes no raw data for a window of 256; matches at distance one fit any.
            strategy = zlib.Z_DEFAULT_STRATEGY if self.our_bits > 8 else zlib.Z_RLE
            self.compressor = zlib.compressobj(6, zlib.DEFLATED, -max(self.our_bits, 9), 8, strategy)
        out = self.compressor.compress(data) + self.compressor.flush(zlib.Z_SYNC_FLUSH)
        return out[:-4]

    def inflate(self, data):
        if self.inflater is None or not self.their_takeover:
            self.inflater = zlib.decompressobj(-self.their_bits)
        try:
            return self.inflater.decompress(data + b"\0\0\xff\xff")
        except zlib.error as error:
            raise Broken(f"compressed data: {error}") from None


class Peer:
    """One connection; `is_client` says which side this one is."""

    def __init__(self, sock, is_client, rest=b"", deflate=None):
        self.sock = sock
        self.is_client = is_client
        self.buffer = bytearray(rest)
        self.deflate = deflate
        self.message = bytearray()
        self.kind = None  # opcode of the message being received
        self.is_compressed = False
        self.is_gone = False  # the other side reads no more
        self.fragments = 0
        self.masks = []  # of what was received
        sock.settimeout(TIMEOUT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    # -- sending -------------------------------------------------------------------------------

    def frame(self, opcode, payload=b"", **kw):
        kw.setdefault("mask", os.urandom(4) if self.is_client else None)
        return frame(opcode, payload, **kw)

    def raw(self, data, chop=0):
        """Bytes as they are; `chop` sends that many at a time."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.is_gone:
                return
            for at in range(0, len(data), chop or len(data) or 1):
                self.sock.sendall(data[at:at + chop] if chop else data)
            return
        self.is_gone = True

    def send(self, opcode, payload=b"", chop=0, **kw):
        self.raw(self.frame(opcode, payload, **kw), chop)

    def send_message(self, opcode, payload, fragment=0):
        """A message, compressed if that was agreed, in fragments of `fragment` bytes (0: one)."""
        rsv = 0
        if self.deflate:
            payload, rsv = self.deflate.compress(payload), 4
        size = fragment or len(payload) or 1
        pieces = [payload[at:at + size] for at in range(0, len(payload), size)] or [b""]
        self.raw(b"".join(
            self.frame(0 if i else opcode, piece, fin=i == len(pieces) - 1, rsv=0 if i else rsv)
            for i, piece in enumerate(pieces)))

    # -- receiving -----------------------------------------------------------------------------

    def fill(self, timeout=TIMEOUT_S):
        """More bytes. False at the end of the connection; TimeoutError."""
        self.sock.settimeout(timeout)
        try:
            data = self.sock.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def take(self, count, timeout):
        while len(self.buffer) < count:
            if not self.fill(timeout):
                return None
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def read_frame(self, timeout=TIMEOUT_S):
        """(first byte, payload), None at the end of the connection."""
        head = self.take(2, timeout)
        if head is None:
            if self.buffer:
                raise Broken("the connection ends inside a frame")
            return None
        first, is_masked, length = head[0], head[1] >> 7, head[1] & 0x7f
        if length == 126:
            length = struct.unpack("!H", self.take(2, timeout))[0]
            least = 126
        elif length == 127:
            length = struct.unpack("!Q", self.take(8, timeout))[0]
            least = 65536
        else:
            least = 0
        if length < least:
            raise Broken("a length that is not in its shortest form")
        if is_masked == self.is_client:
            raise Broken("a masked frame from a server" if is_masked else "no mask from a client")
        mask = self.take(4, timeout) if is_masked else None
        payload = self.take(length, timeout)
        if payload is None:
            raise Broken("the connection ends inside a frame")
        if mask:
            self.masks.append(mask)
            payload = xor(payload, mask)
        return first, payload

    def read(self, timeout=TIMEOUT_S):
        """The next event: ("message", opcode, bytes), ("ping", bytes), ("pong", bytes),
        ("close", code or None, reason) or ("end",)."""
        while True:
            got = self.read_frame(timeout)
            if got is None:
                if self.kind is not None:
                    raise Broken("the connection ends inside a message")
                return ("end",)
            first, payload = got
            fin, rsv, opcode = first >> 7, first >> 4 & 7, first & 15
            if opcode >= 8:
                return self._control(fin, rsv, opcode, payload)
            event = self._data(fin, rsv, opcode, payload)
            if event:
                return event

    def _control(self, fin, rsv, opcode, payload):
        if not fin or rsv or len(payload) > 125:
            raise Broken("a control frame that is fragmented, too long, or has RSV bits")
        if opcode in (PING, PONG):
            return ("ping" if opcode == PING else "pong", payload)
        if opcode != CLOSE:
            raise Broken(f"opcode {opcode}")
        if not payload:
            return ("close", None, "")
        if len(payload) == 1:
            raise Broken("half a close code")
        code = struct.unpack("!H", payload[:2])[0]
        if code < 1000 or code in (1004, 1005, 1006) or 1015 <= code < 3000 or code > 4999:
            raise Broken(f"close code {code}")
        return ("close", code, payload[2:].decode())

    def _data(self, fin, rsv, opcode, payload):
        if (opcode == 0) != (self.kind is not None) or opcode > 2:
            raise Broken(f"opcode {opcode} here")
        if rsv not in ((0, 4) if self.deflate and opcode else (0,)):
            raise Broken(f"RSV bits {rsv}")
        if opcode:
            self.kind, self.is_compressed, self.fragments = opcode, rsv == 4, 0
        self.fragments += 1
        self.message += payload
        if not fin:
            return None
        data = bytes(self.message)
        self.message.clear()
        if self.is_compressed:
            data = self.deflate.inflate(data)
        kind, self.kind = self.kind, None
        if kind == TEXT:
            try:
                data.decode()
            except UnicodeDecodeError:
                raise Broken("text that is not UTF-8") from None
        return ("message", kind, data)


# ---- opening handshakes ----

KEY = "AQIDBAUGBwgJCgsMDQ4PEA=="  # bytes 1 to 16


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def request(target="/", line=None, **fields):
    """The bytes of an upgrade; a field None is left out, a list comes several times."""
    fields = {"Host": "ws.test", "Upgrade": "websocket", "Connection": "Upgrade",
              "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13",
              **{name.replace("_", "-"): value for name, value in fields.items()}}
    lines = [line or f"GET {target} HTTP/1.1"]
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode()


def read_head(sock, buffer=b""):
    """(first line, {name in lower case: [values]}, bytes behind); None when it ends before."""
    sock.settimeout(TIMEOUT_S)
    while b"\r\n\r\n" not in buffer:
        data = sock.recv(65536)
        if not data:
            return None
        buffer += data
    head, _, rest = buffer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip())
    return first, fields, rest


def extension(values):
    """permessage-deflate's parameters out of a field's lines, None when it is not there."""
    for element in ",".join(values).split(","):
        name, *params = [part.strip() for part in element.split(";")]
        if name == "permessage-deflate":
            return {key.strip(): value.strip().strip('"') if equals else None
                    for key, equals, value in (param.partition("=") for param in params)}
    return None


def agreed(params, is_client):
    """The Deflate of an answer's parameters."""
    if params is None:
        return None
    server = (int(params.get("server_max_window_bits") or 15),
              "server_no_context_takeover" not in params)
    client = (int(params.get("client_max_window_bits") or 15),
              "client_no_context_takeover" not in params)
    ours, theirs = (client, server) if is_client else (server, client)
    return Deflate(*ours, *theirs)


def connect(port, target="/", offer=None, first=b"", **fields):
    """Opens a WebSocket as a client; `offer` is what Sec-WebSocket-Extensions says; `first` goes
    out together with the request."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    try:
        sock.sendall(request(target, Sec_WebSocket_Extensions=offer, **fields) + first)
        line, head, rest = read_head(sock)
        assert line.startswith("HTTP/1.1 101 "), line
        assert [v.lower() for v in head["upgrade"]] == ["websocket"]
        assert [v.lower() for v in head["connection"]] == ["upgrade"]
        assert head["sec-websocket-accept"] == [accept_of(KEY)]
        deflate = agreed(extension(head.get("sec-websocket-extensions", [])), True)
        assert offer or not deflate, "an extension that nobody asked for"
        peer = Peer(sock, True, rest, deflate)
        peer.head = head
        return peer
    except BaseException:
        sock.close()
        raise


class Listener:
    """The server's side of the same: takes one connection after the other."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.sock.settimeout(TIMEOUT_S)
        self.port = self.sock.getsockname()[1]

    def close(self):
        self.sock.close()

    def accept_raw(self):
        """(socket, request line, fields, rest)"""
        sock, _ = self.sock.accept()
        line, fields, rest = read_head(sock)
        return sock, line, fields, rest

    def accept(self, choose=lambda offer: None):
        """(peer, target). `choose` gets the parameters of the client's offer of permessage-deflate
        (None: not offered) and returns those of the answer, as a dict, or None."""
        sock, line, fields, rest = self.accept_raw()
        method, target, version = line.split(" ")
        assert (method, version) == ("GET", "HTTP/1.1")
        params = choose(extension(fields.get("sec-websocket-extensions", [])))
        extensions = ""
        if params is not None:
            words = [k if v is None else f"{k}={v}" for k, v in params.items()]
            extensions = "Sec-WebSocket-Extensions: " + \
                "; ".join(["permessage-deflate", *words]) + "\r\n"
        sock.sendall(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                      "Connection: Upgrade\r\nSec-WebSocket-Accept: "
                      f"{accept_of(fields['sec-websocket-key'][0])}\r\n{extensions}\r\n").encode())
        return Peer(sock, False, rest, agreed(params, False)), target


def leave(peer):
    """Our Close, theirs, the end."""
    peer.send(CLOSE, close_payload(1000))
    assert peer.read() == ("close", 1000, "")
