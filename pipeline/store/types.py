"""What goes into the store and what comes out: frozen records. No database, no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import UsageError
from pipeline.geometry import Box, PatchGrid, PdfFrame, UnitBox
from pipeline.records import Answer, Document, Failure, ModelIdentity, Question, Region, Signals, StopReason, Usage

TextLayer = Literal["match", "mismatch"]


class Stage(StrEnum):
    """What a job does with its page."""

    SWEEP = "sweep"  # one plain forward, to rank the pages of a long document
    GROUND = "ground"  # the whole method


class JobState(StrEnum):
    """Where a job stands."""

    PENDING = "pending"  # accepted, waiting for a worker
    RUNNING = "running"  # pending -> running: a worker holds its lease
    SUCCEEDED = "succeeded"  # running -> succeeded: page answer and evidence are stored
    FAILED = "failed"  # running -> failed: bad input, see error_code; only `retry` revives it
    DEAD = "dead"  # running -> dead: attempts used up; only `retry` revives it
    CANCELLED = "cancelled"  # pending or running -> cancelled: nobody wants it any more


OPEN_STATES = (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class ModelRef:
    """The model a batch asks for.

    Attributes:
        name: Hub name or folder as given; ``embedded`` for the model shipped.
        revision: Hub commit; None for a folder.
        weights_sha256: Digest of the weights; None while only the hub revision is known.
    """

    name: str
    revision: str | None = None
    weights_sha256: str | None = None

    @property
    def key(self) -> str:
        """What tells two models apart: name and revision of a hub model, else the weights' digest.

        Raises:
            UsageError: Neither is known.
        """
        if self.revision is not None:
            return f"{self.name}@{self.revision}"
        if self.weights_sha256 is None:
            raise UsageError(f"model {self.name!r}: neither its revision nor its weights are known; give --revision")
        return f"sha256:{self.weights_sha256}"

    @classmethod
    def of(cls, identity: ModelIdentity) -> ModelRef:
        """The reference of a loaded model."""
        return cls(identity.name, identity.revision, identity.weights_sha256)


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything but page and question that can change a page's answer.

    Attributes:
        method: e.g. ``entropy-gradient``.
        preset: Name of the preset the config started from.
        config: The whole config, JSON-ready.
        config_sha256: Its digest; covers the prompt.
        model: The model asked for.
        recipe: How pages are drawn, e.g. ``poppler 22.12.0 pdftoppm cropbox dpi=200 max_pixels=25000000``.
    """

    method: str
    preset: str
    config: Mapping[str, Any]
    config_sha256: str
    model: ModelRef
    recipe: str


@dataclass(frozen=True, slots=True)
class SubmittedDocument:
    """A document of a batch, readable or not.

    Attributes:
        name: The path as the user gave it.
        content: Where the bytes are; read once, while submitting. None stores no bytes.
        sha256: Hex digest; None when there was nothing to read.
        media_type, byte_count, page_count: None where unknown.
        failure: Why it cannot be read; then each of its answers fails with this.
    """

    name: str
    content: Path | bytes | None = None
    sha256: str | None = None
    media_type: str | None = None
    byte_count: int | None = None
    page_count: int | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if self.failure is None and (self.sha256 is None or self.page_count is None):
            raise ValueError(f"{self.name}: a readable document has a digest and a page count")

    @classmethod
    def readable(cls, document: Document, content: Path | bytes) -> SubmittedDocument:
        """A document whose pages can be asked."""
        return cls(document.name, content, document.sha256, document.media_type, document.byte_count, document.page_count)

    @classmethod
    def unreadable(cls, name: str, failure: Failure, sha256: str | None = None) -> SubmittedDocument:
        """A document that fails; its bytes are not kept."""
        return cls(name, sha256=sha256, failure=failure)


PagesOf = Callable[[SubmittedDocument, Question], Sequence[int] | None]
"""Which pages of a document a question is for: None when it is not for this document, empty when its range matches none.

It is also asked about unreadable documents (``page_count`` is None); then only None or not None counts.
"""


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """A list of questions over a list of documents.

    Attributes:
        documents: In the order of the answers; read several times, so a sequence.
        questions: In list order.
        setup: How they are answered.
        name: The user's name for the batch; part of its identity.
        locale: For ambiguous numbers and dates.
        min_certainty: Mean log-probability (nats) under which an answer is abstained from; None is off.
        priority: Lower runs first.
        force: Compute everything again, in a new batch.
    """

    documents: Sequence[SubmittedDocument]
    questions: Sequence[Question]
    setup: Setup
    name: str | None = None
    locale: str | None = None
    min_certainty: float | None = None
    priority: int = 100
    force: bool = False


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """What a submission did.

    Attributes:
        batch_id: 12 hex digits, from the digest of what was submitted.
        created: False when the same list was submitted before; then the counts are the batch's as it stands.
        answers: Answers asked for, one per (document, question).
        answers_done: Of these, settled already (answered before, unreadable, or nothing to search).
        jobs: Jobs linked to the batch so far; a long document's grounding jobs come later.
        jobs_done: Of these, ended already.
    """

    batch_id: str
    created: bool
    answers: int
    answers_done: int
    jobs: int
    jobs_done: int


@dataclass(frozen=True, slots=True)
class JobClaim:
    """A job that this worker holds.

    Attributes:
        epoch: The fencing epoch; a result is accepted only under it.
        attempt: 1-based.
        question: What is asked; its `question_id` names the job, since several lists may share it.
    """

    job_id: int
    epoch: int
    attempt: int
    question: Question


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit of work: jobs of one page, one stage and one setup, claimed together.

    Attributes:
        document: The page's document, under the name of one of the batches that ask for it.
        page: 1-based.
        lease_until: By the database's clock.
        waited_s: For how long the first of the jobs could have been taken, by the same clock.
    """

    document: Document
    page: int
    stage: Stage
    setup: Setup
    jobs: tuple[JobClaim, ...]
    worker: str
    lease_until: datetime
    waited_s: float


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What computed an answer, beyond its setup.

    Attributes:
        model: As loaded.
        code_version: Exhibit's version, with the commit where known.
        versions: Libraries that can change a result, by name.
    """

    model: ModelIdentity
    code_version: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class JobResult:
    """A finished job: an answer, or its `failure`."""

    job: JobClaim
    answer: Answer
    text_layer: TextLayer | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is.

    Attributes:
        jobs: Count by job state; every state is present.
        answers: Count by answer status, settled ones only.
        answers_open: Answers not settled yet.
        next_run: When the earliest waiting job may run; None when none waits.
        now: The database's clock.
    """

    jobs: Mapping[JobState, int]
    answers: Mapping[str, int]
    answers_open: int
    next_run: datetime | None
    now: datetime

    @property
    def finished(self) -> bool:
        """Whether every answer is settled."""
        return self.answers_open == 0


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """A batch as listed."""

    batch_id: str
    name: str | None
    created_at: datetime
    cancelled: bool
    documents: int
    questions: int
    setup: Setup


@dataclass(frozen=True, slots=True)
class EvidenceFilter:
    """Which evidence to list; every condition that is set must hold.

    Attributes:
        document: Path, base name, glob or sha256.
        region: Overlaps this part of the page, 0-1.
        min_score: Share of its round's saliency, 0-1.
        limit: At most this many, the first in order.
    """

    batch: str | None = None
    document: str | None = None
    page: int | None = None
    question: str | None = None
    region: UnitBox | None = None
    min_score: float | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """One box behind a settled answer."""

    answer_id: str
    batch_id: str
    document: str
    document_sha256: str
    question_id: str
    question: str
    answer: str | None
    rank: int
    page: int
    box_px: Box
    box: UnitBox
    score: float
    saliency: float
    cell_px: tuple[float, float]
    crop_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class StoredMap:
    """A saliency map as stored: its view's box in page pixels, its grid in view pixels, float32 values."""

    view: Box
    grid: PatchGrid
    values: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class StoredStep:
    """One round of grounding as stored; see `pipeline.records.Step`."""

    round: int
    views: tuple[Box, ...]
    maps: tuple[StoredMap, ...]
    regions: tuple[Region, ...]
    token_entropy: float
    max_probability: float
    spatial_entropy: float | None
    gradient_norm: float | None
    stop_reason: StopReason | None


@dataclass(frozen=True, slots=True, eq=False)
class PageTrace:
    """Everything stored about one page's answer.

    Attributes:
        number: 1-based.
        raster_png: The page as it was shown to the model; None for a page without evidence and for one only swept.
        raster_sha256: Digest of ``b"{width}x{height}:"`` and the raw RGB bytes.
        supports: Whether its evidence stands behind the document's answer.
    """

    number: int
    stage: Stage
    width: int
    height: int
    dpi: float
    recipe: str
    frame: PdfFrame | None
    raster_sha256: str
    raster_png: bytes | None
    text: str | None
    not_found: bool
    supports: bool
    signals: Signals
    text_layer: TextLayer | None
    usage: Usage
    evidence: tuple[StoredEvidence, ...]
    steps: tuple[StoredStep, ...]


@dataclass(frozen=True, slots=True, eq=False)
class AnswerTrace:
    """Why an answer is what it is.

    Attributes:
        record: The answer's record, as exported.
        rivals: Other pages' answered texts: page, text and certainty, surest first.
        pages: The winning page first, then those that support it, then the other grounded ones, then the swept ones.
    """

    record: Mapping[str, Any]
    rivals: tuple[Mapping[str, Any], ...]
    pages: tuple[PageTrace, ...]
