"""Configuration of the embedded model's vision tower."""

from typing import Any

from transformers import PretrainedConfig

CELL_HEIGHT_PX = 16
CELL_WIDTH_PX = 32
"""A visual token is one cell: one line of 10-point print high at the page view's 85 dpi, five or six characters wide."""

PLACE_HEIGHT_PX = 8
PLACE_WIDTH_PX = 4
PLACE_ROWS = CELL_HEIGHT_PX // PLACE_HEIGHT_PX
PLACE_COLUMNS = CELL_WIDTH_PX // PLACE_WIDTH_PX
PLACES = PLACE_ROWS * PLACE_COLUMNS
"""Places of a cell, row by row: where the reader looks for a character's centre."""


class ReaderTowerConfig(PretrainedConfig):  # type: ignore[misc, unused-ignore]
    """Sizes of the reader (convolutions) and of the layout layers (attention) behind it.

    Args:
        n_characters: classes of the reader's head; class 0 is "no character here".
        stem_channels: channels after each of the two first, halving convolutions.
        reader_channels: channels at the reader's resolution, one position per 4 x 8 px.
        stem_blocks: residual blocks at one quarter of the resolution.
        reader_blocks: residual blocks at the reader's resolution.
        n_slots: characters of a cell, in reading order, that reach the layout layers; later ones are lost.
        character_size: width of a character's code inside its slot.
        hidden_size: width of the layout layers and of the tower's output.
        num_hidden_layers: bidirectional layout layers.
        num_attention_heads: heads of the layout layers.
        intermediate_size: width of their feed-forward networks.
        rope_theta: base of the two-dimensional rotary positions, whose unit is a cell.
    """

    model_type = "exhibit_reader_tower"

    def __init__(  # noqa: PLR0913 - a configuration class lists what it holds
        self,
        n_characters: int = 195,
        stem_channels: tuple[int, int] | list[int] = (24, 48),
        reader_channels: int = 96,
        stem_blocks: int = 1,
        reader_blocks: int = 5,
        n_slots: int = 10,
        character_size: int = 15,
        hidden_size: int = 256,
        num_hidden_layers: int = 3,
        num_attention_heads: int = 4,
        intermediate_size: int = 768,
        rope_theta: float = 100.0,
        **kwargs: Any,
    ) -> None:
        self.n_characters = n_characters
        self.stem_channels = list(stem_channels)
        self.reader_channels = reader_channels
        self.stem_blocks = stem_blocks
        self.reader_blocks = reader_blocks
        self.n_slots = n_slots
        self.character_size = character_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.rope_theta = rope_theta
        super().__init__(**kwargs)
