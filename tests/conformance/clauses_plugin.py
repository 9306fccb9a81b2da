# SPDX-License-Identifier: MIT
"""Ties tests to the clauses that they show, and prints at the end how many are covered.

See clauses.py for the lists. A clause counts as covered when at least one test of this run names
it and every one that does has passed. A plugin and no conftest.py, because the process that prints
under `pytest -n` collects nothing and so reads only the outermost conftest.py.
"""
from pathlib import Path

import pytest

import clauses

HERE = Path(__file__).resolve().parent
NAMED = pytest.StashKey()
OUTCOMES = pytest.StashKey()


def _keys(item):
    return [key for marker in item.iter_markers("clause") for key in marker.args]


def pytest_configure(config):
    config.stash[NAMED] = set()
    config.stash[OUTCOMES] = {}
    # Reports of other processes (pytest -n) come to this hook of the one that prints.
    config.pluginmanager.register(_Outcomes(config.stash[OUTCOMES]), "conformance-outcomes")


class _Outcomes:
    def __init__(self, outcomes):
        self.outcomes = outcomes

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.outcome == "passed":
            return
        for name, key in report.user_properties:
            if name == "clause":
                self.outcomes.setdefault(key, set()).add(report.outcome)


@pytest.hookimpl(tryfirst=True)  # before -m and -k take tests away
def pytest_collection_modifyitems(config, items):
    known = {key for rfc in clauses.load() for key in rfc.clauses}
    for item in items:
        for key in _keys(item):
            if key not in known:
                raise pytest.UsageError(f"{item.nodeid}: no list has a clause {key}")
            config.stash[NAMED].add(key)
            item.user_properties.append(("clause", key))


@pytest.fixture
def named_clauses(request):
    """The clauses that collected tests name; skips unless the whole folder was collected."""
    for arg in request.config.args:
        path = Path(arg.partition("::")[0]).resolve()
        if path.is_dir() and HERE.is_relative_to(path):
            return request.config.stash[NAMED]
    pytest.skip("only a part of the tests was collected")


def pytest_terminal_summary(terminalreporter, config):
    outcomes = config.stash[OUTCOMES]
    lists = [rfc for rfc in clauses.load() if any(key in outcomes for key in rfc.clauses)]
    if lists:
        terminalreporter.section("clauses")
    for rfc in lists:
        for line in rfc.summary(outcomes):
            terminalreporter.write_line(line)
