# SPDX-License-Identifier: MIT
"""The 517 cases of ws_cases.py, each on the engine as a server and as a client (tests/peers/ws_echo),
and those without large messages on a WebSocket service behind the relay; what needs no message also
on a link of the relay.

The verdict has to be OK in all of them. Cases of many messages send ten each here, and all of them
with the marker `long`, which takes about half an hour.
"""
from collections import Counter

import pytest

from ws_cases import CASES, INFORMATIONAL, Bulk, Case, Frame, answer_of, offer_of
from ws_run import run
from ws_sut import WS_ECHO, Client
from ws_wire import connect

pytestmark = pytest.mark.skipif(not WS_ECHO.exists(), reason=f"{WS_ECHO} is not built")

# For each section of the suite: how many cases it has.
SECTIONS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
ALL = 1_000_000


def params(cases, extra=()):
    for case in cases:
        yield pytest.param(case, id=case.id, marks=[pytest.mark.clause(*case.clauses), *extra])


SHORT = list(params(CASES))
LONG = list(params([case for case in CASES if isinstance(case, Bulk) and case.count > 10],
                   (pytest.mark.long,)))


def assert_ok(case, verdict):
    want = "INFORMATIONAL" if case.id in INFORMATIONAL else "OK"
    assert verdict[0] == want, f"case {case.id}: {verdict[0]}: {verdict[1]}"


def test_the_table_has_all_517_cases():
    assert Counter(int(case.id.partition(".")[0]) for case in CASES) == SECTIONS
    assert len({case.id for case in CASES}) == sum(SECTIONS.values()) == 517


# ---- the engine as a server and as a client ----

def play(opened, case, count):
    with opened as peer:
        verdict = run(peer, case, **({"count": count} if count else {}))
    assert_ok(case, verdict)


def on_server(port, case, count=None, **kw):
    offer = offer_of(case.deflate) if isinstance(case, Bulk) and case.deflate else None
    play(connect(port, offer=offer, **kw), case, count)


def on_client(case, count=None):
    row = case.deflate if isinstance(case, Bulk) else 0
    play(Client().open(answer=answer_of(row) if row else lambda offer: None), case, count)


@pytest.mark.parametrize("case", SHORT)
def test_server(server, case):
    on_server(server.port, case)


@pytest.mark.parametrize("case", LONG)
def test_server_all_messages(server, case):
    on_server(server.port, case, ALL)


@pytest.mark.parametrize("case", SHORT)
def test_client(case):
    on_client(case)


@pytest.mark.parametrize("case", LONG)
def test_client_all_messages(case):
    on_client(case, ALL)


# ---- a WebSocket service behind the relay ----

class Tunnel:
    def __init__(self, world, server):
        self.relay = world.relay()
        world.http(self.relay, server.port, name="ws")
        self.token = world.token("alice")


@pytest.fixture(scope="module")
def tunnel(shared, server):
    return Tunnel(shared, server)


def small(case):
    return not isinstance(case, Bulk) or (case.size <= 1 << 20 and case.section.startswith("9."))


@pytest.mark.parametrize("case", [*params(filter(small, CASES)),
                                  *params([c for c in CASES if not small(c)], [pytest.mark.long])])
def test_through_the_relay(tunnel, case):
    on_server(tunnel.relay.port, case, target="/t/ws/echo",
              Authorization=f"Bearer {tunnel.token}")


# ---- the relay's own end ----

def has_no_message(case):
    """What means the same on a route that takes SSH bytes and nothing else: control frames, and
    faults in a header."""
    return isinstance(case, Case) and not any(
        isinstance(step, Frame) and step.opcode in (0, 1, 2) and not step.rsv for step in case.steps)


@pytest.mark.parametrize("case", params(filter(has_no_message, CASES)))
@pytest.mark.parametrize("protocol", ["ssh", "culvert.v1"])
def test_link(tunnel, case, protocol):
    opened = connect(tunnel.relay.port, "/tunnel", Sec_WebSocket_Protocol=protocol,
                     Authorization=f"Bearer {tunnel.token}")
    read = opened.read

    def read_control(*args):
        """The relay's SSH has something to say as well."""
        while (event := read(*args))[0] == "message":
            pass
        return event
    opened.read = read_control
    play(opened, case, None)
