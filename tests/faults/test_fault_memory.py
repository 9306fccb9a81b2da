# SPDX-License-Identifier: MIT
"""Memory is refused while the program runs: what asked for it ends, the rest goes on."""
import errno

import pytest
from culvert import wait_for

KIB = 1 << 10


@pytest.mark.parametrize("side", ["relay", "agent"])
@pytest.mark.parametrize("chance", [0.01, 0.2])
def test_refused_memory_ends_what_asked_for_it(weak, side, chance):
    faults = getattr(weak, f"{side}_faults")
    getattr(weak, side).expect_error("memory|NO_MEMORY")
    with weak.load():
        faults.fail("memory", errno.ENOMEM, chance=chance, count=50)
        # A consumer whose link the agent has lost may hang for a while: few faults are enough.
        weak.until(faults, "memory", 15 if chance > 0.1 else 5)
        faults.clear()
        wait_for(weak.is_well, 60, "requests that work again")
    weak.echo(64 * KIB)


@pytest.mark.parametrize("side", ["relay", "agent"])
def test_no_memory_at_all_for_a_while(weak, side):
    """Every request of the program's own code is refused: nothing is served, nothing ends."""
    faults = getattr(weak, f"{side}_faults")
    getattr(weak, side).expect_error("memory|NO_MEMORY")
    with weak.load():
        faults.fail("memory", errno.ENOMEM)
        weak.until(faults, "memory", 20)
        faults.clear()
        wait_for(weak.is_well, 60, "requests that work again")
    weak.echo(64 * KIB)
