"""Fixtures of the integration tests."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.vlms.catalogue import VLMS
from tests.stores import engine_url, postgres, redis, sql, store, store_url

__all__ = ["engine_url", "postgres", "redis", "sql", "store", "store_url"]


@pytest.fixture(scope="module", params=VLMS)
def vlm(request: pytest.FixtureRequest, thread: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny random model of every family; torch is imported by those tests that need it."""
    from pipeline.vlms.loading import load_vlm
    from tests.tiny_models import build

    folder = tmp_path_factory.mktemp(request.param)
    return load_vlm(str(build(request.param, folder)), device="cpu", dtype="float32")
