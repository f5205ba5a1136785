"""A report as one page of HTML that needs nothing else: the tables, and what single questions look like.

Every text is escaped, pictures are PNGs inside the page, and there is no script and no address of anything outside.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image, ImageDraw

from pipeline.errors import DocumentError
from pipeline.evaluation.datasets import Example
from pipeline.evaluation.report import LARGE, Row, Scores, baseline, facts, paired, tables, title
from pipeline.evaluation.selection import Selection, document_bytes, document_name, png
from pipeline.pages import PageSource
from pipeline.records import Page

EXAMPLES = 3
"""Of each kind and arm: a page with hundreds of pictures is opened by nobody."""
HEIGHT_PX = 520
COLOURS = 128
"""Of a picture; a page of print needs no more, and the file is a third as large."""
TRUTH, FIRST, OTHER = (16, 128, 72), (208, 32, 48), (32, 96, 208)

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1a1a1a }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
figure { display: inline-block; vertical-align: top; margin: .5rem 1rem .5rem 0; max-width: 24rem }
figure img { max-width: 100%; border: 1px solid #ccc }
figcaption { font-size: 13px; overflow-wrap: anywhere }
.right { color: #0f7a45 } .wrong { color: #b3202f }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(selection: Selection, scores: Mapping[str, Scores], notes: Sequence[str] = ()) -> str:
    """The report of some arms as HTML.

    Args:
        selection: The questions, for their words and documents.
        scores: By arm.
        notes: Further facts about the run.
    """
    heading = escape(f"Exhibit: {title(scores)}")
    parts = [f"<h1>{heading}</h1>", "<ul>", *(f"<li>{escape(fact)}</li>" for fact in facts(scores, notes)), "</ul>"]
    for name, about, header, rows in tables(scores):
        parts.append(f"<h2>{escape(name)}</h2>" + (f"<p>{escape(about.strip())}</p>" if about else ""))
        parts.append(_table(header, rows))
    parts += _Pictures(selection).sections(scores)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, slots=True)
class _Pair:
    """An arm's answer, and another's to the same question, with that arm's name."""

    row: Row
    other: str = ""
    theirs: Row | None = None


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Questions of one kind that an arm answered."""

    heading: str
    pairs: Sequence[_Pair]


def chosen(scores: Mapping[str, Scores]) -> Iterator[_Chosen]:
    """What is worth looking at of each arm: wins over plain, losses to it, and places found that were misread.

    Without plain, arms are compared with the first one.
    """
    first, *_ = scores
    plains = {name: found for name in scores if (found := baseline(scores, name)) is not None}
    for name, arm in scores.items():
        other, rival = ("plain", plains.get(name)) if plains else (first, scores[first])
        if rival is not None and arm is not rival:
            answers = paired(arm, rival)
            wins = [_Pair(row, other, theirs) for row, theirs in answers if row.right and not theirs.right]
            losses = [_Pair(row, other, theirs) for row, theirs in answers if theirs.right and not row.right]
            yield _Chosen(f"{name}: right where {other} is wrong ({len(wins)})", _first(wins))
            yield _Chosen(f"{name}: wrong where {other} is right ({len(losses)})", _first(losses))
        yield _Chosen(f"{name}: examples", _first([_Pair(row) for row in arm.located]))
        misread = [_Pair(row) for row in arm.located if row.hit(LARGE) and not row.right]
        yield _Chosen(f"{name}: looked at the right place and wrong ({len(misread)})", _first(misread))


def _first(pairs: Sequence[_Pair]) -> list[_Pair]:
    """Of different groups first, so that not all are of one kind."""
    seen: dict[str, int] = {}
    ranked = []
    for place, pair in enumerate(pairs):
        group = pair.row.result.group
        seen[group] = seen.get(group, 0) + 1
        ranked.append((seen[group], place))
    return [pairs[place] for _, place in sorted(ranked)[:EXAMPLES]]


class _Pictures:
    """Draws the pages of questions, each document once."""

    def __init__(self, selection: Selection) -> None:
        self.examples = {example.example_id: example for example in selection.examples}
        self.drawn: dict[tuple[str, int], Page | None] = {}

    def sections(self, scores: Mapping[str, Scores]) -> list[str]:
        parts = []
        for kind in chosen(scores):
            if kind.pairs:
                parts.append(f"<h2>{escape(kind.heading)}</h2>")
                parts += [self._figure(pair) for pair in kind.pairs]
        if parts:
            parts.insert(0, "<p>Pictures: true boxes green, the first region red, other regions blue.</p>")
        return parts

    def _figure(self, pair: _Pair) -> str:
        row = pair.row
        example = self.examples[row.result.example]
        lines = [f"<b>{escape(example.question.text)}</b>", f"accepted: {escape(_accepted(example))}", _said(row)]
        if pair.theirs is not None:
            lines.append(f"{escape(pair.other)}: {_said(pair.theirs)}")
        picture = self._picture(example, row)
        image = (
            f'<img alt="{escape(row.result.example, quote=True)}" src="data:image/png;base64,{picture}">' if picture else ""
        )
        return f"<figure>{image}<figcaption>{'<br>'.join(lines)}</figcaption></figure>"

    def _picture(self, example: Example, row: Row) -> str:
        if row.result.page is None:
            return ""
        drawn = self._page(example, row.result.page)
        return "" if drawn is None else base64.b64encode(png(overlay(drawn.image, row).quantize(COLOURS))).decode()

    def _page(self, example: Example, number: int) -> Page | None:
        key = document_name(example), number
        if key not in self.drawn:
            try:
                with PageSource(document_bytes(example), key[0]) as source:
                    self.drawn[key] = source.page(number)
            except DocumentError:
                self.drawn[key] = None
        return self.drawn[key]


def _accepted(example: Example) -> str:
    return " | ".join(dict.fromkeys(example.references)) or "nothing: it is not there"


def _said(row: Row) -> str:
    result = row.result
    text = result.failure or ("not found" if result.not_found else result.text or "")
    return f'<span class="{"right" if row.right else "wrong"}">{escape(text)}</span>'


def overlay(image: Image.Image, row: Row) -> Image.Image:
    """A page with its true boxes and the regions that were shown, scaled down."""
    scale = min(1.0, HEIGHT_PX / image.height)
    picture = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    pen = ImageDraw.Draw(picture)
    boxes = [(box, OTHER) for box in row.result.regions[1:]] + [(box, FIRST) for box in row.result.regions[:1]]
    boxes += [(box, TRUTH) for box in row.result.truths]
    for box, colour in boxes:
        x0, y0, x1, y1 = (edge * scale for edge in box.xyxy)
        pen.rectangle((x0 - 2, y0 - 2, max(x1, x0) + 1, max(y1, y0) + 1), outline=colour, width=2)
    return picture
