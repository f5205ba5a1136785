"""Algorithm 1 and Eq. 1-8 of arXiv:2604.08456, and the released code's variant of them, slowly and obviously, in float64.

Written from the paper and from the point-by-point description of the released code, not from `pipeline`, of which only the
records are used: loops over cells, its own elbow, flood fill, Gaussian, gradients and search. It knows a model as three
functions, see `Model`. Where the two sources leave something open, the project's choices are: no region in a map without
contrast; the search ends when the next set of views is the set just grounded; a crop is at least a pixel wide and high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.records import Box, Page, PatchGrid


class Model(Protocol):
    """What the reference needs of a model. A *shown* view is whatever `look` returned, with `layers` of grid and index."""

    end: int

    def look(self, page: Page, box: Box, crop: bool) -> Any:
        """Encode a rectangle of a page."""

    def states(self, shown: Sequence[Any], text: str, forced: Sequence[int], leaf: int) -> list[torch.Tensor]:
        """Each view's tokens [N, D] entering block `leaf` (0: the projected embeddings)."""

    def logits(
        self,
        shown: Sequence[Any],
        text: str,
        forced: Sequence[int],
        leaf: int,
        layer: int | None,
        states: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """float64 [1 + len(forced), V] as a function of the views' states entering block `leaf`."""


@dataclass(frozen=True)
class Rules:
    """A method's parameters, in the reference's own words."""

    objective: str = "entropy"  # | top-p-entropy | max-probability | answer-entropy
    top_p: float = 0.9
    step: int = 1
    leaf: int = 0
    layer: int | None = None
    base_only: bool = False
    stretch: bool = False  # the released code's mapping of a padded grid
    sigma: tuple[float, float] = (1.5, 1.5)
    half_maximum: bool = False
    strictly_above: bool = False
    neighbours: int = 8
    dispersion: str = "cells"  # | mass | contrast-mass
    margin: tuple[int, int] = (0, 0)
    floor: bool = False
    clamp: str = "none"  # | thirds | official
    joint: bool = False
    k: int = 2
    rounds: int = 4
    stop: str = "spatial-entropy"  # | confidence | fixed
    tie_stops: bool = True
    stop_at_extremes: bool = False
    one_deeper: bool = False  # answer with the set built from the last maps


PAPER = Rules()
OFFICIAL_LLAVA = Rules(
    base_only=True,
    strictly_above=True,
    neighbours=4,
    dispersion="contrast-mass",
    floor=True,
    clamp="official",
    joint=True,
    rounds=16,
    tie_stops=False,
    stop_at_extremes=True,
    one_deeper=True,
)
OFFICIAL_INTERNVL = replace(OFFICIAL_LLAVA, dispersion="mass", clamp="none", k=3)
OFFICIAL_QWEN = replace(OFFICIAL_INTERNVL, sigma=(2.5, 2.5), half_maximum=True)
DOCUMENT = Rules(sigma=(0.7, 0.7), margin=(1, 1), joint=True)
DOCUMENT_EMBEDDED = Rules(sigma=(0.7, 1.5), joint=True)


@dataclass
class Place:
    """A selected component: the view it is in, its box on the page, its score by Eq. 6, that as a share, its cells."""

    view: int
    box: Box
    saliency: float
    share: float
    cells: int


@dataclass
class Pass:
    """One grounding pass over a set of views."""

    views: list[Box]
    maps: list[np.ndarray]
    grids: list[PatchGrid]
    places: list[Place]
    spatial_entropy: float | None
    token_entropy: float
    max_probability: float
    gradient_norm: float


@dataclass
class Found:
    """The passes whose results were used, why the search ended, and the crops to answer with."""

    passes: list[Pass]
    reason: str
    crops: list[Box]


@dataclass
class Shown:
    """A view in the set, as the model sees it."""

    box: Box
    tokens: Any = field(repr=False)


# ---------------------------------------------------------------------------------------------- objective, Eq. 1-2


def log_probabilities(logits: Sequence[float]) -> list[float]:
    """ln p of each token; the largest one's is taken from the others, so that it is right however close to zero."""
    top = max(range(len(logits)), key=lambda i: logits[i])
    others = sum(math.exp(z - logits[top]) for i, z in enumerate(logits) if i != top)
    logp = [z - logits[top] - math.log1p(others) for z in logits]
    logp[top] = -math.log1p(others)
    return logp


def entropy(logits: Sequence[float]) -> float:
    """Eq. 1 in nats."""
    return -sum(math.exp(lp) * lp for lp in log_probabilities(logits))


def nucleus(logp: Sequence[float], top_p: float) -> list[int]:
    """The smallest set of tokens that reaches `top_p`; the one that crosses is in it."""
    kept, mass = [], 0.0
    for i in sorted(range(len(logp)), key=lambda i: -logp[i]):
        if mass >= top_p:
            break
        kept.append(i)
        mass += math.exp(logp[i])
    return kept


def objective(logits: Sequence[Sequence[float]], rules: Rules) -> float:
    """The scalar L from all positions' logits."""
    if rules.objective == "answer-entropy":
        return sum(entropy(row) for row in logits)
    logp = log_probabilities(logits[-1])
    if rules.objective == "max-probability":
        return max(logp)
    kept = nucleus(logp, rules.top_p) if rules.objective == "top-p-entropy" else range(len(logp))
    return -sum(math.exp(logp[i]) * logp[i] for i in kept)


def slope_at_logits(logits: Sequence[Sequence[float]], rules: Rules) -> np.ndarray:
    """dL/dz for every position and token, by the chain rule through ln p: d ln p_i / d z_j = [i = j] - p_j."""
    slope = np.zeros((len(logits), len(logits[0])))
    for position, row in enumerate(logits):
        if rules.objective != "answer-entropy" and position != len(logits) - 1:
            continue
        logp = log_probabilities(row)
        p = [math.exp(lp) for lp in logp]
        weight = [0.0] * len(p)  # dL / d ln p_i
        if rules.objective == "max-probability":
            weight[p.index(max(p))] = 1.0
        else:
            kept = nucleus(logp, rules.top_p) if rules.objective == "top-p-entropy" else range(len(p))
            for i in kept:
                weight[i] = -p[i] * (logp[i] + 1)
        for j in range(len(p)):
            not_j = sum(p[i] for i in range(len(p)) if i != j)  # 1 - p_j without its rounding
            slope[position, j] = weight[j] * not_j - p[j] * sum(weight[i] for i in range(len(p)) if i != j)
    return slope


# ------------------------------------------------------------------------------------------------ saliency, Eq. 3-4


def decode(model: Model, shown: Sequence[Any], text: str, budget: int) -> list[int]:
    """Greedy tokens, at most `budget`, without the end token."""
    ids: list[int] = []
    while len(ids) < budget:
        with torch.no_grad():
            logits = model.logits(shown, text, ids, 0, None, model.states(shown, text, ids, 0))
        best = int(logits[-1].argmax())
        if best == model.end:
            break
        ids.append(best)
    return ids


@dataclass
class Look:
    """What one prompt's objective says: token norms per view, and the first answer token's distribution."""

    norms: list[list[float]]
    token_entropy: float
    max_probability: float


def saliency(model: Model, shown: Sequence[Any], text: str, rules: Rules) -> Look:
    """Eq. 3-4: the L2 norm of each visual token's gradient, for all views of one prompt."""
    forced: list[int] = []
    if rules.objective == "answer-entropy":
        forced = decode(model, shown, text, 64)[:-1]
    elif rules.step > 1:
        forced = decode(model, shown, text, rules.step - 1)
    leaves = [states.detach().clone().requires_grad_() for states in model.states(shown, text, forced, rules.leaf)]
    logits = model.logits(shown, text, forced, rules.leaf, rules.layer, leaves)
    values = logits.detach().tolist()
    gradients = torch.autograd.grad(logits, leaves, torch.from_numpy(slope_at_logits(values, rules)).to(logits))
    norms = [[math.sqrt(sum(g * g for g in token)) for token in gradient.tolist()] for gradient in gradients]
    return Look(norms, entropy(values[0]), math.exp(max(log_probabilities(values[0]))))


def lay_out(tokens: Any, box: Box, norms: Sequence[float], rules: Rules) -> tuple[PatchGrid, np.ndarray]:
    """A view's map: its only grid, or its finest with the other grids' saliency added by shared area."""
    layers = tokens.layers[:1] if rules.base_only else tokens.layers
    finest = layers[0].grid
    for layer in layers:
        if layer.grid.rows * layer.grid.cols > finest.rows * finest.cols:
            finest = layer.grid
    values = np.zeros((finest.rows, finest.cols))
    for layer in layers:
        for row in range(layer.grid.rows):
            for col in range(layer.grid.cols):
                norm = norms[int(layer.index[row, col])]
                if layer.grid is finest:
                    values[row, col] += norm
                else:
                    spread(norm, rectangle(layer.grid, row, col), finest, values)
    if rules.stretch:
        finest = PatchGrid(finest.rows, finest.cols, 0, 0, box.width, box.height)
    return finest, values


def rectangle(grid: PatchGrid, row: int, col: int) -> tuple[float, float, float, float]:
    """A cell's rectangle in view pixels."""
    width, height = (grid.x1 - grid.x0) / grid.cols, (grid.y1 - grid.y0) / grid.rows
    return grid.x0 + col * width, grid.y0 + row * height, grid.x0 + (col + 1) * width, grid.y0 + (row + 1) * height


def spread(amount: float, source: tuple[float, float, float, float], grid: PatchGrid, values: np.ndarray) -> None:
    """Add an amount that lies evenly over a rectangle to the cells it covers, in place."""
    x0, y0, x1, y1 = source
    for row in range(grid.rows):
        _, top, _, bottom = rectangle(grid, row, 0)
        high = min(y1, bottom) - max(y0, top)
        if high <= 0:
            continue
        for col in range(grid.cols):
            left, _, right, _ = rectangle(grid, row, col)
            wide = min(x1, right) - max(x0, left)
            if wide > 0:
                values[row, col] += amount * wide * high / ((x1 - x0) * (y1 - y0))


# ---------------------------------------------------------------------------------------------- map to boxes, Eq. 5-8


def smooth_line(line: Sequence[float], sigma: float) -> list[float]:
    """Gaussian over one row or column, cut at four sigma, the line mirrored at its ends (d c b a | a b c d | d c b a)."""
    if sigma == 0:
        return list(line)
    radius = int(4 * sigma + 0.5)
    weights = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    mirrored = [*line, *reversed(line)]
    return [
        sum(weights[offset + radius] * mirrored[(at + offset) % len(mirrored)] for offset in range(-radius, radius + 1))
        / sum(weights)
        for at in range(len(line))
    ]


def smooth(values: np.ndarray, sigma: tuple[float, float]) -> np.ndarray:
    """Gaussian filter of section 3.3, sigma in cells along rows' and columns' numbers."""
    down = np.array([smooth_line(column, sigma[0]) for column in values.T.tolist()]).T
    return np.array([smooth_line(row, sigma[1]) for row in down.tolist()])


def elbow(values: np.ndarray) -> float | None:
    """The sorted value with the largest perpendicular distance to the chord from the first to the last point."""
    ordered = sorted(values.flatten().tolist())
    if ordered[0] == ordered[-1]:
        return None
    run, rise = len(ordered) - 1, ordered[-1] - ordered[0]
    best, farthest = ordered[0], -1.0
    for i, value in enumerate(ordered):
        # In units of the range, so that the scale of the map does not matter.
        distance = abs(i / run - (value - ordered[0]) / rise) / math.sqrt(2)
        if distance > farthest:
            best, farthest = value, distance
    return best


def components(mask: np.ndarray, neighbours: int) -> list[list[tuple[int, int]]]:
    """Connected components by flood fill, in raster order of their first cell."""
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    if neighbours == 8:
        steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    seen: set[tuple[int, int]] = set()
    found = []
    for row in range(mask.shape[0]):
        for col in range(mask.shape[1]):
            if not mask[row, col] or (row, col) in seen:
                continue
            cells, edge = [], [(row, col)]
            seen.add((row, col))
            while edge:
                r, c = edge.pop()
                cells.append((r, c))
                for dr, dc in steps:
                    near = (r + dr, c + dc)
                    inside = 0 <= near[0] < mask.shape[0] and 0 <= near[1] < mask.shape[1]
                    if inside and mask[near] and near not in seen:
                        seen.add(near)
                        edge.append(near)
            found.append(cells)
    return found


@dataclass
class Mask:
    """A map's components with their scores (Eq. 6), and the view's spatial entropy (Eq. 7-8 or the code's)."""

    components: list[list[tuple[int, int]]]
    scores: list[float]
    spatial_entropy: float


def mask_of(values: np.ndarray, rules: Rules) -> Mask:
    """Smooth, cut, split and score one map."""
    smoothed = smooth(values, rules.sigma)
    flat = smoothed.min() == smoothed.max()
    threshold = smoothed.max() / 2 if rules.half_maximum else elbow(smoothed)
    if flat or threshold is None:
        return Mask([], [], 0.0)
    mask = smoothed > threshold if rules.strictly_above else smoothed >= threshold
    parts = components(mask, rules.neighbours)
    scores = [sum(values[cell] for cell in part) for part in parts]
    return Mask(parts, scores, dispersion(parts, smoothed, threshold, rules))


def dispersion(parts: list[list[tuple[int, int]]], smoothed: np.ndarray, threshold: float, rules: Rules) -> float:
    """Spatial entropy of one view."""
    if rules.dispersion == "cells":
        active = sum(len(part) for part in parts)
        shares = [len(part) / active for part in parts]
    else:
        field_ = smoothed.copy()
        if rules.dispersion == "contrast-mass":
            mean = math.fsum(smoothed.flatten().tolist()) / smoothed.size
            field_ = np.array([[max(value - 2 * mean, 0.0) for value in row] for row in smoothed.tolist()])
        total = math.fsum(field_.flatten().tolist())
        if total <= 0:
            return math.inf
        blobs = components(field_ > threshold, 8)
        shares = [math.fsum(field_[cell] for cell in blob) / total for blob in blobs]
    return sum(-share * math.log(share) for share in shares if share > 0)


def box_of(cells: list[tuple[int, int]], grid: PatchGrid, view: Box, rules: Rules) -> Box:
    """The tight box around a component, on the page, inside its view."""
    row0 = max(min(r for r, _ in cells) - rules.margin[0], 0)
    row1 = min(max(r for r, _ in cells) + 1 + rules.margin[0], grid.rows)
    col0 = max(min(c for _, c in cells) - rules.margin[1], 0)
    col1 = min(max(c for _, c in cells) + 1 + rules.margin[1], grid.cols)
    wide, high = (grid.x1 - grid.x0) / grid.cols, (grid.y1 - grid.y0) / grid.rows
    if rules.floor:
        left, top = math.floor(grid.x0 + col0 * wide), math.floor(grid.y0 + row0 * high)
        right = max(math.floor(left + (col1 - col0) * wide), left + 1)
        bottom = max(math.floor(top + (row1 - row0) * high), top + 1)
    else:
        # Float noise on a whole pixel is not a reason to take in another one.
        left, top = math.floor(round(grid.x0 + col0 * wide, 5)), math.floor(round(grid.y0 + row0 * high, 5))
        right, bottom = math.ceil(round(grid.x0 + col1 * wide, 5)), math.ceil(round(grid.y0 + row1 * high, 5))
    if rules.clamp != "none":
        left, top, right, bottom = clamp(left, top, right, bottom, rules.clamp)
    left, top = min(max(left, 0), view.width - 1), min(max(top, 0), view.height - 1)
    right, bottom = max(min(right, view.width), left + 1), max(min(bottom, view.height), top + 1)
    return Box(view.x0 + left, view.y0 + top, view.x0 + right, view.y0 + bottom)


def clamp(left: int, top: int, right: int, bottom: int, how: str) -> tuple[int, int, int, int]:
    """The code's aspect clamp at 3:1, centred; `official` with its slip (width = 3 * height for a tall box)."""
    width: float = right - left
    height: float = bottom - top
    if width / height > 3:
        height = width / 3
    elif height / width > 3:
        width = 3 * height if how == "official" else height / 3
    x, y = (left + right) / 2, (top + bottom) / 2
    return round(x - width / 2), round(y - height / 2), round(x + width / 2), round(y + height / 2)


# ------------------------------------------------------------------------------------------------------- the search


class Search:
    """One question on one page."""

    def __init__(self, model: Model, page: Page, text: str, rules: Rules) -> None:
        self.model, self.page, self.text, self.rules = model, page, text, rules
        whole = Box(0, 0, page.width, page.height)
        self.whole = Shown(whole, model.look(page, whole, crop=False))

    def run(self) -> Found:
        """Search as the paper does, or one set deeper, as the released code does."""
        return self.released_loop() if self.rules.one_deeper else self.algorithm_1()

    def algorithm_1(self) -> Found:
        """Algorithm 1: ground I_t; stop if H_t >= H_prev and return I_t; at the cap return the last set built."""
        shown, passes = [self.whole], []
        for _ in range(self.rules.rounds):
            passes.append(self.ground(shown))
            reason = self.reason_to_stop(passes)
            if reason is not None:
                return Found(passes, reason, [view.box for view in shown[1:]])
            following = self.crops_of(passes[-1])
            if boxes(following) == boxes(shown):
                return Found(passes, "repeated", [view.box for view in shown[1:]])
            shown = following
        return Found(passes, "rounds", [view.box for view in shown[1:]])

    def released_loop(self) -> Found:
        """The released loop: run the next pass, only then test, return that pass's set and throw the pass away."""
        sets, passes = [[self.whole]], []
        passes.append(self.ground(sets[0]))
        n = 0
        while True:
            reason = self.reason_to_stop(passes)
            if reason == "no_regions":
                return Found(passes, reason, [view.box for view in sets[n][1:]])
            sets.append(self.crops_of(passes[n]))
            discarded = self.ground(sets[n + 1])
            if reason is None and boxes(sets[n + 1]) == boxes(sets[n]):
                reason = "repeated"
            if reason is None and n + 1 >= self.rules.rounds:
                reason = "rounds"
            if reason is not None:
                return Found(passes, reason, [view.box for view in sets[n + 1][1:]])
            passes.append(discarded)
            n += 1

    def ground(self, shown: list[Shown]) -> Pass:
        """Maps of all views, their components pooled, the best K."""
        tokens = [view.tokens for view in shown]
        if self.rules.joint:
            look = saliency(self.model, tokens, self.text, self.rules)
            looks, norms = [look] * len(shown), look.norms
        else:
            looks = [saliency(self.model, [each], self.text, self.rules) for each in tokens]
            norms = [look.norms[0] for look in looks]
        laid = [lay_out(view.tokens, view.box, norm, self.rules) for view, norm in zip(shown, norms, strict=True)]
        masks = [mask_of(values, self.rules) for _, values in laid]
        pool = [
            (score, view, part)
            for view, mask in enumerate(masks)
            for score, part in zip(mask.scores, mask.components, strict=True)
        ]
        pool.sort(key=lambda entry: -entry[0])
        total = sum(float(values.sum()) for _, values in laid)
        places = [
            Place(view, box_of(part, laid[view][0], shown[view].box, self.rules), score, score / total, len(part))
            for score, view, part in pool[: self.rules.k]
        ]
        best = places[0].view if places else 0
        return Pass(
            views=[view.box for view in shown],
            maps=[values for _, values in laid],
            grids=[grid for grid, _ in laid],
            places=places,
            spatial_entropy=masks[best].spatial_entropy if places else None,
            token_entropy=looks[best].token_entropy,
            max_probability=looks[best].max_probability,
            gradient_norm=math.sqrt(sum(value**2 for norm in norms for value in norm)),
        )

    def reason_to_stop(self, passes: list[Pass]) -> str | None:
        """The stop rule after the last pass; before the first, H is infinite and the probability zero."""
        now = passes[-1]
        if not now.places or now.spatial_entropy is None:
            return "no_regions"
        if self.rules.stop == "fixed":
            return None
        if self.rules.stop_at_extremes and now.spatial_entropy in (0.0, math.inf):
            return "degenerate"
        if self.rules.stop == "confidence":
            value, before = -now.max_probability, 0.0 if len(passes) == 1 else -passes[-2].max_probability
        else:
            value, before = now.spatial_entropy, math.inf if len(passes) == 1 else passes[-2].spatial_entropy
        worse = value >= before if self.rules.tie_stops else value > before
        return self.rules.stop.replace("-", "_") if worse else None

    def crops_of(self, last: Pass) -> list[Shown]:
        """I_{t+1}: the page and a crop for every selected component."""
        crops = [Shown(place.box, self.model.look(self.page, place.box, crop=True)) for place in last.places]
        return [self.whole, *crops]


def boxes(shown: Sequence[Shown]) -> list[Box]:
    """Where the views of a set lie."""
    return [view.box for view in shown]


def central_difference(function: Callable[[torch.Tensor], float], at: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    """The gradient of a scalar function by central finite differences, one component after the other."""
    gradient = torch.zeros_like(at)
    for i in range(at.numel()):
        moved = at.clone()
        moved.view(-1)[i] += step
        above = function(moved)
        moved.view(-1)[i] -= 2 * step
        gradient.view(-1)[i] = (above - function(moved)) / (2 * step)
    return gradient
