"""Where the answer depends on the page: an objective on the next-token distribution, back-propagated to the visual tokens.

Gropl et al., "Entropy-Gradient Grounding" (arXiv:2604.08456), Eq. 1-4. The scalar is differentiated in float64 down to the
logits and scaled there by a power of two, so that a confident answer's gradient does not underflow on its way through a
half-precision model; the scale is taken out again afterwards and changes no result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.config import SaliencyConfig
from pipeline.errors import DeviceLost, NonFiniteSaliency, OutOfMemory
from pipeline.geometry import PatchGrid
from pipeline.records import SaliencyMap, View
from pipeline.vlms.base import Prompt, Reading, TokenLayer, VisualTokens, Vlm
from pipeline.vlms.device import device_errors

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Gaze:
    """What one prompt's objective says about the views it shows.

    Attributes:
        maps: One per view of the prompt, in order.
        token_entropy: Entropy in nats of the first answer token (whole vocabulary), whichever token the objective is about.
        max_probability: Its largest probability.
        gradient_norm: L2 norm of the gradient over all visual tokens.
        reading: The model's state after the prompt, where generation can go on; None if the objective needed forced
            tokens or an early exit.
    """

    maps: tuple[SaliencyMap, ...]
    token_entropy: float
    max_probability: float
    gradient_norm: float
    reading: Reading | None


def entropy_saliency(
    vlm: Vlm, prompts: Sequence[Prompt], views: Sequence[Sequence[View]], config: SaliencyConfig
) -> list[Gaze]:
    """Map, for each prompt, where its views could change the objective.

    One forward pass a prompt and one backward pass a prompt (more forward passes where the objective needs decoded
    tokens first; with ``at="pixels"`` the vision tower runs once more a view, with its graph). Several prompts share one
    batch. Weights and ``.grad`` fields are left as found.

    Args:
        vlm: A frozen model.
        prompts: One batch.
        views: The views of each prompt, in the order in which it shows them.
        config: Objective and leaf.

    Raises:
        NonFiniteSaliency: The logits or a gradient are NaN or infinite (float16 overflow, say). Not retryable; another
            dtype helps.
        OutOfMemory: The device ran out of memory; nothing is kept.
        DeviceLost: The device failed for good in this process.
    """
    forced = _forced_tokens(vlm, prompts, config)
    reading = vlm.read(prompts, graph=True, leaf=config.leaf, layer=config.layer, forced=forced)
    reusable = forced is None and config.layer is None
    lengths = [len(tail) + 1 for tail in forced] if forced is not None else [1] * len(prompts)
    slopes = [slope(reading.logits[row, :length], config) for row, length in enumerate(lengths)]
    try:
        flat = iter(backward(reading, slopes, [leaf for row in reading.leaves for leaf in row]))
    except (OutOfMemory, DeviceLost):
        vlm.forget()
        raise
    gradients = [[next(flat) for _ in row] for row in reading.leaves]
    gazes = []
    for prompt, shown, rise, found in zip(prompts, views, slopes, gradients, strict=True):
        maps, norm = _maps(vlm, prompt, shown, rise, found, config)
        gazes.append(Gaze(maps, rise.token_entropy, rise.max_probability, norm, reading if reusable else None))
    return gazes


def objective(logits: Tensor, config: SaliencyConfig) -> Tensor:
    """The scalar that is differentiated, from [T, V] logits: the last position, or all for ``answer-entropy``."""
    logp = torch.log_softmax(logits, dim=-1)
    if config.objective == "answer-entropy":
        return -(logp.exp() * logp).sum()
    last = logp[-1]
    if config.objective == "max-probability":
        return last.max()
    if config.objective == "top-p-entropy":
        ordered = last.sort(descending=True).values
        mass_before = ordered.exp().cumsum(0) - ordered.exp()
        last = ordered[mass_before < config.top_p]
    return -(last.exp() * last).sum()


def _forced_tokens(vlm: Vlm, prompts: Sequence[Prompt], config: SaliencyConfig) -> list[tuple[int, ...]] | None:
    """The greedily decoded tokens that the objective looks past, per prompt; None if it looks at the first."""
    whole_answer = config.objective == "answer-entropy"
    if not whole_answer and config.decoding_step == 1:
        return None
    budget = MAX_ANSWER_TOKENS if whole_answer else config.decoding_step - 1
    decoded = [generation.token_ids for generation in vlm.generate(vlm.read(prompts), budget)]
    # The distribution of token n is read after n - 1 tokens, so the last decoded one need not be shown.
    return [ids[:-1] for ids in decoded] if whole_answer else decoded


MAX_ANSWER_TOKENS = 64
"""Tokens of a decoded answer that ``answer-entropy`` sums over at the most; answers are single words or phrases."""


@dataclass(frozen=True, slots=True, eq=False)
class Slope:
    """One row's objective, differentiated down to its logits.

    Attributes:
        gradient: float64 [T, V], divided by 2 ** `exponent`, which brings its largest component below one.
        exponent: 0 for an all-zero gradient.
        logp: float64 [V]: log-probabilities of the first answer token.
    """

    gradient: Tensor
    exponent: int
    logp: Tensor

    @property
    def token_entropy(self) -> float:
        """Entropy in nats of the first answer token."""
        return abs(float((self.logp.exp() * self.logp).sum()))

    @property
    def max_probability(self) -> float:
        """Its largest probability."""
        return float(self.logp.max().exp())


def slope(logits: Tensor, config: SaliencyConfig) -> Slope:
    """Differentiate the objective at one row's logits [T, V]."""
    if not torch.isfinite(logits).all():
        raise NonFiniteSaliency(f"the model's logits are not finite in {logits.dtype}; try --dtype float32 or bfloat16")
    with torch.enable_grad():
        detached = logits.detach().double().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(detached, config), detached)
    # Adding a constant to all logits changes nothing, so the components of a position sum to zero. A confident position's
    # largest one is a difference of numbers close to one and drowns in rounding; the others are exact and give it.
    top = detached.argmax(dim=-1, keepdim=True)
    gradient = gradient.scatter(-1, top, 0.0)
    gradient = gradient.scatter(-1, top, -gradient.sum(dim=-1, keepdim=True))
    exponent = math.frexp(float(gradient.abs().max()))[1]
    scaled = torch.ldexp(gradient, torch.tensor(-exponent, device=gradient.device))
    return Slope(scaled, exponent, torch.log_softmax(detached.detach()[0], dim=-1))


def backward(reading: Reading, slopes: Sequence[Slope], targets: Sequence[Tensor]) -> list[Tensor]:
    """Gradients at tensors on the way to a reading's logits, scaled as the slopes are: one backward pass for the batch.

    Args:
        reading: Read with its graph.
        slopes: One per row.
        targets: Leaves or attentions of the reading.
    """
    at_logits = torch.zeros_like(reading.logits)
    for row, rise in enumerate(slopes):
        at_logits[row, : len(rise.gradient)] = rise.gradient
    if not at_logits.any():
        return [torch.zeros_like(target) for target in targets]
    # The beginning of the prompt is shared by all questions of the page, so its graph is needed again.
    with device_errors(f"{at_logits.device}, going backward,"):
        return list(torch.autograd.grad(reading.logits, list(targets), grad_outputs=at_logits, retain_graph=True))


def _maps(
    vlm: Vlm, prompt: Prompt, views: Sequence[View], rise: Slope, gradients: Sequence[Tensor], config: SaliencyConfig
) -> tuple[tuple[SaliencyMap, ...], float]:
    """Lay one row's gradients out as maps; return them with the norm of what they are made of."""
    if config.at == "pixels":
        maps = tuple(
            _pixel_map(vlm, view, tokens, gradient, rise, config)
            for view, tokens, gradient in zip(views, prompt.views, gradients, strict=True)
        )
        return maps, math.hypot(*(float(np.linalg.norm(found.values)) for found in maps))
    norms = [_token_norms(gradient, rise.exponent) for gradient in gradients]
    maps = tuple(
        _saliency_map(view, tokens, norm, config) for view, tokens, norm in zip(views, prompt.views, norms, strict=True)
    )
    return maps, math.hypot(*(float(np.linalg.norm(norm)) for norm in norms))


def _pixel_map(
    vlm: Vlm, view: View, tokens: VisualTokens, gradient: Tensor, rise: Slope, config: SaliencyConfig
) -> SaliencyMap:
    """The gradient carried back to the pixels: its norm over the colours and pixels of each cell of the finest grid."""
    (picture,) = vlm.pixel_gradients(view.image, [gradient], crop=tokens.crop)
    grid = max((layer.grid for layer in tokens.layers), key=lambda grid: grid.rows * grid.cols)
    colours, height, width = picture.shape
    cells = picture.double().reshape(colours, grid.rows, height // grid.rows, grid.cols, width // grid.cols)
    norms = cells.square().sum(dim=(0, 2, 4)).sqrt()
    values: np.ndarray = np.ldexp(norms.cpu().numpy(), rise.exponent)
    if not np.isfinite(values).all():
        raise NonFiniteSaliency(f"a gradient at the pixels is not finite in {gradient.dtype}; try --dtype float32")
    if config.pad_offset == "official":
        grid = PatchGrid(grid.rows, grid.cols, 0, 0, view.box.width, view.box.height)
    return SaliencyMap(view, grid, values)


def _token_norms(gradient: Tensor, exponent: int) -> np.ndarray:
    """L2 norm per visual token (Eq. 4), float64 [N], with the loss scale taken out."""
    norms: np.ndarray = gradient.detach().double().norm(dim=-1).cpu().numpy()
    if not np.isfinite(norms).all():
        raise NonFiniteSaliency(f"a gradient is not finite in {gradient.dtype}; try --dtype float32 or bfloat16")
    unscaled: np.ndarray = np.ldexp(norms, exponent)
    return unscaled


def _saliency_map(view: View, tokens: VisualTokens, norms: np.ndarray, config: SaliencyConfig) -> SaliencyMap:
    """Lay token norms out on the view's grid."""
    layers = tokens.layers if config.grids == "all" else tokens.layers[:1]
    grid, values = merge_layers(layers, norms)
    if config.pad_offset == "official":
        grid = PatchGrid(grid.rows, grid.cols, 0, 0, view.box.width, view.box.height)
    return SaliencyMap(view, grid, values)


def merge_layers(layers: Sequence[TokenLayer], norms: np.ndarray) -> tuple[PatchGrid, np.ndarray]:
    """Bring all layers of a view's tokens to the finest of their grids.

    A coarse cell's saliency is spread evenly over its area and what falls into a fine cell is added there, so saliency
    per page area is what is merged and none is lost where the finest grid covers the coarse one.
    """
    finest = max(layers, key=lambda layer: layer.grid.rows * layer.grid.cols).grid
    merged = np.zeros((finest.rows, finest.cols))
    known = np.append(norms, 0.0)  # what NO_TOKEN indexes
    for layer in layers:
        grid = layer.grid
        rows = overlap((grid.y0, grid.y1, grid.rows), (finest.y0, finest.y1, finest.rows))
        cols = overlap((grid.x0, grid.x1, grid.cols), (finest.x0, finest.x1, finest.cols))
        merged += rows @ known[layer.index] @ cols.T
    return finest, merged


def overlap(source: tuple[float, float, int], target: tuple[float, float, int]) -> np.ndarray:
    """(target cells, source cells): the share of each source interval that lies in each target interval."""
    source_edges = np.linspace(*source[:2], source[2] + 1)
    target_edges = np.linspace(*target[:2], target[2] + 1)
    start = np.maximum(source_edges[None, :-1], target_edges[:-1, None])
    end = np.minimum(source_edges[None, 1:], target_edges[1:, None])
    shares: np.ndarray = np.clip(end - start, 0, None) / np.diff(source_edges)[None, :]
    return shares
