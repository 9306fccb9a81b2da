# SPDX-License-Identifier: MIT
"""Prints what the interoperability tests have measured: one line per peer, direction and bridge.

A test notes a row with the fixture `row`; rows travel in the test's report, so that runs with
pytest-xdist print one table as well.
"""
import time

import pytest

COLUMNS = ("peer", "direction", "bridge", "MiB", "up MiB/s", "down MiB/s", "rekeys", "result")
KEY = "interop"


class Row:
    """What one test has to say in the table; its result is added at the end."""

    def __init__(self, node):
        self.node = node

    def note(self, peer, direction, bridge, mib="", up="", down="", rekeys=""):
        cells = [peer, direction, bridge, mib, up, down, rekeys]
        self.node.user_properties.append((KEY, [str(cell) for cell in cells]))


@pytest.fixture
def row(request):
    return Row(request.node)


class Stopwatch:
    """MiB/s of a block: `with Stopwatch(mib) as watch: …`, then `watch.rate`."""

    def __init__(self, mib):
        self.mib = mib

    def __enter__(self):
        self.start = time.monotonic()
        return self

    def __exit__(self, *_):
        self.rate = f"{self.mib / max(time.monotonic() - self.start, 1e-6):.0f}"


def pytest_terminal_summary(terminalreporter):
    rows = []
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            if outcome == "passed" and getattr(report, "when", "call") != "call":
                continue
            rows += [[*cells, "ok" if outcome == "passed" else outcome]
                     for key, cells in getattr(report, "user_properties", []) if key == KEY]
    if not rows:
        return
    rows.sort()
    terminalreporter.section("interoperability")
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows)]
    for cells in [COLUMNS, *rows]:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths))
        terminalreporter.write_line(line.rstrip())
