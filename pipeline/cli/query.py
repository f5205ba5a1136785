"""Commands that read the store: ``answers``, ``evidence``, ``show``, ``export``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.options import Commands, add_command, add_database, settings_of
from pipeline.cli.tables import FORMATS, print_records, print_rows
from pipeline.errors import UsageError
from pipeline.geometry import UnitBox

if TYPE_CHECKING:
    from pipeline.drawing import DrawnAnswer, DrawnStep
    from pipeline.store import AnswerTrace, PageTrace, StoredEvidence

MAX_PAGE = 10_000_000


def add_parsers(commands: Commands) -> None:
    """Add the commands."""
    answers = add_command(commands, "answers", "list stored answers", "exhibit answers --status not_found --format csv")
    _add_filters(answers)
    answers.add_argument("--status", metavar="S", help="answered, not_found, abstained, skipped or failed")
    answers.set_defaults(handler=list_answers)

    evidence = add_command(
        commands, "evidence", "list stored evidence boxes", "exhibit evidence --region 0.5,0.7,1,1 --min-score 0.2"
    )
    _add_filters(evidence)
    evidence.add_argument("--page", type=int, metavar="N", help="1-based")
    evidence.add_argument("--region", metavar="x0,y0,x1,y1", help="overlapping this part of the page, 0-1, top-left origin")
    evidence.add_argument("--min-score", type=float, metavar="S", help="at least this share of the round's saliency, 0-1")
    evidence.set_defaults(handler=list_evidence)

    show = add_command(
        commands, "show", "draw an answer: page, boxes, map and search", "exhibit show 3f2a9c01d4e5-1 -o why.png"
    )
    show.add_argument("answer", metavar="ANSWER", help="answer id, as listed")
    show.add_argument("-o", "--output", metavar="FILE", help="PNG to write (default: ANSWER.png)")
    add_database(show)
    show.set_defaults(handler=show_answer)

    export = add_command(
        commands, "export", "write a batch's answers to a file", "exhibit export 3f2a9c01d4e5 --format xlsx --wide"
    )
    export.add_argument("batch", metavar="BATCH")
    export.add_argument("--format", choices=("jsonl", "csv", "xlsx", "parquet"), default="jsonl")
    export.add_argument("--wide", action="store_true", help="a row per document, a column per question (csv, xlsx)")
    export.add_argument("-o", "--output", metavar="FILE", help="file to write (default: BATCH.FORMAT)")
    add_database(export)
    export.set_defaults(handler=export_batch)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch", metavar="B", help="batch id")
    parser.add_argument("--question", metavar="Q", help="question id")
    parser.add_argument("--document", metavar="D", help="path, base name or glob")
    parser.add_argument("--format", choices=FORMATS, default="table")
    add_database(parser)


def list_answers(arguments: argparse.Namespace) -> int:
    """Print stored answers, in document then list order."""
    from pipeline.records import AnswerStatus
    from pipeline.store import Store

    if arguments.status is not None and arguments.status not in set(AnswerStatus):
        raise UsageError(f"--status {arguments.status}: expected one of {', '.join(AnswerStatus)}")
    with Store.open(settings_of(arguments).db_url) as store:
        found = store.records(
            batch=arguments.batch, document=arguments.document, question=arguments.question, status=arguments.status
        )
        print_records(found, arguments.format)
    return 0


def list_evidence(arguments: argparse.Namespace) -> int:
    """Print stored evidence boxes."""
    from pipeline.store import EvidenceFilter, Store

    if arguments.page is not None and not 1 <= arguments.page <= MAX_PAGE:
        raise UsageError(f"--page {arguments.page}: expected a page number, counted from 1")
    if arguments.min_score is not None and not 0 <= arguments.min_score <= 1:
        raise UsageError(f"--min-score {arguments.min_score}: expected a share from 0 to 1")
    wanted = EvidenceFilter(
        batch=arguments.batch,
        document=arguments.document,
        page=arguments.page,
        question=arguments.question,
        region=_region(arguments.region),
        min_score=arguments.min_score,
    )
    with Store.open(settings_of(arguments).db_url) as store:
        found = store.evidence(wanted)
        if arguments.format == "jsonl":
            for evidence in found:
                boxes = {"box_px": evidence.box_px.xyxy, "box": evidence.box.xyxy}  # as in a record
                print(json.dumps({**dataclasses.asdict(evidence), **boxes}, ensure_ascii=False))
        else:
            header = ("document", "question", "answer", "page", "rank", "box (0-1)", "score", "answer id")
            print_rows(header, (_evidence_row(evidence) for evidence in found), arguments.format)
    return 0


def _evidence_row(evidence: StoredEvidence) -> tuple[object, ...]:
    box = ",".join(f"{edge:.3f}" for edge in evidence.box.xyxy)
    return (
        evidence.document,
        evidence.question_id,
        evidence.answer or "",
        evidence.page,
        evidence.rank,
        box,
        f"{evidence.score:.2f}",
        evidence.answer_id,
    )


def _region(text: str | None) -> UnitBox | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--region {text}: expected four numbers x0,y0,x1,y1 between 0 and 1") from error
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(f"--region {text}: expected 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1")
    return UnitBox(x0, y0, x1, y1)


def show_answer(arguments: argparse.Namespace) -> int:
    """Draw an answer to a PNG and print where it is."""
    from pipeline.drawing import draw_answer
    from pipeline.store import Store

    with Store.open(settings_of(arguments).db_url) as store:
        trace = store.answer_trace(arguments.answer)
    output = Path(arguments.output or f"{arguments.answer}.png")
    try:
        draw_answer(drawn(trace)).save(output, format="PNG")
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be written: {error}") from error
    print(output)
    return 0


def drawn(trace: AnswerTrace) -> DrawnAnswer:
    """What to draw of a stored answer: the page that speaks for it.

    Raises:
        UsageError: No page raster is stored, since there was no evidence.
    """
    import io

    from PIL import Image

    from pipeline.drawing import DrawnAnswer

    record = trace.record
    page = next((page for page in trace.pages if page.raster_png is not None), None)
    if page is None or page.raster_png is None:
        raise UsageError(f"answer {record['answer_id']} is {record['status']} and has no evidence to draw")
    return DrawnAnswer(
        page=Image.open(io.BytesIO(page.raster_png), formats=["PNG"]),
        title=_title(trace, page),
        evidence=tuple((item.box_px, f"{item.rank}  score {item.score:.2f}") for item in page.evidence),
        steps=_drawn_steps(page),
        spotlight=record["provenance"]["method"] == "spot-e",
    )


def _title(trace: AnswerTrace, page: PageTrace) -> tuple[str, ...]:
    record = trace.record
    certainty = record["signals"]["mean_logprob"]
    lines = [
        f"{Path(record['document']).name}, page {page.number}",
        record["question"],
        f"{record['status']}: {record['answer']['text'] if record['answer'] else ''}",
    ]
    if certainty is not None:
        lines.append(f"mean log-probability {certainty:.2f}")
    return tuple(lines)


def _drawn_steps(page: PageTrace) -> tuple[DrawnStep, ...]:
    from pipeline.drawing import DrawnStep

    return tuple(
        DrawnStep(
            caption=(
                f"round {step.round}: {_counted(len(step.views), 'view')}, token entropy {step.token_entropy:.2f}"
                + ("" if step.spatial_entropy is None else f", spatial {step.spatial_entropy:.2f}")
                + (f", stop: {step.stop_reason}" if step.stop_reason else "")
            ),
            maps=step.maps,
            selected=tuple(region.box for region in step.regions),
        )
        for step in page.steps
    )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def export_batch(arguments: argparse.Namespace) -> int:
    """Write a batch's records to a file and print where it is."""
    from pipeline.export import export_records
    from pipeline.store import Store

    if arguments.wide and arguments.format not in {"csv", "xlsx"}:
        raise UsageError(f"--wide goes with csv and xlsx, not {arguments.format}")
    output = Path(arguments.output or f"{arguments.batch}.{arguments.format}")
    with Store.open(settings_of(arguments).db_url) as store:
        records, questions = store.records(batch=arguments.batch), store.question_ids(arguments.batch)
        count = export_records(records, output, arguments.format, wide=arguments.wide, questions=questions)
    print(output)
    print(f"exhibit: {count} records", file=sys.stderr)
    return 0
