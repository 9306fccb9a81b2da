# SPDX-License-Identifier: MIT
"""Targets whose relay has one worker, so that an attack and its bystander share it, and a log as
in production, so that what an attack writes into it is bounded."""
import pytest
from attack import Target
from culvert import World


@pytest.fixture(scope="module")
def make_target(tmp_path_factory):
    """Makes a Target that lives as long as the module; `env` is the relay's."""
    worlds = []

    def make(env=None, **kw):
        worlds.append(World(tmp_path_factory.mktemp("adversarial"), 1))
        return Target(worlds[-1], env={"LOG_LEVEL": "info", **(env or {})}, **kw)
    yield make
    failures = []
    for world in worlds:
        try:
            world.close()
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, "\n".join(failures)
