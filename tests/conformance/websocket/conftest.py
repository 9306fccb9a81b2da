# SPDX-License-Identifier: MIT
"""Who the clauses are tried on: ws_echo as a server, and as a client."""
import pytest
from ws_sut import Client, Server


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(params=["server", "client"])
def sut(request):
    return request.getfixturevalue("server") if request.param == "server" else Client()
