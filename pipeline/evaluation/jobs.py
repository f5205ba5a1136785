"""A dataset's questions as ordinary jobs: a batch in a store, worked off by the same `Worker` as everybody's, and read back.

In a database beside the results they are worked off here, a document at a time. In a deployment's database (``--db``) they
are only submitted; its workers answer, and its chores worker wakes them within its next round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.config import MethodConfig
from pipeline.errors import DocumentError
from pipeline.evaluation.datasets import Example
from pipeline.evaluation.selection import document_bytes
from pipeline.pages import PageSource, RasterSettings
from pipeline.records import Question
from pipeline.store import AnswerTrace, Store, SubmittedBatch, SubmittedDocument
from pipeline.submission import setup
from pipeline.vlms.catalogue import ModelFolder
from pipeline.work import Worker, failure_of

POLL_S = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Jobs:
    """Hands questions in and takes answers out.

    Attributes:
        store: Where the jobs are.
        model: Which model answers.
        worker: Works them off in this process; None leaves that to others.
        raster: How pages are drawn.
    """

    store: Store
    model: ModelFolder
    worker: Worker | None
    raster: RasterSettings = field(default_factory=RasterSettings)
    _opened: dict[str, SubmittedDocument] = field(default_factory=dict, init=False)
    """The document submitted last: here, arm after arm asks about it."""

    def submit(self, documents: Mapping[str, Sequence[Example]], config: MethodConfig) -> str:
        """Submit questions about documents, or find them where they were submitted before; return the batch's id.

        A document that cannot be read fails its questions and no other.
        """
        names = {example.example_id: name for name, examples in documents.items() for example in examples}

        def pages_of(document: SubmittedDocument, question: Question) -> Sequence[int] | None:
            if names[question.question_id] != document.name:
                return None
            return range(1, (document.page_count or 0) + 1)

        questions = [
            replace(example.question, question_id=example.example_id, document=name)
            for name, examples in documents.items()
            for example in examples
        ]
        batch = SubmittedBatch(
            [self._document(name, examples[0]) for name, examples in documents.items()],
            questions,
            setup(config, self.model, self.raster),
            name="eval",
        )
        return self.store.submit(batch, pages_of).batch_id

    def _document(self, name: str, example: Example) -> SubmittedDocument:
        if name not in self._opened:
            self._opened.clear()
            self._opened[name] = self._open(name, example)
        return self._opened[name]

    def _open(self, name: str, example: Example) -> SubmittedDocument:
        try:
            data, (first, *others) = document_bytes(example), example.media
            with PageSource(data, name, settings=self.raster) as source:
                # A file is read again while submitting, so that a dataset's pictures are not in memory all at once.
                alone = first.path if not others else None
                return SubmittedDocument.readable(source.document, data if alone is None else alone)
        except DocumentError as error:
            return SubmittedDocument.unreadable(name, failure_of(error))

    def traces(self, batch: str) -> Iterator[AnswerTrace]:
        """The answers of a batch: worked off here, in the order of the questions; by others, as they come."""
        if self.worker is not None:
            self.worker.work_off(batch)
        told: set[str] = set()
        open_answers = -1
        while open_answers:
            standing = self.store.progress(batch)
            if standing.answers_open != open_answers:
                open_answers = standing.answers_open
                for record in self.store.records(batch):
                    if record["answer_id"] not in told:
                        told.add(record["answer_id"])
                        yield self.store.answer_trace(record["answer_id"])
            if open_answers:
                time.sleep(POLL_S)
