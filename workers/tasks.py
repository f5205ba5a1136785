"""What a worker does when it is woken. Messages carry nothing: what is to be done stands in SQL."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from celery import Celery

from pipeline.errors import BrokerUnavailable, DeviceLost
from pipeline.store import Store
from pipeline.store.operations import Operations
from workers import metrics
from workers.app import ANSWER_TASK, CHORES_TASK, Bell
from workers.dispatch import dispatch, wake_for_waiting
from workers.heartbeat import Heartbeat
from workers.logs import log

EXIT_DEVICE_LOST = 72
"""How a process ends whose GPU failed; its supervisor starts another."""


def add_answer_task(app: Celery, turn: Callable[[], None]) -> None:
    """What the queue of a model is for."""

    def answer() -> None:
        """One turn of work."""
        guarded(turn)

    app.task(answer, name=ANSWER_TASK)


def add_chores_task(app: Celery, chores: Callable[[], None]) -> None:
    """What the queue `chores` is for."""

    def do_chores() -> None:
        """One round of everything that needs no model."""
        guarded(chores)

    app.task(do_chores, name=CHORES_TASK)


def guarded(act: Callable[[], None]) -> None:
    """Do something; the message is acknowledged whatever comes of it, since SQL says what is left to do."""
    try:
        act()
    except DeviceLost as error:
        log.error("device lost", extra={"error_code": error.code})
        os._exit(EXIT_DEVICE_LOST)
    except Exception:  # noqa: BLE001
        # The one place: jobs have been failed or given back, and the worker goes on with others.
        log.exception("turn failed")


class Sweep:
    """Deletes bytes that nothing has referred to for a day, as a submission leaves them that died before its batch."""

    LOOK_S = 3600.0
    KEEP_S = 86_400.0
    """Longer than any submission takes from its first document's bytes to its batch."""

    def __init__(self, operations: Operations, now: Callable[[], float] = time.monotonic) -> None:
        self._operations, self._now = operations, now
        self._since: dict[str, float] = {}
        self._next = now()

    def __call__(self) -> None:
        """Look, at most once an hour. What this process has not seen for a day stays: it begins anew with each."""
        now = self._now()
        if now < self._next:
            return
        self._next = now + self.LOOK_S
        self._since = {digest: self._since.get(digest, now) for digest in self._operations.orphans()}
        old = [digest for digest, since in self._since.items() if now - since >= self.KEEP_S]
        if old:
            log.info("orphans deleted", extra={"count": self._operations.delete_orphans(old)})


class Chores:
    """Finds what was lost: jobs whose worker died, wake-ups that Redis forgot, announcements that were never sent."""

    def __init__(
        self, store: Store, operations: Operations, bell: Bell, heartbeat: Heartbeat, also: Sequence[Callable[[], None]] = ()
    ) -> None:
        self._store, self._operations, self._bell, self._heartbeat = store, operations, bell, heartbeat
        self._also = also

    def __call__(self) -> None:
        """Do one round. Two at the same time do no harm."""
        with self._heartbeat.busy():
            expired = self._store.expire_leases()
            if expired:
                metrics.EXPIRED.inc(expired)
                log.warning("leases expired", extra={"count": expired})
            try:
                dispatch(self._operations, self._bell)
                wake_for_waiting(self._operations, self._bell)
            except BrokerUnavailable as error:
                log.warning("broker unavailable", extra={"error_code": error.code})
        for act in self._also:
            act()  # may take long, as taking a full inbox does
        metrics.RECONCILED.set_to_current_time()
