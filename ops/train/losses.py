"""Losses, and the heads that exist in training only."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from ops.train.batches import IGNORE, Batch, Group, ReaderBatch
from ops.train.language import Tokens, normed, read
from ops.train.stages import Stage
from ops.train.wiring import FIND_LAYER, MATCH_LAYER, MATCH_SHARPNESS, STILL
from pipeline.vlms.embedded.modeling import Laid, ReaderTower, grid_places, multiplies_bf16, printed_part, prompt_embeddings
from pipeline.vlms.embedded.places import by_line, settle_lines
from pipeline.vlms.embedded.processing import inked_cells

LEAST = 1e-6
"""Probability below which a place's character has no gradient any more, but that of `PLACE_WEIGHT`."""
MATCH_SIZE = len(STILL)
NOTHING_WEIGHT = 0.3
"""Weight of questions that have no cell, in what is asked for: to call every question such a one is learned first."""
BLANK_WEIGHT = 0.3
"""Weight of the places of rows without characters: most places are such."""
EDGE_WEIGHT = 0.5
"""Weight of where values begin and end, beside that of what they belong to."""
PLACE_WEIGHT = 0.1
"""Weight of naming each character at its very place."""


class Heads(nn.Module):
    """Supervision of what questions ask for, dropped after training.

    Attributes:
        asked, signed: what a question asks for and what a cell holds, to be compared by cosine.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.asked = nn.Linear(width, MATCH_SIZE, bias=False)
        self.signed = nn.Linear(width, MATCH_SIZE, bias=False)


@dataclass(frozen=True)
class Outcome:
    """A step's loss and what the log wants to know, as plain numbers."""

    loss: Tensor
    parts: dict[str, float]
    right: dict[str, tuple[int, int]]
    """By task: questions answered exactly (all tokens right when the true ones are given before), and questions."""


def is_mixed(device: torch.device) -> bool:
    """Whether matrices are multiplied in bf16: not on processors that only imitate its instructions."""
    return device.type != "cpu" or multiplies_bf16(device)


def mixed_precision(device: torch.device) -> torch.autocast:
    """Products in bf16 where `is_mixed`, else in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=is_mixed(device))


def reader_loss(model: LlavaForConditionalGeneration, batch: ReaderBatch) -> Outcome:
    """What it costs to read each row of places in its order, whichever places its characters are taken to be at.

    A character whose centre lies between two places may be named at either; a loss per place alone would teach half of it at
    each, and so to read it twice or not at all. A little of that loss stays, so that places keep their meaning. What is said
    of one character is brought together first, as it will be (`settle_lines`), and the true ones are brought to the same
    rows: in which of two rows a line between them is read is for the reader to choose. Rows with characters too small to
    read do not count.
    """
    logits = by_line(model.model.vision_tower.reader(batch.pixels)).float()
    classes = by_line(batch.classes[..., None]).squeeze(-1)
    # A copy, since it changes in place: the softmax needs its own result for its gradient.
    named, true = logits.softmax(-1).clone(), F.one_hot(classes.clamp(min=0), logits.shape[-1]).float()
    settle_lines(named, true)
    log_p, wanted = named.clamp(min=LEAST).log(), true.argmax(-1)
    legible, printed = _rows_legible(classes), (wanted > 0).any(2)
    inked, blank = legible & printed, legible & ~printed
    order = order_loss(log_p[inked], wanted[inked])
    by_place = F.cross_entropy(logits[inked].flatten(0, 1), wanted[inked].flatten(), reduction="sum")
    n_characters = (wanted[inked] > 0).sum().clamp(min=1)
    total = (order + PLACE_WEIGHT * by_place - BLANK_WEIGHT * log_p[blank][..., 0].sum()) / n_characters
    with torch.no_grad():
        # By their numbers in the row: what is lost or too many shifts all that follows.
        said, expected = _in_order(named[inked].argmax(-1)), _in_order(wanted[inked])
        parts = {
            "loss": float(total.detach()),
            "accuracy": _share((said == expected)[expected > 0]),
            "lines": _share((said == expected).all(1)),
            "false": _share((log_p[blank].argmax(-1) > 0).any(1)),
        }
    return Outcome(total, parts, {})


def _rows_legible(classes: Tensor) -> Tensor:
    """Rows [B, Y] of places [B, Y, X] that neither hold characters too small to read nor lie beside such."""
    small = (classes < 0).any(2).float()[:, None]
    return F.max_pool1d(small, 3, stride=1, padding=1)[:, 0] == 0


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
    """What the tower makes of a batch's views: projected tokens of each group, its loss, what the log wants to know."""

    tokens: list[Tensor]
    loss: Tensor
    parts: dict[str, float]


def _see(model: LlavaForConditionalGeneration, batch: Batch, corrupt: float) -> _Seen:
    tower: ReaderTower = model.model.vision_tower
    tokens: list[Tensor] = []
    link, edge = torch.zeros(()), torch.zeros(())
    linked = []
    for group in batch.groups:
        laid = lay_out_group(tower, group, corrupt)
        tokens.append(model.model.multi_modal_projector(laid.tokens))
        share = len(laid.tokens) / len(batch.order)
        group_link, right_links = _link_loss(laid.links, group.links)
        link, edge = link + group_link * share, edge + _edge_loss(laid.edges, group.edges) * share
        linked.append(right_links)
    parts = {"link": float(link.detach()), "linked": _share(torch.cat(linked)), "edge": float(edge.detach())}
    return _Seen(tokens, link + EDGE_WEIGHT * edge, parts)


def tower_loss(model: LlavaForConditionalGeneration, batch: Batch, stage: Stage) -> Outcome:
    """The tower's links and edges alone; the language model is not asked. Accuracy is that of the links of values."""
    seen = _see(model, batch, stage.corrupt)
    return Outcome(seen.loss, {"loss": float(seen.loss.detach()), "accuracy": seen.parts["linked"], **seen.parts}, {})


def match_loss(model: LlavaForConditionalGeneration, heads: Heads, batch: Batch, stage: Stage) -> Outcome:
    """Questions alone, as far as the layer that looks for their cells, against the tower's output.

    No view goes through the language model, so that a question costs some forty tokens instead of a page.
    Accuracy is the share of answers whose cell is most like the question.
    """
    seen = _see(model, batch, stage.corrupt)
    embedded = _embed(model, batch, seen.tokens)
    # In front of the questions stands the end of the last view alone, and nothing follows them.
    last = (batch.shown_at >= 0).sum(1, keepdim=True) - 1
    end = embedded.shown.gather(1, last[..., None].expand(-1, -1, embedded.shown.shape[-1]))
    length = int(batch.openings.max()) + 1
    alone = Tokens(end, embedded.asked[:, :, :length])
    *_, asked = read(model, alone, batch.shown_at.gather(1, last), batch.asked_at[:, :, :length], FIND_LAYER + 1)
    match, found = _match_loss(heads, normed(model, Tokens(embedded.shown, asked.asked), MATCH_LAYER), batch)
    total = match + 0.5 * seen.loss
    parts = {"loss": float(total.detach()), "match": float(match.detach()), "accuracy": _share(found), **seen.parts}
    return Outcome(total, parts, {})


def answer_loss(model: LlavaForConditionalGeneration, heads: Heads, batch: Batch, stage: Stage, strength: float) -> Outcome:
    """Answers, and on the way the tower's links and edges, and which cells the questions ask for.

    Args:
        model: in training.
        heads: of the same width.
        batch: of a "language" or a "joint" stage.
        stage: gives the weights.
        strength: factor of the links' weight, which fades over a stage.
    """
    seen = _see(model, batch, stage.corrupt)
    states = list(read(model, _embed(model, batch, seen.tokens), batch.shown_at, batch.asked_at))
    logits = _logits(model, batch, states[-1])
    match, found = _match_loss(heads, normed(model, states[MATCH_LAYER], MATCH_LAYER), batch)
    asked = batch.targets != IGNORE
    targets, weights = batch.targets[asked], batch.weights[asked]
    losses = F.cross_entropy(logits, targets, reduction="none")
    answer = (losses * weights).sum() / weights.sum()
    total = answer + (0.2 + 0.8 * strength) * (seen.loss + match)
    with torch.no_grad():
        right = logits.argmax(1) == targets
        parts = {
            "loss": float(total),
            "answer": float(answer),
            "nats": float(losses.mean()),
            "accuracy": _share(right),
            **seen.parts,
            "match": float(match),
            "found": _share(found),
        }
    counts: dict[str, tuple[int, int]] = {}
    for first, last, task in answers(batch):
        n_right, n = counts.get(task, (0, 0))
        counts[task] = (n_right + int(right[first:last].all()), n + 1)
    return Outcome(total, parts, counts)


def lay_out_group(tower: ReaderTower, group: Group, corrupt: float) -> Laid:
    """What the tower makes of the kept cells of views, from pictures, through the reader as it is, or from the characters
    themselves."""
    if group.pixels is None:
        slots = tower.compose(misread(group.classes, corrupt, tower.config.n_characters))
    else:
        slots = tower.compose(_read(tower, group.pixels))
    kept = slots[torch.arange(len(slots), device=slots.device)[:, None], group.cells]
    return tower.lay_out(kept, grid_places(*group.classes.shape[1:3], group.cells.device)[group.cells])


@torch.no_grad()
def _read(tower: ReaderTower, pixels: Tensor) -> Tensor:
    """Probabilities [n, R, C, J, n_characters]; around what is printed in any of the views there is nothing to read."""
    inked = inked_cells(pixels)
    printed, rows, columns = printed_part(pixels, inked.any(0))
    named = tower.read(printed)
    seen = named.new_zeros(*inked.shape, *named.shape[3:])
    seen[..., 0] = 1
    seen[:, rows, columns] = named
    return seen


def answer_logits(model: LlavaForConditionalGeneration, batch: Batch, tokens: list[Tensor]) -> Tensor:
    """Logits at each position that predicts a token of an answer, all true tokens before it given.

    Args:
        model: the model.
        batch: the questions.
        tokens: projected visual tokens of each group, [n, M, D].
    """
    *_, states = read(model, _embed(model, batch, tokens), batch.shown_at, batch.asked_at)
    return _logits(model, batch, states)


def _embed(model: LlavaForConditionalGeneration, batch: Batch, tokens: list[Tensor]) -> Tokens:
    """Embeddings of a batch's views and questions."""
    visual = torch.cat([tokens[group][number] for group, number in batch.order])
    return Tokens(prompt_embeddings(model, batch.shown, visual), model.get_input_embeddings()(batch.ids))


def _logits(model: LlavaForConditionalGeneration, batch: Batch, states: Tokens) -> Tensor:
    answered = states.asked[batch.targets != IGNORE]
    logits: Tensor = model.lm_head(model.model.language_model.norm(answered)).float()
    return logits


def answers(batch: Batch) -> list[tuple[int, int, str]]:
    """First and last (exclusive) row of `answer_logits` of each question, and its task."""
    lengths = (batch.targets != IGNORE).sum(-1)
    ends = lengths[lengths > 0].cumsum(0).tolist()
    return [(a, z, task) for a, z, (task, _) in zip([0, *ends], ends, batch.questions, strict=False)]


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


def _edge_loss(scores: Tensor, edges: Tensor) -> Tensor:
    """Binary cross-entropy of where values begin and end, over all slots; slots that do and that do not weigh alike."""
    logits = scores.float().unflatten(-1, (2, -1))
    target = torch.zeros_like(logits)
    inside = edges[edges[:, 3] < logits.shape[-1]]
    if not len(inside):
        return torch.zeros(())
    target[inside[:, 0], inside[:, 2], inside[:, 1], inside[:, 3]] = 1.0
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # Most slots are far from sure edges: what they add is small, so a mean would say nothing about the others.
    return (losses * (1 - target)).sum() / target.sum() * 0.5 + losses[target > 0].mean() * 0.5


def _match_loss(heads: Heads, states: Tokens, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the cells where answers begin, over all cells and the ends of views, which stand for none.

    Args:
        heads: for both sides.
        states: as the layer that looks for cells takes them.
        batch: the questions.

    Returns:
        it, and which of the questions that have an answer on the page are most like a right cell.
    """
    opening = states.asked.gather(2, batch.openings[..., None, None].expand(-1, -1, 1, states.asked.shape[-1]))[:, :, 0]
    question = F.normalize(heads.asked(opening).float(), dim=-1)
    cells = F.normalize(heads.signed(states.shown).float(), dim=-1)
    scores = question @ cells.transpose(1, 2) * MATCH_SHARPNESS
    log_p = scores.masked_fill((batch.shown_at < 0)[:, None], -1e4).log_softmax(-1)
    right = torch.zeros_like(log_p, dtype=torch.bool)
    right[tuple(batch.starts.T)] = True
    ends = batch.shown == batch.shown[0, int((batch.shown_at[0] >= 0).sum()) - 1]
    nothing = (right & ends[:, None]).any(-1)
    weight = right.any(-1) * torch.where(nothing, NOTHING_WEIGHT, 1.0)
    cost = -log_p.masked_fill(~right, -1e4).logsumexp(-1)
    found = right.gather(2, log_p.argmax(-1, keepdim=True))[..., 0]
    return (cost * weight).sum() / weight.sum().clamp(min=1e-6), found[right.any(-1) & ~nothing]
