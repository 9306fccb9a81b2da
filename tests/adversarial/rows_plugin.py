# SPDX-License-Identifier: MIT
"""The table at the end: what was thrown at the relay, row by row, and what a bystander noticed.

Tests name their rows: `test_row_07_…`, or `test_row_07_08_…` for two. What each attack cost (see
attack.py) travels with the test's report, so that it also comes from other processes (pytest -n);
a plugin and no conftest.py for the same reason as conformance/clauses_plugin.py.
"""
import re
from dataclasses import asdict

import pytest
from attack import Measure, Target

ROWS = {
    1: "upgrade without key, version, Connection; by POST, 1.0",
    2: "unmasked frame, reserved bits and opcodes, bad control frame",
    3: "a declared length of 2^63-1; 2 GiB and silence",
    4: "100,000 tiny continuation frames",
    5: "ping flood from a peer that never reads",
    6: "text on a binary route; bad UTF-8",
    7: "close codes nobody may send; a peer that never closes",
    8: "frames behind the upgrade request",
    9: "foreign Origin; a subprotocol not offered",
    10: "CL and TE, two CL, odd codings",
    11: "bare LF and CR, folds, controls, leading CRLF",
    12: "chunk sizes, extensions, trailers",
    13: "Host and authority",
    14: "1 MiB header, 10,000 headers, 64 KiB URI",
    15: "slow head, body, read, a thousand of each",
    16: "Expect and no body; 1xx floods; an unasked 101",
    17: "answers that lie",
    18: "a request behind an upgrade or a 4xx",
    19: "Connection names, forged internal headers",
    20: "SSH maximum packet 0 to 2^32-1",
    21: "SSH window 2^32-1 and never reading",
    22: "SSH data beyond the window, unknown channels",
    23: "SSH channel opens, forwards, requests without end",
    24: "names of other users, port 0, twice",
    25: "silence at every phase of SSH",
    26: "authentication tries, odd user names",
    27: "sessions, shells, addresses",
    28: "rekeying under load, wrong guesses",
    29: "path cut, the same agent back",
    30: "old TLS, half handshakes, KeyUpdate flood",
    31: "certificates replaced, broken, gone",
    32: "EMFILE, ENOMEM",
    33: "SIGTERM, SIGKILL under load, many links at once",
    35: "disk full, log blocked, clock stepped",
    36: "soak with churn",
    37: "alg none, HS256 with a public key",
    38: "kid, jku, x5u, jwk",
    39: "exp, nbf",
    40: "audience, issuer",
    41: "huge tokens, deep JSON",
    42: "JWKS that fails",
    44: "one user guesses at another's",
}
NAME = re.compile(r"test_row((?:_\d+)+)_")
RESULTS = pytest.StashKey()


def rows_of(name):
    found = NAME.search(name)
    return [int(row) for row in found[1].strip("_").split("_")] if found else []


def pytest_configure(config):
    config.stash[RESULTS] = {}
    config.pluginmanager.register(_Outcomes(config.stash[RESULTS]), "adversarial-outcomes")


class _Outcomes:
    def __init__(self, results):
        self.results = results

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.outcome == "passed":
            return
        for row in rows_of(report.location[2]):
            outcomes, measures = self.results.setdefault(row, ([], []))
            outcomes.append(report.outcome)
            measures += [Measure(**value) for name, value in report.user_properties
                         if name == "attack"]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    targets = [v for v in getattr(item, "funcargs", {}).values() if isinstance(v, Target)]
    before = [len(target.measures) for target in targets]
    yield
    for target, count in zip(targets, before, strict=True):
        item.user_properties += [("attack", asdict(m)) for m in target.measures[count:]]


def _line(row, outcomes, measures):
    verdict = "ok" if set(outcomes) == {"passed"} else ", ".join(sorted(set(outcomes)))
    text = f"{row:3} {ROWS.get(row, ''):<62.62} {len(outcomes):4} {verdict:<8}"
    if measures:
        worst = max(measures, key=lambda m: m.attacked_p99_s - m.quiet_p99_s)
        text += (f"{worst.quiet_p99_s * 1000:7.1f} {worst.attacked_p99_s * 1000:7.1f}"
                 f"{max(m.grown_kib for m in measures) / 1024:8.1f}"
                 f"{max(m.peak_kib for m in measures) / 1024:7.1f}"
                 f"{max(m.log_lines for m in measures):6}")
    return text


def pytest_terminal_summary(terminalreporter, config):
    results = config.stash[RESULTS]
    if not results:
        return
    terminalreporter.section("what was thrown at it")
    terminalreporter.write_line(
        f"{'row':<66} {'tests':>5}{'':8}   p99 quiet/hit, ms  MiB after, peak, log lines")
    for row in sorted(results):
        terminalreporter.write_line(_line(row, *results[row]))
