"""Planted signals: a change in one cell of the page must move that cell's visual token, and no other cell's more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.geometry import Box, CellBox, PatchGrid, cells_to_view
from pipeline.vlms.base import TokenLayer
from tests.tiny_models import noise

SHAPES = {"square": (168, 168), "tall": (100, 300), "wide": (300, 90), "odd": (211, 157)}


pytestmark = pytest.mark.usefixtures("thread")


def cell_box(grid: PatchGrid, row: int, col: int, size: tuple[int, int]) -> Box | None:
    """The cell's pixels inside the view; None where the view has less than half of it."""
    box = cells_to_view(CellBox(row, col, row + 1, col + 1), grid)
    width = min(box.x1, size[0]) - max(box.x0, 0)
    height = min(box.y1, size[1]) - max(box.y0, 0)
    if width < 1 or height < 1 or width * height < grid.cell_width * grid.cell_height / 2:
        return None
    return Box(max(box.x0, 0), max(box.y0, 0), max(box.x0, 0) + width, max(box.y0, 0) + height)


def changed(image: Image.Image, box: Box) -> Image.Image:
    """The image with the pixels of a box inverted."""
    pixels = np.array(image)
    pixels[box.y0 : box.y1, box.x0 : box.x1] = 255 - pixels[box.y0 : box.y1, box.x0 : box.x1]
    return Image.fromarray(pixels)


def response(vlm: Any, image: Image.Image, layer: TokenLayer) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """How far each cell's change moves each token: [cells, N], and the cells."""
    cells = [(row, col) for row in range(layer.grid.rows) for col in range(layer.grid.cols)]
    boxes = {cell: cell_box(layer.grid, *cell, image.size) for cell in cells}
    inside = [cell for cell in cells if boxes[cell] is not None]
    inside = inside[:: max(1, len(inside) // 24)]
    views = vlm.encode([image, *(changed(image, boxes[cell]) for cell in inside)])
    before = views[0].embeddings
    return torch.stack([(view.embeddings - before).norm(dim=1) for view in views[1:]]).numpy(), inside


@pytest.mark.parametrize("shape", SHAPES)
def test_a_change_in_a_cell_moves_its_token_most_and_a_token_is_moved_most_by_its_cell(vlm: Any, shape: str) -> None:
    image = picture(*SHAPES[shape])
    (view,) = vlm.encode([image])
    for layer in view.layers:
        moved, cells = response(vlm, image, layer)
        tokens = [int(layer.index[cell]) for cell in cells]
        assert len(set(tokens)) == len(tokens)
        among = moved[:, tokens]
        np.testing.assert_array_equal(among.argmax(axis=1), np.arange(len(cells)), err_msg="from pixels to tokens")
        np.testing.assert_array_equal(among.argmax(axis=0), np.arange(len(cells)), err_msg="from tokens to pixels")


def picture(width: int, height: int) -> Image.Image:
    """Noise that is smooth over a few pixels, so that scaling it down leaves contrast to invert."""
    return noise(max(width // 8, 1), max(height // 8, 1), seed=5).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(5, 3), (2, 7), (1, 1), (40, 2)])
def test_a_pixel_of_a_tiny_image_moves_a_token_over_it(vlm: Any, size: tuple[int, int]) -> None:
    image = noise(*size)
    (view,) = vlm.encode([image])
    x, y = size[0] - 1, size[1] // 2
    (other,) = vlm.encode([changed(image, Box(x, y, x + 1, y + 1))])
    moved = (other.embeddings - view.embeddings).norm(dim=1).numpy()
    for layer in view.layers:
        row, col = np.unravel_index(moved[layer.index].argmax(), layer.index.shape)
        grid = layer.grid
        # Interpolation spreads a pixel over its neighbours.
        assert grid.x0 + col * grid.cell_width < x + 2
        assert grid.x0 + (col + 1) * grid.cell_width > x - 1
        assert grid.y0 + row * grid.cell_height < y + 2
        assert grid.y0 + (row + 1) * grid.cell_height > y - 1


@pytest.mark.parametrize("size", [(168, 168), (100, 300), (300, 90), (7, 5), (400, 1), (1, 300)])
def test_layers_cover_the_view_and_no_token_twice(vlm: Any, size: tuple[int, int]) -> None:
    (view,) = vlm.encode([noise(*size)])
    used = np.concatenate([layer.index.ravel() for layer in view.layers])
    assert len(np.unique(used)) == len(used)
    assert used.min() >= 0
    assert used.max() < view.count
    grid = view.layers[0].grid
    assert grid.x0 <= 0
    assert grid.y0 <= 0
    assert grid.x1 >= size[0]
    assert grid.y1 >= size[1]


def test_images_of_one_size_share_a_batch_and_keep_their_order(vlm: Any) -> None:
    images = [noise(60, 40, 1), noise(90, 50, 2), noise(60, 40, 3)]
    together = vlm.encode(images)
    for image, view in zip(images, together, strict=True):
        (alone,) = vlm.encode([image])
        torch.testing.assert_close(view.embeddings, alone.embeddings, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_any_mode_are_read_as_rgb(vlm: Any, mode: str) -> None:
    image = noise(60, 40).convert(mode)
    view, rgb = vlm.encode([image, image.convert("RGB")])
    torch.testing.assert_close(view.embeddings, rgb.embeddings)


def test_an_empty_list_of_images_is_no_work(vlm: Any) -> None:
    before = vlm.usage
    assert vlm.encode([]) == []
    assert vlm.usage == before


@pytest.mark.parametrize("vlm", ["llava"], indirect=True)
def test_llava_pads_although_its_file_says_centre_crop(vlm: Any) -> None:
    wide = noise(300, 90)
    (view,) = vlm.encode([wide])
    grid = view.layers[0].grid
    assert (grid.x0, grid.y0, grid.x1, grid.y1) == (0, -105, 300, 195)
    (end,) = vlm.encode([changed(wide, Box(0, 0, 20, 90))])
    assert float((end.embeddings - view.embeddings).norm()) > 0


@pytest.mark.parametrize("vlm", ["llava_next"], indirect=True)
def test_llava_next_has_base_and_tiles_and_keeps_newlines_out(vlm: Any) -> None:
    (view,) = vlm.encode([noise(168, 168)])
    base, tiles = view.layers
    assert (base.grid.rows, base.grid.cols) == (4, 4)
    assert (tiles.grid.rows, tiles.grid.cols) == (8, 8)
    newlines = set(range(view.count)) - set(base.index.ravel()) - set(tiles.index.ravel())
    assert len(newlines) == 8
    for token in newlines:
        torch.testing.assert_close(view.embeddings[token], vlm.model.model.image_newline.detach())


@pytest.mark.parametrize("vlm", ["internvl"], indirect=True)
def test_internvl_keeps_the_thumbnail_out_and_grounds_a_single_tile(vlm: Any) -> None:
    (view,) = vlm.encode([noise(200, 100)])
    assert view.count == view.layers[0].index.size + 4
    vlm.images.max_patches = 1
    (single,) = vlm.encode([noise(50, 50)])
    vlm.images.max_patches = 6
    assert single.count == single.layers[0].index.size == 4
