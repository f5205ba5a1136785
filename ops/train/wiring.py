"""First weights that can already copy and look up.

A small language model that is trained from nothing stays for hours on "a plausible value" before copying appears, a phase
change whose time grows with the square of the context (Olsson et al., arXiv:2209.11895; 2511.01033). The circuit that then
appears is known: a head that brings each token its predecessor, and heads of a later layer that look for what was just
written and give what came after it. Here it is written into the first weights, and training goes on from there; every weight
stays trainable, and the rest of the network starts at random as usual.

    layer 0   brings each text token the two characters before it, and tells those of the answer that they are
    layer 1   finds these characters on the page: what comes next there, and where that is. A cell holds up to ten
              characters, so one head stands for each slot: its key is the characters before that slot, its value is the
              slot's own character and the cell's place
    layer 2   brings the answer's tokens the place where the question's words were found
    layer 3   as layer 1, but a cell also counts whose label (`modeling.Links`) stands at that place; there the token that
              opens the answer looks for a slot where a value begins, and what follows a value's end says so
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from pipeline.vlms.embedded.alphabet import ANSWER, CHARACTER_CLASS, CHARACTERS, END, VIEW
from pipeline.vlms.embedded.modeling import N_RELATIONS

WIDTH = 256
HEAD_SIZE = 64
PREVIOUS_LAYER, FIND_LAYER, GATHER_LAYER, LOOK_UP_LAYER = range(4)
CODE = 15
"""Width of a character's code."""
N_PLACE = 12
"""Width of a place's code; the first number is the same everywhere, so that it tells how surely something was found."""


def _part(start: int, size: int) -> slice:
    return slice(start, start + size)


# Parts of the residual stream. The first ones mean a cell's characters in a visual token; a text token keeps its
# predecessors there, which only text has. What the heads of `FIND_LAYER` write has numbers of its own, because visual tokens
# run through them too.
BEFORE, SECOND_BEFORE = _part(0, CODE), _part(CODE, CODE)
LABEL_AT = _part(64, N_PLACE)
FREE = slice(80, 160)
PLACE = _part(180, N_PLACE)
IS_VISUAL, IS_TEXT, IS_SINK = 192, 193, 194
OWN, NEXT, FOUND_AT = _part(195, CODE), _part(210, CODE), _part(225, N_PLACE)
LABEL_PLACE = _part(237, N_PLACE)
IS_ANSWER = 249
# What a visual token tells of its slots: does a value begin there, has one ended? Both are asked of the tower in training
# (`losses.Heads.edges`). Text keeps other things in these numbers, or nothing.
BEGINS, AFTER_END = [*range(195, 205)], [*range(205, 210), *range(250, 255)]
ENDED = 170
"""Of text: what was copied last is over."""
IN_ANSWER = 171
"""Of text: stands in the answer, or opens it."""

TURNING_PAIRS = 8
"""Pairs of a head that turn within a page at `ROPE_THETA`; the others compare contents."""
STILL = [*range(TURNING_PAIRS, HEAD_SIZE // 2), *range(HEAD_SIZE // 2 + TURNING_PAIRS, HEAD_SIZE)]
LAST, SECOND_LAST, CONSTANT = STILL[:CODE], STILL[CODE : 2 * CODE], STILL[2 * CODE]
AT = STILL[2 * CODE + 1 : 2 * CODE + N_PLACE]
BEGIN = STILL[2 * CODE + N_PLACE]
THIRD_LAST = STILL[2 * CODE + N_PLACE + 1 :]

SECOND_WEIGHT = 0.8
"""How much the second character before counts, the last one counting 1."""
THIRD_WEIGHT = 0.7
"""How much the third counts, of which a head has room for a shadow only: its code in five dimensions instead of fifteen."""
SINK_WEIGHT = 1.0
LOOK_UP_SINK_WEIGHT, OPENING_SINK_WEIGHT = 0.75, 1.15
"""How much a text token likes the end of a view, where it finds nothing: more than one matching character, less than two;
more for what opens the answer, which has a label and a beginning to look for."""
AT_WEIGHT = 1.3
"""How much the place of the label counts."""
BEGIN_WEIGHT = 1.0
"""How much it counts that a value begins, for what opens the answer."""


def _slot(index: int) -> slice:
    """Where a visual token holds the code of a character: -2 and -1 are those before the cell."""
    return slice(CODE * (index + 2), CODE * (index + 3))


def spread_codes(n: int, size: int) -> Tensor:
    """Unit vectors [n, size] that are as little alike as a few hundred steps of repulsion make them."""
    codes = nn.Parameter(F.normalize(torch.randn(n, size), dim=1))
    optimizer = torch.optim.Adam([codes], lr=0.02)
    for _ in range(300):
        unit = F.normalize(codes, dim=1)
        alike = (unit @ unit.T - 2 * torch.eye(n)) * 12
        optimizer.zero_grad()
        alike.logsumexp(1).mean().backward()
        optimizer.step()
    return F.normalize(codes.detach(), dim=1)


@torch.no_grad()
def wire(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the circuit into an untrained model.

    Args:
        model: of `build_model`, `WIDTH` wide, with at least ten heads and four layers.
        tokenizer: its vocabulary.
    """
    with torch.enable_grad():
        codes = spread_codes(len(CHARACTERS) + 1, CODE)
    _wire_tower(model, codes)
    _wire_words(model, tokenizer, codes)
    layers = model.model.language_model.layers
    for layer in layers:
        layer.self_attn.o_proj.weight.mul_(0.3)
        layer.mlp.down_proj.weight.mul_(0.3)
    n_slots = model.config.vision_config.n_slots
    _wire_previous(layers[PREVIOUS_LAYER].self_attn)
    _wire_copies(layers[FIND_LAYER].self_attn, n_slots, SINK_WEIGHT, 0.0)
    _wire_gathering(layers[GATHER_LAYER].self_attn)
    _wire_copies(layers[LOOK_UP_LAYER].self_attn, n_slots, LOOK_UP_SINK_WEIGHT, AT_WEIGHT)
    _wire_edges(layers[LOOK_UP_LAYER].self_attn, n_slots)
    for layer in (FIND_LAYER, LOOK_UP_LAYER):
        _wire_third(layers[layer].self_attn, n_slots)


@torch.no_grad()
def wire_heads(readout: nn.Linear, edges: nn.Linear, asked: nn.Linear, place: nn.Linear) -> None:
    """Let the heads of `losses.Heads` start where the circuit keeps what they are about."""
    edges.weight.zero_()
    edges.weight[range(edges.out_features), [*BEGINS, *AFTER_END]] = 9.0
    edges.bias.fill_(-6.0)
    for linear, start in ((readout, _slot(0).start), (asked, LABEL_AT.start + 1), (place, PLACE.start + 1)):
        _identity(linear, 2.0)
        linear.weight.copy_(linear.weight.roll(start, dims=1))


def _identity(linear: nn.Linear, scale: float = 1.0) -> None:
    linear.weight.copy_(torch.eye(*linear.weight.shape) * scale)
    if linear.bias is not None:
        linear.bias.zero_()


def _wire_tower(model: LlavaForConditionalGeneration, codes: Tensor) -> None:
    """Keep the characters' codes side by side, and write each cell's place behind them."""
    tower = model.model.vision_tower
    tower.character_codes.weight.copy_(codes)
    tower.place_codes.weight.zero_()
    _identity(tower.slots)
    tower.slots.bias[IS_VISUAL] = 1.0
    for layer in tower.layers:
        layer.attention_out.weight.mul_(0.1)
        layer.mlp_out.weight.mul_(0.1)
    # Sines and cosines of the row with periods of some 6, 20 and 60 cells, of the column with 6 and 23: near cells are
    # alike, others are not. The first number is a slow cosine, nearly the same everywhere.
    place = torch.zeros_like(tower.position.weight)
    quarter = WIDTH // 4
    waves = [
        *(axis * quarter + turn for turn in (0, 16, 32) for axis in (0, 1)),
        *(axis * quarter + turn for turn in (0, 18) for axis in (2, 3)),
    ]
    place[range(PLACE.start + 1, PLACE.start + 1 + len(waves)), waves] = 2.0
    place[PLACE.start, [2 * quarter - 1, WIDTH - 1]] = 2.0
    tower.position.weight.copy_(place)
    tower.links.out.weight.zero_()
    # A table's cell is named by its column and its row: it gets the sum of both places, as a question that names both does.
    for relation in range(N_RELATIONS):
        place_of = range(relation * WIDTH + PLACE.start, relation * WIDTH + PLACE.stop)
        tower.links.out.weight[range(LABEL_PLACE.start, LABEL_PLACE.stop), place_of] = 1.0
    _identity(model.model.multi_modal_projector.linear_1)
    _identity(model.model.multi_modal_projector.linear_2)


def _wire_words(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, codes: Tensor) -> None:
    """Give each character's token its code, and let the output read the next one's."""
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    embedding.zero_()
    embedding[:, FREE] = torch.randn(len(embedding), FREE.stop - FREE.start) * 0.1
    embedding[:, IS_TEXT] = 1.0
    head.normal_(0, 0.02)
    for number, character in enumerate(CHARACTERS, start=1):
        token = int(tokenizer.convert_tokens_to_ids(character))
        embedding[token, OWN] = codes[number]
        head[token, NEXT] = codes[number] * 1.2
    end = int(tokenizer.convert_tokens_to_ids(END))
    head[end, IS_TEXT] = 1.2  # where nothing comes next
    head[end, ENDED] = 1.5
    answer = int(tokenizer.convert_tokens_to_ids(ANSWER))
    embedding[answer, IS_ANSWER] = 1.0
    # Values begin after a space, a colon, or nothing at all.
    before = codes[0] + codes[CHARACTER_CLASS[" "]] + codes[CHARACTER_CLASS[":"]]
    embedding[answer, OWN] = F.normalize(before, dim=0)
    view = int(tokenizer.convert_tokens_to_ids(VIEW))
    embedding[view] = 0
    embedding[view, IS_SINK] = 12.0


def _head(index: int) -> slice:
    return slice(HEAD_SIZE * index, HEAD_SIZE * (index + 1))


def _wire_previous(attention: nn.Module) -> None:
    """Heads 0 and 1 bring each token what the first and the second before it are, head 2 whether it is of the answer."""
    attention.q_norm.weight.fill_(2.3)
    attention.k_norm.weight.fill_(2.3)
    share = torch.tensor([0.7, 0.2, 0.1])
    angle = torch.tensor([1.0, 10**-0.5, 0.1])
    flags = [IS_TEXT, IS_VISUAL, IS_SINK]
    for head, target in ((0, BEFORE), (1, SECOND_BEFORE)):
        query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
        out = torch.zeros(WIDTH, HEAD_SIZE)
        back = -(head + 1.0)
        for flag in flags:
            # A key at distance `back` meets the query with angle 0.
            query[:3, flag] = share.sqrt() * torch.cos(angle * back)
            query[HEAD_SIZE // 2 : HEAD_SIZE // 2 + 3, flag] = share.sqrt() * torch.sin(angle * back)
            key[:3, flag] = share.sqrt()
        value[range(CODE), range(OWN.start, OWN.stop)] = 0.3
        out[range(target.start, target.stop), range(CODE)] = 0.3
        _put(attention, head, query, key, value, out)
    _wire_answer(attention)


def _wire_answer(attention: nn.Module) -> None:
    query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
    out = torch.zeros(WIDTH, HEAD_SIZE)
    query[STILL[0], IS_TEXT] = 1.0
    key[STILL[0], IS_ANSWER] = 3.0
    key[STILL[0], IS_VISUAL] = -1.0
    key[STILL[1], IS_TEXT] = 1.0
    key[STILL[0], IS_SINK] = 0.1  # for what comes before the answer
    key[STILL[1], IS_SINK] = 0.1
    value[0, IS_ANSWER] = 0.33
    out[IN_ANSWER, 0] = 0.33
    _put(attention, 2, query, key, value, out)


def _wire_copies(attention: nn.Module, n_slots: int, sink: float, at: float) -> None:
    """A head a slot: what comes after the two characters just written, or begins what the label at a place names?"""
    attention.q_norm.weight.fill_(2.3)
    attention.k_norm.weight.fill_(2.3)
    for slot in range(n_slots):
        query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
        out = torch.zeros(WIDTH, HEAD_SIZE)
        query[LAST, range(OWN.start, OWN.stop)] = 1.0
        query[SECOND_LAST, range(BEFORE.start, BEFORE.stop)] = SECOND_WEIGHT
        query[CONSTANT, IS_TEXT] = sink
        query[AT, range(LABEL_AT.start + 1, LABEL_AT.stop)] = at
        last, second = _slot(slot - 1), _slot(slot - 2)
        key[LAST, range(last.start, last.stop)] = 1.0
        key[SECOND_LAST, range(second.start, second.stop)] = SECOND_WEIGHT
        # A view's end is as long as it is wide here, a cell's leftovers are short: half is much for one, nothing for others.
        key[CONSTANT, IS_SINK] = 0.5
        key[CONSTANT, IS_TEXT] = -1.0
        if at:
            key[AT, range(LABEL_PLACE.start + 1, LABEL_PLACE.stop)] = 1.0
        own = _slot(slot)
        value[range(CODE), range(own.start, own.stop)] = 0.5
        value[range(CODE, CODE + N_PLACE), range(PLACE.start, PLACE.stop)] = 0.5
        out[range(NEXT.start, NEXT.stop), range(CODE)] = 0.5
        out[range(FOUND_AT.start, FOUND_AT.stop), range(CODE, CODE + N_PLACE)] = 0.5
        _put(attention, slot, query, key, value, out)


def _wire_third(attention: nn.Module, n_slots: int) -> None:
    """Let those heads compare one more character; without it, "272-2464" goes on after "72" as it likes.

    Of a cell's first slot the third character before is not known; there it counts nothing.
    """
    shadow = torch.linalg.qr(torch.randn(CODE, len(THIRD_LAST)))[0].T * (THIRD_WEIGHT * (CODE / len(THIRD_LAST)) ** 0.5)
    for slot in range(n_slots):
        rows = [HEAD_SIZE * slot + place for place in THIRD_LAST]
        query, key = torch.zeros(len(rows), WIDTH), torch.zeros(len(rows), WIDTH)
        query[:, SECOND_BEFORE] = shadow
        if slot:
            key[:, _slot(slot - 3)] = shadow
        attention.q_proj.weight[rows], attention.k_proj.weight[rows] = query, key


def _wire_edges(attention: nn.Module, n_slots: int) -> None:
    """Let those heads see where values begin, and say where they are over."""
    for slot in range(n_slots):
        first = HEAD_SIZE * slot
        for linear in (attention.q_proj, attention.k_proj):
            linear.weight[first + BEGIN] = 0
        attention.q_proj.weight[first + BEGIN, IS_ANSWER] = BEGIN_WEIGHT
        attention.q_proj.weight[first + CONSTANT, IS_ANSWER] = OPENING_SINK_WEIGHT - LOOK_UP_SINK_WEIGHT
        attention.k_proj.weight[first + BEGIN, BEGINS[slot]] = 1.0
        over = CODE + N_PLACE
        attention.v_proj.weight[first + over] = 0
        attention.v_proj.weight[first + over, AFTER_END[slot]] = 0.5
        attention.o_proj.weight[:, first + over] = 0
        attention.o_proj.weight[ENDED, first + over] = 1.0


def _wire_gathering(attention: nn.Module) -> None:
    """Head 0: the answer's tokens look at the words of the question that were found, most at those found surely."""
    attention.q_norm.weight.fill_(2.0)
    attention.k_norm.weight.fill_(2.0)
    query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
    out = torch.zeros(WIDTH, HEAD_SIZE)
    query[STILL[0], IN_ANSWER] = 1.0
    key[STILL[0], FOUND_AT.start] = 1.0
    key[STILL[0], IS_VISUAL] = -2.0
    key[STILL[0], IN_ANSWER] = -2.0
    key[STILL[1], IS_TEXT] = 1.0
    key[STILL[1], IS_SINK] = 1.0
    value[range(N_PLACE), range(FOUND_AT.start, FOUND_AT.stop)] = 0.5
    out[range(LABEL_AT.start, LABEL_AT.stop), range(N_PLACE)] = 0.5
    _put(attention, 0, query, key, value, out)


def _put(attention: nn.Module, head: int, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    for linear, weight in ((attention.q_proj, query), (attention.k_proj, key), (attention.v_proj, value)):
        linear.weight[_head(head)] = weight
    attention.o_proj.weight[:, _head(head)] = out
