# SPDX-License-Identifier: MIT
"""An SSH peer that is authenticated and hostile: asyncssh below its own rules."""
import asyncio
import contextlib
import time
import warnings

from attack import Pump, environment
from culvert import BIN, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import asyncssh
    from asyncssh.packet import Boolean, Byte, String, UInt32  # noqa: F401 - for who imports us

OPEN, CONFIRM, FAILURE, ADJUST, DATA, EXTENDED, EOF, CLOSE, REQUEST = range(90, 99)


class Sink:
    """A channel on which everything is taken and nothing is answered."""

    def process_packet(self, pkttype, pktid, packet):
        packet.get_remaining_payload()
        return True

    def log_received_packet(self, *_):
        pass

    def process_open_failure(self, *_):
        pass

    def process_connection_close(self, error):
        pass


class Hostile:
    """asyncssh below its own rules: any message, and its answers unseen."""

    def __init__(self, target, is_direct=False, **kw):
        self.target = target
        self.is_direct = is_direct
        self.pump = None
        self.kw = kw

    async def __aenter__(self):
        self.since = len(self.target.relay.records)
        if self.is_direct:
            self.pump = Pump(self.target)
            host, way = "127.0.0.1", {"port": self.pump.port}
        else:
            host, way = "relay", {"proxy_command": [
                *environment(self.target), str(BIN), "stdio", "--server", self.target.relay.url]}
        self.connection = await asyncssh.connect(
            host, username="alice", known_hosts=None, client_keys=None, config=None, **way,
            **self.kw)
        return self

    def ignore_replies(self):
        """What answers requests and opens that asyncssh knows nothing of."""
        handlers = dict(self.connection._packet_handlers)
        for number in (81, 82):
            handlers[number] = Sink.process_packet
        self.connection._packet_handlers = handlers
        self.connection._channels[0] = Sink()

    def watch(self, *numbers, channel=None):
        """What comes of these messages, and on our channel of that number, as a list of (number,
        payload) that grows; asyncssh does not see it any more."""
        seen = []

        def take(connection, pkttype, pktid, packet):
            seen.append((pkttype, packet.get_remaining_payload()))
            return True
        self.connection._packet_handlers = {**self.connection._packet_handlers,
                                            **dict.fromkeys(numbers, take)}
        if channel is not None:
            sink = Sink()
            sink.process_packet = lambda *args: take(None, *args)
            self.connection._channels[channel] = sink
        return seen

    async def __aexit__(self, *_):
        self.connection.abort()
        if self.pump:
            self.pump.close()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.connection.wait_closed(), 5)

    def send(self, number, *args):
        self.connection.send_packet(number, *args)

    async def until(self, condition, timeout=10, what="condition"):
        """Waits, while the connection goes on, until condition() is true."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"no {what() if callable(what) else what} within {timeout} s"
            await asyncio.sleep(0.01)

    async def ended(self, timeout=4):
        """The relay has ended the link, for a reason of its own."""
        await asyncio.wait_for(self.connection.wait_closed(), timeout)
        down = wait_for(lambda: self.target.relay.find("link_down", since=self.since), 5,
                        "end of the link")[-1]
        assert down["reason"] == "SSH_PROTOCOL", down

    def answer_opens(self, answer):
        """Calls answer(channel) for each stream that the relay opens; what comes on it is dropped.
        """
        def take_open(connection, pkttype, pktid, data):
            data.get_string()
            channel = data.get_uint32()
            data.get_remaining_payload()
            connection._channels[5] = Sink()
            answer(UInt32(channel))
            return True
        handlers = dict(self.connection._packet_handlers)
        handlers[OPEN] = take_open
        self.connection._packet_handlers = handlers

    async def publish(self, handler, name="home", port=80):
        return await self.connection.start_server(lambda host, port: handler, name, port)

    async def fetch(self, path="/x", name="home", **kw):
        def ask():
            try:
                return self.target.relay.fetch(f"/t/{name}{path}", self.target.token, **kw)
            except AssertionError:
                return None
        return await asyncio.to_thread(ask)


def drive(coroutine, timeout=40):
    asyncio.run(asyncio.wait_for(coroutine, timeout))


# Opens of every kind that leads to nothing of the user's own.
OPENS = [(OPEN, String(kind), UInt32(0), UInt32(1 << 20), UInt32(32768), *rest) for kind, rest in [
    (b"session", ()), (b"x11", (String(b"h"), UInt32(1))), (b"auth-agent@openssh.com", ()),
    (b"direct-streamlocal@openssh.com", (String(b"/run/x"), String(b""), UInt32(0))),
    (b"forwarded-tcpip", (String(b"mine"), UInt32(80), String(b"h"), UInt32(1))),
    (b"direct-tcpip", (String(b"127.0.0.1"), UInt32(22), String(b"h"), UInt32(1))),
    (b"direct-tcpip", (String(b"mine"), UInt32(80), String(b"h"), UInt32(1))),
    (b"direct-tcpip", (String(b"home\r\nX: y"), UInt32(80), String(b"h"), UInt32(1))),
    (b"direct-tcpip", (String(b"ho\0me"), UInt32(80), String(b"h"), UInt32(1))),
    (b"direct-tcpip", (String(b"x" * 30000), UInt32(80), String(b"h"), UInt32(1))),
    (b"direct-tcpip", (String(b"mine"), UInt32(70000), String(b"h"), UInt32(1))),
    (b"y" * 30000, ()),
]]
