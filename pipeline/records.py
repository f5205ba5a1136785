"""The nouns: frozen records that the rest of the library takes and returns. No I/O, no torch.

Glossary. A *document* is a file, known by its sha256. A *page* is one displayed page, 1-based. A *question* is the user's
words. A *view* is an image shown to the model: the whole page (the *global view*) or a rectangle of it. A *saliency map* has
one value per visual token of a view. A *region* is a scored candidate found in a map. *Evidence* is a region that the model
was shown for the stored answer. A *step* is one round of grounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.geometry import Box, PatchGrid, PdfFrame

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Document:
    """A file as submitted.

    Attributes:
        name: The path as the user gave it.
        sha256: Hex digest of the bytes.
        media_type: ``application/pdf`` or ``image/…``, sniffed from the bytes.
        byte_count: Size of the file.
        page_count: Pages (or frames) in it.
    """

    name: str
    sha256: str
    media_type: str
    byte_count: int
    page_count: int


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One page as displayed, rasterized.

    Attributes:
        document_sha256: The document it belongs to.
        number: 1-based.
        image: RGB raster.
        dpi: True resolution of the raster, after the pixel cap.
        sha256: Digest of ``b"{width}x{height}:"`` and the raw RGB bytes.
        recipe: What drew it, e.g. ``poppler 22.12.0 pdftoppm cropbox``; the same recipe gives the same digest.
        frame: Where the page lies in PDF user space; None for images.
    """

    document_sha256: str
    number: int
    image: Image.Image
    dpi: float
    sha256: str
    recipe: str
    frame: PdfFrame | None = None

    @property
    def width(self) -> int:
        """Width of the raster in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Height of the raster in pixels."""
        return self.image.height

    @property
    def box(self) -> Box:
        """The whole page."""
        return Box(0, 0, self.width, self.height)


class AnswerType(StrEnum):
    """What a question's answer must parse as."""

    TEXT = "text"
    NUMBER = "number"
    INTEGER = "integer"
    CURRENCY = "currency"
    DATE = "date"
    BOOLEAN = "boolean"
    ENUM = "enum"
    REGEX = "regex"
    LIST = "list"


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a list.

    Attributes:
        question_id: Unique per document.
        text: The user's words.
        document: Path, base name or glob of the documents it is for; None for all.
        pages: Page range as written: ``all``, ``1-3,5,7-9``, ``4-*``, ``last``.
        type: How the answer is parsed.
        choices: Options, for multiple choice and ``enum``.
        pattern: Regular expression, for ``regex``.
        required: A missing answer is reported as such; it never forces a value.
    """

    question_id: str
    text: str
    document: str | None = None
    pages: str = "all"
    type: AnswerType = AnswerType.TEXT
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """An answer's text and what it parses to.

    Attributes:
        text: As the model wrote it.
        value: JSON-ready value by type (number: decimal string; date: ISO; currency: amount and currency), or None.
        valid: Whether the text parses as the question's type; an invalid answer keeps its status.
    """

    text: str
    type: AnswerType
    value: Any
    valid: bool


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """An image shown to the model: a rectangle of a page, at the raster's own scale."""

    page: Page
    box: Box

    @property
    def image(self) -> Image.Image:
        """The pixels, cut from the page raster."""
        return self.page.image if self.box == self.page.box else self.page.image.crop(self.box.xyxy)

    @classmethod
    def whole(cls, page: Page) -> View:
        """The global view."""
        return cls(page, page.box)


@dataclass(frozen=True, slots=True, eq=False)
class SaliencyMap:
    """How much each visual token of a view moves the objective.

    Attributes:
        view: The view it speaks about.
        grid: Its token grid, in view pixels.
        values: float64 (rows, cols), >= 0; comparable between the maps of one round. Double precision because a
            confident answer's gradient may lie below what single precision holds.
    """

    view: View
    grid: PatchGrid
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.shape != (self.grid.rows, self.grid.cols):
            raise ValueError(f"map of shape {self.values.shape} on a {self.grid.rows} x {self.grid.cols} grid")

    @property
    def total(self) -> float:
        """Sum of all saliency."""
        return float(self.values.sum())


@dataclass(frozen=True, slots=True)
class Region:
    """A candidate place: a connected component of a map's mask.

    Attributes:
        view: Index of the view it was found in, among the views of its round.
        box: Its box in page pixels.
        saliency: Sum of the unsmoothed saliency inside (Eq. 6).
        score: Share of all saliency of its round, 0-1.
        cells: Number of active cells.
    """

    view: int
    box: Box
    saliency: float
    score: float
    cells: int


class StopReason(StrEnum):
    """Why grounding ended."""

    SPATIAL_ENTROPY = "spatial_entropy"  # it no longer falls
    DEGENERATE = "degenerate"  # official: spatial entropy is 0 or infinite
    CONFIDENCE = "confidence"  # the first token's probability no longer rises
    ROUNDS = "rounds"  # the cap, or the fixed number
    NO_REGIONS = "no_regions"  # a map without contrast
    CERTAIN = "certain"  # spot-e: the plain answer's entropy is below what is worth a search
    NO_GAIN = "no_gain"  # spot-e: no mask, or none for some time, made the answer more decisive
    REPEATED = "repeated"  # the next set of views is the one just grounded: another round would find the same
    FOUND = "found"  # zoom-eye: something shows what was looked for
    EXHAUSTED = "exhausted"  # zoom-eye: nothing is left to look at, and it was not found
    FLOOR = "floor"  # zoom-eye: the threshold fell below its floor, and it was not found


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One round of grounding.

    Attributes:
        round: 0-based.
        views: Boxes shown in this round, in page pixels, the global view first.
        maps: One per view, in order.
        regions: The top regions selected, best first.
        token_entropy: Entropy in nats of the first answer token (SPOT-E: mean over the answer's tokens).
        max_probability: Largest probability of the first answer token.
        spatial_entropy: Of the view that holds the best region; None without regions; may be infinite (official).
        gradient_norm: L2 norm over all visual tokens of the round (ViCrop: over what its map is made of; SPOT-E:
            of an update, over the policy's parameters); None where nothing was differentiated.
        stop_reason: Set on the last step.
    """

    round: int
    views: tuple[Box, ...]
    maps: tuple[SaliencyMap, ...]
    regions: tuple[Region, ...]
    token_entropy: float
    max_probability: float
    spatial_entropy: float | None
    gradient_norm: float | None
    stop_reason: StopReason | None = None

    def stopped(self, reason: StopReason) -> Step:
        """Return this step as the last one."""
        return replace(self, stop_reason=reason)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A region that the model was shown for the stored answer.

    Attributes:
        rank: 1-based, best first.
        page: 1-based page number.
        box: Page pixels.
        score: Share of all saliency of its round, 0-1.
        saliency: The raw sum.
        cell_px: (width, height) of the token-grid cell that found it, in page pixels: the box's honest precision.
    """

    rank: int
    page: int
    box: Box
    score: float
    saliency: float
    cell_px: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost.

    Attributes:
        forward_passes: Sequences run through the language model from the start of what is new in them (grounding,
            answering, scoring), one per row of a batch; single-token decoding steps are `decoded_tokens`.
        backward_passes: Backward passes to the visual tokens, one per row.
        vision_encodes: Views encoded by the vision tower.
        visual_tokens: Visual tokens processed by the language model over all forward passes, cached ones not counted.
        decoded_tokens: Single-token decoding steps.
        seconds: Wall time.
    """

    forward_passes: int = 0
    backward_passes: int = 0
    vision_encodes: int = 0
    visual_tokens: int = 0
    decoded_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.forward_passes + other.forward_passes,
            self.backward_passes + other.backward_passes,
            self.vision_encodes + other.vision_encodes,
            self.visual_tokens + other.visual_tokens,
            self.decoded_tokens + other.decoded_tokens,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: Usage) -> Usage:
        return self + Usage(
            -other.forward_passes,
            -other.backward_passes,
            -other.vision_encodes,
            -other.visual_tokens,
            -other.decoded_tokens,
            -other.seconds,
        )

    def split(self, count: int) -> list[Usage]:
        """Even shares; whole numbers that do not divide go to the first, so that the sum is exact."""
        even = Usage(
            self.forward_passes // count,
            self.backward_passes // count,
            self.vision_encodes // count,
            self.visual_tokens // count,
            self.decoded_tokens // count,
            self.seconds / count,
        )
        rest = self
        for _ in range(count - 1):
            rest -= even
        return [rest] + [even] * (count - 1)


class AnswerStatus(StrEnum):
    """What became of a question."""

    ANSWERED = "answered"
    NOT_FOUND = "not_found"  # every searched page said so, by the stored rule
    ABSTAINED = "abstained"  # certainty under --min-certainty
    SKIPPED = "skipped"  # page range or glob matched nothing, or cancelled
    FAILED = "failed"  # no page answered and at least one job failed


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as stored: its code, its message, and whether trying again can help."""

    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Signals:
    """Named measurements, each stored apart; None where it was not measured, never a default.

    Attributes:
        mean_logprob: Mean log-probability of the answer's tokens (nats, <= 0): the certainty used for merging.
        refusal_margin: mean log p(answer) - mean log p("not found" | same prompt), in nats; ranks pages.
        token_entropy: Entropy of the first answer token given page and crops, in nats.
        entropy_drop: How much of it grounding removed: first round minus answer, in nats.
        spatial_entropy: Of the last grounded round.
        gradient_norm: Of the first round; near zero means that the map says little.
    """

    mean_logprob: float | None = None
    refusal_margin: float | None = None
    token_entropy: float | None = None
    entropy_drop: float | None = None
    spatial_entropy: float | None = None
    gradient_norm: float | None = None


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which weights answered, and how they were run.

    Attributes:
        name: Hub name or folder as given; ``embedded`` for the model shipped.
        family: ``llava``, ``llava_next``, ``internvl``, ``qwen2_5_vl`` or ``embedded``.
        revision: Hub commit; None for a folder.
        weights_sha256: Digest over the digests of the safetensors files, in name order.
        device: e.g. ``cuda:0`` or ``cpu``, with the device's own name where it has one.
        dtype: e.g. ``bfloat16``.
    """

    name: str
    family: str
    revision: str | None
    weights_sha256: str
    device: str
    dtype: str


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A page's answer to one question, as every method returns it.

    Attributes:
        question: The question answered.
        page: 1-based page number.
        text: The model's words, stripped; None when it failed.
        not_found: Whether the page says, by the stored rule, that it does not hold the answer.
        evidence: Best first; empty for a method or page without grounding.
        steps: The whole search, round by round; empty for a plain pass.
        failure: Why there is no text; then nothing else is set.
    """

    question: Question
    page: int
    text: str | None
    not_found: bool = False
    evidence: tuple[Evidence, ...] = ()
    steps: tuple[Step, ...] = ()
    signals: Signals = field(default_factory=Signals)
    usage: Usage = field(default_factory=Usage)
    failure: Failure | None = None


def decimal_string(value: Decimal) -> str:
    """A plain decimal string: no exponent, no trailing zeros lost."""
    return format(value, "f")
