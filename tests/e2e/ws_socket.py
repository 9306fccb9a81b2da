# SPDX-License-Identifier: MIT
"""A link of subprotocol `ssh` that behaves like a socket: bytes in, bytes out."""
import struct

from attack import frame, upgrade


class WsSocket:
    def __init__(self, target, **kw):
        self.client = upgrade(target, "ssh", **kw)
        self.rest = b""

    def settimeout(self, seconds):
        self.client.sock.settimeout(seconds)

    def sendall(self, data):
        for at in range(0, len(data), 60000):
            self.client.send(frame(0x82, data[at:at + 60000], mask=bytes(4)))

    def _need(self, count):
        while len(self.client.buffer) < count:
            if not self.client.fill():
                return False
        return True

    def recv(self, size):
        """b"" at the end; control frames but Close are passed over."""
        while not self.rest:
            if not self._need(2):
                return b""
            first, length = self.client.buffer[0], self.client.buffer[1] & 0x7f
            extra = {126: 2, 127: 8}.get(length, 0)
            if not self._need(2 + extra):
                return b""
            if extra:
                length = struct.unpack("!H" if extra == 2 else "!Q",
                                       self.client.buffer[2:2 + extra])[0]
            if not self._need(2 + extra + length) or first & 0x0f == 8:
                return b""
            payload = self.client.buffer[2 + extra:2 + extra + length]
            self.client.buffer = self.client.buffer[2 + extra + length:]
            if first & 0x0f in (0, 2):
                self.rest = payload
        data, self.rest = self.rest[:size], self.rest[size:]
        return data

    def close(self):
        self.client.close()
