"""From seeds to a folder: `questions.jsonl` and the documents it asks about. The same code builds the same bytes."""

from __future__ import annotations

import io
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ops.bench_pages.parts import PARTS, Part, compose_page
from ops.bench_pages.scan import JPEG, QUALITIES, Look, Quality, Scan, scan
from ops.bench_pages.tasks import MANY_PAGES, TASKS, Asked, ask_among
from ops.train.compose import SHEET
from ops.train.document import DPI, Page
from ops.train.questions import NOT_FOUND, Asker

QUOTA: dict[Part, dict[Quality, int]] = {
    "test": {"clean": 40, "fair": 40, "poor": 40},
    "validation": {"clean": 20, "fair": 10, "poor": 10},
}
"""Questions of each task."""
PER_PAGE = 2
"""Questions of one task that a page is asked at the most: pages are what varies."""
PER_DOCUMENT = 4
DOCUMENT_PAGES = (4, 6)
"""Fewest and most pages of a document that is asked as a whole; above three a sweep comes first."""
EPOCH = time.gmtime(0)
AHEAD = 4
"""Documents of each sort drawn before it is counted what is still wanted; what is built depends on it."""

Record = dict[str, object]


@dataclass(frozen=True)
class Made:
    """A document as a file, with the questions about it.

    Attributes:
        name: Path in the benchmark's folder.
        data: The file.
        records: Questions, as in `questions.jsonl` but for their ids.
    """

    name: str
    data: bytes
    records: tuple[Record, ...]


def build(folder: Path, limit: int | None = None, workers: int = 2) -> Counter[tuple[str, str]]:
    """Write the benchmark.

    Args:
        folder: Replaced if it is there.
        limit: Questions of each task and quality at the most; None for all.
        workers: Processes that draw.

    Returns:
        How many questions each part has of each task.
    """
    fresh = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    records: list[Record] = []
    with ProcessPoolExecutor(workers) as pool:
        for part in PARTS:
            for quality in QUALITIES:
                quota = min(QUOTA[part][quality], limit or QUOTA[part][quality])
                for made in _enough(pool, part, quality, quota):
                    path = fresh / made.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(made.data)
                    records += made.records
    numbered = _numbered(records)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in numbered)
    (fresh / "questions.jsonl").write_text(lines, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return Counter((str(record["part"]), str(record["task"])) for record in numbered)


def _numbered(records: Sequence[Record]) -> list[Record]:
    """Ids by part, task and quality, in that order; within one, in the order of the documents."""
    rank = [*TASKS, MANY_PAGES]
    ordered = sorted(
        records,
        key=lambda r: (PARTS.index(r["part"]), rank.index(str(r["task"])), QUALITIES.index(r["quality"])),
    )
    counts: Counter[tuple[object, ...]] = Counter()
    numbered = []
    for record in ordered:
        key = (record["part"], record["task"], record["quality"])
        counts[key] += 1
        numbered.append({"id": "{}/{}/{}/{:02}".format(*key, counts[key]), **record})
    return numbered


def _enough(pool: ProcessPoolExecutor, part: Part, quality: Quality, quota: int) -> Iterator[Made]:
    """Documents, by seed, until every task has its questions; what is over is dropped, and with it idle documents."""
    left = Counter(dict.fromkeys((*TASKS, MANY_PAGES), quota))
    number = 0
    while any(left.values()):
        makers = [_make_single, _make_large, _make_many]
        wanted = [any(left[t] for t in TASKS if t != "tiny"), bool(left["tiny"]), bool(left[MANY_PAGES])]
        jobs = [
            pool.submit(make, part, quality, number + ahead)
            for ahead in range(AHEAD)
            for make, want in zip(makers, wanted, strict=True)
            if want
        ]
        number += AHEAD
        for job in jobs:
            made = job.result()
            kept = []
            for record in made.records:
                if left[str(record["task"])]:
                    left[str(record["task"])] -= 1
                    kept.append(record)
            if kept:
                yield Made(made.name, made.data, tuple(kept))


def _make_single(part: Part, quality: Quality, number: int) -> Made:
    page = compose_page(part, f"{quality}/page/{number}")
    return _made_page(page, part, quality, f"page-{number:03}", list(TASKS))


def _make_large(part: Part, quality: Quality, number: int) -> Made:
    """A sheet twice as large, with print of the same size."""
    page = compose_page(part, f"{quality}/large/{number}", SHEET)
    return _made_page(page, part, quality, f"large-{number:03}", ["tiny"])


def _made_page(page: Page, part: Part, quality: Quality, name: str, tasks: Sequence[str]) -> Made:
    rng = random.Random(f"bench/{part}/{quality}/{name}")
    scanned = scan(page.draw(), quality, rng)
    document = f"{part}/{quality}-{name}.{'png' if quality == 'clean' else 'jpg'}"
    asker = Asker(page, rng, "held-out")
    records: list[Record] = []
    seen: set[object] = set()
    for task in tasks:
        for _ in range(PER_PAGE):
            asked = TASKS[task](page, asker)
            if asked is None:
                continue
            # The same place asked in other words is no second question.
            place = task, asked.boxes or asked.question.text.lower()
            if place not in seen:
                seen.add(place)
                records.append(_record(part, task, quality, document, 1, asked, scanned))
    return Made(document, _image_file(scanned.image, quality), tuple(records))


def _make_many(part: Part, quality: Quality, number: int) -> Made:
    rng = random.Random(f"bench/{part}/{quality}/many/{number}")
    count = rng.randint(*DOCUMENT_PAGES)
    pages = [compose_page(part, f"{quality}/many/{number}/{index}") for index in range(count)]
    scans = [scan(page.draw(), quality, rng) for page in pages]
    document = f"{part}/{quality}-many-{number:03}.pdf"
    records = []
    for index in rng.sample(range(count), min(count, PER_DOCUMENT)):
        asked = ask_among(pages, index, Asker(pages[index], rng, "held-out"))
        if asked is not None:
            records.append(_record(part, MANY_PAGES, quality, document, index + 1, asked, scans[index]))
    return Made(document, pdf_file([scanned.image for scanned in scans], quality), tuple(records))


def _record(part: Part, task: str, quality: Quality, document: str, page: int, asked: Asked, scanned: Scan) -> Record:
    question = asked.question
    answerable = question.answer != NOT_FOUND
    return {
        "part": part,
        "task": task,
        "quality": quality,
        "document": document,
        "question": question.text,
        "type": "boolean" if question.answer in {"yes", "no"} and not question.copied else "text",
        "choices": list(question.options),
        "answers": [question.answer] if answerable else [],
        "evidence": [{"page": page, "box": list(scanned.box(box).xyxy)} for box in asked.boxes],
        "answerable": answerable,
    }


def _image_file(image: Image.Image, quality: Quality) -> bytes:
    file = io.BytesIO()
    if quality == "clean":
        image.save(file, "PNG", dpi=(DPI, DPI))
    else:
        image.save(file, "JPEG", quality=JPEG[quality], dpi=(DPI, DPI))
    return file.getvalue()


def pdf_file(images: Sequence[Image.Image], look: Look) -> bytes:
    """Pages of their own size at the raster's resolution, so that a pixel of the scan is a pixel of the raster."""
    file = io.BytesIO()
    first, *others = images
    first.save(
        file,
        "PDF",
        save_all=True,
        append_images=others,
        resolution=DPI,
        quality=JPEG[look],
        creationDate=EPOCH,
        modDate=EPOCH,
    )
    return file.getvalue()
