"""The embedded model's vision tower, and how the whole model is loaded.

The model is transformers' `LlavaForConditionalGeneration` with a Qwen3 text model; only the tower is ours. Importing this
module registers it, after which `AutoModel` and `from_pretrained` know it.

Tower, with `B` views of one size, `R x C` cells of 16 x 32 px, `J` = 16 places in a cell, `K` character slots, `D` the
width:

    pixels [B, 1, 16 R, 32 C]
      -> reader (convolutions)           a distribution over characters at each place, 4 px wide and 8 px high
      -> compose                         the cell's characters in reading order, one slot each, with the two before and the
                                         one after them, as one vector per cell
      -> layout layers (bidirectional)   what the cells mean to each other; two-dimensional rotary positions
      -> [B, R C, D]                     plus a sine code of the cell's row and column
      -> links                           plus what each cell's label (column, row name) is

Characters are the only channel between eyes and language: a page known by its text alone can be put in at `compose`, which
is how the layers behind it are trained without drawing. Nothing is learned per position, so a view may have any size. No
tensor is kept in a non-persistent buffer, because `from_pretrained` gives those back uninitialised.
"""

import math
from pathlib import Path
from typing import Any

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
    PLACE_COLUMNS,
    PLACE_ROWS,
    PLACES,
    ReaderTowerConfig,
)

ROPE_THETA = 1e16
"""Base of the language model's rotary positions. So large that three quarters of a head's pairs hardly turn over a page of
tokens: text is found by what it says, wherever it stands, while the other pairs tell neighbours apart."""


N_RELATIONS, RELATION_SIZE = 2, 64
"""Relations between cells that the tower tells, and the size of their attention heads."""

NEIGHBOURS = 3
"""Places of 4 px from one letter of a word to the next, at most."""


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


def rotary_2d(rows: int, columns: int, head_size: int, theta: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [R C, head_size / 2] for cells in row-major order.

    Half the pairs turn with the row, half with the column.
    """
    pairs = head_size // 4
    frequency = theta ** -(torch.arange(pairs, device=device, dtype=torch.float32) / pairs)
    row = torch.arange(rows, device=device, dtype=torch.float32).repeat_interleave(columns)
    column = torch.arange(columns, device=device, dtype=torch.float32).repeat(rows)
    angle = torch.cat([row[:, None] * frequency, column[:, None] * frequency], dim=1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of the last dimension of [B, heads, N, d] by the position's angle."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1).to(x.dtype)


def sine_2d(rows: int, columns: int, size: int, device: torch.device) -> Tensor:
    """Sine code [R C, size] of each cell's row and column, with periods from 6 to some 600 cells."""
    frequency = 100.0 ** -(torch.arange(size // 4, device=device, dtype=torch.float32) / (size // 4))
    row = torch.arange(rows, device=device, dtype=torch.float32).repeat_interleave(columns)[:, None] * frequency
    column = torch.arange(columns, device=device, dtype=torch.float32).repeat(rows)[:, None] * frequency
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1)


class _Norm(nn.RMSNorm):
    """RMS norm whose weight follows the input's dtype, so that autocast keeps its fused form."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype) if self.weight is not None else None
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


class LayoutLayer(nn.Module):
    """A pre-norm transformer layer over all cells of a view, in both directions."""

    def __init__(self, config: ReaderTowerConfig) -> None:
        super().__init__()
        size = config.hidden_size
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
        self.out = nn.Linear(N_RELATIONS * size, size, bias=False)

    def scores(self, cells: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """How much each cell belongs to each: [B, relations, N, N + 1], the last column for nothing."""
        batch, n, _ = cells.shape
        query = self.query(cells).view(batch, n, N_RELATIONS, RELATION_SIZE).transpose(1, 2)
        key = self.key(cells).view(batch, n, N_RELATIONS, RELATION_SIZE).transpose(1, 2)
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        nothing = self.nothing[None, :, None].to(key.dtype).expand(batch, -1, -1, -1)
        return query @ torch.cat([key, nothing], dim=2).transpose(2, 3) / RELATION_SIZE**0.5

    def forward(self, scores: Tensor, tokens: Tensor) -> Tensor:
        """Add to `tokens` [B, N, D] what those hold that each belongs to, by `scores`."""
        share = scores.softmax(-1)[..., :-1]
        return tokens + self.out((share @ tokens[:, None]).transpose(1, 2).flatten(2))


class ReaderTower(PreTrainedModel):  # type: ignore[misc, unused-ignore]
    """The vision tower; see the module's text for its parts."""

    config_class = ReaderTowerConfig
    base_model_prefix = "reader_tower"
    main_input_name = "pixel_values"
    input_modalities = "image"

    def __init__(self, config: ReaderTowerConfig) -> None:
        super().__init__(config)
        self.reader = Reader(config)
        self.character_codes = nn.Embedding(config.n_characters, config.character_size)
        self.place_codes = nn.Embedding(PLACES, config.character_size)
        self.slots = nn.Linear((2 + config.n_slots) * config.character_size, config.hidden_size)
        self.layers = nn.ModuleList(LayoutLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = _Norm(config.hidden_size, eps=1e-6)
        self.position = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.links = Links(config.hidden_size)
        self.post_init()

    @property
    def patch_size(self) -> Tensor:
        """Cell height and width in pixels; transformers divides `image_sizes` by it."""
        return torch.tensor([CELL_HEIGHT_PX, CELL_WIDTH_PX], device=self.slots.weight.device)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.RMSNorm):
            module.reset_parameters()
        elif isinstance(module, nn.BatchNorm2d):
            # Its own reset would also clear the running statistics that `from_pretrained` has just loaded.
            super()._init_weights(module)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight)

    def compose(self, characters: Tensor) -> Tensor:
        """Turn the places of each cell into one vector per cell.

        Args:
            characters: probabilities [B, R, C, J, n_characters], or classes [B, R, C, J] that are taken as certain.

        Returns:
            [B, R C, hidden_size].
        """
        weight = self.character_codes.weight
        if characters.is_floating_point():
            present = 1 - characters[..., 0]
            codes = characters[..., 1:] @ weight[1:]
        else:
            present = (characters > 0).to(weight.dtype)
            codes = F.embedding(characters, weight) * present[..., None]
        codes = codes + self.place_codes.weight * present[..., None]  # [B, R, C, J, c]
        order, total = reading_order(present.float(), self.config.n_slots)
        spelled = torch.einsum("brcjk,brcjd->brckd", order.to(codes.dtype), codes)
        spelled = spelled + total.to(codes.dtype)[..., None] * self._after(codes, present)[..., None, :]
        slots = torch.cat([self._before(codes, present), spelled], dim=3)
        return self.slots(slots.flatten(3)).flatten(1, 2)

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

    def _before(self, codes: Tensor, present: Tensor) -> Tensor:
        """Codes [B, R, C, 2, c] of the two characters before each cell: the last of its left neighbour, on the same line.

        A line may cross a cell at either height; the height of a cell's first character decides which one is followed.
        """
        lines = present.unflatten(3, (PLACE_ROWS, PLACE_COLUMNS))
        from_end = reading_order(lines.flip(-1).float(), 2)[0].to(codes.dtype)  # [B, R, C, rows, columns, 2]
        last = torch.einsum("brchjk,brchjd->brchkd", from_end, codes.unflatten(3, (PLACE_ROWS, PLACE_COLUMNS)).flip(4))
        last = last + (1 - from_end.sum(4))[..., None] * self.character_codes.weight[0]
        left = torch.cat([self.character_codes.weight[0].expand_as(last[:, :, :1]), last[:, :, :-1]], dim=2)
        above = 1 - (1 - lines[..., 0, :]).prod(-1)[..., None, None]
        return (above * left[..., 0, :, :] + (1 - above) * left[..., 1, :, :]).flip(3)

    def lay_out(self, cells: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Run the layout layers over `cells` [B, R C, hidden_size], add the code of their places, link values to labels.

        Returns:
            the tower's output [B, R C, hidden_size] and the scores of the links.
        """
        head_size = self.config.hidden_size // self.config.num_attention_heads
        cosine, sine = rotary_2d(rows, columns, head_size, self.config.rope_theta, cells.device)
        for layer in self.layers:
            cells = layer(cells, cosine, sine)
        cells = self.norm(cells)
        place = self.position(sine_2d(rows, columns, self.config.hidden_size, cells.device).to(cells.dtype))
        scores = self.links.scores(cells, cosine, sine)
        return self.links(scores, cells + place), scores

    def see(self, pixels: Tensor) -> Tensor:
        """Encode views of one size, [B, 1, H, W], to [B, R C, hidden_size]."""
        cells = self.compose(self.reader(pixels).float().softmax(-1).to(pixels.dtype))
        return self.lay_out(cells, pixels.shape[2] // CELL_HEIGHT_PX, pixels.shape[3] // CELL_WIDTH_PX)[0]

    def forward(self, pixel_values: Tensor, image_sizes: Tensor | None = None, **_: Any) -> BaseModelOutputWithPooling:
        """Encode views, padded to one size where `image_sizes` [B, 2] (height, width in px) says how large each is.

        Returns:
            hidden states [B, R C, hidden_size], or [1, sum of cells, hidden_size] if `image_sizes` is given.
        """
        if image_sizes is None:
            hidden = self.see(pixel_values)
        else:
            views = zip(pixel_values, image_sizes.tolist(), strict=True)
            hidden = torch.cat([self.see(view[None, :, :height, :width]) for view, (height, width) in views], dim=1)
        return BaseModelOutputWithPooling(last_hidden_state=hidden, hidden_states=(hidden,))


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
    tokenizer: PreTrainedTokenizerFast, *, width: int = 256, layers: int = 5, layout_layers: int = 3, heads: int = 10
) -> LlavaForConditionalGeneration:
    """Make an untrained model for `tokenizer`.

    The defaults make 9 M parameters. Weights are random; training starts from those of `ops.train.wiring`.

    Args:
        tokenizer: gives the vocabulary and the control tokens.
        width: hidden size of the tower and of the language model; a multiple of 64.
        layers: layers of the language model.
        heads: attention heads of 64 in each of them, whatever the width: one for each character of a cell.
        layout_layers: bidirectional layers of the tower.
    """
    tower = ReaderTowerConfig(
        n_characters=len(CHARACTERS) + 1,
        hidden_size=width,
        num_hidden_layers=layout_layers,
        num_attention_heads=width // 64,
        intermediate_size=3 * width,
    )

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
        intermediate_size=width * 8 // 3,
        max_position_embeddings=4096,
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
        One [R C, hidden size] per view, cells in row-major order. Differentiable if gradients are on and pixels or weights
        want them.
    """
    weight = model.model.multi_modal_projector.linear_1.weight
    return [
        model.model.multi_modal_projector(model.model.vision_tower.see(view[None].to(weight.device, weight.dtype)))[0]
        for view in views
    ]


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
