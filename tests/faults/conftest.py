# SPDX-License-Identifier: MIT
"""Fixtures: processes of the program whose calls fail when a test says so."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import faults as shim  # noqa: E402
from weak import Weak  # noqa: E402


@pytest.fixture(scope="session")
def shim_path(tmp_path_factory):
    return shim.build_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def new_faults(shim_path, world):
    """Makes one page of faults, for one process."""
    if shim.IS_TSAN:
        pytest.skip("the thread sanitizer wants to be the first to see these calls")
    made = []

    def make():
        page = shim.Faults(world.folder / f"faults-{len(made)}", shim_path)
        made.append(page)
        return page
    yield make
    # A process that is told to end must be able to.
    for page in made:
        page.clear()


@pytest.fixture
def weak(world, new_faults):
    return Weak(world, new_faults)
