"""The language model over views and questions, without the pairs of tokens that do not see each other.

The same sums as `model.language_model` with a mask, at a third of the cost or less: the questions of a page share its views
and do not see each other, and views do not see questions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer, apply_rotary_pos_emb

BLOCK = 256
"""Tokens of views that attend at a time, to those before them."""


@dataclass(frozen=True)
class Tokens:
    """States on the way through the layers.

    Attributes:
        shown: [B, P, D], of the views.
        asked: [B, Q, L, D], of the questions.
    """

    shown: Tensor
    asked: Tensor


@dataclass(frozen=True)
class _Angles:
    """Cosines and sines of the rotary positions, and what hides places of `shown` where nothing stands."""

    shown: tuple[Tensor, Tensor]
    asked: tuple[Tensor, Tensor]
    hidden: Tensor | None


def read(
    model: LlavaForConditionalGeneration, tokens: Tokens, shown_at: Tensor, asked_at: Tensor, layers: int | None = None
) -> Iterator[Tokens]:
    """Yield the states that enter each layer, and those that leave the last one.

    Args:
        model: the model.
        tokens: embeddings.
        shown_at: [B, P] positions of the views' tokens in increasing order, -1 where there is none.
        asked_at: [B, Q, L] positions of the questions' tokens.
        layers: how many layers to run; None: all.
    """
    text = model.model.language_model
    missing = shown_at < 0
    angles = _Angles(
        text.rotary_emb(tokens.shown, shown_at.clamp(min=0)),
        text.rotary_emb(tokens.asked, asked_at.flatten(1)),
        torch.zeros_like(missing, dtype=tokens.shown.dtype).masked_fill(missing, -1e4)[:, None, None]
        if missing.any()
        else None,
    )
    yield tokens
    for layer in text.layers[:layers]:
        tokens = _layer(layer, tokens, angles)
        yield tokens


def _layer(layer: Qwen3DecoderLayer, tokens: Tokens, angles: _Angles) -> Tokens:
    norm = layer.input_layernorm
    mixed = _attend(layer.self_attn, Tokens(norm(tokens.shown), norm(tokens.asked)), angles)

    def pass_on(states: Tensor, added: Tensor) -> Tensor:
        states = states + added
        return states + layer.mlp(layer.post_attention_layernorm(states))

    return Tokens(pass_on(tokens.shown, mixed.shown), pass_on(tokens.asked, mixed.asked))


def _attend(attention: Qwen3Attention, tokens: Tokens, angles: _Angles) -> Tokens:
    n_questions = tokens.asked.shape[1]
    query, key, value = _project(attention, tokens.shown, angles.shown)
    asking, own_key, own_value = _project(attention, tokens.asked.flatten(1, 2), angles.asked)

    def by_question(x: Tensor) -> Tensor:
        return x.unflatten(2, (n_questions, -1))

    with torch.autocast(query.device.type, enabled=False):
        shown = torch.cat([_causal(q, k, value[:, :, : k.shape[2]]) for q, k in _blocks(query, key)], dim=2)
        # In place: these are the largest tensors of a step, and memory that is new costs more than the sums in it.
        to_shown = asking @ key.transpose(2, 3)
        if angles.hidden is not None:
            to_shown += angles.hidden.to(to_shown.dtype)
        to_own = by_question(asking) @ by_question(own_key).transpose(3, 4)
        to_own = to_own + _later(to_own.shape[-1], to_own.shape[-1], to_own)
        # One softmax over both, without bringing them together: most of the time would go into copies.
        peak = torch.maximum(to_shown.detach().amax(-1), to_own.detach().amax(-1).flatten(2))[..., None]
        to_shown, to_own = to_shown.sub_(peak).exp_(), to_own.sub_(by_question(peak)).exp_()
        total = to_shown.sum(-1) + to_own.sum(-1).flatten(2)
        asked = (to_shown @ value + (to_own @ by_question(own_value)).flatten(2, 3)) / total[..., None]
    return Tokens(_join(attention, shown), _join(attention, asked).view_as(tokens.asked))


def _project(attention: Qwen3Attention, states: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (already scaled), keys and values [B, heads, T, head size], in one dtype."""

    def heads(projection: nn.Linear) -> Tensor:
        return projection(states).unflatten(-1, (-1, attention.head_dim))

    query, key = attention.q_norm(heads(attention.q_proj)), attention.k_norm(heads(attention.k_proj))
    value = heads(attention.v_proj).transpose(1, 2)
    query, key = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), *angles)
    return (query * attention.scaling).to(value.dtype), key.to(value.dtype), value


def _blocks(query: Tensor, key: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of queries, each with the keys up to its last one."""
    for start in range(0, query.shape[2], BLOCK):
        end = min(start + BLOCK, query.shape[2])
        yield query[:, :, start:end], key[:, :, :end]


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(2, 3)
    return (scores + _later(query.shape[2], key.shape[2], scores)).softmax(-1) @ value


def _later(queries: int, keys: int, like: Tensor) -> Tensor:
    """Minus infinity where a key stands behind a query, [queries, keys]; the last query stands with the last key."""
    return torch.full((queries, keys), -torch.inf, dtype=like.dtype, device=like.device).triu(keys - queries + 1)


def _join(attention: Qwen3Attention, mixed: Tensor) -> Tensor:
    joined: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return joined


def normed(model: LlavaForConditionalGeneration, tokens: Tokens, layer: int) -> Tokens:
    """States as the attention of a layer takes them."""
    norm = model.model.language_model.layers[layer].input_layernorm
    return replace(tokens, shown=norm(tokens.shown), asked=norm(tokens.asked))
