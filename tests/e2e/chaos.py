# SPDX-License-Identifier: MIT
"""A TCP proxy in front of a relay that breaks connections in every way a network does.

Modes hold for all connections, old and new ones:
  pass         bytes go through
  hole         nothing goes through either way, new connections get no answer; nobody is told
  hole_up      nothing towards the relay; hole_down: nothing from it
and events: cut() resets what is there, half_close() ends one direction, refuse: new ones are reset.
"""
import contextlib
import select
import socket
import struct
import threading
import time

from culvert import free_port


class Leg:
    """One direction of one connection."""

    def __init__(self, proxy, source, sink, is_up):
        self.proxy = proxy
        self.source = source
        self.sink = sink
        self.is_up = is_up
        self.head = None
        if is_up:
            self.head = bytearray()
            proxy.heads.append(self.head)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _held(self):
        mode = self.proxy.mode
        return (mode == "hole" or mode == ("hole_up" if self.is_up else "hole_down")
                or self.source in self.proxy.held)

    def _run(self):
        proxy = self.proxy
        with contextlib.suppress(OSError, ValueError):
            while not proxy.is_over:
                if self.source in proxy.held:
                    return
                if self._held():
                    time.sleep(0.005)
                    continue
                ready, _, _ = select.select([self.source], [], [], 0.05)
                if not ready:
                    continue
                if self._held():
                    continue
                data = self.source.recv(65536)
                if not data:
                    self.sink.shutdown(socket.SHUT_WR)
                    return
                if proxy.delay_s:
                    time.sleep(proxy.delay_s)
                if proxy.bytes_per_s:
                    time.sleep(len(data) / proxy.bytes_per_s)
                while self._held() and not proxy.is_over:
                    if self.source in proxy.held:
                        return
                    time.sleep(0.005)
                if self.head is not None and len(self.head) < 8192:
                    self.head += data[:8192]
                self.sink.sendall(data)
                proxy.count(self.is_up, len(data))


class Chaos:
    """`port` leads to `target`; loopback only."""

    def __init__(self, target):
        self.target = target
        self.mode = "pass"
        self.delay_s = 0
        self.bytes_per_s = 0
        self.is_refusing = False
        self.is_over = False
        self.accepted = 0
        self.bytes = {True: 0, False: 0}
        self.pairs = []
        self.lost = []
        self.held = set()  # ends of connections that were forgotten
        self.heads = []  # what each connection said first, towards the relay
        self.lock = threading.Lock()
        self.port = free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    def count(self, is_up, length):
        with self.lock:
            self.bytes[is_up] += length

    def _accept(self):
        while not self.is_over:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.is_refusing:
                self._reset(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                self._reset(near)
                continue
            far.settimeout(None)
            if self.bytes_per_s:
                for end in (near, far):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 262144)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 262144)
            with self.lock:
                self.accepted += 1
                self.pairs.append((near, far))
            Leg(self, near, far, True)
            Leg(self, far, near, False)

    @staticmethod
    def _reset(end):
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RD)  # wakes whoever reads it
        with contextlib.suppress(OSError):
            end.close()

    def cut(self, is_reset=True):
        """Ends every connection at once, with a reset or with an orderly end."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                if is_reset:
                    self._reset(end)
                else:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                    end.close()
        return len(pairs)

    def half_close(self, is_up):
        """No more bytes in one direction: the receiver sees the end."""
        with self.lock:
            for near, far in self.pairs:
                with contextlib.suppress(OSError):
                    (far if is_up else near).shutdown(socket.SHUT_WR)

    @contextlib.contextmanager
    def outage(self, mode="hole"):
        """Black hole while the block runs; what stood on the connections then is never delivered."""
        self.mode = mode
        try:
            yield self
        finally:
            self.mode = "pass"

    def forget(self):
        """What is in a hole stays there: as when an address has gone. New connections work."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
            self.lost += pairs
            self.held.update(end for pair in pairs for end in pair)
        return pairs

    def close(self):
        self.is_over = True
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
        for near, far in self.lost:
            self._reset(near)
            self._reset(far)
