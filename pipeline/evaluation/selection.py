"""Which questions of a dataset are asked, and the documents they are about."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby
from pathlib import Path

from PIL import Image

from pipeline.errors import UsageError
from pipeline.evaluation.datasets import Dataset, Example, Media, open_dataset
from pipeline.evaluation.pages import DEFAULT_FOLDER, read_benchmark
from pipeline.pages import PageSource
from pipeline.records import Page

PAGES = "pages"
SLICE_QUALITY = "clean"


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a dataset that are worked on apart: the `number`-th (1-based) of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``i/n``.

        Raises:
            UsageError: It is no such fraction.
        """
        number, _, count = text.partition("/")
        if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            raise UsageError(f"--shard {text}: expected i/n with i from 1 to n, such as 2/4")
        return cls(int(number), int(count))

    def documents(self, questions: Mapping[str, int]) -> set[str]:
        """The documents of this part, given how many questions there are about each; parts have about as many.

        Names decide between equals, so that machines that want the same questions part them alike. A question that is in
        two parts, because another limit was wanted, costs time and nothing else.
        """
        parts: list[tuple[int, set[str]]] = [(0, set()) for _ in range(self.count)]
        for name in sorted(questions, key=lambda name: (-questions[name], name)):
            least = min(range(self.count), key=lambda part: parts[part][0])
            parts[least] = parts[least][0] + questions[name], parts[least][1] | {name}
        return parts[self.number - 1][1]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which questions of a dataset's split are wanted; None is all.

    Few questions are about many documents: of each group, one about every document comes before the second about any. Which
    documents come first is decided by their names, for each group anew, so that the groups' are not all the same.

    Attributes:
        slice_size: So many clean questions, as many of every group.
        quality: Only documents of this scan quality (the pages benchmark).
        limit: So many, one of each group in turn; all rotations of a question's options count as one.
        shard: Only this part of the documents.
    """

    slice_size: int | None = None
    quality: str | None = None
    limit: int | None = None
    shard: Shard | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Questions of a dataset.

    Attributes:
        dataset: Where they come from; its official metric.
        sha256: Digest of the whole split, whatever part of it is wanted.
        examples: In the dataset's order.
        disturbance: What was done to the documents, such as ``noise-2``; "" for nothing.
    """

    dataset: Dataset
    sha256: str
    examples: tuple[Example, ...]
    disturbance: str = ""

    def documents(self) -> Iterator[tuple[str, list[Example]]]:
        """The documents in order of their names, each with its questions."""
        for name, examples in groupby(sorted(self.examples, key=document_name), document_name):
            yield name, list(examples)


def select(name: str, folder: Path | None, split: str | None, wanted: Wanted) -> Selection:
    """Open a dataset and choose questions.

    Raises:
        UsageError: The dataset or split is unknown, the slice does not divide, or nothing is left.
        DatasetMissing, DatasetError: It is not there, or not what its format says.
    """
    if folder is None and name != PAGES:
        raise UsageError(f"--data DIR: name the folder that holds {name}")
    dataset = open_dataset(name, folder or DEFAULT_FOLDER, split)
    examples = list(dataset.examples())
    digest = read_benchmark(dataset.folder).sha256 if name == PAGES else _digest(dataset, examples)
    chosen = _chosen(dataset.folder, examples, wanted)
    if not chosen:
        raise UsageError(f"{dataset.folder} has no such questions of {name}'s {dataset.split} part")
    return Selection(dataset, digest, tuple(chosen))


def _digest(dataset: Dataset, examples: Iterable[Example]) -> str:
    """Over names, words and true boxes; of the documents their sizes only, since reading gigabytes takes long."""
    digest = hashlib.sha256(f"{dataset.name}/{dataset.split}".encode())
    for example in examples:
        parts = [
            example.example_id,
            example.question.text,
            example.question.choices,
            example.prompt,
            example.references,
            [(truth.page, truth.box.xyxy) for truth in example.evidence],
            [_place(dataset.folder, medium) for medium in example.media],
        ]
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def _place(folder: Path, medium: Media) -> list[str | int]:
    if medium.path is None:
        return [_inside(folder, medium)]
    return [_inside(folder, medium), medium.path.stat().st_size if medium.path.exists() else -1]


def _inside(folder: Path, medium: Media) -> str:
    """What a medium is called inside the dataset, wherever that lies: a file, or a place in one."""
    within = f"{folder.as_posix()}/"
    return medium.name.removeprefix(within) if medium.name.startswith(within) else Path(medium.name).name


def name_inside(folder: Path, example: Example) -> str:
    """What an example's document is called inside the dataset; the same on every machine."""
    return " + ".join(_inside(folder, medium) for medium in example.media)


def _chosen(folder: Path, examples: Sequence[Example], wanted: Wanted) -> list[Example]:
    quality = SLICE_QUALITY if wanted.slice_size is not None else wanted.quality
    chosen = [example for example in examples if quality in {None, example.metadata.get("quality")}]
    if wanted.slice_size is not None:
        chosen = _slice(folder, chosen, wanted.slice_size)
    if wanted.limit is not None:
        chosen = _first_in_turn(folder, chosen, wanted.limit)
    if wanted.shard is not None:
        # By names inside the dataset, so that machines with other folders part it alike.
        questions = Counter(name_inside(folder, example) for example in chosen)
        part = wanted.shard.documents(questions)
        chosen = [example for example in chosen if name_inside(folder, example) in part]
    return chosen


def _slice(folder: Path, examples: Sequence[Example], size: int) -> list[Example]:
    """As many of every group."""
    numbers = _numbers(folder, examples)
    groups = Counter(group for group, _ in numbers.values())
    each, rest = divmod(size, max(len(groups), 1))
    if rest or not each:
        raise UsageError(f"--slice {size}: expected a multiple of {len(groups)}, the number of its tasks")
    short = {group: count for group, count in groups.items() if count < each}
    if short:
        raise UsageError(f"too few questions for a slice of {each} a task: {short}")
    return [example for example in examples if numbers[example.unit][1] <= each]


def _first_in_turn(folder: Path, examples: Sequence[Example], limit: int) -> list[Example]:
    """The first so many in turn, in the dataset's order."""
    kept = set(list(dict.fromkeys(example.unit for example in in_turn(folder, examples)))[:limit])
    return [example for example in examples if example.unit in kept]


def in_turn(folder: Path, examples: Sequence[Example]) -> list[Example]:
    """The first of each group, then the second of each, and so on; see `Wanted`."""
    numbers = _numbers(folder, examples)
    return sorted(examples, key=lambda example: numbers[example.unit][1])


def _numbers(folder: Path, examples: Sequence[Example]) -> dict[str, tuple[str, int]]:
    """Each question's group and its number there, from 1, by unit (the rotations of a question are one); see `Wanted`."""
    units = {example.unit: example for example in reversed(examples)}  # a unit's first turn stands for it
    asked: Counter[tuple[str, str]] = Counter()
    ranked: dict[str, list[tuple[int, str, str]]] = {}
    for example in examples:
        if units[example.unit] is example:
            document = name_inside(folder, example)
            asked[example.group, document] += 1
            shuffled = hashlib.sha256(f"{example.group}/{document}".encode()).hexdigest()
            ranked.setdefault(example.group, []).append((asked[example.group, document], shuffled, example.unit))
    numbers = {
        unit: (group, number) for group, found in ranked.items() for number, (*_, unit) in enumerate(sorted(found), start=1)
    }
    return {example.unit: numbers[example.unit] for example in examples}


def document_name(example: Example) -> str:
    """What an example's document is called; the same for all questions about the same media."""
    return " + ".join(medium.name for medium in example.media)


def document_bytes(example: Example) -> bytes:
    """An example's document as one file: its image or PDF as it is, several images in a column.

    A question that speaks of several images is asked about one page, since the methods search pages; the column keeps the
    images' order and their own pixels.

    Raises:
        DocumentError: A medium cannot be read or drawn.
    """
    if len(example.media) == 1:
        return example.media[0].read()
    return png(stack([first_page(medium).image for medium in example.media]))


def first_page(medium: Media) -> Page:
    """A medium's first page, drawn in the limited child."""
    with PageSource(medium.read(), medium.name) as source:
        return source.page(1)


def stack(images: Sequence[Image.Image], gap_px: int = 16) -> Image.Image:
    """Images in a column on white, left-aligned."""
    width = max(image.width for image in images)
    height = sum(image.height for image in images) + gap_px * (len(images) - 1)
    column, top = Image.new("RGB", (width, height), "white"), 0
    for image in images:
        column.paste(image, (0, top))
        top += image.height + gap_px
    return column


def png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    out = BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
