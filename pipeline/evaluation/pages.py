"""The pages benchmark on disk: questions with accepted answers and true boxes, about documents in the same folder.

`ops/bench_pages` builds it. A line of ``questions.jsonl``:

    {"id": "test/field/clean/01", "part": "test", "task": "field", "quality": "clean", "document": "test/clean-page-000.png",
     "question": "What is the reference?", "type": "text", "choices": [], "answers": ["R2011-118"],
     "evidence": [{"page": 1, "box": [412, 88, 640, 131]}], "answerable": true}

Boxes are pixels of the page raster at 200 dpi. An unanswerable question has no answers; "no" to a question about what is not
on the page has no evidence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentProblem, UsageError
from pipeline.geometry import Box
from pipeline.records import AnswerType, Question

DEFAULT_FOLDER = Path(".bench/pages")
QUESTIONS = "questions.jsonl"


@dataclass(frozen=True, slots=True)
class Truth:
    """A true box.

    Attributes:
        page: 1-based.
        box: Page pixels.
    """

    page: int
    box: Box


@dataclass(frozen=True, slots=True)
class Item:
    """A question of the benchmark.

    Attributes:
        part: ``test`` or ``validation``.
        task: What kind of question it is.
        quality: ``clean``, ``fair`` or ``poor``.
        document: Path in the benchmark's folder.
        question: As it is asked; its id is the item's.
        answers: Accepted ones; none if the document does not answer it.
        evidence: Where the answer stands, one box per place.
    """

    part: str
    task: str
    quality: str
    document: str
    question: Question
    answers: tuple[str, ...]
    evidence: tuple[Truth, ...]

    @property
    def id(self) -> str:
        """Unique in the benchmark."""
        return self.question.question_id

    @property
    def answerable(self) -> bool:
        """Whether the document answers it."""
        return bool(self.answers)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Questions and where their documents are.

    Attributes:
        folder: Documents' names are relative to it.
        sha256: Digest over the question list and all its documents, so of the whole benchmark even where `items` is a part.
        items: In the list's order.
    """

    folder: Path
    sha256: str
    items: tuple[Item, ...]

    def select(self, part: str, ids: Collection[str] | None = None) -> Benchmark:
        """A part of the benchmark.

        Args:
            part: ``test`` or ``validation``.
            ids: Only these questions; all if None.

        Raises:
            UsageError: Nothing is left.
        """
        items = tuple(item for item in self.items if item.part == part and (ids is None or item.id in ids))
        if not items:
            raise UsageError(f"{self.folder} has no such questions of the {part} part; build it without --limit")
        return replace(self, items=items)


def read_benchmark(folder: Path = DEFAULT_FOLDER) -> Benchmark:
    """Read a benchmark and check that its documents are there.

    Raises:
        EnvironmentProblem: It has not been built here, or a document is missing; the message says what to do.
    """
    path = folder / QUESTIONS
    try:
        listed = path.read_bytes()
        items = tuple(_item(json.loads(line)) for line in listed.decode().splitlines())
        digest = hashlib.sha256(listed)
        for document in dict.fromkeys(item.document for item in items):
            digest.update(hashlib.sha256((folder / document).read_bytes()).digest())
    except OSError as error:
        raise EnvironmentProblem(
            f"{error.filename} cannot be read ({error.strerror}); build the benchmark with: "
            f"python -m ops.bench_pages --folder {folder}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise EnvironmentProblem(f"{path} is not a benchmark of this version: {error!r}; build it again") from error
    return Benchmark(folder, digest.hexdigest(), items)


def _item(record: dict[str, Any]) -> Item:
    return Item(
        part=record["part"],
        task=record["task"],
        quality=record["quality"],
        document=record["document"],
        question=Question(
            record["id"], record["question"], type=AnswerType(record["type"]), choices=tuple(record["choices"])
        ),
        answers=tuple(record["answers"]),
        evidence=tuple(Truth(place["page"], Box(*place["box"])) for place in record["evidence"]),
    )
