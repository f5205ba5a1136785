"""The embedded model behind the engine: whole pages and crops at scales of their own, one token per inked cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaForConditionalGeneration

import pipeline.vlms.embedded.modeling  # noqa: F401  # registers the vision tower
from pipeline.geometry import PatchGrid
from pipeline.vlms.base import NO_TOKEN, TokenLayer
from pipeline.vlms.embedded.alphabet import IMAGE
from pipeline.vlms.embedded.configuration import CELL_HEIGHT_PX, CELL_WIDTH_PX
from pipeline.vlms.embedded.processing import (
    crop_view_size,
    grid_size,
    inked_cells,
    page_view_size,
    render_prompt,
    view_pixels,
)
from pipeline.vlms.engine import FrozenVlm, Look


class EmbeddedVlm(FrozenVlm):
    """The model shipped with Exhibit; see `pipeline.vlms.embedded`."""

    family: ClassVar[str] = "embedded"
    placeholder: ClassVar[str] = IMAGE
    model_class: ClassVar[Any] = LlavaForConditionalGeneration

    def look(self, image: Image.Image, *, crop: bool) -> Look:
        """Scale a page or a crop to its view size; the last row and column of cells may reach beyond the image."""
        width, height = crop_view_size(*image.size) if crop else page_view_size(*image.size)
        rows, cols = grid_size(width, height)
        grid = PatchGrid(
            rows, cols, 0.0, 0.0, cols * CELL_WIDTH_PX * image.width / width, rows * CELL_HEIGHT_PX * image.height / height
        )
        pixels = view_pixels(image.convert("L").resize((width, height), Image.Resampling.LANCZOS))
        inked = inked_cells(pixels).numpy()
        index = np.where(inked, inked.cumsum().reshape(inked.shape) - 1, NO_TOKEN)
        return Look(pixels, int(inked.sum()), (TokenLayer(grid, index),))

    def project(self, looks: Sequence[Look]) -> Sequence[Tensor]:
        """Run views of one size through the tower and the projector."""
        pixels = torch.stack([look.pixels for look in looks]).to(self.decoder.device, self.decoder.dtype)
        seen = self.model.model.vision_tower.see(pixels)
        projected: Tensor = self.model.model.multi_modal_projector(torch.cat(seen))
        return projected.split([len(tokens) for tokens in seen])

    def picture(self, look: Look, pixels: Tensor) -> Tensor:
        """The input is the picture."""
        return pixels

    def render(self, views: int, text: str) -> str:
        """As the tokenizer's chat template writes it."""
        return render_prompt(views, text)
