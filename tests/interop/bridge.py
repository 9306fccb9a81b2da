# SPDX-License-Identifier: MIT
"""A ProxyCommand through a WebSocket that is not ours: bridge.py websockets|websockify|… URL.

Carries stdin and stdout over the subprotocol `ssh`, with the token of CULVERT_TOKEN, as
docs/PROTOCOL.md says any bridge may. `websockify` takes the client side of Debian's websockify,
`websockets` and `deflate` python3-websockets without and with permessage-deflate.
"""
import asyncio
import contextlib
import os
import select
import sys
import threading

BLOCK = 65536
TOKEN = os.environ.get("CULVERT_TOKEN", "")


def write_all(data):
    """All of it, whether or not stdout blocks: it may be the same socket as stdin."""
    view = memoryview(data)
    while view:
        select.select([], [1], [])
        with contextlib.suppress(BlockingIOError):
            view = view[os.write(1, view):]


def websockify(url):
    from websockify import websocket

    class WebSocket(websocket.WebSocket):
        """With what its client side lacks in 0.10: further fields, a mask, whole writes,
        an eye on what the relay sent right behind its 101."""
        lock = threading.Lock()
        has_rest = False

        def connect(self, *args, **kw):
            super().connect(*args, **kw)
            self.has_rest = bool(self._recv_buffer)  # frames that came together with the 101

        def _recv(self):
            has_rest, self.has_rest = self.has_rest, False
            return has_rest or super()._recv()

        def _queue_str(self, string):
            super()._queue_str(string)
            if string.startswith("Host:"):
                super()._queue_str(f"Authorization: Bearer {TOKEN}\r\n")

        def _sendmsg(self, opcode, msg):
            with self.lock:
                self.socket.sendall(self._encode_hybi(opcode, msg, os.urandom(4)))

    ws = WebSocket()
    ws.connect(url, protocols=["ssh"])

    def upwards():
        while data := os.read(0, BLOCK):
            ws.sendmsg(data)
        ws.shutdown(2)

    threading.Thread(target=upwards, daemon=True).start()
    while True:
        with contextlib.suppress(websocket.WebSocketWantReadError):
            data = ws.recvmsg()
            if not data:
                return
            write_all(data)


async def websockets(url, compression):
    import websockets.client
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader(limit=BLOCK)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), os.fdopen(0, "rb"))
    async with websockets.client.connect(
            url, subprotocols=["ssh"], extra_headers={"Authorization": f"Bearer {TOKEN}"},
            compression=compression, max_size=None) as ws:
        assert ws.subprotocol == "ssh"

        async def upwards():
            while data := await stdin.read(BLOCK):
                await ws.send(data)
            await ws.close()

        task = asyncio.ensure_future(upwards())
        async for data in ws:
            await loop.run_in_executor(None, write_all, data)
        task.cancel()


def main(kind, url):
    if kind == "websockify":
        websockify(url)
    else:
        asyncio.run(websockets(url, "deflate" if kind == "deflate" else None))


if __name__ == "__main__":
    main(*sys.argv[1:])
