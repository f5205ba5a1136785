"""Fixtures of the fault matrix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.rig import Rig
from tests.servers import Postgres, Redis
from tests.stores import postgres, redis

__all__ = ["postgres", "redis"]


@pytest.fixture
def rig(postgres: Postgres, redis: Redis, tmp_path: Path) -> Iterator[Rig]:
    """PostgreSQL and Redis, a round of chores every half second."""
    import redis as library

    library.Redis(port=redis.port).flushall()
    with Rig(postgres.new_database("test_1"), redis.url(), tmp_path) as rig:
        rig.start_chores()
        yield rig


@pytest.fixture
def sqlite_rig(redis: Redis, tmp_path: Path) -> Iterator[Rig]:
    """The same on SQLite."""
    import redis as library

    library.Redis(port=redis.port).flushall()
    with Rig(f"sqlite:///{tmp_path / 'exhibit.db'}", redis.url(), tmp_path) as rig:
        rig.start_chores()
        yield rig
