# SPDX-License-Identifier: MIT
"""Rows 3 to 5: frames that announce too much, that never end, that nobody asked for."""
import contextlib

import pytest
from attack import frame, reset, upgrade


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(home=False, env={"MAX_CONNECTIONS_PER_USER": "500"})


@pytest.mark.parametrize("protocol", ["ssh", "culvert.v1"])
def test_row_05_pings(target, protocol):
    with target.attack():
        for _ in range(3):
            with upgrade(target, protocol, timeout=1, receive_buffer=4096) as client:
                for _ in range(20):
                    with contextlib.suppress(OSError):
                        client.send(frame(0x89, b"p" * 125) * 500)
