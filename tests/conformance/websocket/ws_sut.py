# SPDX-License-Identifier: MIT
"""The engine under test (tests/peers/ws_echo) in either role, as something to open connections to."""
import contextlib
import subprocess

import culvert
from ws_wire import CLOSE, TEXT, Listener, close_payload, connect

WS_ECHO = culvert.PEERS / "ws_echo"


class Server:
    """ws_echo as a server."""
    role = "server"

    def __init__(self, *args):
        self.process = subprocess.Popen([WS_ECHO, "server", "--listen", "127.0.0.1:0", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def close(self):
        alive = self.process.poll() is None
        self.process.terminate()
        _, err = self.process.communicate(timeout=10)
        assert alive and err == "", f"ws_echo: {self.process.returncode}\n{err}"

    def open(self, offer=None, answer=None, **kw):
        """A peer that is connected to it. `offer`: the extensions we ask for; `answer` is for a
        client under test."""
        del answer
        return connect(self.port, offer=offer, **kw)


class Client:
    """ws_echo as a client: a new process for each connection, which plays one case of a fuzzing
    server that we are."""
    role = "client"

    def __init__(self, *args):
        self.args = args

    def close(self):
        pass

    def start(self, listener, *args):
        return subprocess.Popen([WS_ECHO, "client", "--url", f"ws://127.0.0.1:{listener.port}",
                                 *self.args, *args], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    @contextlib.contextmanager
    def open(self, offer=None, answer=lambda offered: None, agent="culvert"):
        """The same from a server's side; `answer` makes the parameters of permessage-deflate out of
        those offered (None: not used)."""
        del offer
        listener = Listener()
        client = self.start(listener, "--agent", agent)
        try:
            self._say(listener, "/getCaseCount", b"1")
            peer, target = listener.accept(answer)
            with peer:
                assert target == f"/runCase?case=1&agent={agent}"
                yield peer
            self._say(listener, f"/updateReports?agent={agent}")
            out, err = client.communicate(timeout=30)
            assert (client.returncode, out, err) == (0, "1 cases, 0 refused\n", "")
        finally:
            listener.close()
            client.kill()
            client.communicate()

    @staticmethod
    def _say(listener, target, text=None):
        peer, got = listener.accept()
        with peer:
            assert got == target
            if text:
                peer.send(TEXT, text)
            peer.send(CLOSE, close_payload(1000))
            assert peer.read() == ("close", 1000, "")
