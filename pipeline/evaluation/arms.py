"""What is compared: the methods as they are, and the controls that say what of their gain is theirs.

An arm is named ``HEAD[@PX][+KEY=VALUE]...``:

    METHOD[/PRESET]            a method: ``entropy-gradient/paper``, ``vicrop+variant=rel-att``, ``spot-e+update=none``
    plain                      one look at the whole page; ``plain@800`` at 800 pixels on the long side
    plain-tiles                the page as tiles, with as many visual tokens as the reference arm's page and crops
    oracle-crop                page and crops of the true boxes
    random-crops               page and crops as large as the reference arm's, anywhere
    random-map                 page and crops found by the reference arm's rules in a map of random numbers
    disruption                 no answer: SPOT-E's search with these settings, for what its mask does to the anchors

All arms of a run are asked in the same words, so that they differ in what they see. A method is worked off as an ordinary
job (`pipeline.evaluation.jobs`); a control, which knows the truth or what another arm showed, is computed here.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from PIL import Image

from pipeline.answer import answer_page
from pipeline.config import GroundingConfig, MethodConfig, SpotEConfig
from pipeline.errors import MethodError, UsageError
from pipeline.evaluation.datasets import Example
from pipeline.geometry import Box
from pipeline.methods.base import assemble, failed, prompt_text, refusal_margin
from pipeline.presets import PRESETS, default_preset, method_config
from pipeline.records import Answer, Evidence, Page, SaliencyMap, Step, StopReason, Usage, View
from pipeline.regions import find_components, top_regions
from pipeline.saliency import merge_layers
from pipeline.spelling import ranked
from pipeline.vlms.base import Prompt, VisualTokens, Vlm
from pipeline.vlms.prompts import PromptStyle
from pipeline.zoom import EncodedPage

Control = Literal["plain-tiles", "oracle-crop", "random-crops", "random-map", "disruption"]
CONTROLS: tuple[Control, ...] = get_args(Control)
REFERENCE = f"entropy-gradient/{default_preset('entropy-gradient')}"
"""The arm that controls are measured by."""
DEFAULT_ARMS = (
    "plain",
    REFERENCE,
    "plain-tiles",
    "entropy-gradient/paper",
    "entropy-gradient/official",
    "oracle-crop",
    "random-crops",
    "random-map",
)
MEASURED_BY_REFERENCE = frozenset({"plain-tiles", "random-crops"})
"""Controls that ask what the reference arm showed."""
MAX_TILES = 12

_NAME = re.compile(r"(?P<head>[a-z/_-]+)(?:@(?P<px>\d+))?(?P<settings>(?:\+[a-z_]+=[^+]+)*)")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to answer.

    Attributes:
        name: As asked for; SPOT-E's always says whose eye it looks with.
        config: Method and parameters; a control's grounding configuration says how its boxes become crops.
        control: Which control; None for a method as it is.
        long_side_px: To which the page is scaled down first; None leaves it.
    """

    name: str
    config: MethodConfig
    control: Control | None = None
    long_side_px: int | None = None

    @property
    def is_method(self) -> bool:
        """Whether production could answer so: a method, on the page as it is."""
        return self.control is None and self.long_side_px is None

    def asked(self, prompt: PromptStyle) -> Arm:
        """The same arm with another prompt."""
        return replace(self, config=replace(self.config, answer=replace(self.config.answer, prompt=prompt)))

    @property
    def sha256(self) -> str:
        """Digest of everything that can change its answers besides model and pages."""
        parts = [self.config.sha256, self.control, self.long_side_px]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def parse_arm(name: str, family: str, prompt: PromptStyle = "document") -> Arm:
    """Build an arm from its name.

    Args:
        name: See the module.
        family: The model's family; some presets depend on it.
        prompt: In which words all arms are asked, unless the name sets others.

    Raises:
        UsageError: A part of the name is unknown; the message lists what is known.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UsageError(f"arm {name!r} is not HEAD[@PX][+KEY=VALUE]..., such as plain@800 or {REFERENCE}+leaf=2")
    method, _, preset = found["head"].partition("/")
    settings = dict(text.split("=", 1) for text in found["settings"].split("+")[1:])
    settings = {"prompt": prompt, **settings}
    long_side = int(found["px"]) if found["px"] else None
    if long_side is not None and method != "plain":
        raise UsageError(f"arm {name!r}: only plain is measured at several resolutions")
    control = next((known for known in CONTROLS if known == method), None)
    measured = "spot-e" if control == "disruption" else "entropy-gradient" if control is not None else method
    config = method_config(measured, family, preset or None, settings)
    if isinstance(config.search, SpotEConfig) and "eye" not in settings:
        name = f"{name}+eye={config.search.eye}"
    return Arm(name, config, control, long_side)


def with_preset(name: str, preset: str | None) -> str:
    """An arm's name with a preset, where its method has that one and the name says none.

    Raises:
        UsageError: No method has such a preset.
    """
    if preset is None:
        return name
    known: Mapping[str, Collection[str]] = {str(method): presets for method, presets in PRESETS.items()}
    every = {one for presets in known.values() for one in presets}
    if preset not in every:
        raise UsageError(f"--preset {preset}: unknown; known: {', '.join(ranked(preset, every))}")
    head, plus, settings = name.partition("+")
    return f"{head}/{preset}{plus}{settings}" if preset in known.get(head, ()) else name


def with_controls(names: Sequence[str], *, tiles: bool) -> list[str]:
    """Arms and, behind them, the controls that the papers lack, each name once.

    SPOT-E's is as many masks, all from the initial policy. The reference arm's is plain with as many visual tokens.

    Args:
        names: Of arms, in order.
        tiles: Whether the reference arm's is wanted.
    """
    found: list[str] = []
    for name in names:
        method = re.split(r"[/@+]", name, maxsplit=1)[0]
        found.append(name)
        found += [f"{name}+update=false"] * (method == "spot-e" and "+update=" not in name)
        found += ["plain-tiles"] * (tiles and name in {"entropy-gradient", REFERENCE})
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Shown:
    """What the reference arm showed for a question: the boxes of its crops."""

    boxes: tuple[Box, ...]


def answer_examples(
    vlm: Vlm, page: Page, examples: Sequence[Example], arm: Arm, reference: Callable[[Example], Shown]
) -> Iterator[Answer]:
    """Answer questions about one page as an arm does; as `answer_page` otherwise.

    Args:
        vlm: A frozen model.
        page: A rasterized page.
        examples: Questions, with the true boxes that an oracle knows.
        arm: How.
        reference: Says what the reference arm showed for a question; asked by the controls that are measured by it.
    """
    if arm.control is None:
        questions = [example.question for example in examples]
        yield from answer_page(vlm, scaled(page, arm.long_side_px), questions, arm.config)
    else:
        yield from _Controlled(vlm, page, arm, arm.control, reference).answers(examples)


def scaled(page: Page, long_side_px: int | None) -> Page:
    """The page made smaller, where it is larger than that."""
    if long_side_px is None or long_side_px >= max(page.image.size):
        return page
    scale = long_side_px / max(page.image.size)
    size = max(1, round(page.width * scale)), max(1, round(page.height * scale))
    return replace(page, image=page.image.resize(size, Image.Resampling.LANCZOS), dpi=page.dpi * scale)


class _Controlled:
    """A control's answers about one page."""

    def __init__(self, vlm: Vlm, page: Page, arm: Arm, control: Control, reference: Callable[[Example], Shown]) -> None:
        self.vlm, self.control, self.reference = vlm, control, reference
        self.config = arm.config.answer
        self.grounding = arm.config.search if isinstance(arm.config.search, GroundingConfig) else GroundingConfig()
        self.tiles: dict[tuple[Box, ...], tuple[VisualTokens, ...]] = {}
        started, before = time.perf_counter(), vlm.usage
        view = View.whole(page)
        (tokens,) = vlm.encode([view.image])
        self.page = EncodedPage(view, tokens)
        self.encoding = vlm.usage - before + Usage(seconds=time.perf_counter() - started)
        if control == "plain-tiles":
            self.encoding = Usage()  # the page itself is not shown

    def answers(self, examples: Sequence[Example]) -> Iterator[Answer]:
        for example in examples:
            # The search for a grid is measuring's cost, not the arm's.
            boxes = tile_boxes(self.vlm, self.page, self.reference(example)) if self.tiled else ()
            started, before = time.perf_counter(), self.vlm.usage

            def spent(started: float = started, before: Usage = before) -> Usage:
                return self.vlm.usage - before + Usage(seconds=time.perf_counter() - started)

            try:
                answer = self._answer(example, boxes)
            except MethodError as error:
                answer = failed(example.question, self.page, error, Usage())
            yield replace(answer, usage=spent() + self.encoding)
            self.encoding = Usage()

    @property
    def tiled(self) -> bool:
        return self.control == "plain-tiles"

    def _answer(self, example: Example, tiles: tuple[Box, ...]) -> Answer:
        steps: tuple[Step, ...] = ()
        if self.tiled:
            boxes, shown = [], self._tiles(tiles)
        else:
            if self.control == "random-map":
                steps = (self._random_step(example),)
                boxes = [region.box for region in steps[0].regions]
            else:
                boxes = self._oracle_boxes(example) if self.control == "oracle-crop" else self._random_boxes(example)
            crops = [View(self.page.view.page, box).image for box in boxes]
            shown = (self.page.tokens, *(self.vlm.encode(crops, crops=True) if crops else ()))
        prompt = Prompt(tuple(shown), prompt_text(example.question, self.config))
        (generation,) = self.vlm.generate(self.vlm.read([prompt]), self.config.max_new_tokens)
        margin = refusal_margin(self.vlm, prompt, generation)
        evidence = self._evidence(boxes)
        return assemble(example.question, self.page, generation, margin, self.config, evidence=evidence, steps=steps)

    def _evidence(self, boxes: Sequence[Box]) -> tuple[Evidence, ...]:
        number, grid = self.page.view.page.number, self.page.tokens.layers[0].grid
        cell = grid.cell_width, grid.cell_height
        return tuple(Evidence(rank, number, box, 0.0, 0.0, cell) for rank, box in enumerate(boxes, start=1))

    def _oracle_boxes(self, example: Example) -> list[Box]:
        """The true boxes on this page, each with a cell of margin."""
        grid, whole = self.page.tokens.layers[0].grid, self.page.view.box
        across, down = math.ceil(grid.cell_width), math.ceil(grid.cell_height)
        truths = example.boxes_on(self.page.view.page.number, (whole.width, whole.height))
        return [truth.expand(across, down).clip(whole.width, whole.height) for truth in truths]

    def _random_boxes(self, example: Example) -> list[Box]:
        """Boxes of the reference arm's sizes, uniformly placed; the question's id decides where."""
        rng, whole = random.Random(example.example_id), self.page.view.box  # noqa: S311
        boxes = []
        for box in self.reference(example).boxes:
            across, down = min(box.width, whole.width), min(box.height, whole.height)
            left, top = rng.randint(0, whole.width - across), rng.randint(0, whole.height - down)
            boxes.append(Box(left, top, left + across, top + down))
        return boxes

    def _random_step(self, example: Example) -> Step:
        """A round of grounding whose map is uniform noise; the question's id decides it."""
        seed = int.from_bytes(hashlib.sha256(example.example_id.encode()).digest()[:8], "little")
        noise = np.random.default_rng(seed).random(self.page.tokens.count)
        grid, values = merge_layers(self.page.tokens.layers, noise)
        saliency_map = SaliencyMap(self.page.view, grid, values)
        masked = find_components(values, self.grounding.region)
        regions = top_regions([saliency_map], [masked], self.grounding.zoom.regions, self.grounding.region)
        entropy = masked.spatial_entropy if regions else None
        return Step(0, (self.page.view.box,), (saliency_map,), regions, 0.0, 0.0, entropy, 0.0, StopReason.ROUNDS)

    def _tiles(self, boxes: tuple[Box, ...]) -> tuple[VisualTokens, ...]:
        """The page's tiles, encoded once for all questions that get so many."""
        if boxes not in self.tiles:
            images = [View(self.page.view.page, box).image for box in boxes]
            self.tiles[boxes] = tuple(self.vlm.encode(images, crops=True))
        return self.tiles[boxes]


def tile_boxes(vlm: Vlm, whole: EncodedPage, shown: Shown) -> tuple[Box, ...]:
    """The coarsest grid of tiles that takes at least as many visual tokens as the page and the crops that were shown.

    Tokens are counted on this page. A page that was all there was to see becomes two tiles, and the last step to the budget
    may go beyond it: what is in doubt is in plain's favour.

    Returns:
        2 to `MAX_TILES` tiles, none more than twice as long as wide; of grids that all take too few, that with the most.
    """
    page = whole.view.page

    def count(boxes: Sequence[Box]) -> int:
        found = vlm.encode([View(page, box).image for box in boxes], crops=True) if boxes else []
        return sum(tokens.count for tokens in found)

    budget = whole.tokens.count + count([box.clip(page.width, page.height) for box in shown.boxes])
    taken: dict[tuple[Box, ...], int] = {}
    for grid in _grids(page.box):
        taken[grid] = count(grid)
        if taken[grid] >= budget:
            return grid
    return max(taken, key=lambda grid: taken[grid])


def _grids(page: Box) -> list[tuple[Box, ...]]:
    """Grids of nearly square tiles, those of few tiles first."""
    shapes = itertools.product(range(1, min(MAX_TILES, page.width) + 1), range(1, min(MAX_TILES, page.height) + 1))
    grids = [_grid(page, cols, rows) for cols, rows in shapes if cols * rows <= MAX_TILES]
    square = [boxes for boxes in grids if len(boxes) > 1 and 0.5 <= boxes[0].width / boxes[0].height <= 2]
    # A strip has no such grid and is cut in two.
    return sorted(square, key=len) or [_grid(page, 2, 1) if page.width > page.height else _grid(page, 1, 2)]


def _grid(page: Box, cols: int, rows: int) -> tuple[Box, ...]:
    """A page cut into cols x rows tiles, row by row."""
    xs = [round(page.width * col / cols) for col in range(cols + 1)]
    ys = [round(page.height * row / rows) for row in range(rows + 1)]
    return tuple(Box(xs[col], ys[row], xs[col + 1], ys[row + 1]) for row in range(rows) for col in range(cols))
