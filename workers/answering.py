"""A worker's turn: units of work, one after the other, the next page drawn while the model reads this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import BrokerUnavailable, LeaseLost
from pipeline.records import Page
from pipeline.store import Unit
from pipeline.work import UNIT_JOBS, Worker
from workers import metrics
from workers.app import Bell
from workers.heartbeat import Heartbeat
from workers.logs import log

TURN_S = 30.0
"""A turn ends after about this long, so that Celery can acknowledge its message and look after its connection."""


@dataclass(eq=False)
class Drawn:
    """A claimed unit with its page.

    Attributes:
        lost: Its lease went to another while it waited.
    """

    unit: Unit
    page: Page
    lost: bool = False


@dataclass(eq=False)
class Answering:
    """Works off the jobs of one model.

    Attributes:
        worker: Holds store and model.
        model_key: Only this model's jobs are taken.
        bell: Wakes a second worker as long as there is work.
        heartbeat: Told of progress.
        stopping: Whether to come to an end: the unit in hand is finished, the next is given back.
    """

    worker: Worker
    model_key: str
    bell: Bell
    heartbeat: Heartbeat
    stopping: Callable[[], bool]

    def turn(self) -> None:
        """Work until there is nothing to do now, time is up, or we are asked to stop."""
        until = time.monotonic() + TURN_S
        with self.heartbeat.busy(), ThreadPoolExecutor(1, "draw") as drawing:
            drawn = self._take(trusted=False)
            if drawn is None:
                return
            self._wake_another()
            while drawn is not None:
                more = time.monotonic() < until
                drawn = self._answer(drawn, self._ahead(drawing, drawn) if more else None, more=more)
                if not more:
                    self._wake_another()  # the rest is for whoever is free first, and that may be us

    def _wake_another(self) -> None:
        # Where there was one unit there may be more; a worker that is woken in vain does no harm.
        with suppress(BrokerUnavailable):
            self.bell.ring(self.model_key)

    def _take(self, *, trusted: bool) -> Drawn | None:
        """Claim units until one can be drawn."""
        while not self.stopping():
            unit = self.worker.store.claim(
                self.worker.name,
                limit=UNIT_JOBS,
                lease_seconds=self.worker.lease_s,
                models=[self.model_key],
                trusted=trusted,
            )
            if unit is None:
                return None
            metrics.JOB_SECONDS.labels("queue").observe(unit.waited_s)
            page = self.worker.draw(unit)
            if isinstance(page, Page):
                return Drawn(unit, page)
            engine = "poppler" if unit.document.media_type == "application/pdf" else "pillow"
            metrics.RASTER_FAILURES.labels(engine, page.code).inc()
        return None

    def _ahead(self, drawing: ThreadPoolExecutor, drawn: Drawn) -> Future[Drawn | None] | None:
        """Draw the next page meanwhile, unless this unit may kill the worker: then nothing else shall be lost with it."""
        if any(job.attempt > 1 for job in drawn.unit.jobs):
            return None
        return drawing.submit(self._take, trusted=True)

    def _answer(self, drawn: Drawn, ahead: Future[Drawn | None] | None, *, more: bool) -> Drawn | None:
        """Answer a unit; return the next one if there is to be one, be it one that may kill the worker."""
        completed = False
        try:
            if not drawn.lost:
                self._log("unit started", drawn)
                before = self.worker.thrown_away
                metrics.BATCH_SIZE.observe(len(drawn.unit.jobs))
                self.worker.answer(drawn.unit, drawn.page, lambda: self._keep(ahead))
                if self.worker.thrown_away > before:
                    metrics.FENCED.inc()
                    self._log("results thrown away", drawn)
            completed = True
        finally:
            following = ahead.result() if ahead is not None else None
            if following is not None and (not completed or self.stopping()):
                self._give_back(following)
                following = None
        if following is None:
            return self._take(trusted=False) if more else None
        self._renew(following)  # it has waited, and its own first sign of progress may be a long pass away
        return following

    def _keep(self, ahead: Future[Drawn | None] | None) -> None:
        """Extend the lease of the unit that waits."""
        following = ahead.result() if ahead is not None and ahead.done() and ahead.exception() is None else None
        if following is not None:
            self._renew(following)

    def _renew(self, drawn: Drawn) -> None:
        try:
            self.worker.store.renew(drawn.unit.jobs, self.worker.lease_s)
        except LeaseLost:
            drawn.lost = True

    def _give_back(self, drawn: Drawn) -> None:
        with suppress(LeaseLost):
            self.worker.store.release(drawn.unit.jobs)

    def _log(self, event: str, drawn: Drawn) -> None:
        unit = drawn.unit
        log.info(
            event,
            extra={
                "worker": self.worker.name,
                "document_sha256": unit.document.sha256,
                "page": unit.page,
                "stage": unit.stage.value,
                "job_ids": [job.job_id for job in unit.jobs],
                "attempt": max(job.attempt for job in unit.jobs),
            },
        )
