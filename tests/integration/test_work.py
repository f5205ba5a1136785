"""What a worker keeps between units."""

from __future__ import annotations

import pytest

from pipeline.pages import PageSource
from pipeline.records import Page
from pipeline.store import Store, SubmittedBatch
from pipeline.work import Worker
from tests.documents import pdf
from tests.faults import stub
from tests.faults.rig import SETUP, questions
from tests.stores import document, pages_of


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the pages that poppler is asked for."""
    numbers: list[int] = []
    draw = PageSource.page

    def counted(source: PageSource, number: int) -> Page:
        numbers.append(number)
        return draw(source, number)

    monkeypatch.setattr(PageSource, "page", counted)
    monkeypatch.setattr("pipeline.answer.answer_page", stub.answer_page)
    return numbers


@pytest.mark.parametrize(
    ("kept_pixels", "times"),
    [pytest.param(48_000_000, [1] * 5, id="all"), pytest.param(1, [1, 1, 2, 2, 2], id="the last alone")],
)
def test_a_swept_page_is_drawn_once(
    store: Store, drawn: list[int], monkeypatch: pytest.MonkeyPatch, kept_pixels: int, times: list[int]
):
    """Five pages are swept and three of them looked at closely; as many stay as the bound allows, the last one always."""
    monkeypatch.setattr("pipeline.work.KEPT_PIXELS", kept_pixels)
    pages = document("long.pdf", 5, content=pdf(*([f"Page {number}"] for number in range(5))))
    receipt = store.submit(SubmittedBatch([pages], questions(1), SETUP), pages_of)
    worker = Worker(store, stub.StubVlm)  # type: ignore[arg-type]
    worker.work_off(receipt.batch_id)
    worker.close()
    assert sorted(drawn.count(number) for number in range(1, 6)) == times
