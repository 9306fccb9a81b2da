# SPDX-License-Identifier: MIT
"""The short form of soak.py, and its arithmetic."""
import pytest
from soak import Soak, slope


@pytest.mark.timing
def test_mixed_load_with_cuts_churn_and_slow_readers(world):
    result = Soak(world).run(20)
    assert not result["faults"], "\n".join(result["faults"])
    for work in ("small", "download", "upload", "events", "slow", "rude", "cut", "churn"):
        assert result["counts"].get(work), f"{work} was not done once: {result['counts']}"


def test_growth_is_told_from_noise():
    flat = [{"at": n, "kib": 1000 + n % 2} for n in range(90)]
    rising = [{"at": n, "kib": 1000 + 100 * n} for n in range(90)]
    assert slope(flat, "kib")["growth"] <= 1
    assert slope(rising, "kib")["growth"] == 5900
    assert slope(rising, "kib")["kib_per_hour"] == 360000
