"""The language model as the engine needs it: its blocks one after another, from any embeddings, up to any depth.

transformers' own forward offers neither leaves in the middle nor an early exit; running the blocks ourselves gives both
without a hook, so nothing on the module is ever changed. Everything else (attention, rotary positions, norms) is theirs.

Shapes: B rows, P positions kept from before, L new ones (padded at the end), K = P + L, D hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelUnavailable
from pipeline.vlms.attention import Watch, WatchedBlock, remember
from pipeline.vlms.base import VisualTokens


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A stretch of a sequence: the tokens of a text, or all tokens of a view."""

    ids: tuple[int, ...] = ()
    view: VisualTokens | None = None

    @property
    def length(self) -> int:
        """Number of positions."""
        return len(self.ids) if self.view is None else self.view.count


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A sequence to run.

    Attributes:
        pieces: What it consists of, in order.
        positions: int64 [axes, length]: its rotary positions, one axis for most families, three for M-RoPE.
    """

    pieces: tuple[Piece, ...]
    positions: Tensor

    @property
    def length(self) -> int:
        """Number of positions."""
        return int(self.positions.shape[1])

    @property
    def visual(self) -> int:
        """Number of visual tokens."""
        return sum(piece.length for piece in self.pieces if piece.view is not None)

    def split(self, count: int) -> tuple[Row, Row]:
        """Cut after the first `count` pieces."""
        at = sum(piece.length for piece in self.pieces[:count])
        return Row(self.pieces[:count], self.positions[:, :at]), Row(self.pieces[count:], self.positions[:, at:])


class KeyValues:
    """Keys and values of each block, [B, heads, K, d]; takes the place of transformers' cache in the attention modules.

    It grows by concatenation, so a copy shares what was there before, and with it the graph.
    """

    def __init__(self, blocks: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        self.blocks = list(blocks)

    def update(self, keys: Tensor, values: Tensor, block: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append a block's new keys and values and return all of them; called by the attention modules."""
        if block < len(self.blocks):
            old_keys, old_values = self.blocks[block]
            keys, values = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
            self.blocks[block] = keys, values
        else:
            self.blocks.append((keys, values))
        return keys, values

    def copy(self, rows: int | None = None, *, detach: bool = False) -> KeyValues:
        """A cache that grows on its own: of one row repeated `rows` times, or cut from the graph."""
        blocks = self.blocks
        if detach:
            blocks = [(keys.detach(), values.detach()) for keys, values in blocks]
        if rows is not None:
            blocks = [(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1)) for keys, values in blocks]
        return KeyValues(blocks)


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What was run before: its keys and values, which of its K positions hold a token (bool [B, K]), and whether all do."""

    cache: KeyValues
    filled: Tensor
    full: bool

    @property
    def length(self) -> int:
        """K."""
        return int(self.filled.shape[1])


@dataclass(frozen=True, slots=True)
class Plan:
    """How to run: with a graph or without, from which block on, and through how many blocks."""

    graph: bool
    leaf: int
    depth: int


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Hidden states [B, wanted, D] after the last block run, the leaves by row and view, and everything run so far.

    `attentions` are what was watched, by block and row: [heads, N].
    """

    hidden: Tensor
    leaves: tuple[tuple[Tensor, ...], ...]
    past: Past
    attentions: tuple[tuple[Tensor, ...], ...] = ()


class Decoder:
    """The language model's embeddings, blocks, final norm and output head. Parameters are frozen by the caller."""

    def __init__(self, language_model: Any, head: Any) -> None:
        self._model = language_model
        self._head = head
        self.blocks = len(language_model.layers)
        self.context = int(language_model.config.max_position_embeddings)
        _refuse_windows(language_model.config, self.context)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Their type, which is the type of all hidden states."""
        return self._model.embed_tokens.weight.dtype

    def run(
        self, rows: Sequence[Row], plan: Plan, past: Past | None = None, watch: Watch | None = None, *, wanted: int
    ) -> Run:
        """Run rows, padded at the end to the longest, behind what was run before.

        With a graph, the visual tokens' states entering block `plan.leaf` are the leaves, and nothing before them is in the
        graph except what `past` brings along.

        Args:
            rows: Their new positions.
            plan: How to run them.
            past: What was run before; its cache grows.
            watch: The attention wanted; None for none, at no cost.
            wanted: Of how many positions, counted from the padded end, the states are wanted: of all others the last block
                only makes keys and values. The watched positions must be among them.
        """
        with torch.no_grad():
            hidden = _stack([self._embed(row) for row in rows])
            positions = _stack([row.positions.T for row in rows]).permute(2, 0, 1).to(self.device)
            past = _extend(past, [row.length for row in rows], self.device)
            rotary = self._rotary(hidden, positions)
            mask = self._mask(past, hidden.shape[1])
        leaves: tuple[tuple[Tensor, ...], ...] = ()
        watched = {} if watch is None else self._watched(watch, past)
        for index, block in enumerate(self._model.layers[: plan.depth]):
            if plan.graph and index == plan.leaf:
                hidden, leaves = _insert_leaves(hidden, rows)
            with torch.set_grad_enabled(plan.graph and index >= plan.leaf):
                if index == plan.depth - 1:
                    unread = hidden.shape[1] - wanted
                    remember(block, hidden[:, :unread], _cut(rotary, slice(unread)), past.cache)
                    hidden, rotary, mask = hidden[:, unread:], _cut(rotary, slice(unread, None)), self._mask(past, wanted)
                hidden = _through(watched.get(index, block), hidden, rotary, mask, past)
        return Run(hidden, leaves, past, tuple(block.weights for block in watched.values()))

    def step(self, tokens: Tensor, positions: Tensor, past: Past) -> tuple[Tensor, Past]:
        """Run one more token per row, without a graph.

        Args:
            tokens: int64 [B].
            positions: int64 [axes, B].
            past: What was run before; its cache grows.

        Returns:
            Logits, float32 [B, V], and everything run so far.
        """
        with torch.no_grad():
            hidden = self._model.embed_tokens(tokens[:, None])
            past = _extend(past, [1] * len(tokens), self.device)
            rotary = self._rotary(hidden, positions[:, :, None])
            mask = self._mask(past, 1)
            for block in self._model.layers:
                hidden = _through(block, hidden, rotary, mask, past)
            return self.logits(hidden[:, 0]), past

    def _watched(self, watch: Watch, past: Past) -> dict[int, WatchedBlock]:
        return {block: WatchedBlock(self._model.layers[block], watch, past.filled) for block in watch.blocks}

    def logits(self, hidden: Tensor, *, normed: bool = True) -> Tensor:
        """Logits in float32 of states [..., D]; an early exit goes without the final norm."""
        return self._head(self._model.norm(hidden) if normed else hidden).float()

    def _embed(self, row: Row) -> Tensor:
        parts = []
        for piece in row.pieces:
            if piece.view is None:
                ids = torch.tensor(piece.ids, dtype=torch.long, device=self.device)
                parts.append(self._model.embed_tokens(ids))
            else:
                parts.append(piece.view.embeddings.to(self.device, self.dtype))
        return torch.cat(parts)

    def _rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions [axes, B, L]; M-RoPE models take all axes, the others their only one."""
        return self._model.rotary_emb(hidden, positions if positions.shape[0] > 1 else positions[0])

    def _mask(self, past: Past, new: int) -> Tensor | None:
        """Additive mask [B, 1, L, K]; None where the kernel's own causal mask says the same and is faster."""
        total = past.length
        if self._model.config._attn_implementation == "sdpa" and new in (1, total) and past.full:
            return None
        order = torch.arange(total, device=self.device)
        seen = (order[None, :] <= order[total - new :, None]) & past.filled[:, None, :]
        blocked = torch.zeros(seen.shape, dtype=self.dtype, device=self.device)
        return blocked.masked_fill_(~seen, torch.finfo(self.dtype).min)[:, None]


def _through(block: Any, hidden: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, past: Past) -> Tensor:
    """Run one block; its new keys and values go into the past's cache."""
    if hidden.shape[1] == 0:
        return hidden
    return block(hidden, attention_mask=mask, position_embeddings=rotary, past_key_values=past.cache, use_cache=True)


def _cut(rotary: tuple[Tensor, Tensor], positions: slice) -> tuple[Tensor, Tensor]:
    """The cosines and sines [..., L, d] of some positions."""
    cosines, sines = rotary
    return cosines[..., positions, :], sines[..., positions, :]


def _refuse_windows(config: Any, context: int) -> None:
    """Our mask lets every token see all before it; a model that was trained otherwise would silently read worse."""
    window = getattr(config, "sliding_window", None)
    if window is not None and window < context:
        raise ModelUnavailable(
            f"language models with sliding-window attention ({window} of {context} tokens) are not supported"
        )


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Stack [L, ...] tensors of unequal length, zeros behind the shorter ones."""
    return nn.utils.rnn.pad_sequence(list(parts), batch_first=True)


def _extend(past: Past | None, lengths: Sequence[int], device: torch.device) -> Past:
    """Room for rows of these lengths behind `past`, whose cache is from here on shared with what is returned."""
    new = torch.arange(max(lengths), device=device)[None] < torch.tensor(lengths, device=device)[:, None]
    full = min(lengths) == max(lengths)
    if past is None:
        return Past(KeyValues(), new, full)
    return Past(past.cache, torch.cat([past.filled, new], dim=1), past.full and full)


def _insert_leaves(hidden: Tensor, rows: Sequence[Row]) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
    """Replace the visual tokens' states by leaves of a new graph.

    Args:
        hidden: States [B, L, D], outside any graph.
        rows: Their rows; every view in them becomes one leaf.

    Returns:
        The same values, differentiable in the leaves, and the leaves by row and view.
    """
    sequences, leaves = [], []
    with torch.enable_grad():
        for states, row in zip(hidden, rows, strict=True):
            parts = torch.split(states, [piece.length for piece in row.pieces] + [len(states) - row.length])
            visual = [piece.view is not None for piece in row.pieces] + [False]
            parts = tuple(p.clone().requires_grad_() if v else p for p, v in zip(parts, visual, strict=True))
            leaves.append(tuple(p for p, v in zip(parts, visual, strict=True) if v))
            sequences.append(torch.cat(parts))
        return torch.stack(sequences), tuple(leaves)
