# SPDX-License-Identifier: MIT
"""A real network between relay and agent fails in every way a network does, under load: not a byte,
an event or a line is lost or doubled, and no request fails."""
import time

import pytest
from culvert import wait_for
from lab import KINDS, in_parallel, outage, reset
from streams import Load

MIB = 1 << 20


def survive(lab, cuts, size, events, settle_s=0.0):
    """Cuts the path in all these ways, spread over the transfers; gives the time it took."""
    began = time.monotonic()
    load = Load(lab, size, events, timeout=120)
    for n, cut in enumerate(cuts):
        load.wait_progress(n / (len(cuts) + 1))
        time.sleep(settle_s)
        before = len(lab.resumes())
        cut(lab)
        wait_for(lambda before=before: len(lab.resumes()) > before, 60,
                 f"a resume after {cut.__name__}")
    load.finish()
    assert not lab.relay.find("link_down"), "a link ended"
    return time.monotonic() - began


def test_streams_survive_each_kind_of_cut(new_lab, figure):
    replayed = {}

    def run(kinds):
        with new_lab() as lab:
            survive(lab, kinds, 24 * MIB, 4)
            replayed[kinds[0].__name__] = lab.replayed_bytes()
    in_parallel([(kind.__name__, lambda kind=kind: run([kind])) for kind in KINDS[1:]] +
                [("resets", lambda: run([reset] * 5))])
    figure("replayed after a cut (KiB, agent and relay): " + ", ".join(
        f"{name} {up // 1024} + {down // 1024}" for name, (up, down) in sorted(replayed.items())))


@pytest.mark.long
def test_streams_survive_thirty_cuts_of_a_network(new_lab, figure):
    kinds = [*KINDS, outage(10)]
    cuts = [kinds[n % len(kinds)] for n in range(29)] + [outage(40)]
    with new_lab() as lab:
        took = survive(lab, cuts, 500 * MIB, 50)
        up, down = lab.replayed_bytes()
        assert len(lab.resumes()) >= 30
        figure(f"30 cuts, 500 MiB each way, 50 event streams: {took:.0f} s, "
               f"{len(lab.resumes())} resumes, replayed {up / MIB:.1f} MiB by the agent and "
               f"{down / MIB:.1f} MiB by the relay")


def test_a_hole_at_rest_costs_nothing(new_lab):
    """A path that comes back before anybody needed it was never lost."""
    with new_lab() as lab:
        assert lab.fetch().status == 200
        with lab.network.hole():
            time.sleep(2)
        assert lab.fetch().status == 200
        assert not lab.losses()


def test_an_address_that_comes_back_in_time_is_kept(new_lab):
    """DHCP renews by taking the address and giving it again: new connection, same link."""
    with new_lab() as lab:
        lab.network.take_address("wan0")
        lab.network.give_address("wan0")
        wait_for(lambda: lab.fetch().status == 200, 20, "an answer")
        assert not lab.relay.find("link_down")
