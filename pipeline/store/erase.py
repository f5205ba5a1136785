"""Erasing a document or a batch: rows and bytes in one transaction, a tombstone and a row of the chain in the same one.

What stays: digests and ids (events, chain, tombstone), and other batches' answers. A worker that holds an erased job finds
it gone and stores nothing. On SQLite the freed pages are overwritten and the log is emptied; PostgreSQL frees its pages at
the next VACUUM; backups are the operator's.
"""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, select, text, update

from pipeline.errors import UsageError
from pipeline.store.blobs import is_used, table
from pipeline.store.chain import append
from pipeline.store.database import Database, clock
from pipeline.store.keys import canonical
from pipeline.store.names import name_matches
from pipeline.store.settle import chunks
from pipeline.store.tables import (
    AnswerJobRow,
    AnswerRow,
    AnswerSealRow,
    BatchDocumentRow,
    BatchQuestionRow,
    BatchRow,
    BlobRow,
    DocumentRow,
    EvidenceRow,
    InboxFileRow,
    JobRow,
    PageAnswerRow,
    PageRow,
    SaliencyMapRow,
    ScheduleRunRow,
    StepRow,
    TombstoneRow,
)

ERASED = "(erased)"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased.

    Attributes:
        kind: ``document`` or ``batch``.
        subject: The document's digest or the batch's id.
        counts: Rows erased, by table.
        erased_sha256: Digest of the sorted list of everything erased, as in the tombstone and the chain.
    """

    kind: str
    subject: str
    at: str
    actor: str
    reason: str
    counts: dict[str, int]
    erased_sha256: str


def purge(database: Database, wanted: str, reason: str) -> list[Receipt]:
    """Erase a batch by its id, or all documents that a path, base name, glob or digest means.

    Raises:
        UsageError: Nothing is meant by it; nothing was erased.
    """
    receipts = database.write(lambda connection: _purge(connection, wanted, reason))
    database.empty_log()
    return receipts


def _purge(connection: Connection, wanted: str, reason: str) -> list[Receipt]:
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA secure_delete = ON"))
    if connection.scalar(select(BatchRow.id).where(BatchRow.id == wanted)) is not None:
        return [_Eraser(connection, reason).batch(wanted)]
    digests = _documents_meant(connection, wanted)
    if not digests:
        raise UsageError(f"no batch and no document is called {wanted}; nothing was erased")
    return [_Eraser(connection, reason).document(digest) for digest in digests]


def _documents_meant(connection: Connection, wanted: str) -> list[str]:
    stored = set(connection.scalars(select(DocumentRow.sha256).where(DocumentRow.sha256 == wanted.lower())))
    names = select(BatchDocumentRow.name, BatchDocumentRow.document_sha256).where(
        BatchDocumentRow.document_sha256.is_not(None)
    )
    stored |= {row.document_sha256 for row in connection.execute(names) if name_matches(row.name, None, wanted)}
    return sorted(stored)


class _Eraser:
    """Deletes one subject's rows and keeps the list of what they were."""

    def __init__(self, connection: Connection, reason: str) -> None:
        self.connection, self.reason = connection, reason
        self.now: datetime = clock(connection)
        self.erased: dict[str, list[str]] = {}

    def document(self, sha256: str) -> Receipt:
        """A document in all its batches."""
        answers = select(AnswerRow.id).join(BatchDocumentRow, BatchDocumentRow.id == AnswerRow.batch_document_id)
        batches = self._all(select(BatchDocumentRow.batch_id).distinct().where(BatchDocumentRow.document_sha256 == sha256))
        self._answers(self._all(answers.where(BatchDocumentRow.document_sha256 == sha256)))
        self._jobs(self._all(select(JobRow.id).where(JobRow.document_sha256 == sha256)))
        self._delete(BatchDocumentRow, BatchDocumentRow.id, BatchDocumentRow.document_sha256 == sha256)
        self._bytes_of([sha256])
        self._schedules(batches)
        # The digest stays, or the next night would take the file again.
        known = update(InboxFileRow).where(InboxFileRow.sha256 == sha256).values(path=ERASED + " " + sha256)
        self.connection.execute(known)
        return self._receipt("document", sha256)

    def batch(self, batch_id: str) -> Receipt:
        """A batch, with the jobs and documents that no other batch asks for."""
        mine = BatchDocumentRow.batch_id == batch_id
        documents = self._all(select(BatchDocumentRow.document_sha256).distinct().where(mine))
        jobs = self._all(_jobs_of(batch_id))
        self._answers(self._all(select(AnswerRow.id).where(AnswerRow.batch_id == batch_id)))
        self._jobs([job for some in chunks(jobs) for job in self._all(_unlinked(some))])
        self._schedules([batch_id])
        self.connection.execute(update(ScheduleRunRow).where(ScheduleRunRow.batch_id == batch_id).values(batch_id=None))
        self._delete(BatchDocumentRow, BatchDocumentRow.id, mine)
        self._delete(BatchQuestionRow, BatchQuestionRow.id, BatchQuestionRow.batch_id == batch_id)
        self._delete(BatchRow, BatchRow.id, BatchRow.id == batch_id)
        self._bytes_of([sha256 for sha256 in documents if sha256 is not None and self._forsaken(sha256)])
        return self._receipt("batch", batch_id)

    def _forsaken(self, sha256: str) -> bool:
        links = select(BatchDocumentRow.id).where(BatchDocumentRow.document_sha256 == sha256)
        jobs = select(JobRow.id).where(JobRow.document_sha256 == sha256)
        return not self._all(links.limit(1)) and not self._all(jobs.limit(1))

    def _answers(self, ids: Sequence[str]) -> None:
        for some in chunks(ids):
            self._delete(AnswerJobRow, AnswerJobRow.answer_id, AnswerJobRow.answer_id.in_(some))
            self._delete(AnswerRow, AnswerRow.id, AnswerRow.id.in_(some))

    def _jobs(self, ids: Sequence[int]) -> None:
        for some in chunks(ids):
            steps = self._all(select(StepRow.id).where(StepRow.job_id.in_(some)))
            for few in chunks(steps):
                self._delete(SaliencyMapRow, SaliencyMapRow.step_id, SaliencyMapRow.step_id.in_(few))
            crops = self._all(select(EvidenceRow.crop_sha256).distinct().where(EvidenceRow.job_id.in_(some)))
            pages = self._all(select(PageAnswerRow.page_id).distinct().where(PageAnswerRow.job_id.in_(some)))
            self._delete(StepRow, StepRow.id, StepRow.job_id.in_(some))
            self._delete(EvidenceRow, EvidenceRow.id, EvidenceRow.job_id.in_(some))
            self._delete(AnswerSealRow, AnswerSealRow.job_id, AnswerSealRow.job_id.in_(some))
            # Another batch's answer may rest on this page's words only if it asks for this job, and then it is not here.
            self._delete(PageAnswerRow, PageAnswerRow.job_id, PageAnswerRow.job_id.in_(some))
            self._delete(JobRow, JobRow.id, JobRow.id.in_(some))
            self._pages(pages)
            self._blobs(crops)

    def _pages(self, ids: Sequence[int]) -> None:
        used = exists(select(PageAnswerRow.job_id).where(PageAnswerRow.page_id == PageRow.id))
        for some in chunks(ids):
            unused = (PageRow.id.in_(some), ~used)
            rasters = self._all(select(PageRow.raster_blob).where(*unused, PageRow.raster_blob.is_not(None)))
            self._delete(PageRow, PageRow.id, *unused)
            self._blobs(rasters)

    def _bytes_of(self, documents: Iterable[str]) -> None:
        for sha256 in documents:
            blobs = self._all(select(DocumentRow.blob_sha256).where(DocumentRow.sha256 == sha256))
            self._delete(DocumentRow, DocumentRow.sha256, DocumentRow.sha256 == sha256)
            self._blobs([blob for blob in blobs if blob is not None])

    def _blobs(self, digests: Sequence[str]) -> None:
        """Delete bytes that nothing refers to any more."""
        for some in chunks(digests):
            self._delete(BlobRow, BlobRow.sha256, BlobRow.sha256.in_(some), ~is_used())

    def _schedules(self, batches: Sequence[str]) -> None:
        """Names of documents in the summaries of nights."""
        query = select(ScheduleRunRow.id, ScheduleRunRow.summary).where(ScheduleRunRow.batch_id.in_(batches))
        for row in self.connection.execute(query.where(ScheduleRunRow.summary.is_not(None))).all():
            summary = {**row.summary, "failures": [], "changed": []}
            values = {"summary": summary, "seen": {}}
            self.connection.execute(update(ScheduleRunRow).where(ScheduleRunRow.id == row.id).values(values))

    def _all(self, query: Any) -> list[Any]:
        return list(self.connection.scalars(query))

    def _delete(self, rows: Any, key: Any, *conditions: Any) -> None:
        gone = self.connection.scalars(delete(rows).where(*conditions).returning(key)).all()
        if gone:
            self.erased.setdefault(table(rows).name, []).extend(str(value) for value in gone)

    def _receipt(self, kind: str, subject: str) -> Receipt:
        counts = {name: len(values) for name, values in sorted(self.erased.items())}
        listed = {name: sorted(values) for name, values in self.erased.items()}
        erased_sha256 = hashlib.sha256(canonical(listed)).hexdigest()
        stone: dict[str, Any] = {"kind": kind, "subject": subject, "actor": getpass.getuser(), "reason": self.reason}
        stone |= {"at": self.now, "counts": counts, "erased_sha256": erased_sha256}
        self.connection.execute(table(TombstoneRow).insert(), [stone])
        jobs = sorted(int(job) for job in self.erased.get("job", []))
        append(
            self.connection, self.now, "erased", {"kind": kind, "subject": subject, "erased": erased_sha256, "jobs": jobs}
        )
        return Receipt(kind, subject, self.now.isoformat(), str(stone["actor"]), self.reason, counts, erased_sha256)


def _jobs_of(batch_id: str) -> Any:
    links = select(AnswerJobRow.job_id).distinct().join(AnswerRow, AnswerRow.id == AnswerJobRow.answer_id)
    return links.where(AnswerRow.batch_id == batch_id)


def _unlinked(job_ids: Sequence[int]) -> Any:
    linked = exists(select(AnswerJobRow.answer_id).where(AnswerJobRow.job_id == JobRow.id))
    return select(JobRow.id).where(JobRow.id.in_(job_ids), ~linked)
