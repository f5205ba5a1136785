"""Parameters of entropy-gradient grounding, and their named sets.

Sources: arXiv:2604.08456 and its released code (merci00001/entropy-gradient-grounding at 8a986ee). The paper prints neither
sigma nor T; the values here are the released code's sigma and our T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

ObjectiveName = Literal["entropy", "top-p-entropy", "max-probability", "answer-entropy"]
SpatialEntropyName = Literal["cells", "mass", "contrast-mass"]

MAX_SIGMA = 1000
"""Cells; no grid is wider, and the filter's memory grows with it."""


@dataclass(frozen=True, slots=True)
class SaliencyConfig:
    """What is differentiated, and with respect to what.

    Attributes:
        objective: ``entropy`` of the whole vocabulary (Eq. 1); ``top-p-entropy``, over the smallest set of tokens that
            reaches `top_p`, not renormalised (Table 3); ``max-probability``, its logarithm (Table 3);
            ``answer-entropy``, the sum of entropies over the decoded answer's tokens.
        top_p: Mass for ``top-p-entropy``.
        decoding_step: t = 1..4, the answer token whose distribution is used (Table 6), or the last one's if the answer
            ends before; ``answer-entropy`` ignores it.
        leaf: 0 for the projected embeddings (Eq. 3); m for the visual tokens' hidden states entering block m.
        layer: Early exit after that many blocks, without the final norm (Table 5); None for the whole model.
        grids: ``all`` merges the layers of a view's tokens (LLaVA-1.6: base and tiles) as saliency per page
            area; ``first`` maps the base view only, as the official code does.
        pad_offset: ``exact`` maps cells through the padding a family adds around a view; ``official`` stretches the grid
            over the unpadded view, the released code's misalignment for LLaVA-1.5.
        at: ``tokens``: the map is the gradient's norm at the visual tokens (Eq. 4). ``pixels``: that at the pixels that the
            vision tower takes, over the colours and the pixels of a cell (Appendix F compares).
    """

    objective: ObjectiveName = "entropy"
    top_p: float = 0.9
    decoding_step: int = 1
    leaf: int = 0
    layer: int | None = None
    grids: Literal["all", "first"] = "all"
    pad_offset: Literal["exact", "official"] = "exact"
    at: Literal["tokens", "pixels"] = "tokens"

    def __post_init__(self) -> None:
        if not 1 <= self.decoding_step <= 4:
            raise ValueError(f"decoding_step is {self.decoding_step}, expected 1 to 4")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}, expected above 0 and at most 1")
        if self.leaf < 0:
            raise ValueError(f"leaf is {self.leaf}, expected 0 or more")
        if self.at == "pixels" and self.leaf > 0:
            raise ValueError(
                f"at is pixels and leaf is {self.leaf}: the pixels enter before the embeddings, expected leaf 0"
            )
        if self.layer is not None and self.layer <= self.leaf:
            raise ValueError(f"layer {self.layer} ends before the leaf at block {self.leaf}")


@dataclass(frozen=True, slots=True)
class RegionConfig:
    """How a map becomes boxes.

    Attributes:
        sigma_rows, sigma_cols: Gaussian smoothing in cells, per axis (cells need not be square); 0 for none.
        threshold: ``elbow`` (largest distance from the chord of the sorted values) or ``half-maximum``.
        mask: ``at-or-above`` the threshold (Eq. 5) or strictly ``above`` it (the official code).
        connectivity: 4 or 8 neighbours make a component.
        spatial_entropy: ``cells``: Eq. 7-8 over the mask, by cell count. ``mass``: components of the smoothed map above
            the threshold, weighted by their share of all of it (the authors' Qwen and InternVL scripts).
            ``contrast-mass``: the same after subtracting twice the mean and cutting at zero (the official LLaVA code).
        margin_rows, margin_cols: Cells added on each side of a tight box before it is cut.
        rounding: ``outward`` to whole pixels, or ``floor`` as the official code.
        aspect_clamp: Boxes longer than 3:1 are widened: ``none``, ``thirds`` (to exactly 3:1), or ``official`` (the
            code's slip: a tall box becomes three times as wide as high).
    """

    sigma_rows: float = 1.5
    sigma_cols: float = 1.5
    threshold: Literal["elbow", "half-maximum"] = "elbow"
    mask: Literal["at-or-above", "above"] = "at-or-above"
    connectivity: Literal[4, 8] = 8
    spatial_entropy: SpatialEntropyName = "cells"
    margin_rows: int = 0
    margin_cols: int = 0
    rounding: Literal["outward", "floor"] = "outward"
    aspect_clamp: Literal["none", "thirds", "official"] = "none"

    def __post_init__(self) -> None:
        if not (0 <= self.sigma_rows <= MAX_SIGMA and 0 <= self.sigma_cols <= MAX_SIGMA):
            raise ValueError(f"sigma is {self.sigma_rows} by {self.sigma_cols} cells, expected 0 to {MAX_SIGMA}")
        if self.margin_rows < 0 or self.margin_cols < 0:
            raise ValueError(f"margin is {self.margin_rows} by {self.margin_cols} cells, expected 0 or more")


@dataclass(frozen=True, slots=True)
class ZoomConfig:
    """How the search proceeds.

    Attributes:
        context: ``per-view``: each view is grounded alone, p(y | view, question) (Algorithm 1). ``joint``: one prompt shows
            all views, one objective, and its gradient is split into maps (the released code).
        regions: K, regions kept of all views' together.
        rounds: T, grounding rounds at the most; at the cap the last set built is the answer's. With ``fixed``, the number.
        stop: ``spatial-entropy``, ``confidence`` (largest probability of the first token), or ``fixed``.
        patience: ``improve``: stop unless the criterion got better (Algorithm 1's >=). ``worsen``: stop only when it got
            worse (the released code's >).
        stop_degenerate: Also stop at a spatial entropy of 0 or infinity (the released code).
        answer_with: ``grounded``: the set that was just grounded when the search stopped (Algorithm 1). ``next``: the
            set built from it (the released code).
    """

    context: Literal["per-view", "joint"] = "per-view"
    regions: int = 2
    rounds: int = 4
    stop: Literal["spatial-entropy", "confidence", "fixed"] = "spatial-entropy"
    patience: Literal["improve", "worsen"] = "improve"
    stop_degenerate: bool = False
    answer_with: Literal["grounded", "next"] = "grounded"

    def __post_init__(self) -> None:
        if self.regions < 1 or self.rounds < 1:
            raise ValueError(f"regions is {self.regions} and rounds is {self.rounds}, expected at least 1 each")


@dataclass(frozen=True, slots=True)
class GroundingConfig:
    """Everything that decides where a search ends: what is differentiated, how maps become boxes, how it proceeds."""

    saliency: SaliencyConfig = field(default_factory=SaliencyConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    zoom: ZoomConfig = field(default_factory=ZoomConfig)


def paper(family: str) -> GroundingConfig:
    """Algorithm 1 and Eq. 1-8: views alone, K = 2, sigma 1.5 cells, T = 4, stop at H_t >= H_prev."""
    return GroundingConfig()


def official(family: str) -> GroundingConfig:
    """The released code's method without its waste; Qwen and InternVL as in the authors' scripts for them."""
    llava = GroundingConfig(
        SaliencyConfig(grids="first"),
        RegionConfig(
            mask="above", connectivity=4, spatial_entropy="contrast-mass", rounding="floor", aspect_clamp="official"
        ),
        ZoomConfig(context="joint", rounds=16, patience="worsen", stop_degenerate=True, answer_with="next"),
    )
    if family not in {"qwen2_5_vl", "internvl"}:
        return llava
    region = replace(llava.region, spatial_entropy="mass", aspect_clamp="none")
    if family == "qwen2_5_vl":
        region = replace(region, sigma_rows=2.5, sigma_cols=2.5, threshold="half-maximum")
    return replace(llava, region=region, zoom=replace(llava.zoom, regions=3))


def document(family: str) -> GroundingConfig:
    """Ours, for print: all views in one prompt, smoothing of a line's height, a cell of margin around each crop.

    The embedded model's cells are a line high and hold whole words: for it, smoothing and margins are those that find most
    true boxes of the benchmark's validation part (`exhibit eval fit`, 2026-11-29).
    """
    region = RegionConfig(sigma_rows=0.7, sigma_cols=0.7, margin_rows=1, margin_cols=1)
    if family == "embedded":
        region = RegionConfig(sigma_rows=0.7, sigma_cols=1.5)
    return GroundingConfig(SaliencyConfig(), region, ZoomConfig(context="joint"))


PRESETS: Mapping[str, Callable[[str], GroundingConfig]] = {"document": document, "paper": paper, "official": official}
"""The default first."""
