# SPDX-License-Identifier: MIT
"""A web address that programs post to: keeps what came, answers as it is told to."""
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    def __init__(self, world, port=0):
        self.posts = []  # {"path", "headers", "body", "at"} of those that were taken
        self.tries = 0
        self.mood = 200  # a status, or "hang"
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                receiver.tries += 1
                mood = receiver.mood
                if mood == "hang":
                    receiver.released.wait(60)
                    return
                if mood == 200:
                    receiver.posts.append({"path": self.path, "headers": dict(self.headers),
                                           "body": json.loads(body), "at": time.monotonic()})
                self.send_response(mood)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass  # whoever asked has gone

        self.server = Server(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.is_open = True
        world.cleanups.append(self.close)

    @property
    def port(self):
        return self.server.server_address[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, **fields):
        return [p["body"] for p in self.posts
                if all(p["body"].get(k) == v for k, v in fields.items())]

    def close(self):
        if self.is_open:
            self.is_open = False
            self.released.set()
            self.server.shutdown()
            self.server.server_close()
