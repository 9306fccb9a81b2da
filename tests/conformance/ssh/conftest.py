# SPDX-License-Identifier: MIT
"""The strangers' partners as fixtures; see ssh_programs.py."""
import socket

import pytest
from ssh_programs import Alone, Program, Relay
from stranger import Stranger


@pytest.fixture(scope="module", params=["alone", "relay"])
def server(request, tmp_path_factory):
    """Every server of ours in turn."""
    made = Alone() if request.param == "alone" else Relay(tmp_path_factory.mktemp("relay"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def alone():
    made = Alone()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def special():
    """ssh_peer as a server with options."""
    made = []

    def start(*options):
        made.append(Alone(*options))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def client():
    """Starts our client against a stranger, who is then a server: peer, program = client(…)."""
    made = []

    def start(*options):
        options = options or ("--open", "echo:7", "--bytes", "1000")
        listener = socket.create_server(("127.0.0.1", 0))
        program = Program("client", "--connect", f"127.0.0.1:{listener.getsockname()[1]}", *options)
        made.append(program)
        peer = Stranger.accept(listener)
        made.append(peer.sock)
        listener.close()
        return peer, program

    yield start
    for each in reversed(made):
        each.close()
