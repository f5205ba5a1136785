"""From a job in the store to its answer in the store: claim a page's jobs, answer them, finish them in one transaction.

`exhibit run` and the Celery task both work through `Worker`. SQL is the truth: whatever kills this process, a job it held
comes back when its lease ends, and at once on the same machine, where the next run sees that its owner is gone.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import MethodConfig
from pipeline.errors import (
    DocumentError,
    ExhibitError,
    InternalError,
    LeaseLost,
    MethodError,
    StoreUnavailable,
)
from pipeline.geometry import to_unit
from pipeline.pages import PageSource, RasterSettings, poppler_version
from pipeline.questions import normalise
from pipeline.records import Answer, AnswerType, Failure, Page
from pipeline.store import JobResult, ModelRef, RunFacts, Stage, Store, TextLayer, Unit

if TYPE_CHECKING:
    from pipeline.vlms.base import Vlm

LEASE_S = 600.0
"""A lease outlasts the longest single pass of a large model on a CPU; a dead owner on this machine is noticed sooner."""

UNIT_JOBS = 16
"""Questions of one page taken at a time: the page is drawn and encoded once for all of them."""

OPEN_DOCUMENTS = 2
"""The one that is answered and the one whose page is drawn meanwhile."""

KEPT_PIXELS = 48_000_000
"""Of the pages drawn last: a dozen A4 pages at 200 dpi, 144 MB. A long document's are swept, then looked at closely."""

STORE_TRIES_S = 30.0
"""How long a finished unit waits for a database that is away before its lease is left to end."""

LIBRARIES = ("torch", "transformers", "numpy", "scipy", "pillow", "pdf2image")

_RECIPE = re.compile(r"(?P<dpi>[0-9.e+]+)dpi (?P<pixels>[0-9]+)px$")


def failure_of(error: ExhibitError) -> Failure:
    """An error as it is stored."""
    return Failure(error.code, str(error), error.retryable)


def raster_of(recipe: str) -> RasterSettings:
    """How a batch wants its pages drawn, from its setup: whoever works on it draws them alike.

    Raises:
        InternalError: The recipe is none of ours.
    """
    found = _RECIPE.search(recipe)
    if found is None:
        raise InternalError(f"the recipe {recipe!r} names no resolution")
    return RasterSettings(float(found["dpi"]), int(found["pixels"]))


class _Unwanted(Exception):
    """Everything left of the unit was cancelled."""


class _KeptPages:
    """The pages drawn last, `KEPT_PIXELS` of them and one at least; any thread may ask."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[str, int, str], Page] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, unit: Unit) -> Page | None:
        """A unit's page, if it was drawn lately."""
        with self._lock:
            page = self._pages.get(self._key(unit))
            if page is not None:
                self._pages.move_to_end(self._key(unit))
            return page

    def keep(self, unit: Unit, page: Page) -> None:
        """Keep a unit's page; those not asked for longest go."""
        with self._lock:
            self._pages[self._key(unit)] = page
            while len(self._pages) > 1 and sum(kept.width * kept.height for kept in self._pages.values()) > KEPT_PIXELS:
                self._pages.popitem(last=False)

    def clear(self) -> None:
        """Keep none."""
        with self._lock:
            self._pages.clear()

    @staticmethod
    def _key(unit: Unit) -> tuple[str, int, str]:
        return unit.document.sha256, unit.page, unit.setup.recipe


@dataclass(eq=False)
class Worker:
    """Works jobs off with one model.

    Attributes:
        store: Where the jobs are.
        load: Loads the model when the first job needs it.
        password: For encrypted documents; kept in memory only.
        lease_s: How long the jobs stay ours without progress.
        beat: Called at every sign of progress.
        timed: Told the seconds of each stage of a unit: ``raster``, ``infer``, ``persist``.
        weigh: Told the peak memory of every drawing child, as `PageSource` tells it.
        thrown_away: Results that came after their lease had gone to another; the other's are what is stored.
    """

    store: Store
    load: Callable[[], Vlm]
    password: str | None = None
    lease_s: float = LEASE_S
    beat: Callable[[], None] = lambda: None
    timed: Callable[[str, float], None] = lambda stage, seconds: None
    weigh: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        self.name = worker_name()
        self.thrown_away = 0
        self._sources: OrderedDict[tuple[str, RasterSettings], PageSource] = OrderedDict()
        self._opening = threading.Lock()
        self._pages = _KeptPages()

    @cached_property
    def vlm(self) -> Vlm:
        """The model, loaded on first use."""
        return self.load()

    @cached_property
    def facts(self) -> RunFacts:
        """What computes the answers, for their provenance."""
        versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
        versions |= {"python": platform.python_version(), "poppler": poppler_version()}
        return RunFacts(self.vlm.identity, importlib.metadata.version("exhibit"), versions)

    def close(self) -> None:
        """Free the open documents."""
        self._pages.clear()
        while self._sources:
            self._sources.popitem()[1].close()

    def work_off(self, batch: str, progress: Callable[[], None] = lambda: None) -> None:
        """Work until every answer of a batch is settled, together with whoever else works on it.

        Raises:
            KeyboardInterrupt: After what is finished has been stored and the rest given back.
        """
        self._recover()
        while not self.store.finished(batch):
            _ = self.facts  # loads the model: one that cannot be loaded must cost no job an attempt
            unit = self.store.claim(self.name, limit=UNIT_JOBS, lease_seconds=self.lease_s, batch=batch)
            if unit is not None:
                self.work(unit)
                progress()
                continue
            self._recover()
            standing = self.store.progress(batch)
            wait_s = (standing.next_run - standing.now).total_seconds() if standing.next_run else 1.0
            time.sleep(min(max(wait_s, 0.05), 1.0))

    def _recover(self) -> None:
        """Give back what runs on this machine held when they were killed: their users' doing, so no attempt is counted."""
        self.store.release_owners(dead_owners(self.store.owners()))
        self.store.expire_leases()

    def work(self, unit: Unit) -> None:
        """Draw one unit's page and answer its questions."""
        page = self.draw(unit)
        if isinstance(page, Page):
            self.answer(unit, page)

    def draw(self, unit: Unit) -> Page | Failure:
        """Draw a unit's page, or say why it cannot be drawn; then its jobs have failed with that."""
        try:
            with self._drawing(unit), self._timing("raster"):
                return self._page(unit)
        except DocumentError as error:
            failure = failure_of(error)
            with suppress(LeaseLost):
                self.store.fail(unit.jobs, failure)
            return failure
        except BaseException:
            # An interrupt, or poppler is missing: not these jobs' fault.
            with suppress(LeaseLost):
                self.store.release(unit.jobs)
            raise

    @contextmanager
    def _timing(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.timed(stage, time.monotonic() - began)

    @contextmanager
    def _drawing(self, unit: Unit) -> Iterator[None]:
        """Keep the lease while the page is drawn, which may take longer: that has a clock of its own and cannot hang."""
        drawn = threading.Event()

        def renew() -> None:
            while not drawn.wait(self.lease_s / 4):
                self.beat()
                with suppress(LeaseLost, StoreUnavailable):
                    self.store.renew(unit.jobs, self.lease_s)

        renewing = threading.Thread(target=renew, name="renew", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            drawn.set()
            renewing.join()

    def _page(self, unit: Unit) -> Page:
        """The page as drawn for a unit before: many questions are several units, and a swept page is looked at again."""
        page = self._pages.get(unit)
        if page is None:
            page = self._open(unit).page(unit.page)
            self._pages.keep(unit, page)
        return page

    def answer(self, unit: Unit, page: Page, also: Callable[[], None] = lambda: None) -> None:
        """Answer one unit's questions and store them in one transaction.

        A page that cannot be encoded fails its jobs. A lost lease leaves everything to the new owner. On any other
        exception what is answered is stored, the question in hand has had its attempt, the rest is given back, and the
        exception goes on.

        Args:
            unit: Claimed by this worker.
            page: Its page.
            also: Called whenever this unit's lease is extended, to extend others.
        """
        results: list[JobResult] = []
        try:
            with self._keeping(unit, page, results), self._timing("infer"):
                self._answer(unit, page, results, self._pulse(unit, results, also))
        except LeaseLost:
            self.thrown_away += len(results)
        except _Unwanted:
            return
        except MethodError as error:
            with suppress(LeaseLost):
                self.store.fail(unit.jobs, failure_of(error))
        except InternalError:
            with suppress(LeaseLost):
                self._finish_apart(page, results)
            raise

    def _answer(self, unit: Unit, page: Page, results: list[JobResult], pulse: Callable[[], None]) -> None:
        from pipeline.answer import answer_page

        config = MethodConfig.from_dict(unit.setup.config)
        if unit.stage is Stage.SWEEP:
            config = config.plain()
        questions = [job.question for job in unit.jobs]
        answers = answer_page(self.vlm, page, questions, config, pulse)
        for job, answer in zip(unit.jobs, answers, strict=True):
            results.append(JobResult(job, answer, self._text_layer(unit, page, answer)))
            self.beat()

    @contextmanager
    def _keeping(self, unit: Unit, page: Page, results: list[JobResult]) -> Iterator[None]:
        """Store what was answered, also when the rest was interrupted."""
        try:
            yield
        except (LeaseLost, MethodError, StoreUnavailable):
            raise
        except BaseException as error:
            with suppress(LeaseLost):
                if results:  # without any, the model may be what failed, and storing names the model
                    self._finish(page, results)
                rest = unit.jobs[len(results) :]
                if isinstance(error, Exception) and not isinstance(error, _Unwanted):
                    # Whatever this is, a job that always does it must come to an end: the attempt counts.
                    self.store.fail(rest[:1], crash_of(error))
                    rest = rest[1:]
                self.store.release(rest)
            raise
        self._finish(page, results)

    def _finish_apart(self, page: Page, results: list[JobResult]) -> None:
        """Results that cannot be stored together: store those that can be, and count the others' attempts."""
        for result in results:
            try:
                self._finish(page, [result])
            except InternalError as error:
                self.store.fail([result.job], crash_of(error))

    def _finish(self, page: Page, results: list[JobResult]) -> None:
        """Store results; wait a while for a database that is away."""
        deadline = time.monotonic() + min(self.lease_s / 2, STORE_TRIES_S)
        with self._timing("persist"):
            while True:
                try:
                    self.store.finish(page, results, self.facts)
                except StoreUnavailable:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.5)
                else:
                    return

    def _pulse(self, unit: Unit, results: list[JobResult], also: Callable[[], None]) -> Callable[[], None]:
        """Keep the lease while there is progress; stop when nobody wants the rest."""
        renewed = time.monotonic()

        def pulse() -> None:
            nonlocal renewed
            self.beat()
            if time.monotonic() - renewed < self.lease_s / 4:
                return
            cancelled = self.store.renew(unit.jobs, self.lease_s)
            also()
            renewed = time.monotonic()
            if cancelled.issuperset(job.job_id for job in unit.jobs[len(results) :]):
                raise _Unwanted

        return pulse

    def _open(self, unit: Unit) -> PageSource:
        """The unit's document; the last ones stay open, since their pages are claimed one after another."""
        key = unit.document.sha256, raster_of(unit.setup.recipe)
        with self._opening:
            if key not in self._sources:
                data = self.store.document_bytes(unit.document.sha256)
                self._sources[key] = PageSource(
                    data, unit.document.name, settings=key[1], password=self.password, weigh=self.weigh
                )
            self._sources.move_to_end(key)
            while len(self._sources) > OPEN_DOCUMENTS:
                self._sources.popitem(last=False)[1].close()
            return self._sources[key]

    def _text_layer(self, unit: Unit, page: Page, answer: Answer) -> TextLayer | None:
        """Whether the document's own text under the evidence holds the answer: a check, never an input."""
        question = answer.question
        if not answer.evidence or not answer.text or answer.not_found:
            return None
        if question.choices or question.type is AnswerType.BOOLEAN:
            return None  # the answer is about the page's words, not one of them
        try:
            texts = [
                self._open(unit).text_in_box(page.number, to_unit(evidence.box, page.width, page.height))
                for evidence in answer.evidence
            ]
        except DocumentError:
            return None
        if any(text is None for text in texts):
            return None
        said, under = normalise(answer.text), normalise(" ".join(text or "" for text in texts))
        return None if not said else "match" if said in under else "mismatch"


def crash_of(error: Exception) -> Failure:
    """An error that nobody foresaw, or a lost device: its class, never its words, which may hold those of a document."""
    if isinstance(error, ExhibitError):
        return Failure(error.code, str(error), retryable=True)
    return Failure(InternalError.code, f"{type(error).__name__}; the worker's log has the rest", retryable=True)


def model_ref(vlm: Vlm) -> ModelRef:
    """How jobs name this model."""
    return ModelRef.of(vlm.identity)


def worker_name() -> str:
    """``host:pid:start``; the start time tells a reused process number from the same process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_ticks(os.getpid())}"


def dead_owners(owners: list[str]) -> list[str]:
    """Those that ran on this machine and are gone."""
    host = socket.gethostname()
    return [owner for owner in owners if owner.startswith(f"{host}:") and not _alive(owner)]


def _alive(owner: str) -> bool:
    _, pid, start = owner.rsplit(":", 2)
    return _start_ticks(int(pid)) == start


def _start_ticks(pid: int) -> str:
    """When a process started, in clock ticks after boot; empty if there is no such process (or no /proc)."""
    try:
        # The command's name, in parentheses, may hold anything; the start time is field 22 of the whole line.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return ""
