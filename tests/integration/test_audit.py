"""Audit finds what was altered; purge leaves nothing but digests, and a worker that holds an erased job stores nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.audit import Audit, written_head
from pipeline.errors import InternalError, LeaseLost, UsageError
from pipeline.records import Page, Question
from pipeline.store import Store, SubmittedBatch
from pipeline.store.ledger import Ledger
from pipeline.store.results import pack_map
from pipeline.work import Worker, raster_of
from tests.documents import pdf
from tests.faults import stub
from tests.faults.rig import SETUP, documents, questions
from tests.stores import batch, document, pages_of, work_off

Sql = Callable[..., list[Any]]


@pytest.fixture
def ledger(store_url: str):
    with Ledger.open(store_url) as opened:
        yield opened


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.answer.answer_page", stub.answer_page)


@pytest.fixture
def worked(store: Store, stubbed: None) -> str:
    """A batch of two documents and two questions, answered by the stub from real pages."""
    return work(store, SubmittedBatch(documents(2), questions(2), SETUP))


def work(store: Store, batch: SubmittedBatch) -> str:
    receipt = store.submit(batch, pages_of)
    worker = Worker(store, stub.StubVlm)  # type: ignore[arg-type]
    worker.work_off(receipt.batch_id)
    worker.close()
    return receipt.batch_id


def findings(ledger: Ledger, wanted: str | None = None) -> list[tuple[str, str]]:
    return [(finding.what, finding.detail) for finding in Audit(ledger, raster_of).run(wanted)]


def unguarded(sql: Sql, table: str, *statements: str) -> None:
    """What a superuser can do: switch the guards off."""
    if _is_sqlite(sql):
        for (name,) in sql("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table", table=table):
            sql(f"DROP TRIGGER {name}")
    else:
        sql(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
    for statement in statements:
        sql(statement)


def _is_sqlite(sql: Sql) -> bool:
    try:
        sql("SELECT 1 FROM sqlite_master LIMIT 1")
    except Exception:  # noqa: BLE001 - whichever error the other database has for it
        return False
    return True


def test_what_was_not_altered_passes(worked: str, ledger: Ledger, tmp_path: Path):
    """Pages are drawn again, crops are cut again, the chain holds and its head can be written down."""
    audit = Audit(ledger, raster_of)
    assert list(audit.run()) == []
    counts = audit.counts
    assert (counts.pages, counts.crops, counts.answers, counts.not_redrawn) == (2, 4, 4, 0)
    assert counts.rows == 3, "the first row, and one for each page"
    assert counts.blobs > 4
    assert findings(ledger, worked) == findings(ledger, "0.pdf") == []
    head = json.loads(written_head(ledger, tmp_path / "heads"))
    assert head["seq"] == 2
    assert list(Audit(ledger, raster_of).anchors(tmp_path / "heads")) == []
    with pytest.raises(UsageError, match="is called nothing"):
        findings(ledger, "nothing")


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE page_answer SET text = 'another' WHERE job_id = 1", "answer"),
        ("UPDATE evidence SET x1_px = x1_px + 1 WHERE id = 1", "answer"),
        ("UPDATE evidence SET score = 0.75 WHERE id = 1", "answer"),
        ("DELETE FROM answer_seal WHERE job_id = 1", "answer"),
        ("UPDATE page SET raster_sha256 = '{0}' WHERE id = 1", "raster"),
        (
            "UPDATE blob SET content = (SELECT b.content FROM blob b WHERE b.media_type = 'image/png' LIMIT 1) "
            "WHERE media_type = 'application/pdf'",
            "blob",
        ),
    ],
)
def test_what_was_altered_is_found(worked: str, ledger: Ledger, sql: Sql, statement: str, what: str):
    """A word, a box, a score, a seal, a raster's digest, a document's bytes."""
    sql(statement.format("0" * 64))
    assert what in {kind for kind, _ in findings(ledger)}


@pytest.mark.parametrize("column", ["values_f32", "view"])
def test_an_altered_map_is_found(store: Store, ledger: Ledger, sql: Sql, column: str):
    """Maps are what led to the boxes: their values and their places are sealed, too."""
    store.submit(batch([document("a.pdf")]), pages_of)
    work_off(store)
    (job_id,) = ledger.jobs(None)
    assert dict(ledger.answers([job_id])) == ledger.sealed()
    other = pack_map(np.zeros((3, 2), np.float32)) if column == "values_f32" else "[0, 0, 1, 1]"
    sql(f"UPDATE saliency_map SET {column} = :other", other=other)
    assert dict(ledger.answers([job_id])) != ledger.sealed()


def test_an_audit_while_others_store_and_erase_finds_nothing(
    store: Store, stubbed: None, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """Between its first look and its last, a batch is answered and a document is erased."""
    work(store, SubmittedBatch(documents(2), questions(1), SETUP))
    pages = ledger.pages

    def meanwhile(wanted: str | None) -> Any:
        found = list(pages(wanted))
        work(store, SubmittedBatch(documents(3)[2:], questions(1), SETUP))
        ledger.purge("0.pdf", "asked to")
        yield from found

    monkeypatch.setattr(ledger, "pages", meanwhile)
    audit = Audit(ledger, raster_of)
    assert list(audit.run()) == []
    assert audit.counts.answers == 2, "the one that stayed, and the new one"


def test_a_crop_that_shows_something_else_is_found(worked: str, ledger: Ledger, sql: Sql):
    """Its box and digest are right, and its pixels are those of another place."""
    crops = sql("SELECT DISTINCT crop_sha256 FROM evidence ORDER BY crop_sha256")
    assert len(crops) > 1
    (first,), (second,) = crops[:2]
    sql("UPDATE blob SET content = (SELECT content FROM blob WHERE sha256 = :b) WHERE sha256 = :a", a=first, b=second)
    assert {"blob", "crop"} <= {kind for kind, _ in findings(ledger)}


def test_25_a_changed_chain_and_a_cut_off_one(worked: str, ledger: Ledger, sql: Sql, tmp_path: Path):
    """The first bad row is named; a chain without its end is whole in itself, and an anchor tells."""
    written_head(ledger, tmp_path / "heads")
    unguarded(sql, "chain", "UPDATE chain SET action = 'other' WHERE seq = 1")
    assert findings(ledger)[0] == ("chain", "is not what was sealed")
    sql("UPDATE chain SET action = 'ended' WHERE seq = 1")
    assert findings(ledger) == []
    sql("DELETE FROM chain WHERE seq = 2")
    assert all(kind != "chain" for kind, _ in findings(ledger))
    ((what, detail),) = [(found.what, found.detail) for found in Audit(ledger, raster_of).anchors(tmp_path / "heads")]
    assert what == "anchor"
    assert "cut off" in detail


@pytest.mark.parametrize("statement", ["UPDATE chain SET action = 'x'", "DELETE FROM chain", "DELETE FROM tombstone"])
def test_chain_and_tombstones_are_append_only(worked: str, ledger: Ledger, sql: Sql, statement: str):
    """Refused by the database, also by hand."""
    ledger.purge("0.pdf", "test")
    with pytest.raises(InternalError, match="is append-only"):
        sql(statement)


SECRET = "Zebulon Quartermain"


def test_a_purged_document_leaves_digests_only(
    worked: str, store: Store, store_url: str, ledger: Ledger, sql: Sql, tmp_path: Path
):
    """Bytes, rasters, crops, answers, questions and names are gone, from the file too; the rest still passes its audit."""
    named = document(f"{SECRET}.pdf", content=pdf([SECRET]))
    asked = Question("who", f"Is this {SECRET}?")
    batch = work(store, SubmittedBatch([named, *documents(1)], [asked], SETUP))
    (receipt,) = ledger.purge(f"{SECRET}.pdf", "asked to")
    assert receipt.counts["document"] == receipt.counts["answer"] == receipt.counts["job"] == 1
    assert [record["document"] for record in store.records(batch)] == ["0.pdf"]
    assert sql("SELECT count(*) FROM blob WHERE sha256 = :a", a=named.sha256) == [(0,)]
    assert sql("SELECT subject, reason FROM tombstone") == [(named.sha256, "asked to")]
    assert findings(ledger) == []
    with pytest.raises(UsageError, match="nothing was erased"):
        ledger.purge(f"{SECRET}.pdf", "again")
    if store_url.startswith("sqlite"):
        # The question is the batch's, and its other document keeps it; name and bytes are nowhere.
        content = Path(store_url.removeprefix("sqlite:///")).read_bytes()
        assert f"{SECRET}.pdf".encode() not in content
        assert pdf([SECRET])[:400] not in content
    ledger.purge(batch, "asked to")
    if store_url.startswith("sqlite"):
        assert SECRET.encode() not in Path(store_url.removeprefix("sqlite:///")).read_bytes()


def test_a_purged_batch_leaves_what_others_ask_for(worked: str, store: Store, ledger: Ledger):
    """Documents and jobs that another batch shares stay with it."""
    other = work(store, SubmittedBatch(documents(1), questions(1), SETUP, name="shares one job"))
    before = list(store.records(other))
    (receipt,) = ledger.purge(worked, "done with")
    assert (receipt.kind, receipt.counts["answer"], receipt.counts["job"], receipt.counts["document"]) == ("batch", 4, 3, 1)
    assert list(store.records(other)) == before
    assert findings(ledger) == []
    ledger.purge(other, "done with")
    assert store.batches() == []
    assert [kind for kind, _ in findings(ledger)] == []


def test_26_a_document_purged_while_a_worker_holds_it(
    store: Store, ledger: Ledger, sql: Sql, monkeypatch: pytest.MonkeyPatch
):
    """The late result is refused: nothing of it comes back."""
    monkeypatch.setattr("pipeline.answer.answer_page", stub.answer_page)
    receipt = store.submit(SubmittedBatch(documents(1), questions(2), SETUP), pages_of)
    worker = Worker(store, stub.StubVlm)  # type: ignore[arg-type]
    unit = store.claim(worker.name)
    assert unit is not None
    page = worker.draw(unit)
    assert isinstance(page, Page)
    ledger.purge(unit.document.sha256, "asked to")
    worker.answer(unit, page)
    assert worker.thrown_away == 2
    with pytest.raises(LeaseLost):
        store.release(unit.jobs)
    for table in ("blob", "page", "page_answer", "evidence", "job", "answer", "document"):
        assert sql(f"SELECT count(*) FROM {table}") == [(0,)], table
    assert store.finished(receipt.batch_id)
    assert findings(ledger) == []
    assert dataclasses.asdict(ledger.head())["seq"] == 1
    worker.close()


def test_the_commands(worked: str, store_url: str, sql: Sql, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Exit 0 and the chain's head when all is well, exit 1 and the finding when not; a receipt for what was erased."""
    from pipeline.cli import main

    heads = tmp_path / "heads"
    assert main(["audit", "--db", store_url, "--anchor", str(heads)]) == 0
    shown = capsys.readouterr()
    assert heads.read_text() == shown.out
    assert "0 findings in 3 rows of the chain, 4 page answers, 2 pages drawn again" in shown.err
    sql("UPDATE page_answer SET text = 'another' WHERE job_id = 1")
    assert main(["audit", worked, "--db", store_url, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["where"] == "job 1"
    assert main(["purge", "0.pdf", "--reason", "case 17", "--db", store_url]) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["kind"], receipt["reason"]) == ("document", "case 17")
    assert main(["audit", "--db", store_url, "--anchor", str(heads)]) == 0
    assert main(["purge", "0.pdf", "--reason", "case 17", "--db", store_url]) == 2
