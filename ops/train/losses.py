"""Losses, and the heads that exist in training only."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from ops.train.batches import IGNORE, Batch, Group, ReaderBatch
from ops.train.stages import Stage
from pipeline.vlms.embedded.configuration import PLACE_COLUMNS, PLACE_ROWS
from pipeline.vlms.embedded.modeling import ReaderTower, prompt_embeddings, reading_order

MATCH_SIZE = 11
MATCH_LAYER = 3
"""The language model's layer at whose entry it should be known where the label is that a question asks for."""
BLANK_WEIGHT = 0.3
"""Weight of the places of rows without characters: most places are such."""
EDGE_WEIGHT = 0.5
"""Weight of where values begin and end, beside that of what they belong to."""
PLACE_WEIGHT = 0.1
"""Weight of naming each character at its very place."""


class Heads(nn.Module):
    """Supervision on the tower's output, dropped after training.

    Attributes:
        readout: spells a cell's characters, slot by slot, from its projected token, in the codes of the tower's alphabet. It
            stays as it is: the characters must stand where the circuit reads them, not anywhere in the token.
        edges: logits of each slot of a cell to begin a value, and to follow the end of one.
        asked, place: bilinear scores of where the label is that a question asks for.
    """

    def __init__(self, width: int, n_slots: int, character_size: int) -> None:
        super().__init__()
        self.readout = nn.Linear(width, n_slots * character_size)
        self.readout.requires_grad_(False)
        self.edges = nn.Linear(width, 2 * n_slots)
        self.asked = nn.Linear(width, MATCH_SIZE, bias=False)
        self.place = nn.Linear(width, MATCH_SIZE, bias=False)


@dataclass(frozen=True)
class Outcome:
    """A step's loss and what the log wants to know, as plain numbers."""

    loss: Tensor
    parts: dict[str, float]
    right: dict[str, tuple[int, int]]
    """By task: questions answered exactly (all tokens right when the true ones are given before), and questions."""


def reader_loss(model: LlavaForConditionalGeneration, batch: ReaderBatch) -> Outcome:
    """What it costs to read each row of cells in its order, whichever places its characters are taken to be at.

    A character whose centre lies between two places may be named at either; a loss per place alone would teach half of it at
    each, and so to read it twice or not at all. A little of that loss stays, so that places keep their meaning. Rows with
    characters too small to read do not count.
    """
    logits = model.model.vision_tower.reader(batch.pixels)
    log_p, classes = _strips(logits.float().log_softmax(-1)), _strips(batch.classes[..., None]).squeeze(-1)
    inked, blank = (classes >= 0).all((1, 2)) & (classes > 0).any((1, 2)), (classes == 0).all((1, 2))
    wanted, rows = classes[inked], log_p[inked]
    n_characters = (wanted > 0).sum().clamp(min=1)
    by_place = F.nll_loss(rows.flatten(0, 2), wanted.flatten(), reduction="sum")
    # A row of cells shows one line, at either height, or two.
    two = (wanted > 0).any(2).all(1)
    top, bottom = rows[~two].unbind(1)
    nothing_above, nothing_below = top[..., :1], bottom[..., :1]
    either = torch.logaddexp(top + nothing_below, bottom + nothing_above)
    one_line = torch.cat([nothing_above + nothing_below, either[..., 1:]], dim=-1)
    order = order_loss(one_line, wanted[~two].amax(1)) + order_loss(rows[two].flatten(0, 1), wanted[two].flatten(0, 1))
    total = (order + PLACE_WEIGHT * by_place - BLANK_WEIGHT * log_p[blank][..., 0].sum()) / n_characters
    with torch.no_grad():
        cells = batch.classes.flatten(0, 2)
        legible = (cells > 0).any(1) & (cells >= 0).all(1)
        expected, named = _in_order(cells[legible]), _in_order(logits.flatten(0, 2)[legible].argmax(-1))
        parts = {
            "loss": float(total.detach()),
            "accuracy": _share((named == expected)[expected > 0]),
            "cells": _share((named == expected).all(1)),
            "false": _share((log_p[blank].argmax(-1) > 0).any(2).any(1)),
        }
    return Outcome(total, parts, {})


def _strips(places: Tensor) -> Tensor:
    """Rearrange [B, R, C, J, n] by rows of cells and the two heights in them: [B R, 2, C J / 2, n]."""
    batch, rows, columns, _, n = places.shape
    places = places.view(batch, rows, columns, PLACE_ROWS, PLACE_COLUMNS, n).transpose(2, 3)
    return places.reshape(batch * rows, PLACE_ROWS, columns * PLACE_COLUMNS, n)


def _in_order(classes: Tensor) -> Tensor:
    """Characters of each cell or line [M, J] moved to the front, in their order."""
    return classes.gather(1, (classes == 0).long().argsort(dim=1, stable=True))


def order_loss(log_p: Tensor, classes: Tensor) -> Tensor:
    """Negative log-probability, summed over lines, that the characters named at a line's places are these in this order.

    Args:
        log_p: [M, J, n_characters] of each place.
        classes: [M, J] true classes; only their order counts.
    """
    if not len(classes):
        return torch.zeros(())
    wanted = _in_order(classes)
    lengths = (wanted > 0).sum(1)
    longest = int(lengths.max())
    at = log_p.gather(2, wanted[:, None, :longest].expand(-1, log_p.shape[1], -1))
    # Finite, because two infinities have no gradient where they meet.
    read = torch.full((len(wanted), longest + 1), -1e4, device=log_p.device)
    read[:, 0] = 0
    for place in range(log_p.shape[1]):
        stay = read + log_p[:, place, :1]
        step = read[:, :-1] + at[:, place]
        read = torch.cat([stay[:, :1], torch.logaddexp(stay[:, 1:], step)], dim=1)
    return -read.gather(1, lengths[:, None]).sum()


def _share(right: Tensor) -> float:
    return float(right.float().mean()) if right.numel() else 0.0


def misread(classes: Tensor, share: float, n_characters: int) -> Tensor:
    """Replace a share of the characters by others, and drop a quarter as many; unreadable ones go."""
    draw = torch.rand(classes.shape, device=classes.device)
    other = torch.randint(1, n_characters, classes.shape, device=classes.device)
    inked = classes > 0
    classes = torch.where(inked & (draw < share), other, classes.clamp(min=0))
    return torch.where(inked & (draw > 1 - share / 4), torch.zeros_like(classes), classes)


@dataclass(frozen=True)
class _Seen:
    """What the tower makes of a batch's views: projected tokens of each group, its losses, what it spells rightly."""

    tokens: list[Tensor]
    read: Tensor
    link: Tensor
    edge: Tensor
    parts: dict[str, float]


def _see(model: LlavaForConditionalGeneration, heads: Heads, batch: Batch, corrupt: float) -> _Seen:
    tower: ReaderTower = model.model.vision_tower
    tokens: list[Tensor] = []
    read, link, edge = torch.zeros(()), torch.zeros(()), torch.zeros(())
    spelled, linked = [], []
    for group in batch.groups:
        hidden, scores = lay_out_group(tower, group, corrupt)
        projected = model.model.multi_modal_projector(hidden)
        tokens.append(projected)
        share = len(projected) / len(batch.order)
        group_read, right = _readout_loss(heads, tower, projected, group.classes)
        group_link, right_links = _link_loss(scores, group.links)
        read, link = read + group_read * share, link + group_link * share
        edge = edge + _edge_loss(heads, projected, group.edges) * share
        spelled.append(right)
        linked.append(right_links)
    parts = {
        "read": float(read.detach()),
        "spelled": _share(torch.cat(spelled)),
        "link": float(link.detach()),
        "linked": _share(torch.cat(linked)),
        "edge": float(edge.detach()),
    }
    return _Seen(tokens, read, link, edge, parts)


def tower_loss(model: LlavaForConditionalGeneration, heads: Heads, batch: Batch, stage: Stage) -> Outcome:
    """The tower's readout and links alone; the language model is not asked. Accuracy is that of the links of values."""
    seen = _see(model, heads, batch, stage.corrupt)
    total = seen.link + 0.2 * seen.read + EDGE_WEIGHT * seen.edge
    return Outcome(total, {"loss": float(total.detach()), "accuracy": seen.parts["linked"], **seen.parts}, {})


def answer_loss(model: LlavaForConditionalGeneration, heads: Heads, batch: Batch, stage: Stage, strength: float) -> Outcome:
    """Answers, and on the way the tower's readout and links.

    Args:
        model: in training.
        heads: of the same width.
        batch: of a "language" or a "joint" stage.
        stage: gives the weights.
        strength: factor of the links' weight, which fades over a stage.
    """
    seen = _see(model, heads, batch, stage.corrupt)
    logits, states = _answer_states(model, batch, seen.tokens, keep_states=True)
    match = _match_loss(heads, states, batch)
    asked = batch.targets != IGNORE
    targets, weights = batch.targets[asked], batch.weights[asked]
    losses = F.cross_entropy(logits, targets, reduction="none")
    answer = (losses * weights).sum() / weights.sum()
    located = seen.link + EDGE_WEIGHT * seen.edge
    total = answer + 0.2 * seen.read + (0.2 + 0.8 * strength) * located + (0.2 + 0.8 * strength) * match
    with torch.no_grad():
        right = logits.argmax(1) == targets
        parts = {
            "loss": float(total.detach()),
            "answer": float(answer),
            "nats": float(losses.mean()),
            "accuracy": _share(right),
            **seen.parts,
            "match": float(match),
        }
    counts: dict[str, tuple[int, int]] = {}
    for first, last, task in answers(batch):
        n_right, n = counts.get(task, (0, 0))
        counts[task] = (n_right + int(right[first:last].all()), n + 1)
    return Outcome(total, parts, counts)


def lay_out_group(tower: ReaderTower, group: Group, corrupt: float) -> tuple[Tensor, Tensor]:
    """The tower's output [n, R C, D], from pictures, through the reader as it is, or from the characters themselves.

    Returns:
        it, and the scores of the links [n, relations, R C, R C + 1].
    """
    if group.pixels is None:
        cells = tower.compose(misread(group.classes, corrupt, tower.config.n_characters))
    else:
        with torch.no_grad():
            seen = tower.reader(group.pixels).float().softmax(-1)
        cells = tower.compose(seen)
    return tower.lay_out(cells, *group.classes.shape[1:3])


def answer_logits(model: LlavaForConditionalGeneration, batch: Batch, tokens: list[Tensor]) -> Tensor:
    """Logits at each position that predicts a token of an answer, all true tokens before it given.

    Args:
        model: the model.
        batch: the questions.
        tokens: projected visual tokens of each group, [n, R C, D].
    """
    return _answer_states(model, batch, tokens, keep_states=False)[0]


def _answer_states(
    model: LlavaForConditionalGeneration, batch: Batch, tokens: list[Tensor], *, keep_states: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Those logits, and the states [B, T, D] that enter each layer if they are to be kept."""
    visual = torch.cat([tokens[group][number] for group, number in batch.order])
    output = model.model.language_model(
        inputs_embeds=prompt_embeddings(model, batch.ids, visual),
        attention_mask=_allowed(batch.segment),
        position_ids=batch.positions,
        use_cache=False,
        output_hidden_states=keep_states,
    )
    return model.lm_head(output.last_hidden_state[batch.targets != IGNORE]).float(), output.hidden_states or ()


def answers(batch: Batch) -> list[tuple[int, int, str]]:
    """First and last (exclusive) row of `answer_logits` of each question, and its task."""
    starts = batch.task[batch.targets != IGNORE]
    bounds = [*torch.nonzero(starts >= 0).flatten().tolist(), len(starts)]
    return [(a, z, batch.questions[int(starts[a])][0]) for a, z in itertools.pairwise(bounds)]


def _allowed(segment: Tensor) -> Tensor:
    """Attention mask [B, 1, T, T]: earlier tokens of the views and of one's own question; padding sees itself."""
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment.device).tril()
    same = segment[:, :, None] == segment[:, None, :]
    views = (segment == 0)[:, None, :]
    return ((same | views) & causal)[:, None]


def _readout_loss(heads: Heads, tower: ReaderTower, projected: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each cell's characters, in reading order, from its token; a sample of the cells that have any."""
    n_slots = tower.config.n_slots
    flat = classes.flatten(1, 2).clamp(min=0)
    inked = (flat > 0).any(-1)
    chosen = torch.nonzero(inked)
    if not len(chosen):
        return torch.zeros(()), torch.zeros(0, dtype=torch.bool, device=classes.device)
    if len(chosen) > 256:
        chosen = chosen[torch.randperm(len(chosen))[:256]]
    cells = flat[chosen[:, 0], chosen[:, 1]]
    order = reading_order((cells > 0).float(), n_slots)[0]
    target = torch.einsum("njk,nj->nk", order, cells.float()).round().long()
    codes = heads.readout(projected[chosen[:, 0], chosen[:, 1]]).unflatten(-1, (n_slots, -1))
    logits = (codes @ tower.character_codes.weight.T).float()
    filled = target > 0
    return F.cross_entropy(logits[filled], target[filled]), logits[filled].argmax(-1) == target[filled]


def _link_loss(scores: Tensor, links: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the cell that each cell belongs to, over all of its view and none; the two sorts weigh alike.

    Returns:
        it, and which of those that belong to one are linked to it.
    """
    if not len(links):
        return torch.zeros(()), torch.zeros(0, dtype=torch.bool, device=links.device)
    rows = scores[links[:, 0], links[:, 1], links[:, 2]].float()
    target = links[:, 3] % scores.shape[-1]
    losses, nothing = F.cross_entropy(rows, target, reduction="none"), links[:, 3] < 0
    parts = [losses[part].mean() for part in (~nothing, nothing) if part.any()]
    return torch.stack(parts).mean(), (rows.argmax(1) == target)[~nothing]


def _edge_loss(heads: Heads, projected: Tensor, edges: Tensor) -> Tensor:
    """Binary cross-entropy of where values begin and end, over all slots; slots that do and that do not weigh alike."""
    logits = heads.edges(projected).float().unflatten(-1, (2, -1))
    target = torch.zeros_like(logits)
    inside = edges[edges[:, 3] < logits.shape[-1]]
    if not len(inside):
        return torch.zeros(())
    target[inside[:, 0], inside[:, 2], inside[:, 1], inside[:, 3]] = 1.0
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # Most slots are far from sure edges: what they add is small, so a mean would say nothing about the others.
    return (losses * (1 - target)).sum() / target.sum() * 0.5 + losses[target > 0].mean() * 0.5


def _match_loss(heads: Heads, states: tuple[Tensor, ...], batch: Batch) -> Tensor:
    """Cross-entropy of the label's cell, over all cells, by what the token that opens the answer holds in the middle."""
    if not len(batch.labels) or len(states) <= MATCH_LAYER:
        return torch.zeros(())
    sequence, position, cell = batch.labels.T
    asked = F.normalize(heads.asked(states[MATCH_LAYER][sequence, position]).float(), dim=-1)
    places = F.normalize(heads.place(states[0]).float(), dim=-1)[sequence]
    scores = torch.einsum("md,mtd->mt", asked, places) * 20
    return F.cross_entropy(scores.masked_fill(batch.segment[sequence] != 0, -1e4), cell)
