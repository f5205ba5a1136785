"""Put documents of other programs into the benchmark's form: `python -m ops.bench_pages.foreign`.

`ops/foreign` made them; the training never sees them. Then: `exhibit eval pages --data .bench/foreign`, where a task is the
program that wrote the document. True boxes come from the text layer and are turned into pixels of the raster here.
`--look photograph` prints the same documents and photographs them (`--data .bench/foreign-photograph`), `--look fair` and
`poor` scan them as the benchmark's pages are.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ops.bench_pages.build import pdf_file
from ops.bench_pages.scan import LOOKS, Look, Scan, scan
from pipeline.evaluation.pages import QUESTIONS, read_benchmark
from pipeline.geometry import UnitBox, from_unit
from pipeline.pages import PageSource, read_document

SOURCE = Path("ops/foreign/documents")
TARGET = Path(".bench/foreign")


def convert(source: Path, target: Path, look: Look = "clean") -> None:
    """Write `target`, which is replaced if it is there: the documents as they are, or pictures of their pages."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    expected = json.loads((source / "expected.json").read_text(encoding="utf-8"))
    asked = [json.loads(line) for line in (source / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = []
    for document in sorted(expected):
        questions = [question for question in asked if question["document"] == document]
        pages = _pages(source / document, look)
        if look == "clean":
            shutil.copyfile(source / document, target / document)
        else:
            (target / document).write_bytes(pdf_file([page.image for page in pages.values()], look))
        lines += list(_records(document, look, pages, questions, expected[document]))
    (target / QUESTIONS).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def _pages(path: Path, look: Look) -> dict[int, Scan]:
    rng = random.Random(f"foreign/{look}/{path.name}")
    with PageSource(read_document(path), path.name) as source:
        papers = {page.number: page.image.convert("L") for page in source.pages()}
    return {number: scan(paper, look, rng) for number, paper in papers.items()}


def _records(
    document: str, look: Look, pages: dict[int, Scan], questions: list[dict[str, str]], expected: dict[str, dict[str, Any]]
) -> Iterator[dict[str, object]]:
    name = Path(document).stem
    producer = name.rsplit("-", 1)[1]
    for question in questions:
        answer = expected[question["question_id"]]
        places = []
        if answer["page"] is not None:
            page = pages[answer["page"]]
            box = page.box(from_unit(UnitBox(*answer["box"]), *page.image.size).xyxy)
            places = [{"page": answer["page"], "box": list(box.xyxy)}]
        yield {
            "id": f"test/{producer}/{look}/{name}/{question['question_id']}",
            "part": "test",
            "task": producer,
            "quality": look,
            "document": document,
            "question": question["question"],
            "type": question["type"],
            "choices": [],
            "answers": [answer["text"]] if answer["text"] is not None else [],
            "evidence": places,
            "answerable": answer["text"] is not None,
        }


def main() -> None:
    """Parse the command line and convert."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench_pages.foreign", description=__doc__)
    parser.add_argument("--source", type=Path, default=SOURCE, help=f"default: {SOURCE}")
    parser.add_argument(
        "--folder", type=Path, help=f"replaced (default: {TARGET}, with the look behind it if it is not clean)"
    )
    parser.add_argument("--look", choices=LOOKS, default="clean", help="default: clean, the documents as they are")
    arguments = parser.parse_args()
    behind = "" if arguments.look == "clean" else f"-{arguments.look}"
    folder = arguments.folder or TARGET.with_name(TARGET.name + behind)
    convert(arguments.source, folder, arguments.look)
    benchmark = read_benchmark(folder)
    print(f"{folder}: {len(benchmark.items)} questions, {benchmark.sha256}")


if __name__ == "__main__":
    main()
