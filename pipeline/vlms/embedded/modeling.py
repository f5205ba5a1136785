"""The embedded model's vision tower, and how the whole model is loaded.

The model is transformers' `LlavaForConditionalGeneration` with a Qwen3 text model; only the tower is ours. Importing this
module registers it, after which `AutoModel` and `from_pretrained` know it.

Tower, with `B` views of one size, `R x C` cells of 16 x 32 px, `J` = 16 places in a cell, `K` character slots, `D` the
width:

    pixels [B, 1, 16 R, 32 C]
      -> reader (convolutions)           a distribution over characters at each place, 4 px wide and 8 px high; the mean of
                                         three glances at the picture, shifted by a pixel
      -> settle                          each character at one place (`places`)
      -> compose                         the cell's characters in reading order, one slot each, with the two before and the
                                         one after them
      -> layout layers (bidirectional)   what the cells mean to each other; two-dimensional rotary positions
      -> links, edges                    which cell is each one's label (column, row name); where values begin and end
      -> numbers                         which number a value is (`numbers`)
      -> signature                       what a question can find the cell by: its label's words and its own
      -> tell                            [B, N, D]: characters, place, edges, number, context, signature, how a value begins

Characters are the only channel between eyes and language: a page known by its text alone can be put in at `compose`, which
is how the layers behind it are trained without drawing. Nothing is learned per position, so a view may have any size. No
tensor is kept in a non-persistent buffer, because `from_pretrained` gives those back uninitialised.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pipeline.vlms.embedded.alphabet import CHARACTERS, END, IMAGE, PAD
from pipeline.vlms.embedded.configuration import (
    CELL_HEIGHT_PX,
    CELL_WIDTH_PX,
    FLAG,
    FLAGS,
    NUMBER,
    OF_TEXT,
    PLACE_COLUMNS,
    PLACE_ROWS,
    PLACES,
    ReaderTowerConfig,
)
from pipeline.vlms.embedded.numbers import magnitudes
from pipeline.vlms.embedded.places import by_cell, by_line, settle, surer
from pipeline.vlms.embedded.processing import inked_cells

ROPE_THETA = 1e16
"""Base of the language model's rotary positions. So large that three quarters of a head's pairs hardly turn over a page of
tokens: text is found by what it says, wherever it stands, while the other pairs tell neighbours apart."""


N_RELATIONS, RELATION_SIZE = 2, 64
"""Relations between cells that the tower tells, and the size of their attention heads."""

N_NEAR, TRIPLES = 4, 128
"""Heads that gather a word's cells for its signature, and features of three letters that it counts."""

NEIGHBOURS = 3
"""Places of 4 px from one letter of a word to the next, at most."""


GLANCES = (0, 0), (-1, 1), (1, -1)
"""By how many pixels, down and to the right, a picture is shifted each time it is read. Of 1,170 values on clean pages 93 %
are then read whole, 90 % at one glance; 94 % with all nine shifts by at most a pixel, for thrice the time."""


class _Convolution(nn.Sequential):
    """3 x 3 convolution, batch norm, ReLU; halves the size by `stride`."""

    def __init__(self, inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input is carried."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _Convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.second(self.first(x))))


class Reader(nn.Module):
    """Names the character at each place of 8 x 4 px."""

    def __init__(self, config: ReaderTowerConfig) -> None:
        super().__init__()
        half, quarter = config.stem_channels
        self.stem = nn.Sequential(
            _Convolution(1, half, 2),
            _Convolution(half, quarter, 2),
            *(_ResidualBlock(quarter) for _ in range(config.stem_blocks)),
            _Convolution(quarter, config.reader_channels, (2, 1)),
        )
        self.blocks = nn.Sequential(*(_ResidualBlock(config.reader_channels) for _ in range(config.reader_blocks)))
        self.head = nn.Linear(config.reader_channels, config.n_characters)

    def forward(self, pixels: Tensor) -> Tensor:
        """Read [B, 1, H, W]: logits [B, R, C, J, n_characters]."""
        features = self.blocks(self.stem(pixels.to(memory_format=torch.channels_last)))
        batch, channels, height, width = features.shape
        rows, columns = height // PLACE_ROWS, width // PLACE_COLUMNS
        features = features.permute(0, 2, 3, 1).reshape(batch, rows, PLACE_ROWS, columns, PLACE_COLUMNS, channels)
        features = features.transpose(2, 3).reshape(batch, rows, columns, PLACES, channels)
        return self.head(features)


def grid_places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Row and column [R C, 2] of each cell, row by row."""
    return torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device)).view(-1, 2)


def rotary_2d(places: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [..., N, head_size / 2] for cells at `places` [..., N, 2].

    Half the pairs turn with the row, half with the column.
    """
    pairs = head_size // 4
    frequency = theta ** -(torch.arange(pairs, device=places.device, dtype=torch.float32) / pairs)
    angle = (places[..., None] * frequency).flatten(-2)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of the last dimension of [B, heads, N, d] by the position's angle."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1).to(x.dtype)


def sine_2d(places: Tensor, size: int) -> Tensor:
    """Sine code [..., N, size] of each cell's row and column, with periods from 6 to some 600 cells."""
    frequency = 100.0 ** -(torch.arange(size // 4, device=places.device, dtype=torch.float32) / (size // 4))
    row, column = (places[..., None] * frequency).unbind(-2)
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=-1)


class _Norm(nn.RMSNorm):
    """RMS norm whose weight follows the input's dtype, so that autocast keeps its fused form."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype) if self.weight is not None else None
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class LayoutLayer(nn.Module):
    """A pre-norm transformer layer over all cells of a view, in both directions."""

    def __init__(self, config: ReaderTowerConfig) -> None:
        super().__init__()
        size = config.layout_size
        self.n_heads = config.num_attention_heads
        self.attention_norm = _Norm(size, eps=1e-6)
        self.query_key_value = nn.Linear(size, 3 * size, bias=False)
        self.query_norm = _Norm(size // self.n_heads, eps=1e-6)
        self.key_norm = _Norm(size // self.n_heads, eps=1e-6)
        self.attention_out = nn.Linear(size, size, bias=False)
        self.mlp_norm = _Norm(size, eps=1e-6)
        self.mlp_in = nn.Linear(size, config.intermediate_size, bias=False)
        self.mlp_out = nn.Linear(config.intermediate_size, size, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Mix the cells [B, N, D] of each view; `cosine` and `sine` as `rotary_2d` gives them."""
        batch, n, size = x.shape
        qkv = self.query_key_value(self.attention_norm(x)).view(batch, n, 3, self.n_heads, size // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query = rotate(self.query_norm(query), cosine, sine)
        key = rotate(self.key_norm(key), cosine, sine)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, n, size))
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x))))


class Links(nn.Module):
    """Tells each cell what it is the value of: its label's or column's cell, and its row's.

    An attention head for each of these relations, with rotary positions, because what belongs together stands in one row or
    one column; a cell that belongs to none looks at a key of its own. Training supervises the scores by the true relations.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(size, N_RELATIONS * RELATION_SIZE, bias=False)
        self.key = nn.Linear(size, N_RELATIONS * RELATION_SIZE, bias=False)
        self.nothing = nn.Parameter(torch.zeros(N_RELATIONS, RELATION_SIZE))

    def forward(self, cells: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """How much each cell belongs to each: scores [B, relations, N, N + 1], the last column for nothing."""
        query = rotate(_heads(self.query(cells), N_RELATIONS), cosine, sine)
        key = rotate(_heads(self.key(cells), N_RELATIONS), cosine, sine)
        nothing = self.nothing[None, :, None].to(key.dtype).expand(len(cells), -1, -1, -1)
        return query @ torch.cat([key, nothing], dim=2).transpose(2, 3) / RELATION_SIZE**0.5


class Signature(nn.Module):
    """What a question can find each cell by: a bag of the letter triples in and around it, and in what it belongs to.

    Triples are counted whatever the slot they stand in, by the same small network; words gather over a few cells, since a
    label is rarely in one. The language model makes the like of it from the question (`ops.train.wiring`), and training
    makes the two alike for a question and the cell where its answer begins.
    """

    def __init__(self, config: ReaderTowerConfig) -> None:
        super().__init__()
        size = config.signature_size
        self.letters = nn.Embedding(config.n_characters, config.letter_size)
        self.triple = nn.Linear(3 * config.letter_size, TRIPLES)
        self.bag = nn.Linear(TRIPLES, size, bias=False)
        self.query = nn.Linear(config.layout_size, N_NEAR * RELATION_SIZE)
        self.key = nn.Linear(config.layout_size, N_NEAR * RELATION_SIZE)
        self.words = nn.Linear(N_NEAR * size, size, bias=False)
        self.out = nn.Linear((1 + N_RELATIONS) * size, size, bias=False)
        self.norm = _Norm(size, eps=1.0)  # a cell without letters stays without a signature

    def forward(self, letters: Tensor, shares: Tensor, cells: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Sign each cell.

        Args:
            letters: [B, N, 2 + slots, letter_size], the codes of the letters before and in each cell.
            shares: [B, relations, N, N], how much each cell belongs to each.
            cells: [B, N, layout_size], as the layout layers leave them.
            cosine: as `rotary_2d` gives it.
            sine: the same.

        Returns:
            [B, N, signature_size].
        """
        triples = torch.cat([letters[:, :, :-2], letters[:, :, 1:-1], letters[:, :, 2:]], dim=-1)
        bag = self.bag(F.silu(self.triple(triples)).sum(2))
        query = rotate(_heads(self.query(cells), N_NEAR), cosine, sine)
        key = rotate(_heads(self.key(cells), N_NEAR), cosine, sine)
        near = F.scaled_dot_product_attention(query, key, bag[:, None].expand(-1, N_NEAR, -1, -1))
        words = bag + self.words(near.transpose(1, 2).flatten(2))
        belongs = (shares @ words[:, None]).transpose(1, 2).flatten(2)
        return self.norm(self.out(torch.cat([words, belongs], dim=-1)))


def _heads(x: Tensor, n: int) -> Tensor:
    """Split the last dimension of [B, N, n d] into heads: [B, n, N, d]."""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


class Laid(NamedTuple):
    """What the layout layers make of a view's cells.

    Attributes:
        tokens: [B, N, hidden_size], the tower's output.
        links: [B, relations, N, N + 1], scores of what each cell belongs to.
        edges: [B, N, 2 slots], logits of each slot to begin a value, and to follow the end of one.
    """

    tokens: Tensor
    links: Tensor
    edges: Tensor


class ReaderTower(PreTrainedModel):  # type: ignore[misc, unused-ignore]
    """The vision tower; see the module's text for its parts."""

    config_class = ReaderTowerConfig
    base_model_prefix = "reader_tower"
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: ReaderTowerConfig) -> None:
        super().__init__(config)
        size = config.layout_size
        self.reader = Reader(config)
        self.character_codes = nn.Embedding(config.n_characters, config.character_size)
        self.slots = nn.Linear((2 + config.n_slots) * config.character_size, size)
        self.layers = nn.ModuleList(LayoutLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = _Norm(size, eps=1e-6)
        self.position = nn.Linear(size, config.place_size, bias=False)
        self.context = nn.Linear(size, config.context_size, bias=False)
        self.links = Links(size)
        self.edges = nn.Linear(size, 2 * config.n_slots)
        self.signature = Signature(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.RMSNorm):
            module.reset_parameters()
        elif isinstance(module, nn.BatchNorm2d):
            # Its own reset would also clear the running statistics that `from_pretrained` has just loaded.
            super()._init_weights(module)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)

    def read(self, pixels: Tensor) -> Tensor:
        """Probabilities [B, R, C, J, n_characters], float32, of the character that stands at each place of [B, 1, H, W].

        Read once for each of `GLANCES`, because what convolutions that halve the size make of a letter depends on the pixel
        where it begins; what most of them say is what stands there.
        """
        glances = [self.reader(pixels.roll(by, dims=(2, 3))).float().softmax(-1) for by in GLANCES]
        return surer(settle(torch.stack(glances).mean(0)))

    def compose(self, characters: Tensor) -> Tensor:
        """Put the characters of each cell into slots, in reading order: the two before the cell, its own, the one after.

        Args:
            characters: probabilities [B, R, C, J, n_characters], or classes [B, R, C, J] that are taken as certain.

        Returns:
            [B, R C, 2 + slots, character_size + letter_size + NUMBER], for each slot a character's code, its letter's, and
            the number that begins there or next after it.
        """
        weight = torch.cat([self.character_codes.weight, self.signature.letters.weight], dim=1)
        if characters.is_floating_point():
            present = 1 - characters[..., 0]
            codes = characters[..., 1:] @ weight[1:]
        else:
            present = (characters > 0).to(weight.dtype)
            codes = F.embedding(characters, weight) * present[..., None]
        classes = characters.argmax(-1) if characters.is_floating_point() else characters
        numbers = by_cell(magnitudes(by_line(classes[..., None]).squeeze(-1)))
        codes, nothing = torch.cat([codes, numbers.to(codes.dtype)], dim=-1), F.pad(weight[0], (0, NUMBER))
        order, total = reading_order(present.float(), self.config.n_slots)
        spelled = torch.einsum("brcjk,brcjd->brckd", order.to(codes.dtype), codes)
        spelled = spelled + total.to(codes.dtype)[..., None] * self._after(codes, present)[..., None, :]
        return torch.cat([self._before(codes, present, nothing), spelled], dim=3).flatten(1, 2)

    def _after(self, codes: Tensor, present: Tensor) -> Tensor:
        """Code [B, R, C, c] of the character after each cell, where the line goes on: the first of its right neighbour.

        It stands in the slot after the cell's last character, so that a cell's end and a word's end are told apart. It must
        be as near as letters are: at most `NEIGHBOURS` places away.
        """
        lines = present.unflatten(3, (PLACE_ROWS, PLACE_COLUMNS)).float()
        first = reading_order(lines, 1)[0][..., 0].to(codes.dtype)  # [B, R, C, rows, columns]
        last = reading_order(lines.flip(-1), 1)[0][..., 0].to(codes.dtype)  # from the right
        near = last.cumsum(-1)[..., :NEIGHBOURS].flip(-1)  # last character within NEIGHBOURS - j places of the edge
        within = codes.unflatten(3, (PLACE_ROWS, PLACE_COLUMNS))[..., :NEIGHBOURS, :] * first[..., :NEIGHBOURS, None]
        following = torch.cat([within[:, :, 1:], torch.zeros_like(within[:, :, :1])], dim=2)
        after = (near[..., None] * following).sum(-2)  # [B, R, C, rows, c]
        above = 1 - (1 - lines[..., 0, :]).prod(-1)[..., None].to(codes.dtype)
        return above * after[..., 0, :] + (1 - above) * after[..., 1, :]

    def _before(self, codes: Tensor, present: Tensor, nothing: Tensor) -> Tensor:
        """Codes [B, R, C, 2, c] of the two characters before each cell: the last of its left neighbour, on the same line.

        A line may cross a cell at either height; the height of a cell's first character decides which one is followed.
        """
        lines = present.unflatten(3, (PLACE_ROWS, PLACE_COLUMNS))
        from_end = reading_order(lines.flip(-1).float(), 2)[0].to(codes.dtype)  # [B, R, C, rows, columns, 2]
        last = torch.einsum("brchjk,brchjd->brchkd", from_end, codes.unflatten(3, (PLACE_ROWS, PLACE_COLUMNS)).flip(4))
        last = last + (1 - from_end.sum(4))[..., None] * nothing
        left = torch.cat([nothing.expand_as(last[:, :, :1]), last[:, :, :-1]], dim=2)
        above = 1 - (1 - lines[..., 0, :]).prod(-1)[..., None, None]
        return (above * left[..., 0, :, :] + (1 - above) * left[..., 1, :, :]).flip(3)

    def lay_out(self, slots: Tensor, places: Tensor) -> Laid:
        """Run the layout layers over cells, and sign each.

        Args:
            slots: [B, N, 2 + slots, character_size + letter_size + NUMBER], as `compose` gives them, of all cells or some.
            places: their rows and columns, [N, 2] if they are the same in all views, else [B, N, 2].
        """
        config = self.config
        characters, letters, numbers = slots.split([config.character_size, config.letter_size, NUMBER], dim=-1)
        head_size = config.layout_size // config.num_attention_heads
        cosine, sine = rotary_2d(places.unsqueeze(-3), head_size, config.rope_theta)
        cells = self.slots(characters.flatten(2))
        for layer in self.layers:
            cells = layer(cells, cosine, sine)
        cells = self.norm(cells)
        links, edges = self.links(cells, cosine, sine), self.edges(cells)
        signature = self.signature(letters, links.softmax(-1)[..., :-1], cells, cosine, sine)
        place = self.position(sine_2d(places, config.layout_size).to(cells.dtype)).expand(len(cells), -1, -1)
        tokens = self.tell(torch.cat([characters, numbers], dim=-1), place, edges.sigmoid(), self.context(cells), signature)
        return Laid(tokens, links, edges)

    def tell(self, written: Tensor, place: Tensor, edges: Tensor, context: Tensor, signature: Tensor) -> Tensor:
        """Put together what a visual token tells of its cell, part by part: [B, N, hidden_size].

        Its characters slot by slot, as they were read, no layer in between; its place; where values begin and end; the
        number with which one begins, between nothing, for what text has there; context; signature; the character with which
        a value begins; what flags a visual token.
        """
        begins = edges[..., : self.config.n_slots]
        first, number = (begins[..., None] * written[:, :, 2:]).sum(2).split([self.config.character_size, NUMBER], dim=-1)
        characters = written[..., : self.config.character_size].flatten(2)
        flags, next_one = place.new_zeros(*place.shape[:2], OF_TEXT), torch.zeros_like(first)
        told = [characters, place, edges, flags, number, next_one, context, signature, first]
        return F.pad(torch.cat(told, dim=-1), (0, FLAGS), value=FLAG)

    def see(self, pixels: Tensor) -> list[Tensor]:
        """Encode views of one size, [B, 1, H, W]: a token for each inked cell, row by row, [N, hidden_size] each.

        Differentiable in the pixels; which cells are inked is not.
        """
        # One by one: what is read of each depends on its margins, which are most of a page's cost and not read.
        return [self._see(view[None], inked) for view, inked in zip(pixels, inked_cells(pixels), strict=True)]

    def _see(self, pixels: Tensor, inked: Tensor) -> Tensor:
        printed, rows, columns = printed_part(pixels, inked)
        # Convolutions are most of a view's cost; they were trained in bf16, and take half the time in it. Not so gradients.
        fast = multiplies_bf16(pixels.device) and not pixels.requires_grad
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=fast):
            named = self.read(printed)
        slots = self.compose(named.to(pixels.dtype))
        kept = inked[rows, columns]
        return self.lay_out(slots[:, kept.flatten()], torch.nonzero(inked)).tokens[0]

    def forward(self, pixel_values: Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Encode views, padded with white to one size.

        Returns:
            hidden states [1, sum of inked cells, hidden_size], view by view.
        """
        hidden = torch.cat(self.see(pixel_values))[None]
        return BaseModelOutputWithPooling(last_hidden_state=hidden, hidden_states=(hidden,))


def printed_part(pixels: Tensor, inked: Tensor) -> tuple[Tensor, slice, slice]:
    """The part of views [B, 1, H, W] around the cells [R, C] that hold ink in any of them; its rows and columns of cells."""
    rows, columns = _span(inked.any(1)), _span(inked.any(0))
    return pixels[:, :, _times(rows, CELL_HEIGHT_PX), _times(columns, CELL_WIDTH_PX)], rows, columns


def _span(inked: Tensor) -> slice:
    """The rows or columns [n] from the first to the last with ink, and one on each side, for what is seen around print."""
    held = torch.nonzero(inked)
    return slice(max(0, int(held[0]) - 1), int(held[-1]) + 2)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether this is a processor with instructions for bf16, without which its products take fifty times those of float32.

    False on a GPU, where the weights' own type decides.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", dict)  # newer than the oldest torch that we run on
    able: Mapping[str, Any] = capabilities() if device.type == "cpu" else {}
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _times(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def reading_order(present: Tensor, n_slots: int) -> tuple[Tensor, Tensor]:
    """Probability that the character at place j is the k-th of its cell, and that the cell has k characters.

    Args:
        present: [..., J], the probability that a place holds a character.
        n_slots: how many characters to place; what follows is lost.

    Returns:
        [..., J, n_slots] and [..., n_slots]. The count of characters before a place follows the sum of the places'
        independent coins.
    """
    count = F.one_hot(torch.zeros_like(present[..., 0], dtype=torch.long), n_slots).to(present.dtype)
    order = []
    for p in present.unbind(-1):
        here = count * p[..., None]
        order.append(here)
        count = count - here + F.pad(here[..., :-1], (1, 0))
    return torch.stack(order, dim=-2), count


AutoConfig.register(ReaderTowerConfig.model_type, ReaderTowerConfig, exist_ok=True)
AutoModel.register(ReaderTowerConfig, ReaderTower, exist_ok=True)


def build_model(
    tokenizer: PreTrainedTokenizerFast, tower: ReaderTowerConfig | None = None, *, layers: int = 5, heads: int = 11
) -> LlavaForConditionalGeneration:
    """Make an untrained model for `tokenizer`.

    The defaults make 11 M parameters. Weights are random; training starts from those of `ops.train.wiring`.

    Args:
        tokenizer: gives the vocabulary and the control tokens.
        tower: sizes of the tower; those of the model that ships by default.
        layers: layers of the language model.
        heads: attention heads of 64 in each of them, whatever the width: one for each character of a cell, and one more.
    """
    tower = tower or ReaderTowerConfig(n_characters=len(CHARACTERS) + 1)
    width = tower.hidden_size

    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))  # type: ignore[arg-type]

    text = Qwen3Config(
        vocab_size=math.ceil(len(tokenizer) / 16) * 16,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=64,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        intermediate_size=2 * width,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=token(END),
        pad_token_id=token(PAD),
    )
    config = LlavaConfig(
        vision_config=tower,
        text_config=text,
        image_token_index=token(IMAGE),
        image_seq_length=1,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        projector_hidden_act="linear",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def load(
    path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """Load a checkpoint folder, offline, for inference: evaluation mode, weights frozen."""
    model = LlavaForConditionalGeneration.from_pretrained(path, dtype=dtype, local_files_only=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    model.to(torch.device(device))  # type: ignore[arg-type]
    return model.eval().requires_grad_(False), tokenizer


def encode_views(model: LlavaForConditionalGeneration, views: list[Tensor]) -> list[Tensor]:
    """Visual tokens of each view, as the language model takes them.

    Args:
        model: as `load` gives it.
        views: pixels as `processing.view_pixels` gives them, [1, H, W] each.

    Returns:
        One [N, hidden size] per view, its inked cells in row-major order. Differentiable if gradients are on and pixels or
        weights want them.
    """
    weight = model.model.multi_modal_projector.linear_1.weight
    seen = (model.model.vision_tower.see(view[None].to(weight.device, weight.dtype))[0] for view in views)
    return [model.model.multi_modal_projector(tokens) for tokens in seen]


def prompt_embeddings(model: LlavaForConditionalGeneration, input_ids: Tensor, visual_tokens: Tensor) -> Tensor:
    """Embed a prompt and put the visual tokens in its image places.

    This route, `inputs_embeds` alone, gives equal logits in transformers 5.17 and 5.23, and leaves `visual_tokens` a leaf
    whose gradient can be asked for.

    Args:
        model: as `load` gives it.
        input_ids: [B, T], with one image token per visual token.
        visual_tokens: [n, D], those of all views of all rows, in order.

    Returns:
        [B, T, D], to be passed to `model(inputs_embeds=...)`.
    """
    embeddings = model.get_input_embeddings()(input_ids)
    places = (input_ids == model.config.image_token_id)[..., None].expand_as(embeddings)
    return embeddings.masked_scatter(places, visual_tokens.to(embeddings.dtype))
