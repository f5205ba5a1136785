"""Settings and fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("exhibit", deadline=None)
settings.load_profile("exhibit")


@pytest.fixture(scope="module")
def thread() -> Iterator[None]:
    """Torch on one thread: tiny matrices are faster on one core than shared over many."""
    from tests.fakes import one_thread

    with one_thread():
        yield
