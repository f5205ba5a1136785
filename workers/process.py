"""The worker's process: one model, one queue, Celery's solo pool. Started by `workers.supervisor`, settings on stdin."""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_ready
from celery.worker import state

from pipeline.errors import ExhibitError, SchemaMismatch, StoreUnavailable
from pipeline.settings import Settings
from workers import metrics
from workers.app import CHORES_QUEUE, Bell, answer_queue, create_app
from workers.heartbeat import Heartbeat
from workers.logs import log, start_logging

EXIT_TRY_AGAIN = 75
"""As EX_TEMPFAIL of sysexits.h: the supervisor starts another process after a while."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker's process is started for.

    Attributes:
        queue: ``answer`` or ``chores``.
        heartbeat: The file that it touches.
        restarts: How often, by reason, its supervisor has replaced its predecessors.
    """

    queue: str
    heartbeat: str
    settings: Settings
    restarts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """For the process's stdin: neither arguments nor environment show a password there."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The inverse."""
        fields: dict[str, Any] = json.loads(text)
        return cls(**{**fields, "settings": Settings(**fields["settings"])})


def main() -> int:
    """Work until told to stop; the exit code says whether another process should be started."""
    faulthandler.enable()  # the supervisor kills a hung process by SIGABRT, so that its stacks are seen
    start_logging()
    job = Job.from_json(sys.stdin.readline())
    try:
        return run(job)
    except ExhibitError as error:
        log.error("worker cannot work", extra={"error_code": error.code, "reason": str(error)})
        # A database that is away comes back; what else is missing here is missing for the next process, too.
        away = isinstance(error, StoreUnavailable) and not isinstance(error, SchemaMismatch)
        return EXIT_TRY_AGAIN if away else error.exit_code


def run(job: Job) -> int:
    """Prepare what the queue needs, then serve it."""
    heartbeat = Heartbeat(Path(job.heartbeat), job.settings.hang_s)
    heartbeat.start()
    app = create_app(job.settings.redis_url)
    prepare = {"answer": _prepare_answers, "chores": _prepare_chores}[job.queue]
    queue, model, close = prepare(app, job.settings, heartbeat)
    metrics.REGISTRY.register(metrics.DiskCollector(job.settings.db_url))
    metrics.serve(job.settings.metrics_port, job.restarts, model)
    try:
        return serve(app, queue)
    finally:
        close()


def stopping() -> bool:
    """Whether Celery was asked to shut down."""
    # The flags hold an exit code, and 0 is one.
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


def serve(app: Celery, queue: str) -> int:
    """Take wake-ups until SIGTERM."""
    worker = app.Worker(
        hostname=f"{queue}.{os.getpid()}@{socket.gethostname()}",
        pool="solo",  # one process, one model: no fork after CUDA, and nothing to share
        concurrency=1,
        queues=[queue],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,  # no banner: stdout is for data
    )
    worker_ready.connect(_silence, weak=False)
    log.info("worker started", extra={"reason": queue})
    worker.start()
    return int(worker.exitcode or 0)


def _silence(**_: Any) -> None:
    """Undo Celery's handler of SIGUSR1, which writes all local variables to the log, those with answers included."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def _prepare_answers(app: Celery, settings: Settings, heartbeat: Heartbeat) -> tuple[str, str, Callable[[], None]]:
    from pipeline.cli.options import read_password
    from pipeline.store import Store
    from pipeline.store.operations import Operations
    from pipeline.vlms.loading import load_vlm
    from pipeline.work import Worker, model_ref
    from workers.answering import Answering
    from workers.presence import Presence
    from workers.tasks import add_answer_task

    with heartbeat.busy():
        vlm = load_vlm(settings.model, revision=settings.revision, device=settings.device, dtype=settings.dtype)
    store = Store.open(settings.db_url)
    worker = Worker(
        store,
        lambda: vlm,
        read_password(settings.password_file),
        settings.lease_s,
        heartbeat.progress,
        lambda stage, seconds: metrics.JOB_SECONDS.labels(stage).observe(seconds),
        metrics.CHILD_RSS.observe,
    )
    model_key = model_ref(vlm).key
    bell = Bell(app, settings.redis_url)
    answering = Answering(worker, model_key, bell, heartbeat, stopping)
    add_answer_task(app, answering.turn)
    operations = Operations.open(settings.db_url)
    Presence(operations, (worker.name, "answer", model_key), heartbeat, bell).start()

    def close() -> None:
        worker.close()
        store.close()
        operations.close()

    log.info("model loaded", extra={"model": model_key, "worker": worker.name})
    return answer_queue(model_key), model_key, close


def _prepare_chores(app: Celery, settings: Settings, heartbeat: Heartbeat) -> tuple[str, str, Callable[[], None]]:
    from pipeline.store import Store
    from pipeline.store.operations import Operations
    from pipeline.store.schedules import Schedules
    from pipeline.work import worker_name
    from workers.nightly import Nightly
    from workers.presence import Presence
    from workers.tasks import Chores, Sweep, add_chores_task

    store, operations = Store.open(settings.db_url), Operations.open(settings.db_url)
    schedules = Schedules.open(settings.db_url)
    nightly = Nightly(store, schedules, settings)
    bell = Bell(app, settings.redis_url)
    add_chores_task(app, Chores(store, operations, bell, heartbeat, [nightly, Sweep(operations)]))
    Presence(operations, (worker_name(), "chores", None), heartbeat, bell).start()
    metrics.REGISTRY.register(metrics.DatabaseCollector(operations))

    def close() -> None:
        nightly.close()
        for door in (store, operations, schedules):
            door.close()

    return CHORES_QUEUE, "", close


if __name__ == "__main__":
    sys.exit(main())
