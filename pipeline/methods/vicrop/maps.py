"""ViCrop's three maps: where a view matters for a question, from attention or from gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from pipeline.config import SaliencyConfig, VicropConfig
from pipeline.config.vicrop import Rules
from pipeline.errors import DeviceLost, NonFiniteSaliency, OutOfMemory
from pipeline.geometry import Box, PatchGrid
from pipeline.records import View
from pipeline.saliency import Slope, backward, merge_layers, overlap, slope
from pipeline.vlms.base import Prompt, VisualTokens, Vlm

GENERAL_QUESTION = "Write a general description of the image."
"""What the question's map is compared with; asked in the question's own prompt."""

_LARGEST = SaliencyConfig(objective="max-probability")
_EPSILON = 1e-8
"""Of the largest general value: added to all, so that nothing is divided by zero."""
_BLUR_SIGMA = 0.8  # pixels; torchvision's for a kernel of three
_MEDIAN_PX = {"sound": 3, "official": 7}


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """One view's map, and the distribution that it came from.

    Attributes:
        values: float64 (rows, cols), >= 0.
        grid: Where they lie, in view pixels.
        token_entropy: Entropy in nats of the first answer token, given this view alone.
        max_probability: Its largest probability.
        gradient_norm: L2 norm of the gradient the map is made of; None for a map of attention alone.
    """

    values: np.ndarray
    grid: PatchGrid
    token_entropy: float
    max_probability: float
    gradient_norm: float | None


class Importance:
    """Maps of the views of one page. What the general question says of a view is kept for all questions.

    Args:
        vlm: A frozen model.
        config: Which map, of which block, by which rules.
        general: The prompt of the general question.
    """

    def __init__(self, vlm: Vlm, config: VicropConfig, general: str) -> None:
        self.vlm, self.config, self.general = vlm, config, general
        self._general: dict[Box, np.ndarray] = {}

    def glance(self, view: View, tokens: VisualTokens, text: str) -> Glance:
        """Map one view for a prompt.

        Forward passes: two of ``rel-att`` and ``pure-grad`` (one when the view was mapped before), one of ``grad-att``;
        backward passes: none, as many, one.

        Raises:
            NonFiniteSaliency: Logits, gradients or the map are not finite.
            OutOfMemory: The device ran out of memory; nothing is kept.
        """
        maps = {
            "rel-att": self._relative_attention,
            "grad-att": self._gradient_attention,
            "pure-grad": self._pure_gradient,
        }
        try:
            glance = maps[self.config.variant](view, tokens, text)
        except (OutOfMemory, DeviceLost):
            self.vlm.forget()
            raise
        if not np.isfinite(glance.values).all():
            raise NonFiniteSaliency(
                f"the {self.config.variant} map is not finite: the general question, by which it is divided, gets nothing "
                f"(rules={self.config.rules}; with rules=sound it must get nothing anywhere)"
            )
        return glance

    def _relative_attention(self, view: View, tokens: VisualTokens, text: str) -> Glance:
        """Attention of the last position, mean over heads: the question's over the general one's."""
        asked, rise = self._attention(tokens, text)
        general = self._once(view, lambda: self._attention(tokens, self.general)[0])
        grid, attended = merge_layers(tokens.layers, asked)
        _, expected = merge_layers(tokens.layers, general)
        return self._placed(view, grid, self._ratio(attended, expected), rise, None)

    def _attention(self, tokens: VisualTokens, text: str) -> tuple[np.ndarray, Slope]:
        reading = self.vlm.read([Prompt((tokens,), text)], attentions=(self.config.block,))
        ((weights,),) = reading.attentions
        mean: np.ndarray = weights.double().mean(0).cpu().numpy()
        return mean, slope(reading.logits[0], _LARGEST)

    def _gradient_attention(self, view: View, tokens: VisualTokens, text: str) -> Glance:
        """Attention times how much more of it would raise the largest log-probability, mean over heads."""
        block = self.config.block
        reading = self.vlm.read([Prompt((tokens,), text)], graph=True, leaf=block, attentions=(block,))
        ((weights,),) = reading.attentions
        rise = slope(reading.logits[0], _LARGEST)
        (gradient,) = backward(reading, [rise], [weights])
        gradient = _finite(gradient)
        values: np.ndarray = (weights.detach().double() * gradient.clamp(min=0)).mean(0).cpu().numpy()
        grid, values = merge_layers(tokens.layers, np.ldexp(values, rise.exponent))
        return self._placed(view, grid, values, rise, _unscaled_norm(gradient.norm().item(), rise))

    def _pure_gradient(self, view: View, tokens: VisualTokens, text: str) -> Glance:
        """Gradient at the pixels, the question's over the general one's, where the picture has detail; mean per cell."""
        asked, rise = self._pixel_gradient(view, tokens, text)
        general = self._once(view, lambda: self._pixel_gradient(view, tokens, self.general)[0])
        grid = max((layer.grid for layer in tokens.layers), key=lambda grid: grid.rows * grid.cols)
        height, width = asked.shape
        detailed = has_detail(view.image, grid, (height, width), self.config.rules)
        values = np.where(detailed, self._ratio(asked, general), 0.0)
        cells = values.reshape(grid.rows, height // grid.rows, grid.cols, width // grid.cols)
        return self._placed(view, grid, cells.mean((1, 3)), rise, float(np.linalg.norm(asked)))

    def _pixel_gradient(self, view: View, tokens: VisualTokens, text: str) -> tuple[np.ndarray, Slope]:
        """L2 norm over the channels of d log p / d pixel, [H, W] of the tower's picture."""
        reading = self.vlm.read([Prompt((tokens,), text)], graph=True)
        rise = slope(reading.logits[0], _LARGEST)
        (at_tokens,) = backward(reading, [rise], reading.leaves[0])
        (picture,) = self.vlm.pixel_gradients(view.image, [at_tokens], crop=tokens.crop)
        norms: np.ndarray = np.ldexp(_finite(picture).norm(dim=0).cpu().numpy(), rise.exponent)
        return norms, rise

    def _once(self, view: View, compute: Callable[[], np.ndarray]) -> np.ndarray:
        if view.box not in self._general:
            self._general[view.box] = compute()
        return self._general[view.box]

    def _ratio(self, asked: np.ndarray, general: np.ndarray) -> np.ndarray:
        beside = _EPSILON * general.max() if self.config.rules == "sound" else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            # Where neither question gets anything, as on paper that no token stands for, there is nothing to compare.
            ratio: np.ndarray = np.where((asked == 0) & (general == 0), 0.0, asked / (general + beside))
        return ratio

    def _placed(self, view: View, grid: PatchGrid, values: np.ndarray, rise: Slope, gradient_norm: float | None) -> Glance:
        """The map where it lies: nothing is on padding, or, officially, the grid is stretched over the view."""
        if self.config.rules == "official":
            grid = PatchGrid(grid.rows, grid.cols, 0, 0, view.box.width, view.box.height)
        else:
            values = np.where(_on_view(grid, view), values, 0.0)
        return Glance(values, grid, rise.token_entropy, rise.max_probability, gradient_norm)


def _finite(gradient: Tensor) -> Tensor:
    """The gradient in double precision."""
    if not torch.isfinite(gradient).all():
        raise NonFiniteSaliency(f"a gradient is not finite in {gradient.dtype}; try --dtype float32 or bfloat16")
    return gradient.double()


def _unscaled_norm(norm: float, rise: Slope) -> float:
    return float(np.ldexp(norm, rise.exponent))


def _on_view(grid: PatchGrid, view: View) -> np.ndarray:
    """Which cells have their centre on the view, bool (rows, cols)."""
    x = grid.x0 + (np.arange(grid.cols) + 0.5) * grid.cell_width
    y = grid.y0 + (np.arange(grid.rows) + 0.5) * grid.cell_height
    inside: np.ndarray = ((y >= 0) & (y < view.box.height))[:, None] & ((x >= 0) & (x < view.box.width))[None, :]
    return inside


def has_detail(image: Image.Image, grid: PatchGrid, shape: tuple[int, int], rules: Rules) -> np.ndarray:
    """Where a picture changes from pixel to pixel more than at its median place, bool `shape`.

    The difference from its 3 x 3 Gaussian blur, as a length over the colours, smoothed by a median.

    Args:
        image: The view.
        grid: The layer that the picture of `shape` lies under.
        shape: Height and width of the picture.
        rules: ``official`` squashes the view into the picture, whatever the family does.
    """
    picture = image.convert("RGB").resize((shape[1], shape[0])) if rules == "official" else _drawn(image, grid, shape)
    pixels = np.asarray(picture) / 255
    offsets = np.arange(-1, 2)
    kernel = np.exp(-(offsets**2) / (2 * _BLUR_SIGMA**2))
    kernel /= kernel.sum()
    blurred = ndimage.correlate1d(ndimage.correlate1d(pixels, kernel, 0, mode="mirror"), kernel, 1, mode="mirror")
    detail = ndimage.median_filter(np.linalg.norm(pixels - blurred, axis=2), _MEDIAN_PX[rules])
    detailed: np.ndarray = detail > np.median(detail)
    return detailed


def _drawn(image: Image.Image, grid: PatchGrid, shape: tuple[int, int]) -> Image.Image:
    """The view as it lies on its grid's picture, white around it."""
    height, width = shape
    across, down = width / (grid.x1 - grid.x0), height / (grid.y1 - grid.y0)
    picture = Image.new("RGB", (width, height), "white")
    scaled = image.convert("RGB").resize((max(1, round(image.width * across)), max(1, round(image.height * down))))
    picture.paste(scaled, (round(-grid.x0 * across), round(-grid.y0 * down)))
    return picture


def mosaic(glances: Sequence[Glance], boxes: Sequence[Box], rows: int, cols: int) -> np.ndarray:
    """Join the maps of `rows` x `cols` blocks, row by row, as one over all of them; each keeps its own scale.

    A map whose grid reaches beyond its block, or has other cells than the finest, is averaged into cells of its block.

    Returns:
        float64 (rows * r, cols * c) for blocks of at most r x c cells.
    """
    down = max(glance.grid.rows for glance in glances)
    across = max(glance.grid.cols for glance in glances)
    cells = [_averaged(glance, box, down, across) for glance, box in zip(glances, boxes, strict=True)]
    return np.block([cells[row * cols : (row + 1) * cols] for row in range(rows)])


def _averaged(glance: Glance, box: Box, rows: int, cols: int) -> np.ndarray:
    """A map averaged over `rows` x `cols` cells of its block."""
    grid = glance.grid
    down = overlap((grid.y0, grid.y1, grid.rows), (0, box.height, rows)) * grid.cell_height / (box.height / rows)
    across = overlap((grid.x0, grid.x1, grid.cols), (0, box.width, cols)) * grid.cell_width / (box.width / cols)
    averaged: np.ndarray = down @ glance.values @ across.T
    return averaged
