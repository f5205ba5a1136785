"""Views of a page: where each character falls in a view's cells, and how the view looks after printing and scanning."""

import io
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from ops.train.compose import A4
from ops.train.document import Box, Page
from pipeline.vlms.embedded.configuration import (
    CELL_HEIGHT_PX,
    CELL_WIDTH_PX,
    PLACE_COLUMNS,
    PLACE_HEIGHT_PX,
    PLACE_ROWS,
    PLACE_WIDTH_PX,
    PLACES,
)
from pipeline.vlms.embedded.processing import PAGE_SCALE, crop_view_size, grid_size, page_view_size

LEGIBLE_X_HEIGHT_PX = 3.0
"""Below this a character is neither asked for nor taught."""
UNREADABLE = -1
"""Class of a place that holds a character too small to be taught."""

FILTERS = (
    Image.Resampling.LANCZOS,
    Image.Resampling.LANCZOS,
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
)


@dataclass(frozen=True, eq=False)
class View:
    """A part of a page as the model is shown it.

    Attributes:
        box: the part, in raster pixels.
        width_px, height_px: the view's size before padding to whole cells.
        classes: [rows, columns, PLACES] character class of each place: 0 nothing, `UNREADABLE` too small.
        cell_of: [n] number of the cell (row-major) that holds each character of the page, or -1 if the view does not show
            it.
        slot_of: [n] how many characters come before it in its cell, or -1.
    """

    box: Box
    width_px: int
    height_px: int
    classes: NDArray[np.int16]
    cell_of: NDArray[np.int32]
    slot_of: NDArray[np.int32]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.classes.shape[0], self.classes.shape[1]


def view_of(page: Page, box: Box, width_px: int, height_px: int) -> View:
    """Place the page's characters in the cells of a view.

    A character belongs to the place where its centre is. Where narrow letters would share a place, the later ones move
    right, as long as none is off by more than two places; characters that find no place are lost.
    """
    scale_x, scale_y = width_px / (box[2] - box[0]), height_px / (box[3] - box[1])
    rows, columns = grid_size(width_px, height_px)
    x = (page.centre[:, 0] - box[0]) * scale_x / PLACE_WIDTH_PX
    y = (page.centre[:, 1] - box[1]) * scale_y / PLACE_HEIGHT_PX
    place_row = np.floor(y).astype(np.int64)
    wanted = np.floor(x).astype(np.int64)
    step = np.arange(len(wanted))
    # Within a run places must increase; a large offset per run keeps the runs' running maxima apart.
    apart = page.run_of.astype(np.int64) * 100_000
    place_column = np.maximum.accumulate(wanted - step + apart) + step - apart
    inside = (x >= 0) & (y >= 0) & (x * PLACE_WIDTH_PX < width_px) & (y * PLACE_HEIGHT_PX < height_px)
    shown = inside & ~page.hidden & (place_column - wanted <= 2) & (place_column < columns * PLACE_COLUMNS)
    cell_row, cell_column = place_row // PLACE_ROWS, place_column // PLACE_COLUMNS
    legible = page.x_height * scale_y >= LEGIBLE_X_HEIGHT_PX
    classes = np.zeros((rows, columns, PLACES), np.int16)
    place = (place_row % PLACE_ROWS) * PLACE_COLUMNS + place_column % PLACE_COLUMNS
    classes[cell_row[shown], cell_column[shown], place[shown]] = np.where(legible, page.classes, UNREADABLE)[shown]
    owner = np.full(classes.shape, -1)
    owner[cell_row[shown], cell_column[shown], place[shown]] = step[shown]
    shown[shown] = owner[cell_row[shown], cell_column[shown], place[shown]] == step[shown]
    cell_of = np.where(shown & legible, cell_row * columns + cell_column, -1).astype(np.int32)
    before = (classes > 0).cumsum(-1) - (classes > 0)
    slot_of = np.full(len(wanted), -1, np.int32)
    seen = cell_of >= 0
    slot_of[seen] = before[cell_row[seen], cell_column[seen], place[seen]]
    return View(box, width_px, height_px, classes, cell_of, slot_of)


PAGE_ROWS = grid_size(*page_view_size(*A4))[0] + 1
"""Rows of cells of such a view, and one to spare."""


def page_view(page: Page, scale: float | None = None) -> View:
    """The view of the whole page: as the pipeline would show it, or at a scale, for the small pages of early stages."""
    if scale:
        width, height = max(1, round(page.width * scale)), max(1, round(page.height * scale))
    else:
        width, height = page_view_size(page.width, page.height)
    return view_of(page, (0, 0, page.width, page.height), width, height)


def crop_view(page: Page, box: Box) -> View:
    """The view of a crop, cut at whole pixels of the page."""
    x0, y0 = max(0, int(box[0])), max(0, int(box[1]))
    x1, y1 = min(page.width, round(box[2])), min(page.height, round(box[3]))
    x1, y1 = max(x1, x0 + 8), max(y1, y0 + 8)
    return view_of(page, (x0, y0, x1, y1), *crop_view_size(x1 - x0, y1 - y0))


def picture(
    page: Page, view: View, rng: random.Random, *, effects: bool, raster: Image.Image | None = None
) -> NDArray[np.uint8]:
    """Draw a view.

    Args:
        page: the page.
        view: the part of it to draw.
        rng: source of the choice of filter and effects.
        effects: whether the view may look scanned; a third stays clean all the same.
        raster: the drawn page, if there is one already; else only the part is drawn.

    Returns:
        [rows * 16, columns * 32], padded with white to whole cells.
    """
    cut = raster.crop(tuple(int(v) for v in view.box)) if raster else page.draw(view.box)  # type: ignore[arg-type]
    if effects and rng.random() < 0.35:
        cut = _ink(cut, rng)
    small = cut.resize((view.width_px, view.height_px), rng.choice(FILTERS))
    if effects and rng.random() < 0.5:
        small = _scan(small, rng)
    rows, columns = view.grid
    out = np.full((rows * CELL_HEIGHT_PX, columns * CELL_WIDTH_PX), 255, np.uint8)
    out[: view.height_px, : view.width_px] = np.asarray(small)
    return out


def _ink(image: Image.Image, rng: random.Random) -> Image.Image:
    """Thicker, thinner or softer strokes, or black and white alone, before the view is scaled."""
    draw = rng.random()
    if draw < 0.22:
        return image.filter(ImageFilter.MinFilter(3))
    if draw < 0.36:
        return image.filter(ImageFilter.MaxFilter(3))
    if draw < 0.46:
        limit = rng.randint(110, 190)
        return image.filter(ImageFilter.BoxBlur(1)).point([255 * (grey > limit) for grey in range(256)])
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.8)))


def _scan(image: Image.Image, rng: random.Random) -> Image.Image:
    """The back of the sheet shining through, faded ink, uneven light, folds, dirt, noise, blur, JPEG."""
    grey = np.asarray(image).astype(np.float32)
    noise = np.random.default_rng(rng.getrandbits(32))
    height, width = grey.shape
    if rng.random() < 0.12:
        back = np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).filter(ImageFilter.GaussianBlur(1.2)))
        grey = grey - rng.uniform(0.05, 0.3) * (255.0 - np.roll(back, rng.randint(0, height), axis=0))
    if rng.random() < 0.4:
        fade = rng.uniform(0.35, 1.0)
        grey = 255 - (255 - grey) * fade
    if rng.random() < 0.4:
        slope_x, slope_y = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)
        light = 1 + slope_x * np.linspace(-1, 1, width)[None] + slope_y * np.linspace(-1, 1, height)[:, None]
        grey = grey * np.clip(light * rng.uniform(0.75, 1.0), 0, 1.1)
    if rng.random() < 0.12:
        grey = grey * _fold(width, rng)[None] if rng.random() < 0.5 else grey * _fold(height, rng)[:, None]
    if rng.random() < 0.1:
        _dirty(grey, rng, noise)
    if rng.random() < 0.5:
        grey = grey + noise.normal(0, rng.uniform(2, 16), grey.shape)
    image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7)))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(35, 85))
        image = Image.open(buffer).convert("L")
    return image


def _fold(size: int, rng: random.Random) -> NDArray[np.float64]:
    """Light [size] along one axis of a sheet that was folded: a crease with a shadow on one side, or a dark edge."""
    at = np.arange(size) - rng.choice((0.0, rng.uniform(0.1, 0.9), 1.0)) * size
    shadow = rng.uniform(0.05, 0.45) * np.exp(-np.abs(at) / rng.uniform(4, 60))
    light: NDArray[np.float64] = 1 - shadow * np.where(at * rng.choice((-1, 1)) > 0, 1.0, 0.3)
    return light


def _dirty(grey: NDArray[np.float32], rng: random.Random, noise: np.random.Generator) -> None:
    """Specks, or streaks along the way that the sheet took through the scanner; changes `grey`."""
    height, width = grey.shape
    if rng.random() < 0.5:
        count = max(1, round(height * width * rng.uniform(2e-5, 4e-4)))
        grey[noise.integers(0, height, count), noise.integers(0, width, count)] = rng.choice((0, 80, 255))
    else:
        for _ in range(rng.randint(1, 3)):
            grey[:, rng.randrange(width)] *= rng.uniform(0.3, 0.9)


def reader_window(page: Page, rng: random.Random, height: int, width: int) -> View:
    """A window of `height` x `width` view pixels, anywhere on the page, at any scale from a large sheet to large print.

    Half of them are at a whole page's scale, at which most is read.
    The window is centred near a character, so that few are empty.
    """
    drawn = rng.uniform(0.38, 0.56), rng.uniform(0.5, 0.8), rng.uniform(0.7, 1.0), rng.uniform(0.9, 1.5)
    scale = rng.choice((PAGE_SCALE,) * len(drawn) + drawn)
    box_width, box_height = width / scale, height / scale
    centre = page.centre[rng.randrange(len(page.centre))]
    x0 = float(centre[0]) - rng.uniform(0.1, 0.9) * box_width
    y0 = float(centre[1]) - rng.uniform(0.1, 0.9) * box_height
    x0, y0 = float(int(x0)), float(int(y0))
    return view_of(page, (x0, y0, x0 + round(box_width), y0 + round(box_height)), width, height)
