"""First weights that can already copy and look up.

A small language model that is trained from nothing stays for hours on "a plausible value" before copying appears, a phase
change whose time grows with the square of the context (Olsson et al., arXiv:2209.11895; 2511.01033). The circuit that then
appears is known: a head that brings each token its predecessor, and heads of a later layer that look for what was just
written and give what came after it. Here it is written into the first weights, and training goes on from there; every weight
stays trainable, and the rest of the network starts at random as usual.

    layer 0   brings each text token the two characters before it, and tells those of the answer that they are; counts the
              three as `modeling.Signature` does
    layer 1   finds these characters on the page: what comes next there. A cell holds up to ten characters, so one head
              stands for each slot: its key is the characters before that slot, its value is the slot's own character.
              One more head sums up the question's triples for the answer's tokens: the question's signature
    layer 2   finds the cell with that signature: how the value begins there, for the token that opens the answer, and
              where that is, for all tokens of the answer
    layer 3   as layer 1, but cells near that place count more; what follows a value's end says so

"Is X larger than Y?" is answered by two of these searches. Two gated units multiply: silu(a) b - silu(-a) b = a b. Whatever
factors norms and shares of attention put on a number are put on the 1 that comes with it, too; so first number * second 1 -
first 1 * second number has the right sign.

    layer 0   tells the tokens behind "larger than" that they are
    layer 1   "larger than" sums up what stands before it, the answer's tokens what stands behind it
    layer 2   each finds its cell, and which number stands there (`numbers`)
    layer 3   "larger than" multiplies its number by 1, "smaller than" by -1; no other token has such a number
    layer 4   what opens the answer gets that number, too, and says "yes" as far as it exceeds its own, multiplied alike
"""

import unicodedata

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from ops.train.questions import NOT_FOUND
from pipeline.vlms.embedded.alphabet import (
    ANSWER,
    CHARACTER_CLASS,
    CHARACTERS,
    COMPARING,
    END,
    MORE_THAN,
    VIEW,
    WHOLE_ANSWERS,
    whole_answer_token,
)
from pipeline.vlms.embedded.configuration import NUMBER, OF_TEXT, ReaderTowerConfig
from pipeline.vlms.embedded.modeling import N_NEAR, N_RELATIONS, RELATION_SIZE, TRIPLES, ReaderTower, rotary_2d

HEAD_SIZE, LAST_HEAD = 64, 10
PREVIOUS_LAYER, FIND_LAYER, MATCH_LAYER, LOOK_UP_LAYER, COMPARE_LAYER = range(5)
SIZES = ReaderTowerConfig()
WIDTH, LAYOUT, CODE, LETTER = SIZES.hidden_size, SIZES.layout_size, SIZES.character_size, SIZES.letter_size
N_PLACE, SLOTS = SIZES.place_size, SIZES.n_slots


def _part(start: int, size: int) -> slice:
    return slice(start, start + size)


# Parts of the residual stream. Of a visual token (`modeling.ReaderTower.tell`): its characters, and then
PLACE = _part((2 + SLOTS) * CODE, N_PLACE)
BEGINS, AFTER_END = _part(PLACE.stop, SLOTS), _part(PLACE.stop + SLOTS, SLOTS)
OF_TEXT_ALONE = _part(AFTER_END.stop, OF_TEXT)
SIZE, IS_NUMBER = range(OF_TEXT_ALONE.stop, OF_TEXT_ALONE.stop + NUMBER)
NEXT = _part(IS_NUMBER + 1, CODE)
SIGNATURE = _part(NEXT.stop + SIZES.context_size, SIZES.signature_size)
FIRST = _part(SIGNATURE.stop, CODE)
IS_VISUAL = FIRST.stop
# Of text, where a visual token has none of its own or where it does no harm: what tells it from visual tokens; what is said
# next, which heads write that visual tokens run through, too; what only questions that compare have (`OF_COMPARING`);
IS_TEXT, IS_SINK, IS_ANSWER, BEHIND, SIGN, FIRST_SIZE, FIRST_IS_NUMBER = range(OF_TEXT_ALONE.start, OF_TEXT_ALONE.stop)
# its own character and the two before it, with the codes by which words are compared; where the answer begins, as far as it
# is known; what is its own. The signature is the question's.
OWN, BEFORE, SECOND_BEFORE = _part(BEGINS.start, CODE), _part(0, CODE), _part(CODE, CODE)
ANSWER_AT = _part(64, N_PLACE)
LETTERS = _part(80, LETTER), _part(96, LETTER), _part(112, LETTER)
FREE = slice(128, PLACE.start)
ENDED, IN_ANSWER, MISSING = 170, 171, 172
"""Of text: what was copied last is over; it stands in the answer, or opens it; no cell has the question's signature."""
STARTED = 173, 174
"""Of text: it is the answer's first character, its second one."""

TURNING_PAIRS = 8
"""Pairs of a head that turn within a page at `ROPE_THETA`; the others compare contents."""
STILL = [*range(TURNING_PAIRS, HEAD_SIZE // 2), *range(HEAD_SIZE // 2 + TURNING_PAIRS, HEAD_SIZE)]
LAST, SECOND_LAST, CONSTANT = STILL[:CODE], STILL[CODE : 2 * CODE], STILL[2 * CODE]
AT = STILL[2 * CODE + 1 : 2 * CODE + N_PLACE]
THIRD_LAST = STILL[2 * CODE + N_PLACE :]
SPARE = STILL[-15]
"""Of what the heads of summing up and of matching have to spare."""
BEGAN = TURNING_PAIRS - 1, HEAD_SIZE // 2 + TURNING_PAIRS - 1
"""Of the slowest of the turning pairs: one character ago a value began, two ago."""

LOUDNESS = 4.5
"""Length of a character's code in a visual token, about that of its place's."""
SECOND_WEIGHT = 0.8
"""How much the second character before counts, the last one counting 1."""
THIRD_WEIGHT = 0.7
"""How much the third counts, of which a head has room for a shadow only: its code in five dimensions instead of fifteen."""
SINK_WEIGHT = 1.0
LOOK_UP_SINK_WEIGHT, OPENING_SINK_WEIGHT = 0.75, 4.0
"""How much a text token likes the end of a view, where it finds nothing: more than one matching character, less than two;
much more for what opens the answer, which has nothing to go on from."""
BEGAN_WEIGHT = 1.5
"""How much it counts, for an answer's first and second character, that a value began so many slots before."""
AT_WEIGHT = 1.3
"""How much it counts to be near where the value begins."""
STEEPNESS, THRESHOLD = 2.0, 3.0
"""Of the random features by which triples of letters are told apart."""
MATCH_SHARPNESS = 20.0
"""Of the cosines by which a question's cell is found."""
SURE_SIGNATURE = 1.1
"""How much a text token likes the end of a view, where its signature is on no cell; signatures of questions are thrice as
long."""

OF_COMPARING = [BEHIND, SIGN, FIRST_SIZE, FIRST_IS_NUMBER, SIZE, IS_NUMBER]
"""What no other part of the circuit writes or reads at first: whether a token stands behind "larger than" (of that itself,
-1), whether more or less is asked for, the first number so signed; and the number of the cell that a token has found."""
THAN_ASKS = 3.5
"""How much "larger than" sums up, as the answer's tokens do."""
BEHIND_WEIGHT = 2.0
"""The root of how much more what stands behind it counts in what the answer's tokens sum up."""
VERDICT_WEIGHT = 4.0
"""How far the answer follows the difference."""


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
        model: of `build_model`, `WIDTH` wide, with at least eleven heads and five layers.
        tokenizer: its vocabulary.
    """
    with torch.enable_grad():
        codes = spread_codes(len(CHARACTERS) + 1, CODE)
        letters = _letters()
    tower = model.model.vision_tower
    layers = model.model.language_model.layers
    _wire_tower(tower, codes, letters)
    _identity(model.model.multi_modal_projector.linear_1)
    _identity(model.model.multi_modal_projector.linear_2)
    _wire_words(model, tokenizer, codes, letters)
    for layer in layers:
        layer.self_attn.o_proj.weight.mul_(0.3)
        layer.mlp.down_proj.weight.mul_(0.3)
    _wire_previous(layers[PREVIOUS_LAYER].self_attn)
    _wire_triples(layers[PREVIOUS_LAYER].mlp, tower.signature.triple, tower.signature.bag)
    _wire_copies(layers[FIND_LAYER].self_attn, SINK_WEIGHT, 0.0)
    _wire_summing_up(layers[FIND_LAYER].self_attn, SLOTS)
    _wire_match(layers[MATCH_LAYER].self_attn)
    _wire_copies(layers[LOOK_UP_LAYER].self_attn, LOOK_UP_SINK_WEIGHT, AT_WEIGHT)
    _wire_ends(layers[LOOK_UP_LAYER].self_attn)
    for layer in (FIND_LAYER, LOOK_UP_LAYER):
        _wire_third(layers[layer].self_attn)
    wire_comparing(model, tokenizer)


@torch.no_grad()
def wire_comparing(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write what compares two numbers into a model with the rest of the circuit, trained or not.

    It takes the last heads of two layers and the weakest units of two, which a trained model hardly misses.
    """
    layers = model.model.language_model.layers
    _clear(model)
    _wire_comparing_words(model, tokenizer)
    _wire_behind(layers[PREVIOUS_LAYER].self_attn, LAST_HEAD)
    _wire_halves(layers[FIND_LAYER].self_attn, SLOTS)
    _wire_numbers(layers[MATCH_LAYER].self_attn, 0)
    _wire_products(layers[LOOK_UP_LAYER].mlp, [(SIGN, SIZE, _one(FIRST_SIZE)), (SIGN, IS_NUMBER, _one(FIRST_IS_NUMBER))])
    _wire_first_number(layers[COMPARE_LAYER].self_attn, LAST_HEAD)
    verdict = _verdict(model, tokenizer) * VERDICT_WEIGHT
    _wire_products(layers[COMPARE_LAYER].mlp, [(FIRST_SIZE, IS_NUMBER, verdict), (FIRST_IS_NUMBER, SIZE, -verdict)])


@torch.no_grad()
def wire_heads(model: LlavaForConditionalGeneration, asked: nn.Linear, signed: nn.Linear) -> None:
    """Let the heads of `losses.Heads` start as the circuit's."""
    attention = model.model.language_model.layers[MATCH_LAYER].self_attn
    asked.weight.copy_(attention.q_proj.weight[STILL])
    signed.weight.copy_(attention.k_proj.weight[STILL])


@torch.no_grad()
def wire_match(model: LlavaForConditionalGeneration, asked: nn.Linear, signed: nn.Linear) -> None:
    """Put into the circuit what training has found out about questions and the cells that they ask for."""
    attention = model.model.language_model.layers[MATCH_LAYER].self_attn
    for head in range(2):
        rows = [HEAD_SIZE * head + place for place in STILL]
        # What keeps the second head silent after an answer's first token stays.
        silent = attention.q_proj.weight[rows][:, [IN_ANSWER, IS_ANSWER]].clone()
        attention.q_proj.weight[rows] = asked.weight
        attention.k_proj.weight[rows] = signed.weight
        if head == 1:
            attention.q_proj.weight[rows[-2], [IN_ANSWER, IS_ANSWER]] = silent[-2]


def signing_parts(model: LlavaForConditionalGeneration) -> dict[str, Tensor]:
    """Masks of the language model's parameters that sign questions; what they write stays among the signature's numbers.

    Where there is no answer to be given, the rest of the circuit would lose itself: to an optimizer that levels a matrix's
    directions its noise is as good as a gradient.
    """
    masks = {
        name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in model.named_parameters() if ".layers." in name
    }
    masks = {name: mask for name, mask in masks.items() if "language_model" in name}
    prefix = "model.language_model.layers."
    head = _head(SLOTS)
    for layer in (PREVIOUS_LAYER, FIND_LAYER):
        for name in ("mlp.gate_proj", "mlp.up_proj"):
            masks[f"{prefix}{layer}.{name}.weight"][:] = True
        masks[f"{prefix}{layer}.mlp.down_proj.weight"][SIGNATURE] = True
    for name in ("q_proj", "k_proj", "v_proj"):
        masks[f"{prefix}{FIND_LAYER}.self_attn.{name}.weight"][head] = True
    masks[f"{prefix}{FIND_LAYER}.self_attn.o_proj.weight"][SIGNATURE, head] = True
    embedding = torch.zeros_like(model.get_input_embeddings().weight, dtype=torch.bool)
    embedding[:, LETTERS[0]] = True
    return {**masks, "model.language_model.embed_tokens.weight": embedding}


def _identity(linear: nn.Linear, scale: float = 1.0) -> None:
    linear.weight.copy_(torch.eye(*linear.weight.shape) * scale)
    if linear.bias is not None:
        linear.bias.zero_()


def _letters() -> Tensor:
    """Codes [characters + 1, LETTER] by which words are compared: those of capitals, accents and plain letters are alike."""
    plain = [unicodedata.normalize("NFD", c)[0].lower() for c in CHARACTERS]
    known = sorted(set(plain))
    codes = spread_codes(len(known) + 1, LETTER)
    return torch.cat([codes[-1:] * 0.5, codes[[known.index(c) for c in plain]]])


def _wire_tower(tower: ReaderTower, codes: Tensor, letters: Tensor) -> None:
    """Give characters and places their codes, and the layout layers a calm start."""
    tower.character_codes.weight.copy_(codes * LOUDNESS)
    _identity(tower.slots, 1 / LOUDNESS)
    for layer in tower.layers:
        layer.attention_out.weight.mul_(0.1)
        layer.mlp_out.weight.mul_(0.1)
    # Sines and cosines of the row with periods of some 6, 20 and 60 cells, of the column with 6 and 23: near cells are
    # alike, others are not. The first number is a slow cosine, nearly the same everywhere.
    quarter = LAYOUT // 4
    waves = [
        *(axis * quarter + turn for turn in (0, 16, 32) for axis in (0, 1)),
        *(axis * quarter + turn for turn in (0, 18) for axis in (2, 3)),
    ]
    tower.position.weight.zero_()
    tower.position.weight[range(1, 1 + len(waves)), waves] = 2.0
    tower.position.weight[0, [2 * quarter - 1, LAYOUT - 1]] = 2.0
    tower.edges.bias.fill_(-4.0)
    _wire_signature(tower, letters)


def _wire_signature(tower: ReaderTower, letters: Tensor) -> None:
    """Random features of three letters, summed; a cell's words are its own and those of the three cells before it.

    Its label's count as much as its own.
    """
    signature, size = tower.signature, tower.config.signature_size
    signature.letters.weight.copy_(letters)
    signature.triple.weight.normal_().mul_(STEEPNESS)
    signature.triple.bias.fill_(-THRESHOLD)
    some = letters[torch.randint(1, len(letters), (4096, 3))].flatten(1)
    features = F.silu(signature.triple(some))
    # What all triples have in common says nothing, and what is no letter even less.
    common = torch.linalg.qr(torch.stack([features.mean(0), torch.ones(TRIPLES)], dim=1))[0]
    mix = torch.randn(size, TRIPLES)
    signature.bag.weight.copy_((mix - mix @ common @ common.T) / (features.std() * TRIPLES**0.5))
    weights = torch.zeros(size, N_NEAR, size)
    offsets = ((0.0, -1.0), (0.0, -2.0), (0.0, -3.0), (-1.0, 0.0))
    for head, (offset, weight) in enumerate(zip(offsets, (0.8, 0.6, 0.4, 0.0), strict=True)):
        weights[:, head] = torch.eye(size) * weight
        _look_at(signature.query, signature.key, head, offset, tower.config.rope_theta)
    signature.words.weight.copy_(weights.flatten(1))
    signature.out.weight.copy_(torch.eye(size).repeat(1, 1 + N_RELATIONS))


def _look_at(query: nn.Linear, key: nn.Linear, head: int, offset: tuple[float, float], theta: float) -> None:
    """Let a head with rotary positions look at the cell at an offset (rows, columns), whatever stands there."""
    rows = slice(RELATION_SIZE * head, RELATION_SIZE * (head + 1))
    for linear in (query, key):
        linear.weight[rows] *= 0.1
    # The angles by which a cell at (1, 1) is turned are the frequencies.
    cosine, sine = rotary_2d(torch.ones(2), RELATION_SIZE, theta)
    angle = torch.atan2(sine, cosine) * torch.tensor(offset).repeat_interleave(RELATION_SIZE // 4)
    query.bias[rows] = torch.cat([angle.cos(), angle.sin()]) * 4.5
    key.bias[rows] = torch.cat([torch.ones_like(angle), torch.zeros_like(angle)]) * 4.5


def _wire_words(
    model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, codes: Tensor, letters: Tensor
) -> None:
    """Give each character's token its codes, and let the output read the next one's."""
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    embedding.zero_()
    embedding[:, FREE] = torch.randn(len(embedding), FREE.stop - FREE.start) * 0.1
    embedding[:, [ENDED, IN_ANSWER, MISSING, *STARTED]] = 0
    embedding[:, IS_TEXT] = 1.0
    head.normal_(0, 0.02)
    for number, character in enumerate(CHARACTERS, start=1):
        token = int(tokenizer.convert_tokens_to_ids(character))
        embedding[token, OWN] = codes[number]
        embedding[token, LETTERS[0]] = letters[number]
        head[token, NEXT] = codes[number] * 1.2
    for answer, marks in (("yes", "☑☒"), ("no", "☐")):
        token = int(tokenizer.convert_tokens_to_ids(whole_answer_token(answer)))
        # Louder than the marks themselves, which nobody asks for.
        head[token, NEXT] = codes[[CHARACTER_CLASS[mark] for mark in marks]].sum(0) * 1.5
    end = int(tokenizer.convert_tokens_to_ids(END))
    head[end, IS_TEXT] = 1.2  # where nothing comes next
    head[end, ENDED] = 1.5
    head[int(tokenizer.convert_tokens_to_ids(whole_answer_token(NOT_FOUND))), MISSING] = 1.5
    embedding[int(tokenizer.convert_tokens_to_ids(ANSWER)), IS_ANSWER] = 1.0
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
        letters = LETTERS[head + 1]
        value[range(CODE, CODE + LETTER), range(LETTERS[0].start, LETTERS[0].stop)] = 0.3
        out[range(letters.start, letters.stop), range(CODE, CODE + LETTER)] = 0.3
        value[CODE + LETTER, IS_ANSWER] = 0.3
        out[STARTED[head], CODE + LETTER] = 0.3
        _put(attention, head, query, key, value, out)
    _wire_answer(attention)


def _wire_triples(mlp: nn.Module, triple: nn.Linear, bag: nn.Linear) -> None:
    """Let text count its letter triples as the tower does; its newest letter is the triple's last."""
    third, second, first = triple.weight.split(LETTER, dim=1)
    scale = 0.16  # of a text token here, so that its normed letters are as long as the tower's
    rows = slice(0, TRIPLES)
    mlp.gate_proj.weight[rows] = 0
    mlp.up_proj.weight[rows] = 0
    for part, weight in zip(LETTERS, (first, second, third), strict=True):
        mlp.gate_proj.weight[rows, part] = weight * scale
    mlp.gate_proj.weight[rows, IS_TEXT] = triple.bias * scale
    mlp.gate_proj.weight[rows.start : rows.stop, [IS_VISUAL, IS_ANSWER]] = -3.0
    mlp.up_proj.weight[rows, IS_TEXT] = scale
    mlp.down_proj.weight[:, rows] = 0
    mlp.down_proj.weight[SIGNATURE, rows] = bag.weight


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


def _wire_copies(attention: nn.Module, sink: float, at: float) -> None:
    """A head a slot: what comes after the two characters just written, near the place where the value begins?"""
    attention.q_norm.weight.fill_(2.3)
    attention.k_norm.weight.fill_(2.3)
    for slot in range(SLOTS):
        query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
        out = torch.zeros(WIDTH, HEAD_SIZE)
        query[LAST, range(OWN.start, OWN.stop)] = 1.0
        query[SECOND_LAST, range(BEFORE.start, BEFORE.stop)] = SECOND_WEIGHT
        query[CONSTANT, IS_TEXT] = sink
        query[AT, range(ANSWER_AT.start + 1, ANSWER_AT.stop)] = at
        last, second = _slot(slot - 1), _slot(slot - 2)
        key[LAST, range(last.start, last.stop)] = 1.0
        key[SECOND_LAST, range(second.start, second.stop)] = SECOND_WEIGHT
        # A view's end is as long as it is wide here, a cell's leftovers are short: half is much for one, nothing for others.
        key[CONSTANT, IS_SINK] = 0.5
        key[CONSTANT, IS_TEXT] = -1.0
        if at:
            key[AT, range(PLACE.start + 1, PLACE.stop)] = 1.0
            for back, (flag, began) in enumerate(zip(STARTED, BEGAN, strict=True), start=1):
                query[began, flag] = BEGAN_WEIGHT
                if slot >= back:
                    key[began, BEGINS.start + slot - back] = LOUDNESS
        own = _slot(slot)
        # What stands near the answer's beginning is worth more than what stands anywhere.
        value[range(CODE), range(own.start, own.stop)] = 0.5
        out[range(NEXT.start, NEXT.stop), range(CODE)] = 0.5 if at else 0.25
        _put(attention, slot, query, key, value, out)


def _wire_third(attention: nn.Module) -> None:
    """Let those heads compare one more character; without it, "272-2464" goes on after "72" as it likes.

    Of a cell's first slot the third character before is not known; there it counts nothing.
    """
    shadow = torch.linalg.qr(torch.randn(CODE, len(THIRD_LAST)))[0].T * (THIRD_WEIGHT * (CODE / len(THIRD_LAST)) ** 0.5)
    for slot in range(SLOTS):
        rows = [HEAD_SIZE * slot + place for place in THIRD_LAST]
        query, key = torch.zeros(len(rows), WIDTH), torch.zeros(len(rows), WIDTH)
        query[:, SECOND_BEFORE] = shadow
        if slot:
            key[:, _slot(slot - 3)] = shadow
        attention.q_proj.weight[rows], attention.k_proj.weight[rows] = query, key


def _wire_ends(attention: nn.Module) -> None:
    """Let those heads say where values are over, and leave the answer's first character to `_wire_match`."""
    for slot in range(SLOTS):
        first = HEAD_SIZE * slot
        attention.q_proj.weight[first + CONSTANT, IS_ANSWER] = OPENING_SINK_WEIGHT
        over = CODE
        attention.v_proj.weight[first + over] = 0
        attention.v_proj.weight[first + over, AFTER_END.start + slot] = 0.5
        attention.o_proj.weight[:, first + over] = 0
        attention.o_proj.weight[ENDED, first + over] = 1.0


def _wire_summing_up(attention: nn.Module, head: int) -> None:
    """The answer's tokens look at all of the question's."""
    query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
    out = torch.zeros(WIDTH, HEAD_SIZE)
    query[STILL[0], IN_ANSWER] = 1.0
    key[STILL[0], IS_TEXT] = 1.0
    key[STILL[0], IN_ANSWER] = -2.0
    key[STILL[0], IS_VISUAL] = -2.0
    # Which of them count more is learned: by what they are made of.
    key[STILL[1:9]] = torch.randn(8, WIDTH) * 0.002
    query[STILL[1:9]] = torch.randn(8, WIDTH) * 0.002
    size = SIGNATURE.stop - SIGNATURE.start
    value[range(size), range(SIGNATURE.start, SIGNATURE.stop)] = 1.0
    out[range(SIGNATURE.start, SIGNATURE.stop), range(size)] = 1.0
    _put(attention, head, query, key, value, out)


def _wire_match(attention: nn.Module) -> None:
    """Head 0 tells the answer's tokens where the cell with the question's signature is, head 1 the first what it says."""
    for norm in (attention.q_norm, attention.k_norm):
        norm.weight.fill_((MATCH_SHARPNESS / HEAD_SIZE**0.5) ** 0.5)
    size = SIGNATURE.stop - SIGNATURE.start
    for head, source, target, strength in ((0, PLACE, ANSWER_AT, 0.5), (1, FIRST, NEXT, 2.0)):
        query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
        out = torch.zeros(WIDTH, HEAD_SIZE)
        query[STILL[:size], range(SIGNATURE.start, SIGNATURE.stop)] = 1.0
        key[STILL[:size], range(SIGNATURE.start, SIGNATURE.stop)] = 1.0
        key[STILL[size], IS_SINK] = 1.0
        key[STILL[size], IS_TEXT] = -10.0
        key[STILL[size + 1], IS_VISUAL] = 3.0  # so that what has next to no signature is like nothing
        query[STILL[size], IS_TEXT] = SURE_SIGNATURE
        n = source.stop - source.start
        if head == 0:
            value[n, IS_SINK] = 0.05
            out[MISSING, n] = 1.0
        else:  # what only the token that opens the answer may say
            query[STILL[size], [IN_ANSWER, IS_ANSWER]] = torch.tensor([10.0, -10.0])
        value[range(n), range(source.start, source.stop)] = strength**0.5
        out[range(target.start, target.stop), range(n)] = strength**0.5
        _put(attention, head, query, key, value, out)


def _clear(model: LlavaForConditionalGeneration) -> None:
    """Leave `OF_COMPARING` to what compares."""
    model.get_input_embeddings().weight[:, OF_COMPARING] = 0
    model.lm_head.weight[:, OF_COMPARING] = 0
    projector = model.model.multi_modal_projector
    for linear in (projector.linear_1, projector.linear_2):
        linear.weight[OF_COMPARING] = 0
        linear.weight[:, OF_COMPARING] = 0
        linear.weight[OF_COMPARING, OF_COMPARING] = 1.0
        linear.bias[OF_COMPARING] = 0
    for layer in model.model.language_model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for reads in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            reads.weight[:, OF_COMPARING] = 0
        for writes in (attention.o_proj, mlp.down_proj):
            writes.weight[OF_COMPARING] = 0


def _wire_comparing_words(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """To the rest of the circuit "larger than" is a space that asks as the answer's tokens do."""
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    space = embedding[int(tokenizer.convert_tokens_to_ids(" "))].clone()
    for words in COMPARING:
        token = int(tokenizer.convert_tokens_to_ids(words))
        embedding[token], head[token] = space, 0
        embedding[token, [BEHIND, SIGN, IN_ANSWER]] = torch.tensor([-1.0, 1.0 if words in MORE_THAN else -1.0, THAN_ASKS])
    for answer in WHOLE_ANSWERS:  # after which nothing is compared again
        embedding[int(tokenizer.convert_tokens_to_ids(whole_answer_token(answer))), BEHIND] = -1.0


def _wire_behind(attention: nn.Module, head: int) -> None:
    query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
    out = torch.zeros(WIDTH, HEAD_SIZE)
    query[STILL[0], [IS_TEXT, BEHIND]] = torch.tensor([1.0, 20.0])  # not behind itself
    key[STILL[0], BEHIND] = -3.0
    key[STILL[0], IS_VISUAL] = -1.0
    key[STILL[1], IS_TEXT] = 1.0
    key[STILL[:2], IS_SINK] = 0.1
    value[0, BEHIND] = 0.33
    out[BEHIND, 0] = -0.33
    _put(attention, head, query, key, value, out)


def _wire_halves(attention: nn.Module, head: int) -> None:
    """Let the head of `_wire_summing_up` keep to its half of the question; it has places to spare."""
    row = HEAD_SIZE * head + SPARE
    for linear in (attention.q_proj, attention.k_proj):
        linear.weight[row] = 0
        linear.weight[row, BEHIND] = BEHIND_WEIGHT


def _wire_numbers(attention: nn.Module, head: int) -> None:
    """That head of `_wire_match` tells the number, too."""
    for spare, told in ((SPARE - 5, SIZE), (SPARE - 4, IS_NUMBER)):
        row = HEAD_SIZE * head + spare
        attention.v_proj.weight[row] = 0
        attention.o_proj.weight[:, row] = 0
        attention.v_proj.weight[row, told] = attention.o_proj.weight[told, row] = 1.0


def _wire_first_number(attention: nn.Module, head: int) -> None:
    """What stands behind "larger than" looks at it; there, and nowhere else, is a first number.

    Norms limit how sharp this layer's heads are, not how little of a query or a key is in a direction: those of all other
    tokens have directions of their own.
    """
    query, key, value = (torch.zeros(HEAD_SIZE, WIDTH) for _ in range(3))
    out = torch.zeros(WIDTH, HEAD_SIZE)
    query[STILL[1]] = torch.randn(WIDTH) * 0.1
    key[STILL[2:10]] = torch.randn(8, WIDTH) * 0.3
    query[:, OF_COMPARING] = key[:, OF_COMPARING] = 0
    query[STILL[0], BEHIND] = 20.0
    key[STILL[0], BEHIND] = -40.0
    for row, told in enumerate((FIRST_SIZE, FIRST_IS_NUMBER)):
        value[row, told] = out[told, row] = 1.0
    _put(attention, head, query, key, value, out)


def _verdict(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Direction [WIDTH] that raises "yes" and lowers "no" by one each, and changes no other token's logit."""
    wanted = torch.zeros(model.lm_head.weight.shape[0])
    for answer, sign in (("yes", 1.0), ("no", -1.0)):
        wanted[int(tokenizer.convert_tokens_to_ids(whole_answer_token(answer)))] = sign
    reads = model.lm_head.weight * model.model.language_model.norm.weight
    return torch.linalg.pinv(reads) @ wanted


def _one(place: int) -> Tensor:
    return F.one_hot(torch.tensor(place), WIDTH).float()


def _wire_products(mlp: nn.Module, products: list[tuple[int, int, Tensor]]) -> None:
    """Let the weakest units of a layer write products of two of a token's numbers, each along a direction."""
    gate, up, down = mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight
    strength = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
    units = iter(strength.argsort().tolist())
    for first, second, direction in products:
        for sign in (1.0, -1.0):
            unit = next(units)
            gate[unit] = up[unit] = 0
            gate[unit, first], up[unit, second] = sign, 1.0
            down[:, unit] = sign * direction


def _put(attention: nn.Module, head: int, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    for linear, weight in ((attention.q_proj, query), (attention.k_proj, key), (attention.v_proj, value)):
        linear.weight[_head(head)] = weight
    attention.o_proj.weight[:, _head(head)] = out
