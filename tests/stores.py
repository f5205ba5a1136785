"""What tests of the store need: documents, batches, a stub that answers, and the servers as fixtures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import Box, PatchGrid, PdfFrame
from pipeline.questions import applies_to, parse_pages
from pipeline.records import (
    Answer,
    Document,
    Evidence,
    ModelIdentity,
    Page,
    Question,
    Region,
    SaliencyMap,
    Signals,
    Step,
    StopReason,
    Usage,
    View,
)
from pipeline.store import (
    JobClaim,
    JobResult,
    ModelRef,
    RunFacts,
    Setup,
    Stage,
    Store,
    SubmittedBatch,
    SubmittedDocument,
    Unit,
    upgrade,
)
from pipeline.store.database import Database
from tests.servers import Postgres, Redis, ServerMissing

MODEL = ModelIdentity("stub", "embedded", None, "f" * 64, "cpu", "float32")
FACTS = RunFacts(MODEL, "0.1.0+test", {"numpy": "2", "torch": "none"})
SETUP = Setup("entropy-gradient", "default", {"rounds": 3}, "c" * 64, ModelRef.of(MODEL), "stub dpi=100")
TOTAL, DATE = Question("total", "What is the total?"), Question("date", "What is the date?")
WIDTH, HEIGHT = 80, 120


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    """A server that the tests of a module share."""
    try:
        server = Redis()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    try:
        server = Postgres()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        upgrade(server.new_database())  # the first database: a template for the others
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def engine_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with our tables, on each engine."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'store.db'}"
        upgrade(url)
        return url
    return request.getfixturevalue("postgres").new_database("test_1")


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as opened:
        yield opened


@pytest.fixture
def sql(store_url: str) -> Iterator[Callable[..., list[Any]]]:
    """Run a statement by hand and return its rows."""
    from sqlalchemy import text

    database = Database(store_url)

    def run(statement: str, **values: Any) -> list[Any]:
        def work(connection: Any) -> list[Any]:
            result = connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

        return database.write(work)

    yield run
    database.close()


def document(name: str, pages: int = 1, content: bytes | None = None) -> SubmittedDocument:
    data = content if content is not None else f"%PDF {name}".encode(errors="replace")
    sha256 = hashlib.sha256(data).hexdigest()
    return SubmittedDocument.readable(Document(name, sha256, "application/pdf", len(data), pages), data)


def batch(
    documents: Sequence[SubmittedDocument], questions: Sequence[Question] = (TOTAL,), **changes: Any
) -> SubmittedBatch:
    return replace(SubmittedBatch(documents, questions, SETUP), **changes)


def pages_of(submitted: SubmittedDocument, question: Question) -> Sequence[int] | None:
    if not applies_to(question, submitted.name):
        return None
    return parse_pages(question.pages).select(submitted.page_count) if submitted.page_count is not None else ()


def page_of(unit: Unit) -> Page:
    image = Image.new("RGB", (WIDTH, HEIGHT), (unit.page % 256, 10, 20))
    digest = hashlib.sha256(f"{WIDTH}x{HEIGHT}:".encode() + image.tobytes()).hexdigest()
    frame = PdfFrame(0, 0, WIDTH, HEIGHT)
    return Page(unit.document.sha256, unit.page, image, 100.0, digest, "stub", frame)


def answer_of(unit: Unit, job: JobClaim, page: Page) -> Answer:
    """A stub's answer: a function of document, page and question alone, surest on page 2."""
    text = f"{job.question.text[-6:-1]} of {unit.document.sha256[:6]}"
    signals = Signals(mean_logprob=-0.1 - abs(unit.page - 2) / 10, refusal_margin=5.0 - abs(unit.page - 2))
    if unit.stage is Stage.SWEEP:
        return Answer(job.question, unit.page, text, signals=signals, usage=Usage(1, 0, 1, 6, 2, 0.25))
    box = Box(5, 10, 5 + unit.page, 30)
    grid = PatchGrid(3, 2, 0.0, 0.0, float(WIDTH), float(HEIGHT))
    values = np.arange(6, dtype=np.float32).reshape(3, 2) / 7
    saliency = SaliencyMap(View.whole(page), grid, values)
    region = Region(0, box, 0.5, 0.25, 3)
    step = Step(0, (page.box,), (saliency,), (region,), 2.5, 0.5, float("inf"), 0.125, StopReason.ROUNDS)
    evidence = Evidence(1, unit.page, box, 0.25, 0.5, (grid.cell_width, grid.cell_height))
    return Answer(job.question, unit.page, text, False, (evidence,), (step,), signals, Usage(2, 1, 1, 6, 2, 0.5))


def finish(store: Store, unit: Unit, **changes: Any) -> None:
    """Store the stub's answers to a unit, with changes to each."""
    page = page_of(unit)
    results = [JobResult(job, replace(answer_of(unit, job, page), **changes)) for job in unit.jobs]
    store.finish(page, results, FACTS)


def work_off(store: Store, worker: str = "test", limit: int = 16) -> int:
    """Do everything that can be done now; return the number of units."""
    units = 0
    while (unit := store.claim(worker, limit=limit)) is not None:
        finish(store, unit)
        units += 1
    return units
