"""``exhibit submit``, ``status``, ``cancel``, ``retry``: what people do with batches. No GPU stack."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.options import settings_of
from pipeline.errors import BrokerUnavailable, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from pipeline.settings import Settings
    from pipeline.store import BatchReceipt, Progress, Store
    from pipeline.store.operations import Operations, Waiting

WATCH_S = 2.0
ENDED = ("succeeded", "failed", "dead", "cancelled")


def submit(arguments: argparse.Namespace) -> int:
    """Store a batch and wake the workers; print the batch's id. Redis may be away: then they are woken when it is back."""
    from pipeline.cli.run import prepare
    from pipeline.store import Store
    from pipeline.submission import pages_of

    settings = settings_of(arguments)
    _check_revision(settings)
    prepared = prepare(arguments, settings)
    batch = dataclasses.replace(prepared.batch, priority=arguments.priority)
    with Store.open(settings.db_url) as store:
        receipt = store.submit(batch, pages_of)
    _announce(receipt)
    print(receipt.batch_id)
    _dispatch(settings)
    return 0


def _check_revision(settings: Settings) -> None:
    from pipeline.vlms.catalogue import EMBEDDED

    if settings.model != EMBEDDED and settings.revision is None and not Path(settings.model).expanduser().is_dir():
        raise UsageError(
            f"--model {settings.model}: a hub model needs --revision, so that every worker answers with the same weights"
        )


def _announce(receipt: BatchReceipt) -> None:
    """Say what was stored, on stderr."""
    known = "" if receipt.created else ", submitted before"
    done = f", {receipt.answers_done} of them settled" if receipt.answers_done else ""
    print(
        f"exhibit: batch {receipt.batch_id}{known}: {receipt.answers} answers asked for{done}, {receipt.jobs} jobs",
        file=sys.stderr,
    )


def _dispatch(settings: Settings) -> None:
    from pipeline.store.operations import Operations
    from workers.app import Bell, create_app
    from workers.dispatch import dispatch

    with Operations.open(settings.db_url) as operations:
        try:
            dispatch(operations, Bell(create_app(settings.redis_url), settings.redis_url))
        except BrokerUnavailable as error:
            print(f"exhibit: {error}. The batch is stored; its jobs start when Redis is back.", file=sys.stderr)


def status(arguments: argparse.Namespace) -> int:
    """Print how far one batch is, or a line for each; with ``--watch``, again until it is finished."""
    from pipeline.store import Store
    from pipeline.store.operations import Operations

    if arguments.watch and arguments.batch is None:
        raise UsageError("--watch: name a batch; `exhibit status` lists them")
    url = settings_of(arguments).db_url
    with Store.open(url) as store, Operations.open(url) as operations:
        if arguments.batch is None:
            _print_batches(store, as_json=arguments.json)
        else:
            _follow(store, operations, arguments)
    return 0


def _print_batches(store: Store, *, as_json: bool) -> None:
    from pipeline.cli.tables import print_rows

    rows = _batch_rows(store)
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    header = ("batch", "name", "submitted", "documents", "questions", "answers", "open", "state")
    print_rows(header, (tuple(row.values()) for row in rows), "table")


def _batch_rows(store: Store) -> Iterator[dict[str, Any]]:
    for batch in store.batches():
        progress = store.progress(batch.batch_id)
        state = "cancelled" if batch.cancelled else "finished" if progress.finished else "open"
        yield {
            "batch_id": batch.batch_id,
            "name": batch.name or "",
            "submitted": batch.created_at.isoformat(timespec="seconds"),
            "documents": batch.documents,
            "questions": batch.questions,
            "answers": sum(progress.answers.values()) + progress.answers_open,
            "open": progress.answers_open,
            "state": state,
        }


def _follow(store: Store, operations: Operations, arguments: argparse.Namespace) -> None:
    pace = Pace()
    while True:
        progress = store.progress(arguments.batch)
        pace.see(progress)
        if arguments.json:
            print(json.dumps(_progress_json(arguments.batch, progress, pace)), flush=True)
        else:
            _print_progress(arguments.batch, progress, pace, _unserved(operations, arguments.batch))
        if progress.finished or not arguments.watch:
            return
        time.sleep(WATCH_S)


def _unserved(operations: Operations, batch: str) -> list[Waiting]:
    served = operations.served()
    return [some for some in operations.waiting(batch) if some.model_key not in served]


class Pace:
    """Jobs per second since the watch began, and what that means for the rest."""

    def __init__(self) -> None:
        self._first: tuple[datetime, int] | None = None
        self.per_second: float | None = None
        self.left_s: float | None = None

    def see(self, progress: Progress) -> None:
        """Take a further look into account. A long document's later jobs are not known yet, so this is a lower bound."""
        ended, total = _ended(progress), sum(progress.jobs.values())
        if self._first is None:
            self._first = progress.now, ended
        seconds = (progress.now - self._first[0]).total_seconds()
        done = ended - self._first[1]
        self.per_second = done / seconds if seconds > 0 and done > 0 else None
        self.left_s = (total - ended) / self.per_second if self.per_second else None


def _ended(progress: Progress) -> int:
    return sum(count for state, count in progress.jobs.items() if state in ENDED)


def _progress_json(batch: str, progress: Progress, pace: Pace) -> dict[str, Any]:
    return {
        "batch_id": batch,
        "finished": progress.finished,
        "jobs": dict(progress.jobs),
        "answers": dict(progress.answers),
        "answers_open": progress.answers_open,
        "jobs_per_second": pace.per_second,
        "seconds_left": pace.left_s,
    }


def _print_progress(batch: str, progress: Progress, pace: Pace, waiting: Iterable[Waiting]) -> None:
    answers = ", ".join(f"{count} {status}" for status, count in progress.answers.items()) or "none"
    jobs = ", ".join(f"{count} {state}" for state, count in progress.jobs.items() if count) or "none"
    line = f"batch {batch}: answers {answers}, {progress.answers_open} open; jobs {jobs}"
    if pace.per_second is not None and pace.left_s is not None and not progress.finished:
        line += f"; {pace.per_second:.1f} jobs/s, about {duration(pace.left_s)} left"
    print(line, flush=True)
    for some in waiting:
        print(
            f"  no worker serves {some.model_name} ({some.model_key[:19]}): {some.jobs} jobs wait since "
            f"{duration(some.oldest_s)}; start one with: exhibit worker --model {some.model_name}"
        )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cancel(arguments: argparse.Namespace) -> int:
    """Stop a batch between rounds."""
    from pipeline.store import Store

    with Store.open(settings_of(arguments).db_url) as store:
        count = store.cancel(arguments.batch)
    print(
        f"exhibit: {count} jobs stopped; what was finished is kept, and submitting again goes on from there", file=sys.stderr
    )
    return 0


def retry(arguments: argparse.Namespace) -> int:
    """Put failed, dead and cancelled jobs back and wake the workers."""
    from pipeline.store import Store

    settings = settings_of(arguments)
    with Store.open(settings.db_url) as store:
        count = store.retry(arguments.batch)
    hint = "" if count else "; documents that could not be read are read again by `exhibit submit`"
    print(f"exhibit: {count} jobs wait again{hint}", file=sys.stderr)
    _dispatch(settings)
    return 0
