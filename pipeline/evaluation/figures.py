"""The papers' figures, drawn on our own pages: SVG that needs nothing else.

Numbers are those of arXiv:2604.08456v1. What a figure shows is computed when it is drawn, on a few questions of the pages
benchmark. Which ones, results decide where there are any (a figure that compares right with wrong needs such questions), and
the first questions of different tasks where there are none; a figure says how its questions were chosen.
"""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.answer import answer_page
from pipeline.config import SaliencyConfig
from pipeline.drawing import heat
from pipeline.errors import UsageError
from pipeline.evaluation.ablations import fits
from pipeline.evaluation.arms import REFERENCE, parse_arm
from pipeline.evaluation.datasets import Example
from pipeline.evaluation.html import FIRST, OTHER, TRUTH
from pipeline.evaluation.report import LARGE, Row
from pipeline.evaluation.results import DIGITS, Result
from pipeline.evaluation.selection import Selection, document_bytes, document_name, in_turn, png
from pipeline.evaluation.tables import prompt_of
from pipeline.geometry import Box
from pipeline.methods.base import prompt_text
from pipeline.pages import PageSource
from pipeline.records import Answer, Page, Step, View
from pipeline.saliency import entropy_saliency
from pipeline.store import StoredMap
from pipeline.vlms.base import Prompt, Vlm

RELATIVE_ATTENTION, PURE_GRADIENT = "vicrop", "vicrop+variant=pure-grad"
EXAMPLES = 3
GRADIENT_QUESTIONS = 8
PANEL_WIDTH, PANEL_HEIGHT, CAPTION, GAP = 300, 400, 64, 16
LINE, TITLE = 15, 46
SAID = 60
"""Characters of an answer that are shown."""
NOTE_CHARACTER = 6
"""Width of a character of a note, in px, on average."""
CHART_WIDTH, CHART_HEIGHT, MARGIN = 640, 400, 64
MARKS = "Boxes: green, the true place; red, the best region; blue, other regions. Tinted red: where the map is high."


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """A picture with lines of text below it."""

    picture: Image.Image
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """What figures are drawn from.

    Attributes:
        selection: Questions of the pages benchmark.
        models: The first draws every figure; all of them are compared by the one that compares models.
        results: Of any arm and model; they choose questions.
    """

    selection: Selection
    models: Sequence[Vlm]
    results: Sequence[Result] = ()
    _pages: dict[tuple[str, int], Page] = field(default_factory=dict)

    @property
    def vlm(self) -> Vlm:
        """The model that draws."""
        return self.models[0]

    def page(self, example: Example) -> Page:
        """The page that holds the question's answer."""
        key = document_name(example), example.evidence[0].page if example.evidence else 1
        if key not in self._pages:
            with PageSource(document_bytes(example), key[0]) as source:
                self._pages[key] = source.page(key[1])
        return self._pages[key]

    def facts(self, count: int) -> str:
        """What a reader must know of a figure: of how many questions it is, of which pages, with which weights."""
        weights = ", ".join(
            f"{Path(vlm.identity.name).name} {vlm.identity.weights_sha256[:DIGITS]} ({vlm.identity.dtype})"
            for vlm in self.models
        )
        return f"n = {count} questions of benchmark {self.selection.sha256[:DIGITS]}; weights: {weights}."

    def answer(self, example: Example, arm: str, vlm: Vlm | None = None) -> Answer:
        """An arm's answer about that page."""
        model = vlm or self.vlm
        config = parse_arm(arm, model.identity.family, prompt_of(self.selection.dataset.name)).config
        (answer,) = answer_page(model, self.page(example), [example.question], config)
        return answer

    def known(self, arm: str) -> dict[str, Row]:
        """Results of an arm and the model that draws, by question."""
        model, benchmark = self.vlm.identity, self.selection.sha256[:DIGITS]
        config = parse_arm(arm, model.family, prompt_of(self.selection.dataset.name)).sha256[:DIGITS]
        asked = benchmark, "", model.weights_sha256[:DIGITS], model.dtype, config
        return {result.example: Row(result) for result in self.results if result.key == (*asked, result.example)}

    def chosen(self, fits: Callable[[str], bool], count: int = EXAMPLES) -> tuple[list[Example], bool]:
        """Questions with a true box that fit, of different tasks first; whether there were any that fit.

        Raises:
            UsageError: No question has a true box.
        """
        located = [example for example in self.selection.examples if example.evidence]
        if not located:
            raise UsageError(f"{self.selection.dataset.folder}: no question has a true box to draw")
        found = [example for example in located if fits(example.example_id)]
        return in_turn(self.selection.dataset.folder, found or located)[:count], bool(found)


def figure(number: int, studio: Studio) -> str:
    """Draw a figure of the paper, a key of `FIGURES`, on our own pages; return it as SVG."""
    return FIGURES[number](studio)


def relative_attention(studio: Studio) -> str:
    """Figure 3: relative attention against the entropy's gradient."""
    attention = _attention_arm(studio.vlm)
    ours, theirs = studio.known(REFERENCE), studio.known(attention)

    def apart(example: str) -> bool:
        return example in ours and example in theirs and ours[example].right and not theirs[example].right

    examples, fits = studio.chosen(apart)
    rows = [
        [
            _asked(studio, example),
            _mapped(studio, example, attention, "relative attention (ViCrop)"),
            _mapped(studio, example, REFERENCE, "entropy gradient"),
        ]
        for example in examples
    ]
    return _sheet(studio, "Figure 3. Relative attention against entropy gradient", _how(fits, "only ours is right"), rows)


def _attention_arm(vlm: Vlm) -> str:
    """ViCrop, in the middle of a model that has fewer blocks than its family usually has."""
    usual = fits(parse_arm(RELATIVE_ATTENTION, vlm.identity.family), vlm.blocks)
    return RELATIVE_ATTENTION if usual else f"{RELATIVE_ATTENTION}+block={vlm.blocks // 2}"


def refinement(studio: Studio) -> str:
    """Figure 5: found at once and refined; found after a wrong start; several places."""
    known = studio.known(REFERENCE)
    cases: list[tuple[str, Callable[[Row], bool]]] = [
        ("found at once, then refined", lambda row: _first_hit(row) and row.any_hit and row.result.rounds > 1),
        ("a wrong start, then found", lambda row: not _first_hit(row) and row.any_hit),
        ("several places", lambda row: len(row.result.truths) > 1 and row.any_hit),
    ]
    rows, notes = [], []
    used: set[str] = set()
    for label, holds in cases:
        examples, fits = studio.chosen(lambda name, holds=holds: name in known and holds(known[name]), EXAMPLES + 1)  # type: ignore[misc]
        # The same question may stand for two cases where there is no other.
        example = next((one for one in examples if one.example_id not in used), examples[0])
        used.add(example.example_id)
        notes.append(f"{label}: {'chosen by results' if fits else 'no such result, another question'}")
        rows.append([_asked(studio, example), *_rounds(studio.answer(example, REFERENCE))])
    return _sheet(studio, "Figure 5. Refinement round by round", f"{'; '.join(notes)}.", rows)


def _first_hit(row: Row) -> bool:
    first = row.result.first_regions[:1]
    return any(first[0].contains((t.x0 + t.x1) / 2, (t.y0 + t.y1) / 2) for t in row.result.truths) if first else False


def models(studio: Studio) -> str:
    """Figure 6: maps of several models for the same questions."""
    examples, _ = studio.chosen(lambda name: False)
    rows = [
        [
            _asked(studio, example),
            *(
                _mapped(studio, example, REFERENCE, f"{Path(vlm.identity.name).name} {vlm.identity.weights_sha256[:8]}", vlm)
                for vlm in studio.models
            ),
        ]
        for example in examples
    ]
    return _sheet(studio, "Figure 6. The entropy's gradient in several models", _how(False, ""), rows)


def magnitudes(studio: Studio) -> str:
    """Figure 7: how large the gradient is at the visual tokens' states entering each block."""
    examples = in_turn(studio.selection.dataset.folder, studio.selection.examples)[:GRADIENT_QUESTIONS]
    means = np.array([[_magnitude(studio, example, leaf) for leaf in range(studio.vlm.blocks)] for example in examples])
    lines = {"mean over questions": means.mean(axis=0), "largest of all questions": means.max(axis=0)}
    return _chart(
        "Figure 7. The entropy's gradient at the states that enter each block",
        ("Norm at a visual token, in nats per unit of its state; mean over the page's tokens.", studio.facts(len(examples))),
        "entering block (0: the embeddings)",
        lines,
    )


def _magnitude(studio: Studio, example: Example, leaf: int) -> float:
    """Mean norm of the gradient over the page's visual tokens."""
    config = parse_arm(REFERENCE, studio.vlm.identity.family).config
    view = View.whole(studio.page(example))
    (tokens,) = studio.vlm.encode([view.image])
    prompt = Prompt((tokens,), prompt_text(example.question, config.answer))
    (gaze,) = entropy_saliency(studio.vlm, [prompt], [[view]], SaliencyConfig(leaf=leaf))
    studio.vlm.forget()
    return gaze.maps[0].total / tokens.count


def decoding_steps(studio: Studio) -> str:
    """Figure 8: maps of the first to the fourth token of the answer."""
    examples, _ = studio.chosen(lambda name: False)
    arms = [REFERENCE, *(f"{REFERENCE}+decoding_step={step}" for step in (2, 3, 4))]
    rows = [
        [_asked(studio, example)]
        + [_mapped(studio, example, arm, f"token {step}") for step, arm in enumerate(arms, start=1)]
        for example in examples
    ]
    return _sheet(studio, "Figure 8. Maps of the answer's first four tokens", _how(False, ""), rows)


def pure_gradient(studio: Studio) -> str:
    """Figure 9: the gradient at the pixels against that at the embeddings."""
    examples, _ = studio.chosen(lambda name: False)
    arms = {
        PURE_GRADIENT: "pure-grad (ViCrop)",
        f"{REFERENCE}+at=pixels": "entropy, at the pixels",
        REFERENCE: "entropy, at the embeddings",
    }
    rows = [
        [_asked(studio, example), *(_mapped(studio, example, arm, label) for arm, label in arms.items())]
        for example in examples
    ]
    return _sheet(studio, "Figure 9. Gradient at the pixels and at the embeddings", _how(False, ""), rows)


def misread(studio: Studio) -> str:
    """Figure 13: the right place in a detailed crop, and a wrong answer."""
    known = studio.known(REFERENCE)
    examples, fits = studio.chosen(lambda name: name in known and known[name].hit(LARGE) and not known[name].right)
    rows = []
    for example in examples:
        answer = studio.answer(example, REFERENCE)
        crops = [
            Panel(_fitted(studio.page(example).image.crop(evidence.box.xyxy)), (f"crop {evidence.rank}",))
            for evidence in answer.evidence
        ]
        rows.append([_asked(studio, example), _map_panel(answer, 0, "first round", _said(answer)), *crops])
    return _sheet(studio, "Figure 13. The right place, read wrongly", _how(fits, "hit, and wrong"), rows)


FIGURES: Mapping[int, Callable[[Studio], str]] = {
    3: relative_attention,
    5: refinement,
    6: models,
    7: magnitudes,
    8: decoding_steps,
    9: pure_gradient,
    13: misread,
}


def _how(fits: bool, what: str) -> str:
    return (
        f"Questions chosen by results: {what}." if fits else "The first questions of different tasks, not chosen by results."
    )


def _asked(studio: Studio, example: Example) -> Panel:
    """The page with its true boxes, and the question."""
    page = studio.page(example)
    boxes = [(box, TRUTH) for box in example.boxes_on(page.number, (page.width, page.height))]
    accepted = " | ".join(dict.fromkeys(example.references)) or "not there"
    return Panel(_boxed(page.image, boxes), (f"Q: {example.question.text}", f"A: {accepted}"))


def _mapped(studio: Studio, example: Example, arm: str, label: str, vlm: Vlm | None = None) -> Panel:
    """The first round's map of an arm with the regions found in it, and the arm's answer."""
    answer = studio.answer(example, arm, vlm)
    return _map_panel(answer, 0, label, _said(answer)) if answer.steps else _failed(studio, example, label, answer)


def _failed(studio: Studio, example: Example, label: str, answer: Answer) -> Panel:
    reason = answer.failure.code if answer.failure else "no map"
    return Panel(_boxed(studio.page(example).image, []), (label, reason))


def _said(answer: Answer) -> str:
    text = "not found" if answer.not_found else answer.text or (answer.failure.code if answer.failure else "")
    return f"says: {text if len(text) <= SAID else text[:SAID] + '…'}"


def _rounds(answer: Answer) -> Iterator[Panel]:
    for place, step in enumerate(answer.steps):
        entropy = "" if step.spatial_entropy is None else f", spatial entropy {step.spatial_entropy:.2f}"
        last = place == len(answer.steps) - 1
        reason = str(step.stop_reason or "").replace("_", " ")
        below = f"stop: {reason}; {_said(answer)}" if last else ""
        yield _map_panel(answer, place, f"round {step.round}{entropy}", below)


def _map_panel(answer: Answer, place: int, label: str, below: str) -> Panel:
    step: Step = answer.steps[place]
    page = step.maps[0].view.page if step.maps else None
    if page is None:
        return Panel(Image.new("RGB", (PANEL_WIDTH, PANEL_HEIGHT), "white"), (label, "no map", below))
    size = _size(page.image)
    stored = [StoredMap(found.view.box, found.grid, found.values) for found in step.maps]
    picture = heat(page.image, stored, size)
    boxes = [(region.box, FIRST if rank == 0 else OTHER) for rank, region in enumerate(step.regions)]
    return Panel(_outlined(picture, boxes, size[0] / page.width), (label, below))


def _size(image: Image.Image) -> tuple[int, int]:
    scale = min(PANEL_WIDTH / image.width, PANEL_HEIGHT / image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _fitted(image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize(_size(image), Image.Resampling.LANCZOS)


def _boxed(image: Image.Image, boxes: Sequence[tuple[Box, tuple[int, int, int]]]) -> Image.Image:
    return _outlined(_fitted(image), boxes, _size(image)[0] / image.width)


def _outlined(picture: Image.Image, boxes: Sequence[tuple[Box, tuple[int, int, int]]], scale: float) -> Image.Image:
    pen = ImageDraw.Draw(picture)
    for box, colour in reversed(boxes):
        x0, y0, x1, y1 = (edge * scale for edge in box.xyxy)
        right, bottom = min(max(x1, x0) + 1, picture.width - 1), min(max(y1, y0) + 1, picture.height - 1)
        pen.rectangle((max(x0 - 2, 0), max(y0 - 2, 0), right, bottom), outline=colour, width=2)
    return picture


def _sheet(studio: Studio, title: str, note: str, rows: Sequence[Sequence[Panel]]) -> str:
    """Panels in a grid."""
    cols = max(map(len, rows), default=1)
    width = cols * (PANEL_WIDTH + GAP) + GAP
    notes = _notes(width, note, MARKS, studio.facts(len(rows)))
    top = _below(notes)
    parts = _head(width, top + len(rows) * (PANEL_HEIGHT + CAPTION + GAP), title, notes)
    for row, panels in enumerate(rows):
        for col, panel in enumerate(panels):
            parts += _placed(panel, GAP + col * (PANEL_WIDTH + GAP), top + row * (PANEL_HEIGHT + CAPTION + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _notes(width: int, *notes: str) -> list[str]:
    """Notes in lines that fit."""
    return [line for note in notes for line in _wrapped(note, (width - 2 * GAP) // NOTE_CHARACTER)]


def _below(notes: Sequence[str]) -> int:
    """Where there is room under the title and its notes."""
    return TITLE + LINE * len(notes)


def _head(width: int, height: int, title: str, notes: Sequence[str]) -> list[str]:
    below = [
        f'<text x="{GAP}" y="{44 + LINE * place}" font-size="12" fill="#555">{escape(note)}</text>'
        for place, note in enumerate(notes)
    ]
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{GAP}" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
        *below,
    ]


def _placed(panel: Panel, x: int, y: int) -> list[str]:
    data = base64.b64encode(png(panel.picture)).decode()
    width, height = panel.picture.size
    frame = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    # A frame, since white pages lie on white.
    parts = [f'<image {frame} href="data:image/png;base64,{data}"/>', f'<rect {frame} fill="none" stroke="#bbb"/>']
    lines = [piece for line in panel.lines if line for piece in _wrapped(line)]
    for place, line in enumerate(lines[: CAPTION // LINE]):
        parts.append(f'<text x="{x}" y="{y + height + LINE * (place + 1)}" font-size="12">{escape(line)}</text>')
    return parts


def _wrapped(line: str, width: int = 42) -> list[str]:
    return textwrap.wrap(line, width) or [""]


COLOURS = ("#b04a2f", "#2f6fb0", "#3a8a4a", "#8a4a9a")


def _chart(title: str, notes: Sequence[str], along: str, lines: Mapping[str, np.ndarray]) -> str:
    """Lines over whole numbers from 0, the vertical axis from 0."""
    highest = max((float(values.max()) for values in lines.values()), default=0.0) or 1.0
    count = max(len(values) for values in lines.values())
    told = _notes(CHART_WIDTH, *notes)
    floor, top = CHART_HEIGHT - MARGIN, _below(told) + LINE * len(lines) + GAP
    across, up = (CHART_WIDTH - 2 * MARGIN) / max(count - 1, 1), (floor - top) / highest
    parts = _head(CHART_WIDTH, CHART_HEIGHT, title, told)
    for share in (0.0, 0.5, 1.0):
        y = floor - up * share * highest
        parts.append(f'<line x1="{MARGIN}" x2="{CHART_WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"/>')
        label = f"{share * highest:.3g}"
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" font-size="12" text-anchor="end">{label}</text>')
    for place in range(count):
        x = MARGIN + across * place
        parts.append(f'<text x="{x:.1f}" y="{floor + 16}" font-size="12" text-anchor="middle">{place}</text>')
    for (name, values), colour, row in zip(lines.items(), COLOURS, range(len(lines)), strict=False):
        points = " ".join(f"{MARGIN + across * place:.1f},{floor - up * value:.1f}" for place, value in enumerate(values))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(
            f'<text x="{MARGIN}" y="{_below(told) + 8 + LINE * row}" font-size="12" fill="{colour}">{escape(name)}</text>'
        )
    middle = CHART_WIDTH // 2
    parts.append(f'<text x="{middle}" y="{CHART_HEIGHT - 16}" font-size="12" text-anchor="middle">{escape(along)}</text>')
    return "\n".join([*parts, "</svg>", ""])
