"""A page whose every character's place is known: text runs, shapes, and what they mean.

Coordinates are pixels of the 200 dpi raster, y down. Characters are numbered in the order in which they were written; a
`Span` is a range of those numbers and stays valid whatever view of the page is taken.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ops.train.faces import Face
from pipeline.vlms.embedded.alphabet import BOXES, CHARACTER_CLASS

DPI = 200
PX_PER_PT = DPI / 72

Box = tuple[float, float, float, float]
Span = tuple[int, int]


@dataclass(frozen=True)
class Style:
    """How a run of text looks.

    Attributes:
        face: the typeface.
        size_px: em in pixels.
        tracking_px: added to every advance.
        grey: ink, 0 is black.
    """

    face: Face
    size_px: float
    tracking_px: float = 0.0
    grey: int = 0


@dataclass(frozen=True)
class Run:
    """Characters on one baseline."""

    text: str
    style: Style
    x: float
    baseline: float
    span: Span


@dataclass(frozen=True)
class Shape:
    """A rule, a frame or a filled area."""

    box: Box
    fill: int | None
    outline: int | None
    width: int = 1
    ellipse: bool = False


@dataclass(frozen=True)
class Stroke:
    """A line drawn by hand or by machine; not text, even where it looks like it."""

    points: tuple[tuple[float, float], ...]
    grey: int
    width: int


@dataclass(frozen=True)
class Stamp:
    """Slanted text in a frame, pressed on the paper before the print; nothing on it is asked for.

    Attributes:
        text: a word or two.
        style: its look.
        centre: of the frame.
        degrees: counter-clockwise.
        ellipse: whether the frame is round.
    """

    text: str
    style: Style
    centre: tuple[float, float]
    degrees: float
    ellipse: bool


@dataclass(frozen=True)
class Field:
    """A value and what names it.

    Attributes:
        name: canonical name from `words.FIELDS`, or "" if the label is from the open vocabulary.
        kind: kind of the value, as in `words.KINDS`.
        label: the words that name the value, as printed but without colon.
        value: the value as printed, lines joined by a space.
        label_spans: where the label stands (several parts for a table's row and column).
        value_spans: where the value stands, a span a line.
        row: name of the table row, for cells; the label is then the column's.
    """

    name: str
    kind: str
    label: str
    value: str
    label_spans: tuple[Span, ...]
    value_spans: tuple[Span, ...]
    row: str = ""


@dataclass(frozen=True)
class Check:
    """A check box and the words beside it."""

    label: str
    checked: bool
    label_span: Span
    mark_span: Span


@dataclass(frozen=True)
class Fact:
    """A question with its answer that a sentence of the page gives."""

    question: str
    answer: str
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class Table:
    """A table's size in words: the titles of its columns and the names of its rows, from top to bottom."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    spans: tuple[Span, ...]


@dataclass(eq=False)
class Page:
    """A page under construction; `finish` fixes the arrays, and `warp` may bend them afterwards.

    Attributes of a finished page, one entry per character:
        classes: [n] character class.
        ink: [n, 4] left, top, right, bottom of its ink (of its advance, for a space).
        centre: [n, 2] x of the advance's middle, y of the middle of the line's x-height, equal along a line
            unless the page is warped.
        x_height: [n] of its style.
        run_of: [n] number of its run.
        hidden: [n] whether it was blanked, so that no view shows it.
    """

    width: int
    height: int
    runs: list[Run] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    strokes: list[Stroke] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    paper: int = 255
    _bend: NDArray[np.float64] | None = None
    _pen: list[NDArray[np.float32]] = field(default_factory=list)
    _ink: list[NDArray[np.float32]] = field(default_factory=list)
    _centre: list[NDArray[np.float32]] = field(default_factory=list)
    _classes: list[NDArray[np.int16]] = field(default_factory=list)
    _x_height: list[NDArray[np.float32]] = field(default_factory=list)

    def write(self, text: str, style: Style, x: float, baseline: float) -> Span:
        """Put a run of text, which starts at `x`, on the page."""
        text = spell(text, style.face)
        start = self.runs[-1].span[1] if self.runs else 0
        span = (start, start + len(text))
        if not text:
            return span
        classes = np.fromiter((CHARACTER_CLASS[c] for c in text), np.int16, len(text))
        advance = style.face.advance[classes] * style.size_px + style.tracking_px
        pen = x + np.concatenate([[0], np.cumsum(advance)[:-1]]).astype(np.float32)
        ink = style.face.ink[classes] * style.size_px
        ink[:, (0, 2)] += pen[:, None]
        ink[:, (1, 3)] += baseline
        x_height = style.face.x_height * style.size_px
        centre = np.stack([pen + advance / 2, np.full(len(text), baseline - x_height / 2)], axis=1).astype(np.float32)
        self._classes.append(classes)
        self._pen.append(pen)
        self._ink.append(ink.astype(np.float32))
        self._centre.append(centre)
        self._x_height.append(np.full(len(text), x_height, np.float32))
        self.runs.append(Run(text, style, x, baseline, span))
        return span

    def finish(self) -> "Page":
        """Fix the arrays; nothing can be written afterwards."""
        self.classes = np.concatenate(self._classes)
        self.ink = np.concatenate(self._ink)
        self.centre = np.concatenate(self._centre)
        self._flat_pen, self._flat_ink = np.concatenate(self._pen), self.ink
        self.x_height = np.concatenate(self._x_height)
        self.hidden = np.zeros(len(self.classes), bool)
        self.run_of = np.repeat(np.arange(len(self.runs)), [run.span[1] - run.span[0] for run in self.runs])
        return self

    def text(self, span: Span) -> str:
        """The characters of a span."""
        return "".join(run.text[max(0, span[0] - run.span[0]) : max(0, span[1] - run.span[0])] for run in self.runs)

    def box(self, spans: Iterable[Span]) -> Box:
        """The box around the ink of spans."""
        ink = np.concatenate([self.ink[start:end] for start, end in spans])
        return float(ink[:, 0].min()), float(ink[:, 1].min()), float(ink[:, 2].max()), float(ink[:, 3].max())

    def blank(self, spans: Iterable[Span]) -> None:
        """Take characters off the page."""
        for start, end in spans:
            self.hidden[start:end] = True

    def warp(self, matrix: NDArray[np.float64]) -> None:
        """Lay the finished page askew: every character moves, and so does the drawing.

        Args:
            matrix: [3, 3] homography from the straight page's pixels to those of the warped one.
        """
        self._bend = np.asarray(np.linalg.inv(matrix), np.float64)
        corners = self.ink[:, [[0, 1], [2, 1], [0, 3], [2, 3]]]
        moved = project(matrix, corners)
        self.ink = np.concatenate([moved.min(1), moved.max(1)], axis=1).astype(np.float32)
        self.centre = project(matrix, self.centre).astype(np.float32)

    def draw(self, window: Box | None = None) -> Image.Image:
        """Draw the page, or the part of it inside `window`, as a grey image of that part's size in raster pixels."""
        left, top, right, bottom = window or (0, 0, self.width, self.height)
        x0, y0 = int(left), int(top)
        size = max(1, round(right) - x0), max(1, round(bottom) - y0)
        if self._bend is None:
            return self._draw_flat(x0, y0, size)
        x1, y1 = x0 + size[0], y0 + size[1]
        seen = project(self._bend, np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]], float))
        (fx0, fy0), (fx1, fy1) = np.floor(seen.min(0)).astype(int) - 2, np.ceil(seen.max(0)).astype(int) + 2
        flat = self._draw_flat(fx0, fy0, (int(fx1 - fx0), int(fy1 - fy0)))
        to_window, to_flat = np.eye(3), np.eye(3)
        to_window[:2, 2], to_flat[:2, 2] = (x0, y0), (-fx0, -fy0)
        back = to_flat @ self._bend @ to_window
        return seen_through(flat, size, back, Image.Resampling.BILINEAR, self.paper)

    def _draw_flat(self, x0: int, y0: int, size: tuple[int, int]) -> Image.Image:
        """Draw a part of the page as it was before it was warped."""
        image = Image.new("L", size, self.paper)
        pen = ImageDraw.Draw(image)
        for shape in self.shapes:
            box = (shape.box[0] - x0, shape.box[1] - y0, shape.box[2] - x0, shape.box[3] - y0)
            draw = pen.ellipse if shape.ellipse else pen.rectangle
            draw(box, fill=shape.fill, outline=shape.outline, width=shape.width)
        for stamp in self.stamps:
            _press(image, stamp, x0, y0)
        for stroke in self.strokes:
            pen.line([(x - x0, y - y0) for x, y in stroke.points], fill=stroke.grey, width=stroke.width, joint="curve")
        ink = self._flat_ink
        visible = (
            ~self.hidden & (ink[:, 2] > x0) & (ink[:, 0] < x0 + size[0]) & (ink[:, 3] > y0) & (ink[:, 1] < y0 + size[1])
        )
        for number in np.unique(self.run_of[visible]):
            run = self.runs[number]
            font = run.style.face.at(run.style.size_px)
            for index in np.flatnonzero(visible[run.span[0] : run.span[1]]):
                character = run.text[index]
                if character in BOXES:
                    _draw_box(pen, character, ink[run.span[0] + index] - (x0, y0, x0, y0), run.style.grey)
                elif character != " ":
                    at = (float(self._flat_pen[run.span[0] + index]) - x0, run.baseline - y0)
                    pen.text(at, character, fill=run.style.grey, font=font, anchor="ls")
        return image


def project(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points [..., 2] through a homography."""
    moved = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ matrix.T
    projected: NDArray[np.float64] = moved[..., :2] / moved[..., 2:]
    return projected


def seen_through(
    image: Image.Image, size: tuple[int, int], back: NDArray[np.float64], resampling: Image.Resampling, ground: int
) -> Image.Image:
    """An image as a homography shows it.

    Args:
        image: grey.
        size: width and height of the result.
        back: [3, 3], takes pixels of the result to those of `image`.
        resampling: how pixels are mixed.
        ground: grey level of what lies outside of `image`.
    """
    coefficients = (back / back[2, 2]).flatten()[:8].tolist()
    return image.transform(size, Image.Transform.PERSPECTIVE, coefficients, resampling, fillcolor=ground)


def _press(image: Image.Image, stamp: Stamp, x0: int, y0: int) -> None:
    size = stamp.style.size_px
    font = stamp.style.face.at(size)
    width, height = round(font.getlength(stamp.text) + size * 1.6), round(size * (2.8 if stamp.ellipse else 1.8))
    seal = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(seal)
    frame = pen.ellipse if stamp.ellipse else pen.rectangle
    frame((1, 1, width - 2, height - 2), outline=255, width=max(2, round(size / 10)))
    pen.text((width / 2, height / 2), stamp.text, fill=255, font=font, anchor="mm")
    seal = seal.rotate(stamp.degrees, Image.Resampling.BILINEAR, expand=True)
    at = round(stamp.centre[0] - seal.width / 2) - x0, round(stamp.centre[1] - seal.height / 2) - y0
    image.paste(stamp.style.grey, (*at, at[0] + seal.width, at[1] + seal.height), seal)


def _draw_box(pen: ImageDraw.ImageDraw, character: str, box: NDArray[np.float32], grey: int) -> None:
    x0, y0, x1, y1 = (float(v) for v in box)
    side = x1 - x0
    width = max(1, round(side / 12))
    pen.rectangle((x0, y0, x1, y1), outline=grey, width=width)
    if character == "☑":
        pen.line(
            [(x0 + side * 0.2, y0 + side * 0.5), (x0 + side * 0.42, y0 + side * 0.78), (x0 + side * 0.85, y0 + side * 0.2)],
            fill=grey,
            width=width + 1,
        )
    if character == "☒":
        pen.line((x0 + side * 0.15, y0 + side * 0.15, x1 - side * 0.15, y1 - side * 0.15), fill=grey, width=width + 1)
        pen.line((x0 + side * 0.15, y1 - side * 0.15, x1 - side * 0.15, y0 + side * 0.15), fill=grey, width=width + 1)


PLAIN = str.maketrans(
    "ÀÁÂÃÄÅÇÈÉÊËÌÍÎÏÑÒÓÔÕÖÙÚÛÜÝàáâãäåçèéêëìíîïñòóôõöùúûüýÿŠšŽž’‘“”–—",
    "AAAAAACEEEEIIIINOOOOOUUUUYaaaaaaceeeeiiiinooooouuuuyySsZz''\"\"--",
)


def spell(text: str, face: Face) -> str:
    """`text` in characters that the face can draw: accents fall off where it has none, and what is left over becomes a
    hyphen."""
    if face.known.issuperset(text):
        return text
    plain = "".join(c if c in face.known else c.translate(PLAIN) for c in text)
    return "".join(c if c in face.known else "-" for c in plain)


def text_width(text: str, style: Style) -> float:
    """Width in pixels of a run."""
    classes = [CHARACTER_CLASS[c] for c in spell(text, style.face)]
    return float(style.face.advance[classes].sum() * style.size_px + style.tracking_px * len(classes))


def wrap(text: str, style: Style, width: float) -> list[str]:
    """Break a text at spaces into lines of at most `width` pixels; a word that is longer stands alone."""
    lines: list[str] = []
    space = text_width(" ", style)
    room = 0.0
    for word in text.split(" "):
        needed = text_width(word, style)
        if lines and room >= space + needed:
            lines[-1] += " " + word
            room -= space + needed
        else:
            lines.append(word)
            room = width - needed
    return lines


def strike(rng: random.Random, choices: Sequence[str]) -> str:
    """One of several spellings, its capitals changed now and then as printers do."""
    text = rng.choice(choices)
    style = rng.random()
    if style < 0.12:
        return text.upper()
    if style < 0.25:
        return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
    return text
