"""How decisive the answer is and what that costs: entropies, span, anchors, reward, advantages (Eq. 2, 3, 5, 9, 14-19).

Signs are those of Eq. 15: a positive change of the answer's entropy means that the image made the answer more decisive.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.config import SpotEConfig
from pipeline.errors import NonFiniteSaliency

if TYPE_CHECKING:
    from torch import Tensor

MARKER = "Final answer:"
EPSILON = 1e-6
"""Of Eq. 19."""

_MARKER = re.compile(re.escape(MARKER), re.IGNORECASE)


def token_entropies(logits: Tensor) -> np.ndarray:
    """Eq. 2: entropies in nats, float64 [B, T], of logits [B, T, V].

    Raises:
        NonFiniteSaliency: A logit is NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise NonFiniteSaliency(f"the model's logits are not finite in {logits.dtype}; try --dtype float32 or bfloat16")
    logp = logits.float().log_softmax(-1)
    entropies: np.ndarray = -(logp.exp() * logp).sum(-1).double().cpu().numpy()
    entropies[entropies <= 0] = 0.0  # never -0.0, nor a rounding below
    return entropies


def is_marked(output: str) -> bool:
    """Whether the output says where its answer begins."""
    return _MARKER.search(output) is not None


def answer_text(output: str) -> str:
    """The answer in a model's output: what follows the last marker, or all of it."""
    found = list(_MARKER.finditer(output))
    return (output[found[-1].end() :] if found else output).strip()


def answer_span(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> tuple[int, ...]:
    """T_ans: which output tokens are the answer's, as indices; empty when no token says anything.

    Args:
        ids: The output without its end token.
        decode: Token ids to text. Tokens are laid on the text by decoding every beginning of the output.
    """
    ends = [len(decode(ids[: count + 1])) for count in range(len(ids))]
    text = decode(ids)
    found = list(_MARKER.finditer(text))
    start = found[-1].end() if found else 0
    answer = text[start:].rstrip()
    # A final period ends the sentence, not the answer.
    stop = start + len(answer.rstrip(".").rstrip() or answer)
    return tuple(
        index
        for index, (begin, end) in enumerate(itertools.pairwise([0, *ends]))
        if text[max(begin, start) : min(end, stop)].strip()
    )


def lowest(entropies: np.ndarray, count: int, without: Sequence[int] = ()) -> tuple[int, ...]:
    """Eq. 5: the positions of the smallest entropies, at most `count`, by rank; ties go to the earlier position."""
    order = [int(index) for index in np.argsort(entropies, kind="stable") if int(index) not in set(without)]
    return tuple(sorted(order[:count]))


@dataclass(frozen=True, slots=True)
class Reward:
    """What an image is worth.

    Attributes:
        total: Eq. 14, nats.
        clarity: Eq. 16: gamma times what the image takes from the answer's entropy.
        disruption: Eq. 9: mean rise of the anchors' entropies, >= 0.
        answer_entropy: Eq. 3 for this image, nats.
    """

    total: float
    clarity: float
    disruption: float
    answer_entropy: float


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """The untouched image along the decoded output: what candidates are measured by.

    Attributes:
        entropies: H_k(x, q), float64 [T].
        span: Positions of the answer; never empty.
        anchors: Positions that were nearly decided.
    """

    entropies: np.ndarray
    span: tuple[int, ...]
    anchors: tuple[int, ...]

    @classmethod
    def of(cls, entropies: np.ndarray, span: Sequence[int], config: SpotEConfig) -> Baseline:
        """Choose the anchors. An answer without a token that says anything is judged by the whole output."""
        positions = tuple(span) or tuple(range(len(entropies)))
        without = positions if config.exclude_answer else ()
        return cls(entropies, positions, lowest(entropies, config.anchors, without))

    @property
    def answer_entropy(self) -> float:
        """H_ans(x, q), Eq. 3."""
        return self._over_span(self.entropies)

    def reward(self, entropies: np.ndarray, config: SpotEConfig) -> Reward:
        """Eq. 9 and 14-17 for an image with these entropies [T] along the same output."""
        after = self._over_span(entropies)
        clarity = self.gamma(config) * (self.answer_entropy - after)
        rises = np.maximum(entropies - self.entropies, 0.0)[list(self.anchors)]
        disruption = float(rises.mean()) if self.anchors else 0.0
        return Reward(clarity - config.preserve * disruption, clarity, disruption, after)

    def gamma(self, config: SpotEConfig) -> float:
        """Eq. 16's weight: H / (H + c), in [0, 1), or what an ablation of Table 3 puts in its place."""
        if config.clarity != "dynamic":
            return 1.0 if config.clarity == "constant" else 0.0
        return self.answer_entropy / (self.answer_entropy + config.clarity_c)

    def _over_span(self, entropies: np.ndarray) -> float:
        return float(entropies[list(self.span)].mean())


def advantages(rewards: Sequence[float], noise_floor: float) -> np.ndarray:
    """Eq. 18-19: rewards standardised by the group's own mean and population deviation, float64 [N].

    Exactly zero for a group whose rewards differ by no more than the noise floor: dividing by such a deviation would make
    advice out of rounding.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if np.ptp(values) <= noise_floor:
        return np.zeros_like(values)
    standardised: np.ndarray = (values - values.mean()) / (values.std() + EPSILON)
    return standardised
