# SPDX-License-Identifier: MIT
"""Fixtures: networks that can be cut, where the machine allows them."""
import netns
import pytest
from lab import Credentials, Lab


@pytest.fixture(scope="module")
def credentials(authority):
    return Credentials(authority)


@pytest.fixture
def new_lab(credentials):
    """Makes labs; `with new_lab() as lab`. Skips where there are no network namespaces."""
    reason = netns.why_not()
    if reason:
        pytest.skip(reason)
    return lambda **kw: Lab(credentials, **kw)
