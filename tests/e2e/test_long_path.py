# SPDX-License-Identifier: MIT
"""A path of 50 ms between agent and relay: windows and buffers grow until it is filled, as far as
the operator grants memory for it, and only for whoever reads that fast."""
import contextlib
import socket
import time

import culvert
import pytest
from client import Client
from culvert import free_port, wait_for

MIB = 1 << 20
ONE_WAY_MS = 25
WINDOW = MIB // 4
SIZE = 8 * MIB
# What a window that stays as it is can carry takes at least so long, on any machine.
FIXED_S = SIZE / WINDOW * 2 * ONE_WAY_MS / 1000
SMALL = {"CULVERT_SSH_WINDOW": "256KiB", "CULVERT_LINK_REPLAY_BYTES": "256KiB"}


def is_open(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2):
        return True


def down(conn, request):
    conn.read_body(request)
    conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
    for _ in range(SIZE // MIB):
        conn.send(bytes(MIB))


def up(conn, request):
    total, _ = conn.read_body(request, keep=False)
    conn.reply(body=str(total).encode())


class LongPath:
    def __init__(self, world, relay_env=None, agent_env=None):
        self.relay = world.relay(env={**SMALL, **(relay_env or {})})
        port = free_port()
        world.spawn(culvert.BUILD / "tests" / "bench" / "delay", port, self.relay.port,
                    ONE_WAY_MS, 0)
        wait_for(lambda: is_open(port), 20, "the long path")
        self.service = world.service(routes={"/down": down, "/up": up})
        self.agent = world.http(self.relay, self.service.port, url=f"ws://127.0.0.1:{port}",
                                env={**SMALL, **(agent_env or {})})
        self.token = world.token()

    def download(self):
        with Client(self.relay.port, timeout=60) as client:
            started = time.monotonic()
            client.request("GET", "/t/home/down", self.token)
            response = client.response(keep=False)
            assert response.status == 200 and response.is_complete
            return time.monotonic() - started

    def upload(self):
        with Client(self.relay.port, timeout=60) as client:
            started = time.monotonic()
            client.request("POST", "/t/home/up", self.token, body=bytes(SIZE))
            assert client.response().body == str(SIZE).encode()
            return time.monotonic() - started


@pytest.mark.timing
def test_a_long_path_is_filled_both_ways(world):
    path = LongPath(world)
    for move in (path.download, path.upload):
        first_s, second_s = move(), move()
        assert first_s < FIXED_S * 0.9 and second_s < FIXED_S / 2, (first_s, second_s)


@pytest.mark.parametrize("relay_env, agent_env", [
    ({"CULVERT_LIMITS_GROWTH_BYTES": "0"}, None),
    ({"CULVERT_LIMITS_USER_GROWTH_BYTES": "0"}, None),
    ({"CULVERT_SSH_WINDOW_MAX": "256KiB"}, None),
    (None, {"CULVERT_LINK_GROWTH_BYTES": "0"}),
    (None, {"CULVERT_LINK_REPLAY_MAX": "256KiB"}),
], ids=["relay_memory", "user_memory", "relay_window", "agent_memory", "agent_replay"])
def test_nothing_grows_past_what_is_granted(world, relay_env, agent_env):
    """The relay's window, or the agent's replay buffer, holds a download back."""
    path = LongPath(world, relay_env, agent_env)
    assert path.download() > FIXED_S * 0.9
