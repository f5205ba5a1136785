"""The picture of an answer: the page with its evidence, the map, and the search round by round. Pixels only, no I/O."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.geometry import Box
from pipeline.store import StoredMap

PAGE_HEIGHT_PX, PAGE_WIDTH_PX = 1400, 1200
STRIP_WIDTH_PX = 620
GAP_PX = 24
RANK_COLOURS = ((208, 32, 48), (32, 96, 208), (16, 128, 72), (160, 64, 176))
INK, PAPER, FAINT = (24, 24, 24), (255, 255, 255), (110, 110, 110)


@dataclass(frozen=True, slots=True, eq=False)
class DrawnStep:
    """One round: a caption, its maps (the global view's first; SPOT-E's mask), and the boxes it selected, in page pixels."""

    caption: str
    maps: tuple[StoredMap, ...]
    selected: tuple[Box, ...]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnAnswer:
    """What is drawn of an answer.

    Attributes:
        page: The page raster.
        title: Question and answer, a line each.
        evidence: Boxes on the page, best first, with a caption each.
        steps: The search; empty for a method without one.
        spotlight: Whether the maps are masks that light the page, as SPOT-E's, and nothing was cropped.
    """

    page: Image.Image
    title: tuple[str, ...]
    evidence: tuple[tuple[Box, str], ...]
    steps: tuple[DrawnStep, ...]
    spotlight: bool = False


def draw_answer(answer: DrawnAnswer) -> Image.Image:
    """Draw an answer: the page with its evidence on the left, the search as a strip on the right."""
    page = draw_page(answer.page, answer.evidence)
    strip = _strip(answer)
    sheet = Image.new("RGB", (page.width + strip.width + 3 * GAP_PX, max(page.height, strip.height) + 2 * GAP_PX), PAPER)
    sheet.paste(page, (GAP_PX, GAP_PX))
    sheet.paste(strip, (page.width + 2 * GAP_PX, GAP_PX))
    return sheet


def draw_page(page: Image.Image, boxes: Sequence[tuple[Box, str]]) -> Image.Image:
    """Draw boxes with captions on a page scaled to the sheet."""
    scale = min(PAGE_HEIGHT_PX / page.height, PAGE_WIDTH_PX / page.width)
    picture = page.convert("RGB").resize(_scaled(page.size, scale), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, picture.width - 1, picture.height - 1), outline=FAINT)
    # The best box last, so that it lies on top.
    for rank, (box, caption) in reversed(list(enumerate(boxes))):
        colour = RANK_COLOURS[rank % len(RANK_COLOURS)]
        corners = tuple(edge * scale for edge in box.xyxy)
        pen.rectangle((corners[0] - 2, corners[1] - 2, corners[2] + 1, corners[3] + 1), outline=colour, width=3)
        _label(pen, (corners[0] - 2, corners[1] - 2), caption, colour)
    return picture


def heat(page: Image.Image, maps: Sequence[StoredMap], size: tuple[int, int]) -> Image.Image:
    """Lay maps over a page: the more saliency per area, the redder. All maps of a call share one scale."""
    picture = _grey(page, size)
    density = np.zeros((size[1], size[0]))
    for drawn in maps:
        _add_density(density, drawn, (size[0] / page.width, size[1] / page.height))
    if density.max() <= 0:
        return picture
    # A square root keeps the second place visible beside the first.
    strength = np.sqrt(density / density.max())[..., None]
    pixels = np.asarray(picture, dtype=np.float64)
    red = np.array((230.0, 30.0, 20.0))
    return Image.fromarray((pixels * (1 - 0.7 * strength) + red * 0.7 * strength).astype(np.uint8))


def lit(page: Image.Image, maps: Sequence[StoredMap], size: tuple[int, int]) -> Image.Image:
    """The page under a mask in [0, 1]: white paper where it is 1, yellowish dusk where it is 0."""
    picture = _grey(page, size)
    if not maps:
        return picture
    mask = Image.fromarray(np.rint(maps[0].values * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    dusk = Image.blend(picture, Image.new("RGB", size, (96, 84, 40)), 0.75)
    return Image.composite(picture, dusk, mask)


def _grey(page: Image.Image, size: tuple[int, int]) -> Image.Image:
    return page.convert("L").resize(size, Image.Resampling.LANCZOS).convert("RGB")


def _add_density(density: np.ndarray, drawn: StoredMap, scale: tuple[float, float]) -> None:
    """Add a map's saliency per area to a picture-sized field, cell by cell."""
    grid, area = drawn.grid, drawn.grid.cell_width * drawn.grid.cell_height
    for row, col in np.argwhere(drawn.values > 0):
        x0 = (drawn.view.x0 + grid.x0 + col * grid.cell_width) * scale[0]
        y0 = (drawn.view.y0 + grid.y0 + row * grid.cell_height) * scale[1]
        x1, y1 = x0 + grid.cell_width * scale[0], y0 + grid.cell_height * scale[1]
        cell = (slice(max(math.floor(y0), 0), math.ceil(y1)), slice(max(math.floor(x0), 0), math.ceil(x1)))
        density[cell] = np.maximum(density[cell], drawn.values[row, col] / area)


def _strip(answer: DrawnAnswer) -> Image.Image:
    """Title, then a picture for each round, then the crops that were shown."""
    parts: list[Image.Image] = [_text(answer.title, 22)]
    for step in answer.steps:
        parts.append(_text((step.caption,), 16))
        parts.append(_step_picture(answer.page, step, lit if answer.spotlight else heat))
    for box, caption in () if answer.spotlight else answer.evidence:
        parts.append(_text((caption,), 16))
        crop = answer.page.crop(box.xyxy).convert("RGB")
        parts.append(crop.resize(_scaled(crop.size, min(STRIP_WIDTH_PX / crop.width, 260 / crop.height, 3.0))))
    strip = Image.new("RGB", (STRIP_WIDTH_PX, sum(part.height + 10 for part in parts)), PAPER)
    y = 0
    for part in parts:
        strip.paste(part, (0, y))
        y += part.height + 10
    return strip


def _step_picture(page: Image.Image, step: DrawnStep, under: Callable[..., Image.Image]) -> Image.Image:
    scale = min(STRIP_WIDTH_PX / 2 / page.width, 420 / page.height)
    size = _scaled(page.size, scale)
    picture = under(page, step.maps, size)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=FAINT)
    for rank, box in reversed(list(enumerate(step.selected))):
        corners = [edge * scale for edge in box.xyxy]
        pen.rectangle(
            (corners[0], corners[1], max(corners[2], corners[0] + 3), max(corners[3], corners[1] + 3)),
            outline=RANK_COLOURS[rank % len(RANK_COLOURS)],
            width=2,
        )
    return picture


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Debian's poppler brings DejaVu along; Pillow's own typeface, which is always there, lacks the pound sign even."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def _text(lines: Sequence[str], size: int) -> Image.Image:
    font = _font(size)
    width = max(int(STRIP_WIDTH_PX / font.getlength("n")), 10)
    wrapped = [piece for line in lines for piece in (textwrap.wrap(line, width) or [""])]
    picture = Image.new("RGB", (STRIP_WIDTH_PX, len(wrapped) * int(size * 1.35) + 4), PAPER)
    ImageDraw.Draw(picture).multiline_text((0, 0), "\n".join(wrapped), fill=INK, font=font, spacing=size * 0.2)
    return picture


def _label(pen: ImageDraw.ImageDraw, corner: tuple[float, float], caption: str, colour: tuple[int, int, int]) -> None:
    font = _font(16)
    x0, y0, x1, y1 = pen.textbbox((0, 0), caption, font=font)
    width, height = x1 - x0 + 8, y1 - y0 + 8
    x, y = corner[0], max(corner[1] - height, 0)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 4 - x0, y + 4 - y0), caption, fill=PAPER, font=font)


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
