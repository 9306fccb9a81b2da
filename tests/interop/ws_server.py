# SPDX-License-Identifier: MIT
"""A WebSocket server that is not ours in front of a TCP port: ws_server.py KIND PORT TARGET_PORT.

KIND is websockify or websockets; both grant the subprotocol `ssh`. Prints nothing, runs until it is
killed.
"""
import asyncio
import sys

BLOCK = 65536


def websockify(port, target):
    from websockify import websocketproxy, websockifyserver

    class Socket(websockifyserver.CompatibleWebSocket):
        def select_subprotocol(self, protocols):
            return "ssh" if "ssh" in protocols else super().select_subprotocol(protocols)

    class Handler(websocketproxy.ProxyRequestHandler):
        SocketClass = Socket

    websocketproxy.WebSocketProxy(
        RequestHandlerClass=Handler, listen_host="127.0.0.1", listen_port=port,
        target_host="127.0.0.1", target_port=target).start_server()


async def websockets(port, target):
    import websockets.server

    async def carry(ws):
        reader, writer = await asyncio.open_connection("127.0.0.1", target)

        async def downwards():
            while data := await reader.read(BLOCK):
                await ws.send(data)
            await ws.close()

        task = asyncio.ensure_future(downwards())
        async for data in ws:
            writer.write(data)
            await writer.drain()
        task.cancel()
        writer.close()

    async with websockets.server.serve(carry, "127.0.0.1", port, subprotocols=["ssh"],
                                       compression="deflate", max_size=None):
        await asyncio.Future()


if __name__ == "__main__":
    kind, ports = sys.argv[1], [int(word) for word in sys.argv[2:]]
    if kind == "websockify":
        websockify(*ports)
    else:
        asyncio.run(websockets(*ports))
