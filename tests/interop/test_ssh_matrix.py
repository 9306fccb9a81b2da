# SPDX-License-Identifier: MIT
"""Every SSH client × publishing and reaching × every WebSocket bridge: bulk both ways, unharmed,
while keys are exchanged again and again from both sides."""
import pytest
from bulk import LONG_MIB, MIB, ROUTES, SHORT_MIB, download, upload
from client import Client
from interop_plugin import Stopwatch
from sshpeers import PEERS

BRIDGES = ("stdio", "websockify", "websockets", "deflate")
# In every run: every client through our own bridge, and every bridge with a client that is fast.
SHORT = [(peer, direction, "stdio") for peer in PEERS for direction in ("publish", "reach")]
SHORT += [("openssh", "publish", bridge) for bridge in BRIDGES[1:]]
SHORT += [("asyncssh", "reach", "websockets"), ("libssh", "reach", "websockify")]
# In `make test-long`: all of them.
LONG = [(peer, direction, bridge) for bridge in BRIDGES for peer in PEERS
        for direction in ("publish", "reach")]
CASES = [pytest.param(*case, SHORT_MIB, id="-".join(case)) for case in SHORT]
CASES += [pytest.param(*case, LONG_MIB, id="-".join([*case, "100MiB"]), marks=pytest.mark.long)
          for case in LONG]


@pytest.fixture
def peer_of(request, world):
    """Starts a relay and a client of the named kind behind the named bridge."""
    started = []

    def start(name, bridge, begun_by):
        kind = PEERS[name]
        limit = "1GiB" if begun_by == "client" else "1MiB"
        relay = world.relay(env={"CULVERT_SSH_REKEY_BYTES": limit})
        libssh_pump = request.getfixturevalue("libssh_pump") if name == "libssh" else None
        started.append(kind(world, relay, bridge, libssh_pump))
        return started[-1]

    yield start
    for peer in started:
        peer.close()


@pytest.mark.parametrize("name, direction, bridge, mib", CASES)
def test_bulk_and_rekeys(world, peer_of, row, name, direction, bridge, mib):
    size = mib * MIB
    service = world.service(ROUTES)
    # A publishing client begins every key exchange, in the other direction both sides do.
    begun_by = "client" if direction == "publish" else "both"
    if not PEERS[name].begins_rekeys:
        begun_by = "relay"
    peer = peer_of(name, bridge, begun_by)
    if direction == "publish":
        peer.publish(service.port)
        port, prefix, token = peer.relay.port, "/t/home", world.token()
    else:
        world.http(peer.relay, service.port)
        port, prefix, token = peer.reach(), "", None
    with Stopwatch(mib) as up, Client(port, timeout=120) as client:
        upload(client, f"{prefix}/up", size, token)
    with Stopwatch(mib) as down, Client(port, timeout=120) as client:
        download(client, f"{prefix}/down", size, token)
    rekeys = len(peer.relay.find("rekeyed"))
    row.note(name, direction, bridge, mib, up.rate, down.rate, f"{rekeys} {begun_by}")
    assert rekeys >= max(1, mib // 8), "too few key exchanges"
