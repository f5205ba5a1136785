"""The operators' door to the database: wake-ups to send, and what waits for whom. Records in, records out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, func, select, update

from pipeline.store.blobs import insert_new, is_used
from pipeline.store.database import clock
from pipeline.store.door import Door
from pipeline.store.settle import chunks
from pipeline.store.tables import (
    AnswerJobRow,
    AnswerRow,
    BlobRow,
    EventRow,
    JobRow,
    OutboxRow,
    ScheduleRunRow,
    SetupRow,
    WorkerRow,
)
from pipeline.store.types import JobState

OUTBOX_CHUNK = 500
PRESENT = timedelta(seconds=60)
"""A worker that has not said so for longer is not there."""
FORGET_AFTER = timedelta(days=1)
STILL_OPEN = timedelta(minutes=10)
"""A transaction may commit events with lower ids than others have committed before it; no transaction lasts so long."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """A row of the outbox: jobs of a model were added."""

    id: int
    model_key: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Jobs of one model that could be done now.

    Attributes:
        model_key: See `ModelRef.key`.
        model_name: As a submitter gave it.
        jobs: How many.
        oldest_s: Seconds since the first of them could have been taken.
    """

    model_key: str
    model_name: str
    jobs: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The database in numbers.

    Attributes:
        jobs: Count by state; every state is present.
        oldest_waiting_s: How long the first waiting job has been waiting.
        outbox: Wake-ups that wait to be sent.
        workers: (Name, queue) to when it was last seen, Unix seconds.
        nights: Schedule to when its last good run ended, Unix seconds.
    """

    jobs: Mapping[JobState, int]
    oldest_waiting_s: float
    outbox: int
    workers: Mapping[tuple[str, str], float]
    nights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Transition:
    """A job's step from one state to another, and why: the error's code, or else the kind of event."""

    before: str
    after: str
    reason: str


@dataclass(frozen=True, slots=True)
class Transitions:
    """How often jobs went from state to state.

    Attributes:
        closed: Up to `closed_to`, an event's id; no transaction is still to add any before it.
        recent: Since then.
    """

    closed: Counter[Transition]
    closed_to: int
    recent: Counter[Transition]


class Operations(Door):
    """What keeps the work going, beside the work itself. All methods raise `StoreUnavailable` as those of `Store` do."""

    def announcements(self) -> list[Announcement]:
        """The oldest rows of the outbox."""
        query = select(OutboxRow.id, OutboxRow.payload).where(OutboxRow.topic == "answer").order_by(OutboxRow.id)
        with self._database.read() as connection:
            return [Announcement(row.id, row.payload["model"]) for row in connection.execute(query.limit(OUTBOX_CHUNK))]

    def forget(self, announcements: Sequence[Announcement]) -> None:
        """Delete what was sent; what another has deleted already is no matter."""
        ids = [announcement.id for announcement in announcements]
        self._database.write(lambda connection: connection.execute(delete(OutboxRow).where(OutboxRow.id.in_(ids))))

    def outbox_size(self) -> int:
        """How many wake-ups wait to be sent."""
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(OutboxRow)) or 0

    def figures(self) -> Figures:
        """What the metrics say of the database as a whole."""
        with self._database.read() as connection:
            now = clock(connection)
            states = {
                row[0]: row[1] for row in connection.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
            }
            oldest = select(func.min(JobRow.run_after)).where(JobRow.state == JobState.PENDING, JobRow.run_after <= now)
            waits_since = connection.scalar(oldest)
            workers = connection.execute(select(WorkerRow.name, WorkerRow.queue, WorkerRow.seen_at)).all()
            done = select(ScheduleRunRow.schedule_name, func.max(ScheduleRunRow.ended_at))
            done = done.where(ScheduleRunRow.state == "done").group_by(ScheduleRunRow.schedule_name)
            nights = {row[0]: row[1] for row in connection.execute(done)}
            return Figures(
                jobs={state: states.get(state, 0) for state in JobState},
                oldest_waiting_s=(now - waits_since).total_seconds() if waits_since is not None else 0.0,
                outbox=connection.scalar(select(func.count()).select_from(OutboxRow)) or 0,
                workers={(row.name, row.queue): row.seen_at.timestamp() for row in workers},
                nights={name: ended.timestamp() for name, ended in nights.items() if ended is not None},
            )

    def transitions(self, after: int) -> Transitions:
        """Count the transitions of jobs behind an event, 0 for all."""
        reason = func.coalesce(EventRow.error_code, EventRow.kind)
        moved = (EventRow.from_state, EventRow.to_state, reason)
        with self._database.read() as connection:
            old = (EventRow.id > after, EventRow.at < clock(connection) - STILL_OPEN)
            closed_to = connection.scalar(select(func.max(EventRow.id)).where(*old)) or after
            closed = EventRow.id <= closed_to
            counted = select(*moved, closed, func.count()).where(EventRow.id > after, EventRow.job_id.is_not(None))
            rows = connection.execute(counted.group_by(*moved, closed)).all()
        counts: dict[bool, Counter[Transition]] = {True: Counter(), False: Counter()}
        for before, to, why, is_closed, count in rows:
            counts[bool(is_closed)][Transition(before or "", to or "", why)] += count
        return Transitions(counts[True], closed_to, counts[False])

    def orphans(self) -> frozenset[str]:
        """Digests of bytes that nothing refers to: those of a submission that goes on now, or that died before its batch."""
        with self._database.read() as connection:
            return frozenset(connection.scalars(select(BlobRow.sha256).where(~is_used())))

    def delete_orphans(self, digests: Collection[str]) -> int:
        """Delete those that still nothing refers to; return how many that were."""

        def work(connection: Connection) -> int:
            unused = delete(BlobRow).where(~is_used()).returning(BlobRow.sha256)
            return sum(len(connection.scalars(unused.where(BlobRow.sha256.in_(some))).all()) for some in chunks(digests))

        return self._database.write(work)

    def seen(self, name: str, queue: str, model_key: str | None) -> None:
        """A worker is alive; those that have been silent for long are forgotten."""

        def work(connection: Connection) -> None:
            now = clock(connection)
            row = {"name": name, "queue": queue, "model_key": model_key, "started_at": now, "seen_at": now}
            insert_new(connection, WorkerRow, [row])
            connection.execute(update(WorkerRow).where(WorkerRow.name == name).values(seen_at=now))
            connection.execute(delete(WorkerRow).where(WorkerRow.seen_at < now - FORGET_AFTER))

        self._database.write(work)

    def served(self) -> frozenset[str]:
        """Keys of the models that workers serve now."""
        with self._database.read() as connection:
            query = select(WorkerRow.model_key).where(WorkerRow.seen_at > clock(connection) - PRESENT)
            return frozenset(key for key in connection.scalars(query) if key is not None)

    def waiting(self, batch: str | None = None) -> list[Waiting]:
        """What could be done now, by model; of one batch or of all."""
        query = (
            select(SetupRow.model_key, func.min(SetupRow.model_name), func.count(JobRow.id), func.min(JobRow.run_after))
            .join(SetupRow, SetupRow.id == JobRow.setup_id)
            .where(JobRow.state == JobState.PENDING)
            .group_by(SetupRow.model_key)
            .order_by(SetupRow.model_key)
        )
        if batch is not None:
            mine = select(AnswerJobRow.job_id).join(AnswerRow, AnswerRow.id == AnswerJobRow.answer_id)
            query = query.where(JobRow.id.in_(mine.where(AnswerRow.batch_id == batch)))
        with self._database.read() as connection:
            now = clock(connection)
            rows = connection.execute(query.where(JobRow.run_after <= now)).all()
        return [Waiting(row[0], row[1], row[2], (now - row[3]).total_seconds()) for row in rows]
