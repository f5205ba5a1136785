"""What a submission stores, and what it finds already answered."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import DocumentCorrupt, UsageError
from pipeline.records import Failure, Question
from pipeline.store import ModelRef, Store, SubmittedDocument
from pipeline.store.operations import Operations
from tests.stores import DATE, SETUP, TOTAL, batch, document, finish, pages_of, work_off
from workers.tasks import Sweep


def without_ids(records):
    return [{key: value for key, value in record.items() if key not in ("answer_id", "batch_id")} for record in records]


def test_the_same_list_is_the_same_batch(store: Store):
    """Submitting again computes nothing and says so."""
    submitted = batch([document("a.pdf"), document("b.pdf")], [TOTAL, DATE])
    first = store.submit(submitted, pages_of)
    assert (first.created, first.answers, first.jobs, first.answers_done) == (True, 4, 4, 0)
    work_off(store)
    again = store.submit(submitted, pages_of)
    assert (again.batch_id, again.created, again.answers_done, again.jobs_done) == (first.batch_id, False, 4, 4)
    assert store.claim("w") is None


@pytest.mark.parametrize(
    "change",
    [{"name": "other"}, {"locale": "de"}, {"min_certainty": -1.0}, {"force": True}, {"questions": [DATE, TOTAL]}],
)
def test_another_list_is_another_batch(store: Store, change):
    """Everything that can change a record is part of the batch's identity."""
    submitted = batch([document("a.pdf")], [TOTAL, DATE])
    first = store.submit(submitted, pages_of)
    other = store.submit(replace(submitted, **change), pages_of)
    assert first.batch_id != other.batch_id


def test_what_was_answered_before_is_settled_at_once(store: Store):
    """A second batch over the same pages and questions takes the answers over, sweeps and grounding included."""
    documents = [document("a.pdf", pages=5), document("b.pdf")]
    first = store.submit(batch(documents, [TOTAL]), pages_of)
    work_off(store)
    second = store.submit(batch(documents, [TOTAL], name="again"), pages_of)
    assert (second.answers, second.answers_done, second.jobs, second.jobs_done) == (2, 2, 9, 9)
    assert without_ids(store.records(first.batch_id)) == without_ids(store.records(second.batch_id))


def test_words_up_to_white_space_are_the_same_question(store: Store):
    """The job is shared although id and spacing differ."""
    store.submit(batch([document("a.pdf")], [TOTAL]), pages_of)
    respelled = Question("t2", "  What is\nthe total? ")
    receipt = store.submit(batch([document("a.pdf")], [respelled]), pages_of)
    assert receipt.jobs == 1
    assert work_off(store) == 1
    assert [record["question"] for record in store.records(receipt.batch_id)] == [respelled.text]
    assert store.progress(receipt.batch_id).finished


def test_force_computes_again(store: Store):
    """A forced batch shares no job with any other, not even with another forced one."""
    for _ in range(3):
        receipt = store.submit(batch([document("a.pdf")], force=True), pages_of)
        assert (receipt.created, receipt.jobs, receipt.jobs_done) == (True, 1, 0)
        assert work_off(store) == 1


def test_the_same_bytes_under_two_names_are_read_once(store: Store, sql):
    """Two names, one document, one job; two answers."""
    twins = [document("a.pdf", content=b"same"), document("copy/a.pdf", content=b"same")]
    receipt = store.submit(batch(twins), pages_of)
    assert (receipt.answers, receipt.jobs) == (2, 1)
    work_off(store)
    assert [record["document"] for record in store.records()] == ["a.pdf", "copy/a.pdf"]
    assert sql("SELECT count(*) FROM document") == [(1,)]


def test_documents_that_cannot_be_asked(store: Store):
    """Unreadable: failed with the code. Range or glob without a match: skipped. Nothing is silently missing."""
    broken = SubmittedDocument.unreadable("bad.pdf", Failure("document_encrypted", "needs a password", False), "a" * 64)
    gone = SubmittedDocument.unreadable("gone.pdf", Failure("document_not_found", "no such file", False))
    questions = [TOTAL, Question("late", "Late?", pages="7-9"), Question("none", "None?", document="zzz*.pdf")]
    receipt = store.submit(batch([document("a.pdf"), broken, gone], questions), pages_of)
    assert (receipt.answers, receipt.jobs) == (7, 1)
    work_off(store)
    found = [
        (record["document"], record["question_id"], record["status"], record["error"] and record["error"]["code"])
        for record in store.records(receipt.batch_id)
    ]
    assert found == [
        ("a.pdf", "total", "answered", None),
        ("a.pdf", "late", "skipped", "page_out_of_range"),
        ("bad.pdf", "total", "failed", "document_encrypted"),
        ("bad.pdf", "late", "failed", "document_encrypted"),
        ("gone.pdf", "total", "failed", "document_not_found"),
        ("gone.pdf", "late", "failed", "document_not_found"),
        ("zzz*.pdf", "none", "skipped", "no_such_document"),
    ]


def test_an_unreadable_document_becomes_readable(store: Store):
    """With the password, the same file is another list, and is answered."""
    good = document("a.pdf")
    bad = SubmittedDocument.unreadable("a.pdf", Failure("document_encrypted", "locked", False), good.sha256)
    store.submit(batch([bad]), pages_of)
    receipt = store.submit(batch([good]), pages_of)
    work_off(store)
    assert [record["status"] for record in store.records(receipt.batch_id)] == ["answered"]
    assert store.document_bytes(good.sha256) == b"%PDF a.pdf"


def test_a_file_that_changed_is_refused(store: Store, tmp_path: Path):
    """The digest is taken before the bytes are stored; in between the file may change."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"old")
    honest = document("a.pdf", content=b"old")
    path.write_bytes(b"new")
    moved = SubmittedDocument(honest.name, path, honest.sha256, honest.media_type, 3, 1)
    with pytest.raises(DocumentCorrupt, match="changed while it was being submitted"):
        store.submit(batch([moved]), pages_of)
    assert store.batches() == []


def test_a_model_that_nothing_pins_is_refused(store: Store):
    """Without a revision or the weights' digest, nobody could say later what answered."""
    loose = replace(SETUP, model=ModelRef("hub/model"))
    with pytest.raises(UsageError, match="give --revision"):
        store.submit(batch([document("a.pdf")], setup=loose), pages_of)
    assert store.batches() == []


def test_names_that_are_not_text(store: Store):
    """A file name that is not UTF-8, and NUL in an answer, are stored and come back as JSON."""
    odd = document("b\udce9.pdf")
    store.submit(batch([odd], [Question("q", "Caf\udce9?")]), pages_of)
    unit = store.claim("w")
    finish(store, unit, text="a\0b")
    (record,) = store.records()
    assert record["document"] == "b\ufffd.pdf"
    assert json.loads(json.dumps(record))["answer"]["text"] == "a\ufffdb"


def test_bytes_of_a_submission_that_died_are_swept_after_a_day(store: Store, store_url: str, sql):
    """What a batch refers to stays; what a submission of today has stored ahead of its batch stays as well."""
    store.submit(batch([document("a.pdf")]), pages_of)
    work_off(store)
    lost = store.put_blob(b"a document without a batch", "application/pdf")
    clock = [0.0]
    with Operations.open(store_url) as operations:
        sweep = Sweep(operations, lambda: clock[0])
        assert operations.orphans() == {lost}
        before = sql("SELECT count(*) FROM blob")[0][0]
        for hours in (0, 1, 23):
            clock[0] = hours * 3600.0
            sweep()
        assert sql("SELECT count(*) FROM blob")[0][0] == before
        late = store.put_blob(b"another, of today", "application/pdf")
        clock[0] = 24 * 3600.0
        sweep()
        assert operations.orphans() == {late}
    assert sql("SELECT count(*) FROM blob")[0][0] == before


def test_two_submitters_at_once(store_url: str):
    """The same list from two machines at the same moment: one batch, each job once."""
    submitted = batch([document(f"{n}.pdf", pages=2) for n in range(10)], [TOTAL, DATE])

    def submit(_: int):
        with Store.open(store_url) as store:
            return store.submit(submitted, pages_of)

    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(submit, range(4)))
    assert len({receipt.batch_id for receipt in receipts}) == 1
    assert [receipt.created for receipt in receipts].count(True) == 1
    assert {receipt.jobs for receipt in receipts} == {40}
