"""The Vlm protocol: the four verbs that everything above needs of a vision-language model.

Notation used for tensor shapes: B prompts, N visual tokens of a view, D hidden width, V vocabulary, T positions.

A prompt shows its views before its text, the global view first, so everything up to the end of the global view is the same
for all questions of a page. An implementation keeps the states of that shared beginning for the last page it read and runs
only what is new; the numbers are the same as without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.geometry import PatchGrid
from pipeline.records import ModelIdentity, Usage

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


NO_TOKEN = -1
"""Of a cell that no visual token stands for, as the embedded model's empty paper."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenLayer:
    """One grid of a view's visual tokens.

    Most families have one layer. LLaVA-1.6 has two over the same pixels, the base view and the tiles; InternVL's thumbnail
    and newline tokens belong to no layer and get no saliency.

    Attributes:
        grid: Where the cells lie, in view pixels.
        index: int64 (rows, cols): which of the view's N tokens is the cell's; `NO_TOKEN` where there is none, which has no
            saliency.
    """

    grid: PatchGrid
    index: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class VisualTokens:
    """A view after vision tower and projector.

    Attributes:
        embeddings: [N, D], detached, in the model's dtype and on its device.
        layers: Where the tokens lie on the view.
        extra: What the family needs to place them (grid_thw, tile counts); opaque to everybody else.
        crop: Whether it shows a part of a page. States are kept for prompts that begin with a whole page only, so that a
            crop read by itself does not push the page out.
    """

    embeddings: Tensor
    layers: tuple[TokenLayer, ...]
    extra: Any = None
    crop: bool = False

    @property
    def count(self) -> int:
        """N."""
        return int(self.embeddings.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the model is shown and asked: views in order, the global view first, then the text (the user's turn)."""

    views: tuple[VisualTokens, ...]
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The model's state after reading B prompts.

    Attributes:
        logits: float32 [B, T, V]: the distributions of the next token, then of each teacher-forced token's successor;
            T = 1 when nothing was forced. Differentiable in `leaves` if read with ``graph=True``.
        leaves: Per prompt, per view: the leaf [N, D] of the gradient; empty without a graph.
        state: Opaque; lets `generate` go on from here without reading again.
        attentions: Per block asked for, per prompt: float32 (or wider) [heads, N]: what the prompt's last position attends
            to, over the tokens of all its views in order. Each head's weights sum to one over the whole prompt, so to less
            here. With ``graph=True`` the logits can be differentiated at them, in blocks from the leaf's on.
    """

    logits: Tensor
    leaves: tuple[tuple[Tensor, ...], ...]
    state: Any = None
    attentions: tuple[tuple[Tensor, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """Greedily decoded text.

    Attributes:
        text: Decoded and stripped, special tokens removed.
        token_ids: Without the end token.
        logprobs: Log-probability of each token, end token included when it was produced.
        entropies: Entropy in nats of the distribution each was taken from.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens, the end token included."""
        return sum(self.logprobs) / len(self.logprobs)


@dataclass(frozen=True, slots=True)
class Score:
    """A teacher-forced continuation: log-probability and entropy per token, end token included."""

    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens."""
        return sum(self.logprobs) / len(self.logprobs)


class Vlm(Protocol):
    """A frozen vision-language model. All parameters have ``requires_grad=False``; no call changes the module."""

    identity: ModelIdentity
    blocks: int
    """Number of decoder blocks of the language model; `leaf` and `layer` count them."""

    @property
    def usage(self) -> Usage:
        """Passes since the model was loaded (``seconds`` is 0); take differences.

        Backward passes are counted here too, as they go through a reading's logits: one per row with a gradient.
        """
        ...

    def encode(self, images: Sequence[Image.Image], *, crops: bool = False) -> list[VisualTokens]:
        """Run vision tower and projector once per image, outside any graph; images that become equal inputs share a batch.

        Args:
            images: Views, at the scale of the page raster.
            crops: Whether they are parts of a page; a family may draw those at another scale.
        """
        ...

    def pixel_gradients(self, image: Image.Image, gradients: Sequence[Tensor], *, crop: bool = False) -> list[Tensor]:
        """Carry gradients at a view's visual tokens back to the pixels that the vision tower takes.

        The tower runs once, now with its graph, and is differentiated once per gradient; by the chain rule this completes
        the backward pass of a reading.

        Args:
            image: The view, as it was encoded.
            gradients: [N, D] each, at the view's leaves.
            crop: Whether it was encoded as a part of a page.

        Returns:
            [C, H, W] per gradient: the picture that the view's finest layer lies on, in the tower's own pixels, so a cell of
            the layer's grid is H / rows by W / cols of them.
        """
        ...

    def read(
        self,
        prompts: Sequence[Prompt],
        *,
        graph: bool = False,
        leaf: int = 0,
        layer: int | None = None,
        forced: Sequence[Sequence[int]] | None = None,
        attentions: Sequence[int] = (),
    ) -> Reading:
        """Read prompts and return the distribution of the next token.

        Args:
            prompts: One batch.
            graph: Keep the graph from `leaves` to `logits`. With one prompt its shared beginning is read once per page
                and kept with its graph, so differentiate with ``retain_graph=True``; with several prompts each row has
                leaves of its own.
            leaf: 0: the projected embeddings (Eq. 3). m > 0: the visual tokens' hidden states entering block m.
            layer: Leave after that many blocks, straight to the output head without the final norm (the official code's
                early exit, Table 5); None for the whole model.
            forced: Token ids to append to each prompt, one sequence a prompt; behind the end of a shorter one the logits
                are zeros, which mean nothing.
            attentions: Blocks whose attention is wanted; the others' is never written down.

        Raises:
            PromptTooLong: A prompt exceeds the model's context; the message gives both lengths.
            OutOfMemory: The device ran out of memory; nothing is kept.
        """
        ...

    def generate(self, reading: Reading, max_new_tokens: int) -> list[Generation]:
        """Decode greedily from a reading of the whole model, with as many tokens forced on each prompt; no graph is kept."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of generated tokens, not stripped, special tokens left out."""
        ...

    def continuation_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of an answer as the model would write it, end token included."""
        ...

    def forget(self) -> None:
        """Drop the states kept of the last page, graph included: after a backward pass that ran out of memory, say."""
        ...

    def score(self, prompts: Sequence[Prompt], continuations: Sequence[str]) -> list[Score]:
        """Score one continuation (end token included) per prompt, teacher-forced, without a graph."""
        ...
