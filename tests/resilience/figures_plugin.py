# SPDX-License-Identifier: MIT
"""Prints what the resilience tests have measured, one line each, at the end of a run."""
import pytest

KEY = "resilience"


@pytest.fixture
def figure(request):
    """`figure("time to come back: …")`; travels in the report, so it survives pytest-xdist."""
    def note(text):
        request.node.user_properties.append((KEY, text))
    return note


def p95(values):
    """The value that 95 % do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]


def pytest_terminal_summary(terminalreporter):
    lines = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            if getattr(report, "when", "call") == "call":
                lines += [value for key, value in getattr(report, "user_properties", [])
                          if key == KEY]
    if not lines:
        return
    terminalreporter.section("resilience")
    for line in sorted(lines):
        terminalreporter.write_line(line)
