"""From images to the embedded model's inputs: pixel tensors, view sizes, and the layout of a prompt.

Everything is measured against the page raster of 200 dpi. At the page view's 112 dpi, 10-point print has an x-height of
seven pixels, which can be told apart; a crop is shown at the raster's own scale if it fits, so that smaller print becomes
legible too. Beyond that nothing is gained: of the same lines the reader gets 3 % of the characters wrong at 112 dpi, 5 % at
200 and 9 % at 280.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline.vlms.embedded.alphabet import ANSWER, IMAGE, VIEW
from pipeline.vlms.embedded.configuration import CELL_HEIGHT_PX, CELL_WIDTH_PX

PAGE_LONG_SIDE_PX = 1312
"""Long side of the view of A4: 41 cells of 32 px or 82 of 16 px, so that it fills 82 x 29 cells without a nearly empty last
column. At 992 px a quarter fewer of 96 validation questions are answered rightly than at 1216 or 1408 px."""
PAGE_SCALE = PAGE_LONG_SIDE_PX / 2339  # A4 is 1654 x 2339 pixels of the raster
"""View pixels a raster pixel where a whole A4 page is shown."""
LARGEST_PAGE_SIDES_PX = PAGE_LONG_SIDE_PX, 1856
"""Short and long side of the largest page view: A3 at A4's scale, 116 x 41 cells. Shown as small as A4 its labels cannot be
read, and where no label is read nothing is found to be zoomed at: of 65 questions about small print on A3 pages 33 instead
of 25 are answered rightly with it, 28 instead of 13 by the look at the page alone."""
CROP_WIDTH_PX = 640
CROP_HEIGHT_PX = 480
"""Largest crop view: 20 x 30 cells, under half a page view."""
INK_CONTRAST = 16.0
"""Least difference of grey levels (of 255) in a cell that shows something. Low, for faint print: noise may pass as ink,
which costs time, but ink must not pass as paper."""


def page_view_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Size of the view that shows a whole page: from A4 to A3 at one scale, never enlarged.

    What is smaller is shown larger, up to a long side of `PAGE_LONG_SIDE_PX`; what is larger is shown as large as A3.

    >>> page_view_size(1654, 2339)
    (928, 1312)
    >>> page_view_size(3307, 2339)
    (1855, 1312)
    """
    short, long = sorted((width_px, height_px))
    short_view, long_view = LARGEST_PAGE_SIDES_PX
    scale = max(PAGE_SCALE, PAGE_LONG_SIDE_PX / long)
    return _scaled(width_px, height_px, min(scale, short_view / short, long_view / long))


def crop_view_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Size of the view that shows a crop of the raster: as large as the largest crop view allows, never enlarged.

    >>> crop_view_size(400, 80)
    (400, 80)
    """
    return _scaled(width_px, height_px, min(CROP_WIDTH_PX / width_px, CROP_HEIGHT_PX / height_px))


def _scaled(width_px: int, height_px: int, scale: float) -> tuple[int, int]:
    """The size at a scale of at most one."""
    scale = min(1.0, scale)
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def view_pixels(image: Image.Image | NDArray[np.uint8]) -> Tensor:
    """Turn an image, already of the view's size, into the tower's input.

    Args:
        image: a picture of any mode, or grey values [H, W].

    Returns:
        float32 [1, H', W'] in -1 (white) to 1 (black), padded with white at the bottom and right to whole cells.
    """
    grey = np.asarray(image.convert("L") if isinstance(image, Image.Image) else image)
    height, width = grey.shape
    rows, columns = grid_size(width, height)
    padded = np.full((rows * CELL_HEIGHT_PX, columns * CELL_WIDTH_PX), 255, dtype=np.uint8)
    padded[:height, :width] = grey
    return 1 - torch.from_numpy(padded)[None].float() / 127.5


def inked_cells(pixels: Tensor) -> Tensor:
    """Which cells show anything: bool [..., R, C] of pixels [..., 1, R * 16, C * 32] as `view_pixels` gives them.

    White paper becomes no visual token: it would cost as much as print, and no answer can rest on it. A cell counts as inked
    where its grey, averaged over 3 x 3 pixels against noise, spans `INK_CONTRAST` or more. Of a view without any ink the
    first cell counts. The grey levels are restored first, so that pixels rounded to bfloat16 give the same cells.
    """
    grey = ((1 - pixels.detach().float()) * 127.5).round()
    cells = grey.unflatten(-2, (-1, CELL_HEIGHT_PX)).unflatten(-1, (-1, CELL_WIDTH_PX)).transpose(-3, -2)
    smooth = F.avg_pool2d(cells.reshape(-1, 1, CELL_HEIGHT_PX, CELL_WIDTH_PX), 3, stride=1).flatten(1)
    inked = (smooth.amax(1) - smooth.amin(1) >= INK_CONTRAST).view(cells.shape[:-2]).squeeze(-3)
    inked[..., 0, 0] |= ~inked.flatten(-2).any(-1)
    return inked


def grid_size(width_px: int, height_px: int) -> tuple[int, int]:
    """Rows and columns of cells that cover a view.

    >>> grid_size(928, 1312)
    (82, 29)
    """
    return math.ceil(height_px / CELL_HEIGHT_PX), math.ceil(width_px / CELL_WIDTH_PX)


def render_prompt(n_views: int, text: str) -> str:
    """The prompt of `n_views` views and a question, as the tokenizer's chat template writes it.

    The global view comes first, so that everything before the question is the same for all questions of a page.
    """
    return (IMAGE + VIEW) * n_views + text + ANSWER


def expand_views(prompt: str, counts: Sequence[int]) -> str:
    """Repeat each view's one image token once per visual token.

    Args:
        prompt: from `render_prompt` or the chat template.
        counts: inked cells of each view, in order.

    Raises:
        ValueError: the prompt has another number of views than `counts`.
    """
    pieces = prompt.split(IMAGE)
    if len(pieces) != len(counts) + 1:
        raise ValueError(f"the prompt has {len(pieces) - 1} views, {len(counts)} counts were given")
    return pieces[0] + "".join(IMAGE * n + piece for n, piece in zip(counts, pieces[1:], strict=True))
