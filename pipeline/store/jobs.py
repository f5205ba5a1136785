"""A job's way through its states: claim, renew, finish or fail, release, expire.

Every function runs in its caller's write transaction and goes by the database's clock. A claim counts an attempt and takes
the next fencing epoch; whoever comes later with an older epoch gets `LeaseLost` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update

from pipeline.errors import LeaseLost
from pipeline.records import AnswerType, Document, Failure, Question
from pipeline.store.chain import append_ended
from pipeline.store.database import AnyRow, clock
from pipeline.store.events import add_events, job_event
from pipeline.store.settle import settle_after
from pipeline.store.setups import load_setup
from pipeline.store.tables import (
    AnswerJobRow,
    BatchDocumentRow,
    DocumentRow,
    JobRow,
    SetupRow,
)
from pipeline.store.types import JobClaim, JobState, Stage, Unit

BACKOFF_SECONDS = 5.0  # before the second attempt; three times as long before each one after it
NO_LEASE: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}
WORKER_LOST = "worker_lost"
SUSPECT = and_(JobRow.attempts > 0, func.coalesce(JobRow.error_code, "") == WORKER_LOST)
LEASE = (
    JobRow.id,
    JobRow.state,
    JobRow.lease_epoch,
    JobRow.lease_owner,
    JobRow.attempts,
    JobRow.max_attempts,
    JobRow.cancel_requested,
)


def backoff(attempts: int) -> timedelta:
    """How long a job waits after its n-th attempt failed: 5, 15, 45 … seconds."""
    return timedelta(seconds=BACKOFF_SECONDS * 3 ** (attempts - 1))


def claim(
    connection: Connection,
    worker: str,
    limit: int,
    lease_seconds: float,
    models: Collection[str] | None,
    batch: str | None,
    *,
    trusted: bool = False,
) -> Unit | None:
    """Take up to `limit` waiting jobs of one page, stage and setup; None when nothing can be done now.

    A job whose last worker died while holding it may be what killed it: it is taken alone, so that it costs no other job
    its attempts, and with `trusted` not at all.
    """
    now = clock(connection)
    allowed = _claimable(now, models, batch)
    if trusted:
        allowed.append(~SUSPECT)
    place = (JobRow.document_sha256, JobRow.page, JobRow.stage, JobRow.setup_id)
    first = select(*place, JobRow.id, JobRow.run_after, SUSPECT.label("suspect")).where(*allowed)
    first = first.order_by(JobRow.priority, JobRow.id).limit(1).with_for_update(skip_locked=True)
    head = connection.execute(first).one_or_none()
    if head is None:
        return None
    same = (
        JobRow.document_sha256 == head.document_sha256,
        JobRow.page == head.page,
        JobRow.stage == head.stage,
        JobRow.setup_id == head.setup_id,
    )
    alone = JobRow.id == head.id if head.suspect else ~SUSPECT
    chosen = select(JobRow.id).where(*allowed, *same, alone).order_by(JobRow.priority, JobRow.id).limit(limit)
    job_ids = connection.scalars(chosen.with_for_update(skip_locked=True)).all()
    until = now + timedelta(seconds=lease_seconds)
    jobs = _lease(connection, now, worker, job_ids, until)
    setup = load_setup(connection, head.setup_id)
    document = _document(connection, head.document_sha256)
    waited_s = (now - head.run_after).total_seconds()
    return Unit(document, head.page, Stage(head.stage), setup, jobs, worker, until, waited_s)


def _claimable(now: datetime, models: Collection[str] | None, batch: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [JobRow.state == JobState.PENDING, JobRow.run_after <= now]
    if models is not None:
        conditions.append(JobRow.setup_id.in_(select(SetupRow.id).where(SetupRow.model_key.in_(models))))
    if batch is not None:
        # An answer's id begins with its batch's: from a job there are few links to look at, from a batch there may be many.
        # A scalar subquery, since PostgreSQL turns EXISTS into a join of everything and sorts that for one row.
        links = select(AnswerJobRow.job_id).where(AnswerJobRow.job_id == JobRow.id)
        links = links.where(func.substr(AnswerJobRow.answer_id, 1, len(batch) + 1) == f"{batch}-").limit(1)
        conditions.append(links.scalar_subquery().is_not(None))
    return conditions


def _lease(
    connection: Connection, now: datetime, worker: str, job_ids: Sequence[int], until: datetime
) -> tuple[JobClaim, ...]:
    taken = {
        "state": JobState.RUNNING,
        "attempts": JobRow.attempts + 1,
        "lease_epoch": JobRow.lease_epoch + 1,
        "lease_owner": worker,
        "lease_until": until,
    }
    columns = (
        JobRow.id,
        JobRow.lease_epoch,
        JobRow.attempts,
        JobRow.question_text,
        JobRow.answer_type,
        JobRow.choices,
        JobRow.pattern,
    )
    rows = connection.execute(update(JobRow).where(JobRow.id.in_(job_ids)).values(taken).returning(*columns)).all()
    rows = sorted(rows, key=lambda row: row.id)
    add_events(
        connection,
        [
            job_event(
                now,
                "claimed",
                row.id,
                JobState.PENDING,
                JobState.RUNNING,
                worker=worker,
                epoch=row.lease_epoch,
                attempt=row.attempts,
            )
            for row in rows
        ],
    )
    return tuple(JobClaim(row.id, row.lease_epoch, row.attempts, _question(row)) for row in rows)


def _question(row: AnyRow) -> Question:
    kind = AnswerType(row.answer_type)
    return Question(f"job-{row.id}", row.question_text, type=kind, choices=tuple(row.choices), pattern=row.pattern)


def _document(connection: Connection, sha256: str) -> Document:
    row = connection.execute(
        select(DocumentRow.media_type, DocumentRow.byte_count, DocumentRow.page_count).where(DocumentRow.sha256 == sha256)
    ).one()
    name = connection.scalar(select(func.min(BatchDocumentRow.name)).where(BatchDocumentRow.document_sha256 == sha256))
    return Document(name or sha256, sha256, row.media_type or "", row.byte_count or 0, row.page_count or 0)


def hold(connection: Connection, jobs: Sequence[JobClaim]) -> list[AnyRow]:
    """Lock the jobs and make sure that they are still ours.

    Raises:
        LeaseLost: At least one is not; the transaction must be rolled back.
    """
    query = select(*LEASE).where(JobRow.id.in_([job.job_id for job in jobs])).order_by(JobRow.id).with_for_update()
    rows = connection.execute(query).all()
    ours = {row.id for row in rows if row.state == JobState.RUNNING}
    epochs = {row.id: row.lease_epoch for row in rows}
    for job in jobs:
        if job.job_id not in ours or epochs[job.job_id] != job.epoch:
            raise LeaseLost(f"job {job.job_id} (epoch {job.epoch}) belongs to another worker now; nothing was written")
    return list(rows)


def renew(connection: Connection, jobs: Sequence[JobClaim], lease_seconds: float) -> frozenset[int]:
    """Extend the leases; return the jobs that somebody asked to cancel."""
    rows = hold(connection, jobs)
    until = clock(connection) + timedelta(seconds=lease_seconds)
    connection.execute(update(JobRow).where(JobRow.id.in_([row.id for row in rows])).values(lease_until=until))
    return frozenset(row.id for row in rows if row.cancel_requested)


def succeed(connection: Connection, now: datetime, rows: Sequence[AnyRow]) -> None:
    """End held jobs whose page answers are written."""
    done = {"state": JobState.SUCCEEDED, "ended_at": now, **NO_LEASE}
    done |= {"error_code": None, "error_message": None, "error_retryable": None}
    move(connection, now, "succeeded", rows, JobState.SUCCEEDED, done)


def stumble(connection: Connection, now: datetime, row: AnyRow, failure: Failure, *, wait: bool = True) -> None:
    """End a held job's attempt without a result: back to pending, or over."""
    error = {"error_code": failure.code, "error_message": failure.message, "error_retryable": failure.retryable}
    if row.cancel_requested:
        move(connection, now, "cancelled", [row], JobState.CANCELLED, {"ended_at": now, **NO_LEASE})
    elif not failure.retryable:
        move(connection, now, "failed", [row], JobState.FAILED, {"ended_at": now, **error, **NO_LEASE}, failure.code)
    elif row.attempts >= row.max_attempts:
        move(connection, now, "dead", [row], JobState.DEAD, {"ended_at": now, **error, **NO_LEASE}, failure.code)
    else:
        after = now + backoff(row.attempts) if wait else now
        again = {"run_after": after, **error, **NO_LEASE}
        move(connection, now, "retried", [row], JobState.PENDING, again, failure.code)


def fail(connection: Connection, jobs: Sequence[JobClaim], failure: Failure) -> None:
    """End the attempts of jobs that could not be done."""
    rows = hold(connection, jobs)
    now = clock(connection)
    for row in rows:
        stumble(connection, now, row, failure)
    settle_after(connection, now, [row.id for row in rows])
    append_ended(connection, now, [row.id for row in rows])


def release(connection: Connection, jobs: Sequence[JobClaim]) -> None:
    """Give jobs back undone; the attempt does not count."""
    _give_back(connection, clock(connection), hold(connection, jobs))


def _give_back(connection: Connection, now: datetime, rows: Sequence[AnyRow]) -> None:
    unwanted = [row for row in rows if row.cancel_requested]
    move(connection, now, "cancelled", unwanted, JobState.CANCELLED, {"ended_at": now, **NO_LEASE})
    wanted = [row for row in rows if not row.cancel_requested]
    back = {"attempts": JobRow.attempts - 1, "run_after": now, **NO_LEASE}
    move(connection, now, "released", wanted, JobState.PENDING, back)
    settle_after(connection, now, [row.id for row in unwanted])
    append_ended(connection, now, [row.id for row in unwanted])


def move(
    connection: Connection,
    now: datetime,
    kind: str,
    rows: Sequence[AnyRow],
    state: JobState,
    values: Mapping[str, Any],
    error_code: str | None = None,
) -> None:
    """Put locked jobs into a state, and say so in the events."""
    if not rows:
        return
    connection.execute(update(JobRow).where(JobRow.id.in_([row.id for row in rows])).values({"state": state, **values}))
    events = [
        job_event(
            now,
            kind,
            row.id,
            row.state,
            state,
            worker=row.lease_owner,
            epoch=row.lease_epoch,
            attempt=row.attempts,
            error_code=error_code,
        )
        for row in rows
    ]
    add_events(connection, events)


def owners(connection: Connection) -> list[str]:
    """Who holds leases now."""
    query = select(JobRow.lease_owner).where(JobRow.state == JobState.RUNNING).distinct().order_by(JobRow.lease_owner)
    return [owner for owner in connection.scalars(query) if owner is not None]


def expire_leases(connection: Connection, gone: Collection[str]) -> int:
    """Take back the jobs whose lease has ended, and those of owners known to be gone; the attempt counts."""
    now = clock(connection)
    rows = _leased(connection, (JobRow.lease_until < now) | JobRow.lease_owner.in_(gone))
    for row in rows:
        lost = Failure(WORKER_LOST, f"Worker {row.lease_owner} did not finish attempt {row.attempts}.", retryable=True)
        stumble(connection, now, row, lost, wait=False)
    settle_after(connection, now, [row.id for row in rows])
    append_ended(connection, now, [row.id for row in rows])
    return len(rows)


def release_owners(connection: Connection, gone: Collection[str]) -> int:
    """Take back the jobs of owners that ended for a reason of their own; the attempt does not count."""
    rows = _leased(connection, JobRow.lease_owner.in_(gone))
    _give_back(connection, clock(connection), rows)
    return len(rows)


def _leased(connection: Connection, condition: ColumnElement[bool]) -> list[AnyRow]:
    query = select(*LEASE).where(JobRow.state == JobState.RUNNING, condition).order_by(JobRow.id)
    return list(connection.execute(query.with_for_update(skip_locked=True)).all())
