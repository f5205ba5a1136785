"""Attention in the open: what one position of each row attends to in a block, as a tensor on the way to the logits.

The kernels that make attention fast never write its weights down, and writing all of them down takes memory in proportion to
the sequence squared. Only one position's are wanted, so only that position's attention is computed step by step; its outcome
takes the kernel's place, so that the logits can be differentiated at its weights.

Shapes: B rows, H heads over G groups of keys, L new positions, K positions in all, N visual tokens of a row, d width of
a head.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

_WATCHED, _REMEMBERED = "exhibit_watched", "exhibit_remembered"


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """Whose attention is wanted: that of one position of each row to the row's visual tokens.

    Attributes:
        blocks: In which blocks.
        positions: The position of each row that attends, counted from the start of the whole sequence.
        visual: int64 [N] per row: the positions of its visual tokens, counted alike.
    """

    blocks: tuple[int, ...]
    positions: tuple[int, ...]
    visual: tuple[Tensor, ...]


class WatchedBlock:
    """A block with the same weights whose attention is computed in the open; the block itself stays as it is.

    Args:
        block: A decoder block of transformers.
        watch: What is wanted of it.
        filled: bool [B, K]: the positions that hold a token.
    """

    def __init__(self, block: Any, watch: Watch, filled: Tensor) -> None:
        device = filled.device
        self._watch = watch
        self._positions = torch.tensor(watch.positions, device=device)
        self._seen = filled & (torch.arange(filled.shape[1], device=device)[None] <= self._positions[:, None])
        self.weights: tuple[Tensor, ...] = ()
        """[H, N] per row, after the block was called: float32 at least."""
        attention = _attending(block, _WATCHED)
        self._block = copy.copy(block)
        self._block._modules = {**block._modules, "self_attn": attention}

    def __call__(self, hidden: Tensor, **arguments: Any) -> Tensor:
        """As the block itself."""
        states: Tensor = self._block(hidden, **arguments, watched=self)
        return states

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float, kernel: Tensor) -> Tensor:
        """Put the watched positions' attention, computed here, into the kernel's [B, L, H, d].

        Args:
            query: [B, H, L, d], the new positions'.
            key: [B, G, K, d], all positions'.
            value: Alike.
            scaling: Of the scores.
            kernel: What the kernel made of them.
        """
        batch, groups, total, width = key.shape
        rows = torch.arange(batch, device=query.device)
        new = self._positions - (total - query.shape[2])
        asking = query[rows, :, new].view(batch, groups, -1, width)
        scores = (asking @ key.transpose(2, 3)).flatten(1, 2) * scaling
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        weights = scores.masked_fill(~self._seen[:, None], -torch.inf).softmax(-1)
        places = [at.to(query.device) for at in self._watch.visual]
        self.weights = tuple(row[:, at] for row, at in zip(weights, places, strict=True))
        # The weights handed out go back in, so that what follows depends on them.
        weights = torch.stack(
            [row.index_copy(1, at, own) for row, at, own in zip(weights, places, self.weights, strict=True)]
        )
        mixed = (weights.to(value.dtype).view(batch, groups, -1, total) @ value).flatten(1, 2)
        return kernel.index_put((rows, new), mixed)


def remember(block: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], cache: Any) -> None:
    """Put a block's keys and values of some positions [B, L, D] into its cache, and leave out the rest of the block."""
    if hidden.shape[1]:
        _attending(block, _REMEMBERED)(
            block.input_layernorm(hidden), position_embeddings=rotary, attention_mask=None, past_key_values=cache
        )


def _attending(block: Any, how: str) -> Any:
    """A block's attention by another of transformers' attention functions; shares every weight, the block stays as it is."""
    attention = copy.copy(block.self_attn)
    attention.config = copy.copy(attention.config)
    attention.config._attn_implementation = how
    return attention


def visual_positions(lengths: Sequence[tuple[int, bool]]) -> Tensor:
    """Positions of the visual tokens in a sequence of stretches, each given by its length and whether it is a view."""
    places, at = [torch.arange(0)], 0
    for length, visual in lengths:
        if visual:
            places.append(torch.arange(at, at + length))
        at += length
    return torch.cat(places)


def _nowhere(_module: Any, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    """Nothing attended to, in the place of what a kernel makes of queries [B, H, L, d]: [B, L, H, d] at no cost."""
    return query.new_zeros(()).expand_as(query).transpose(1, 2), None


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    watched: WatchedBlock,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function of a watched block, as transformers calls it: the kernel's, but for the watched positions."""
    kernel, _weights = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling)
    return watched.attend(query, key, value, scaling, kernel), None


ALL_ATTENTION_FUNCTIONS.register(_WATCHED, _attention)
ALL_ATTENTION_FUNCTIONS.register(_REMEMBERED, _nowhere)
