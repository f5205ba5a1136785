"""From jobs to answers: linking jobs, grounding the best pages of a swept document, writing merged answers.

Everything here runs inside the transaction of whoever ended a job, so an answer is settled by exactly one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, exists, select, update

from pipeline.merge import MergedAnswer, PageVerdict, best_pages, merge_pages
from pipeline.questions import parse_answer
from pipeline.records import AnswerType, Failure, Question
from pipeline.store.blobs import insert_new, table
from pipeline.store.database import AnyRow
from pipeline.store.events import add_events, job_event
from pipeline.store.keys import idempotency_key
from pipeline.store.setups import load_setup
from pipeline.store.tables import (
    AnswerJobRow,
    AnswerRow,
    BatchDocumentRow,
    BatchQuestionRow,
    BatchRow,
    JobRow,
    OutboxRow,
    PageAnswerRow,
)
from pipeline.store.types import OPEN_STATES, JobState, Setup, Stage

GROUNDED_PAGES = 3  # pages of a document that get the whole method; longer documents are swept first
MAX_ATTEMPTS = 3
CHUNK = 500  # ids per statement, well under every engine's limit on parameters

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a batch wants of its jobs, beyond page and question."""

    setup_id: str
    setup: Setup
    nonce: str | None
    priority: int


@dataclass(frozen=True, slots=True)
class Link:
    """An answer's need for a job."""

    answer_id: str
    document_sha256: str
    page: int
    stage: Stage
    question: Question


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterable[list[T]]:
    """The items in lists of at most `size`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def link_jobs(connection: Connection, now: datetime, asked: Asked, links: Sequence[Link]) -> None:
    """Link answers to their jobs, creating those that nobody asked for before and reviving those that were cancelled.

    The jobs stay locked until the transaction ends, so that one that is running ends either before, and is seen as ended
    here, or after, and then sees the link.
    """
    keys = [
        idempotency_key(link.document_sha256, link.page, link.question, link.stage, asked.setup, asked.nonce)
        for link in links
    ]
    insert_new(connection, JobRow, [_new_job(now, asked, link, key) for link, key in zip(links, keys, strict=True)])
    query = select(JobRow.id, JobRow.idem_key, JobRow.state, JobRow.priority, JobRow.cancel_requested)
    found = connection.execute(query.where(JobRow.idem_key.in_(keys)).with_for_update(read=True)).all()
    revive(connection, now, [row.id for row in found if row.state == JobState.CANCELLED])
    _keep_running(connection, [row.id for row in found if row.cancel_requested])
    _hurry(connection, [row.id for row in found if row.priority > asked.priority], asked.priority)
    ids = {row.idem_key: row.id for row in found}
    rows = [
        {"answer_id": link.answer_id, "job_id": ids[key], "supports": False} for link, key in zip(links, keys, strict=True)
    ]
    insert_new(connection, AnswerJobRow, rows)


def _new_job(now: datetime, asked: Asked, link: Link, key: str) -> dict[str, Any]:
    question = link.question
    return {
        "idem_key": key,
        "document_sha256": link.document_sha256,
        "page": link.page,
        "stage": link.stage,
        "setup_id": asked.setup_id,
        "question_text": question.text,
        "answer_type": question.type,
        "choices": list(question.choices),
        "pattern": question.pattern,
        "state": JobState.PENDING,
        "priority": asked.priority,
        "run_after": now,
        "attempts": 0,
        "max_attempts": MAX_ATTEMPTS,
        "lease_epoch": 0,
        "cancel_requested": False,
        "created_at": now,
    }


def revive(connection: Connection, now: datetime, job_ids: Sequence[int]) -> None:
    """Put ended jobs back to pending with all their attempts."""
    for ids in chunks(job_ids):
        ended = connection.execute(select(JobRow.id, JobRow.state, JobRow.lease_epoch).where(JobRow.id.in_(ids))).all()
        fresh = {"state": JobState.PENDING, "attempts": 0, "run_after": now, "ended_at": None, "cancel_requested": False}
        connection.execute(update(JobRow).where(JobRow.id.in_(ids)).values(fresh))
        add_events(
            connection,
            [job_event(now, "revived", row.id, row.state, JobState.PENDING, epoch=row.lease_epoch) for row in ended],
        )


def _keep_running(connection: Connection, job_ids: Sequence[int]) -> None:
    if job_ids:
        connection.execute(update(JobRow).where(JobRow.id.in_(job_ids)).values(cancel_requested=False))


def _hurry(connection: Connection, job_ids: Sequence[int], priority: int) -> None:
    # A shared job is as urgent as the most urgent of its batches.
    if job_ids:
        connection.execute(update(JobRow).where(JobRow.id.in_(job_ids)).values(priority=priority))


def announce(connection: Connection, now: datetime, model_key: str) -> None:
    """Leave a wake-up for the workers of a model."""
    row = {"created_at": now, "topic": "answer", "payload": {"model": model_key}}
    connection.execute(table(OutboxRow).insert(), [row])


def settle_after(connection: Connection, now: datetime, job_ids: Sequence[int]) -> None:
    """Settle the answers that waited for these jobs and wait for nothing more."""
    answers: set[str] = set()
    for ids in chunks(job_ids):
        answers.update(connection.scalars(select(AnswerJobRow.answer_id).where(AnswerJobRow.job_id.in_(ids))))
    settle(connection, now, sorted(answers))


def settle(connection: Connection, now: datetime, answer_ids: Sequence[str], *, closing: bool = False) -> None:
    """Settle those of the open answers that wait for no job; with `closing`, all of them with what is there.

    A swept answer goes on to ground its best pages instead, and is settled at once if these were grounded before.
    """
    for ids in chunks(answer_ids):
        waiting = _ready(connection, ids, closing=closing)
        while waiting:
            outcomes = _outcomes(connection, [row.id for row in waiting])
            swept = [] if closing else [row for row in waiting if row.phase == Stage.SWEEP]
            moved = [row.id for row in swept if _ground_best(connection, now, row, outcomes[row.id])]
            _write_merged(connection, now, [row for row in waiting if row.id not in set(moved)], outcomes)
            waiting = _ready(connection, moved, closing=False)


def _ready(connection: Connection, answer_ids: Sequence[str], *, closing: bool) -> Sequence[AnyRow]:
    # Locks first, looks second: of two transactions that end an answer's last two jobs, the later one sees both ended.
    lock = select(AnswerRow.id).where(AnswerRow.id.in_(answer_ids), AnswerRow.phase != "settled").order_by(AnswerRow.id)
    locked = connection.scalars(lock.with_for_update()).all()
    query = (
        select(
            AnswerRow.id,
            AnswerRow.phase,
            BatchDocumentRow.document_sha256,
            BatchQuestionRow.question_id,
            BatchQuestionRow.text,
            BatchQuestionRow.type,
            BatchQuestionRow.choices,
            BatchQuestionRow.pattern,
            BatchRow.setup_id,
            BatchRow.nonce,
            BatchRow.priority,
            BatchRow.locale,
            BatchRow.min_certainty,
        )
        .join(BatchRow, BatchRow.id == AnswerRow.batch_id)
        .join(BatchQuestionRow, BatchQuestionRow.id == AnswerRow.batch_question_id)
        .join(BatchDocumentRow, BatchDocumentRow.id == AnswerRow.batch_document_id)
        .where(AnswerRow.id.in_(locked))
        .order_by(AnswerRow.id)
    )
    if not closing:
        query = query.where(~_has_open_job())
    return connection.execute(query).all()


def _has_open_job() -> Any:
    jobs = select(AnswerJobRow.job_id).join(JobRow, JobRow.id == AnswerJobRow.job_id)
    return exists(jobs.where(AnswerJobRow.answer_id == AnswerRow.id, JobRow.state.in_(OPEN_STATES)))


def _outcomes(connection: Connection, answer_ids: Sequence[str]) -> dict[str, list[AnyRow]]:
    query = (
        select(
            AnswerJobRow.answer_id,
            AnswerJobRow.supports,
            JobRow.id,
            JobRow.page,
            JobRow.stage,
            JobRow.state,
            JobRow.error_code,
            JobRow.error_message,
            JobRow.error_retryable,
            PageAnswerRow.text,
            PageAnswerRow.not_found,
            PageAnswerRow.mean_logprob,
            PageAnswerRow.refusal_margin,
        )
        .join(JobRow, JobRow.id == AnswerJobRow.job_id)
        .outerjoin(PageAnswerRow, PageAnswerRow.job_id == JobRow.id)
        .where(AnswerJobRow.answer_id.in_(answer_ids))
        .order_by(JobRow.page, JobRow.id)
    )
    grouped: dict[str, list[AnyRow]] = defaultdict(list)
    for row in connection.execute(query):
        grouped[row.answer_id].append(row)
    return grouped


def _question(row: AnyRow) -> Question:
    return Question(row.question_id, row.text, type=AnswerType(row.type), choices=tuple(row.choices), pattern=row.pattern)


def _ground_best(connection: Connection, now: datetime, row: AnyRow, outcomes: Sequence[AnyRow]) -> bool:
    # A margin and a log-probability are not on one scale: rank by margin only if every page has one.
    swept = [job for job in outcomes if job.stage == Stage.SWEEP and job.state == JobState.SUCCEEDED]
    if not swept:
        return False
    signal = "mean_logprob" if any(job.refusal_margin is None for job in swept) else "refusal_margin"
    pages = best_pages([(job.page, getattr(job, signal)) for job in swept], GROUNDED_PAGES)
    asked = Asked(row.setup_id, load_setup(connection, row.setup_id), row.nonce, row.priority)
    links = [Link(row.id, row.document_sha256, page, Stage.GROUND, _question(row)) for page in sorted(pages)]
    link_jobs(connection, now, asked, links)
    connection.execute(update(AnswerRow).where(AnswerRow.id == row.id).values(phase=Stage.GROUND))
    announce(connection, now, asked.setup.model.key)
    return True


def _write_merged(
    connection: Connection, now: datetime, answers: Sequence[AnyRow], outcomes: dict[str, list[AnyRow]]
) -> None:
    # Answers that end alike are written together: those of a batch that is cancelled may be a hundred thousand.
    alike: dict[str, tuple[dict[str, Any], list[str]]] = {}
    marks: list[dict[str, Any]] = []
    for row in answers:
        jobs = outcomes[row.id]
        parse = partial(parse_answer, _question(row), locale=row.locale)
        merged = merge_pages([_verdict(job) for job in jobs], parse, row.min_certainty)
        values = _settled(now, merged, _winning_job(merged, jobs))
        alike.setdefault(repr(values), (values, []))[1].append(row.id)
        marks += _supporting(row.id, merged, jobs)
    for values, ids in alike.values():
        connection.execute(update(AnswerRow).where(AnswerRow.id.in_(ids)).values(values))
    if marks:
        links = table(AnswerJobRow)
        matching = (links.c.answer_id == bindparam("answer")) & (links.c.job_id == bindparam("job"))
        connection.execute(update(links).where(matching).values(supports=bindparam("flag")), marks)


def _verdict(job: AnyRow) -> PageVerdict:
    failure = None
    if job.state in (JobState.FAILED, JobState.DEAD):
        failure = Failure(job.error_code, job.error_message, job.error_retryable)
    return PageVerdict(
        page=job.page,
        text=job.text if job.state == JobState.SUCCEEDED else None,
        not_found=bool(job.not_found),
        certainty=job.mean_logprob,
        grounded=job.stage == Stage.GROUND,
        failure=failure,
    )


def _winning_job(merged: MergedAnswer, jobs: Sequence[AnyRow]) -> int | None:
    ended = [job for job in jobs if job.page == merged.page and job.state == JobState.SUCCEEDED]
    return min(ended, key=lambda job: job.stage != Stage.GROUND).id if ended else None


def _settled(now: datetime, merged: MergedAnswer, job_id: int | None) -> dict[str, Any]:
    answer, failure = merged.answer, merged.failure
    return {
        "phase": "settled",
        "status": merged.status,
        "page": merged.page,
        "page_answer_id": job_id,
        "text": answer.text if answer is not None else None,
        "value": answer.value if answer is not None else None,
        "valid": answer.valid if answer is not None else None,
        "certainty": merged.certainty,
        "pages_searched": list(merged.pages_searched),
        "pages_grounded": list(merged.pages_grounded),
        "rivals": [asdict(rival) for rival in merged.rivals],
        "error_code": failure.code if failure is not None else None,
        "error_message": failure.message if failure is not None else None,
        "error_retryable": failure.retryable if failure is not None else None,
        "settled_at": now,
    }


def _supporting(answer_id: str, merged: MergedAnswer, jobs: Sequence[AnyRow]) -> Iterator[dict[str, Any]]:
    """Which of an answer's jobs stand behind it, where that is not what is stored."""
    for job in jobs:
        # Of a page that was swept and then grounded, the grounding stands behind the answer.
        flag = job.page in merged.supporting and (job.stage == Stage.GROUND) == (job.page in merged.pages_grounded)
        if flag != job.supports:
            yield {"answer": answer_id, "job": job.id, "flag": flag}
