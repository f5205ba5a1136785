"""Configuration of the embedded model's vision tower."""

from typing import Any

from transformers import PretrainedConfig

CELL_HEIGHT_PX = 16
CELL_WIDTH_PX = 32
"""A visual token is one cell: a line of 7-point print high at the page view's 112 dpi, four or five characters of 10-point
print wide."""

PLACE_HEIGHT_PX = 8
PLACE_WIDTH_PX = 4
PLACE_ROWS = CELL_HEIGHT_PX // PLACE_HEIGHT_PX
PLACE_COLUMNS = CELL_WIDTH_PX // PLACE_WIDTH_PX
PLACES = PLACE_ROWS * PLACE_COLUMNS
"""Places of a cell, row by row: where the reader looks for a character's centre."""


OF_TEXT = 7
"""Numbers of a visual token that are zero, and as many as a character's code has: the language model keeps there what only
text has."""
NUMBER = 2
"""Numbers of a visual token that tell which number a value is; see `numbers`."""
FLAGS, FLAG = 2, 4.0
"""Numbers of a visual token that tell it from text, and what they are."""


class ReaderTowerConfig(PretrainedConfig):  # type: ignore[misc, unused-ignore]
    """Sizes of the reader (convolutions), of the layout layers (attention) behind it, and of what a visual token tells.

    Args:
        n_characters: classes of the reader's head; class 0 is "no character here".
        stem_channels: channels after each of the two first, halving convolutions.
        reader_channels: channels at the reader's resolution, one position per 4 x 8 px.
        stem_blocks: residual blocks at one quarter of the resolution.
        reader_blocks: residual blocks at the reader's resolution.
        n_slots: characters of a cell, in reading order, that a visual token holds; later ones are lost.
        character_size: width of a character's code.
        letter_size: width of a letter's code, by which words are compared.
        place_size: width of the code of a cell's row and column.
        context_size: width of what else the layout layers tell of a cell.
        signature_size: width of a cell's signature, by which questions find it.
        layout_size: width of the layout layers.
        num_hidden_layers: bidirectional layout layers.
        num_attention_heads: heads of the layout layers.
        intermediate_size: width of their feed-forward networks.
        rope_theta: base of the two-dimensional rotary positions, whose unit is a cell.

    Attributes:
        hidden_size: width of a visual token, the sum of its parts; see `modeling.ReaderTower.tell`.
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
        letter_size: int = 16,
        place_size: int = 12,
        context_size: int = 21,
        signature_size: int = 46,
        layout_size: int = 256,
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
        self.letter_size = letter_size
        self.place_size = place_size
        self.context_size = context_size
        self.signature_size = signature_size
        self.layout_size = layout_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.rope_theta = rope_theta
        super().__init__(**kwargs)
        characters, edges = (2 + n_slots) * character_size, 2 * n_slots
        text = OF_TEXT + NUMBER + character_size
        signed = context_size + signature_size + character_size
        self.hidden_size = characters + place_size + edges + text + signed + FLAGS
