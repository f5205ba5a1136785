"""ViCrop: golden windows of the released code and what it does wrong, maps against plain autograd, and what it costs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline.answer import answer_page
from pipeline.config import MethodConfig, VicropConfig
from pipeline.config.vicrop import Rules
from pipeline.errors import InternalError, NonFiniteSaliency, OutOfMemory, PromptTooLong, UsageError
from pipeline.geometry import Box, PatchGrid
from pipeline.methods import build_method
from pipeline.methods.base import prompt_text
from pipeline.methods.vicrop import Vicrop
from pipeline.methods.vicrop.maps import Glance, Importance, has_detail, mosaic
from pipeline.methods.vicrop.window import block_boxes, block_grid, choose_window
from pipeline.presets import method_config
from pipeline.records import Answer, Question, StopReason, Usage, View
from pipeline.vlms.base import Prompt
from pipeline.vlms.loading import load_vlm
from tests.fakes import ScriptedVlm, ToyVlm, coordinate_page, encoded, random_page
from tests.tiny_models import FAMILIES, build

# ------------------------------------------------------------------------------------------------------------ windows


def box(values: np.ndarray, width: int, height: int, base_px: int, rules: Rules = "official") -> tuple[int, ...]:
    grid = PatchGrid(*values.shape, 0, 0, width, height)
    return choose_window(values, grid, width, height, base_px, rules).box.xyxy


def peak(rows: int, cols: int, row: int, col: int) -> np.ndarray:
    values = np.ones((rows, cols))
    values[row, col] = 50
    return values


def bump(rows: int, cols: int, cy: float, cx: float, sy: float, sx: float) -> np.ndarray:
    y, x = np.mgrid[:rows, :cols]
    return np.exp(-(((y - cy) / sy) ** 2 + ((x - cx) / sx) ** 2) / 2) + 0.01 * ((7 * y + 13 * x) % 17)


PEAKS = [
    ((24, 24, 10, 12), (1024, 768), 336, (237, 24, 573, 360)),
    ((24, 24, 10, 12), (2246, 1582), 336, (908, 392, 1244, 728)),
    ((24, 24, 10, 12), (300, 300), 336, (0, 0, 300, 300)),
    ((24, 24, 10, 12), (336, 336), 336, (0, 0, 336, 336)),
    ((24, 24, 10, 12), (500, 330), 336, (0, 0, 336, 330)),
    ((13, 19, 6, 9), (2246, 1582), 224, (1011, 679, 1235, 903)),
]
BUMPS = [
    ((24, 24, 5, 18, 2, 2), (1024, 768), 336, (621, 24, 957, 360)),
    ((24, 24, 12, 4, 5, 5), (2246, 1582), 336, (253, 655, 589, 991)),
    ((48, 72, 30, 50, 3, 6), (2250, 1500), 336, (1394, 800, 1730, 1136)),
    ((16, 16, 8, 8, 1.5, 1.5), (640, 480), 224, (228, 143, 452, 367)),
    ((24, 24, 20, 3, 1, 4), (1700, 2200), 336, (115, 1711, 451, 2047)),
    ((13, 19, 2, 15, 1.2, 1.2), (1920, 1280), 224, (1403, 183, 1627, 407)),
]


@pytest.mark.parametrize("rules", ["official", "sound"])
@pytest.mark.parametrize(("place", "size", "base_px", "expected"), PEAKS)
def test_the_window_around_a_peak_is_the_released_codes(
    place: tuple[int, ...], size: tuple[int, int], base_px: int, expected: tuple[int, ...], rules: Rules
) -> None:
    assert box(peak(*place), *size, base_px, rules) == expected


@pytest.mark.parametrize("rules", ["official", "sound"])
@pytest.mark.parametrize(("shape", "size", "base_px", "expected"), BUMPS)
def test_the_window_around_a_bump_is_the_released_codes(
    shape: tuple[Any, ...], size: tuple[int, int], base_px: int, expected: tuple[int, ...], rules: Rules
) -> None:
    assert box(bump(*shape), *size, base_px, rules) == expected


@pytest.mark.parametrize(("side", "corner", "size"), [(4, 532, 336), (6, 535, 470), (8, 538, 604)])
def test_the_window_grows_with_a_plateau(side: int, corner: int, size: int) -> None:
    """Of a side of 8 this noise decides, too: a corner of the plateau is as sharp for the smallest window."""
    values = np.random.default_rng(0).random((24, 24)) * 1e-6
    values[8 : 8 + side, 8 : 8 + side] = 1
    assert box(values, 1680, 1680, 336) == (corner, corner, corner + size, corner + size)


@pytest.mark.parametrize(
    ("cell", "corner"), [((6, 6), (392, 392)), ((6, 11), (532, 392)), ((11, 6), (392, 532)), ((11, 11), (532, 532))]
)
def test_noise_decides_which_corner_of_a_small_plateau_the_window_has(
    cell: tuple[int, int], corner: tuple[int, int]
) -> None:
    """The released code's golden window of a plateau of two cells, 336 px at (532, 532), is one of four equally sharp ones.

    Which of them is decided by noise that is not known, so it cannot be reproduced as printed: here the noise is in the one
    cell that the window in the expected corner holds and no other of the nine that hold the plateau.
    """
    values = np.zeros((24, 24))
    values[8:10, 8:10] = 1
    values[cell] = 1e-6
    assert box(values, 1680, 1680, 336) == (*corner, corner[0] + 336, corner[1] + 336)


def test_a_flat_map_gives_the_top_left_window() -> None:
    assert box(np.ones((24, 24)), 2246, 1582, 336) == (0, 0, 336, 336)


@pytest.mark.parametrize(
    ("values", "size", "base_px", "sound"),
    [
        (peak(24, 24, 10, 12), (9000, 6000), 336, (4519, 2457, 4855, 2793)),
        (peak(13, 19, 6, 9), (4024, 3503), 224, (1900, 1639, 2124, 1863)),
    ],
)
def test_a_window_smaller_than_a_cell_officially_picks_the_corner_and_soundly_the_cell(
    values: np.ndarray, size: tuple[int, int], base_px: int, sound: tuple[int, ...]
) -> None:
    assert box(values, *size, base_px) == (0, 0, base_px, base_px)
    assert box(values, *size, base_px, "sound") == sound
    row, col = np.unravel_index(values.argmax(), values.shape)
    x, y = (col + 0.5) * size[0] / values.shape[1], (row + 0.5) * size[1] / values.shape[0]
    assert Box(*sound).contains(x, y)


def test_a_window_lies_where_the_grid_does() -> None:
    """A square grid around a wide view, as LLaVA-1.5 pads: row 12 of 24 is the view's middle, not its lower end."""
    grid = PatchGrid(24, 24, 0, -600, 2400, 1800)
    window = choose_window(peak(24, 24, 12, 12), grid, 2400, 1200, 336, "sound")
    assert window.box.contains(1250, 650)
    assert (window.saliency, window.cells) == (50 + 8, 9)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(20, 4000), st.integers(20, 4000), st.integers(2, 500))
def test_every_window_is_inside_its_view_and_at_most_twice_the_base(
    rows: int, cols: int, width: int, height: int, base_px: int
) -> None:
    values = np.random.default_rng(rows * cols).random((rows, cols))
    for rules in ("official", "sound"):
        x0, y0, x1, y1 = box(values, width, height, base_px, rules)  # type: ignore[arg-type]
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        if (x0, y0, x1, y1) != (0, 0, width, height):
            assert max(x1 - x0, y1 - y0) <= 2 * base_px + 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        *[((1024, 768), (1, 1)), ((2246, 1582), (2, 2)), ((2250, 1500), (2, 3)), ((4000, 1000), (1, 4))],
        *[((1700, 2200), (3, 2)), ((1000, 3000), (3, 1)), ((7680, 4320), (5, 8)), ((4024, 3503), (4, 4))],
        # Here the released code divides by zero.
        *[((500, 1100), (2, 1)), ((800, 4000), (4, 1)), ((400, 3000), (3, 1))],
    ],
)
def test_an_image_is_cut_into_as_many_blocks_as_by_the_released_code(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert block_grid(*size) == expected


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_blocks_cover_an_image_once(width: int, height: int) -> None:
    if width > 40 * height:
        return  # a strip has hundreds of them
    boxes, (rows, cols) = block_boxes(width, height), block_grid(width, height)
    assert len(boxes) == rows * cols
    assert sum(block.area for block in boxes) == width * height
    assert boxes[0].xyxy[:2] == (0, 0)
    assert boxes[-1].xyxy[2:] == (width, height)


# --------------------------------------------------------------------------------------------------------------- maps


def importance(vlm: Any, variant: str, block: int = 1, rules: Rules = "sound") -> Importance:
    return Importance(vlm, VicropConfig(variant, block, rules=rules), "Describe it")  # type: ignore[arg-type]


PAGE = random_page(77, 56, seed=3)  # whole cells
WHOLE = View.whole(PAGE)


@pytest.mark.parametrize("block", [0, 1])
def test_relative_attention_is_the_questions_attention_over_the_general_ones(block: int) -> None:
    vlm = ToyVlm(seed=5)
    (tokens,) = vlm.encode([PAGE.image])
    glance = importance(vlm, "rel-att", block).glance(WHOLE, tokens, "which total ?")
    asked, general = (
        vlm.read([Prompt((tokens,), text)], attentions=(block,)).attentions[0][0].mean(0)
        for text in ("which total ?", "Describe it")
    )
    expected = (asked / general)[torch.from_numpy(tokens.layers[0].index)].numpy()
    np.testing.assert_allclose(glance.values, expected, rtol=1e-6)
    assert glance.gradient_norm is None
    assert 0 < glance.max_probability < 1


def test_what_the_general_question_says_is_read_once_for_all_questions_of_a_view() -> None:
    vlm = ToyVlm()
    (tokens,) = vlm.encode([PAGE.image])
    maps = importance(vlm, "rel-att")
    passes = []
    for text in ("which total ?", "which date ?", "who ?"):
        before = vlm.usage
        maps.glance(WHOLE, tokens, text)
        passes.append((vlm.usage - before).forward_passes)
    assert passes == [2, 1, 1]
    alone = importance(vlm, "rel-att").glance(WHOLE, tokens, "who ?")
    np.testing.assert_array_equal(alone.values, maps.glance(WHOLE, tokens, "who ?").values)


@pytest.mark.parametrize("block", [0, 1])
def test_gradient_attention_is_attention_times_its_own_positive_gradient(block: int) -> None:
    vlm = ToyVlm(seed=2)
    (tokens,) = vlm.encode([PAGE.image])
    glance = importance(vlm, "grad-att", block).glance(WHOLE, tokens, "which total ?")
    reading = vlm.read([Prompt((tokens,), "which total ?")], graph=True, leaf=block, attentions=(block,))
    ((weights,),) = reading.attentions
    (gradient,) = torch.autograd.grad(reading.logits[0, -1].log_softmax(-1).max(), weights)
    expected = (weights.detach() * F.relu(gradient)).mean(0)[torch.from_numpy(tokens.layers[0].index)]
    np.testing.assert_allclose(glance.values, expected.numpy(), rtol=1e-8, atol=1e-12)
    assert glance.gradient_norm == pytest.approx(float(gradient.norm()))
    assert glance.values.max() > 0


def test_a_certain_answers_gradient_does_not_drown_in_rounding() -> None:
    seen = []
    for nats in (18.0, 60.0):
        vlm = ToyVlm(seed=5, dtype=torch.float32, confidence=nats)
        (tokens,) = vlm.encode([PAGE.image])
        seen.append(importance(vlm, "grad-att").glance(WHOLE, tokens, "which total ?"))
    unsure, sure = seen
    assert sure.max_probability == 1.0
    assert 0 < sure.values.max() < 1e-12 < unsure.values.max()


def test_a_view_in_layers_is_compared_where_its_layers_lie() -> None:
    """LLaVA-1.6: base and tiles are brought to one grid before they are compared."""
    vlm = ToyVlm(layout="layers")
    (tokens,) = vlm.encode([PAGE.image])
    glance = importance(vlm, "rel-att").glance(WHOLE, tokens, "which ?")
    assert glance.values.shape == (tokens.layers[1].grid.rows, tokens.layers[1].grid.cols)


def test_padding_is_no_place_soundly_and_a_stretched_one_officially() -> None:
    vlm = ToyVlm(layout="square")
    (tokens,) = vlm.encode([PAGE.image])
    sound = importance(vlm, "rel-att").glance(WHOLE, tokens, "which ?")
    official = importance(vlm, "rel-att", rules="official").glance(WHOLE, tokens, "which ?")
    assert sound.grid == tokens.layers[0].grid
    assert not sound.values[0].any()
    assert not sound.values[-1].any()
    assert official.grid == PatchGrid(sound.grid.rows, sound.grid.cols, 0, 0, 77, 56)
    assert official.values.all()


class Silent(ToyVlm):
    """Attends to nothing on the page when asked generally."""

    def read(self, prompts: Sequence[Prompt], **arguments: Any) -> Any:
        reading = super().read(prompts, **arguments)
        if prompts[0].text != "Describe it":
            return reading
        return replace(reading, attentions=((torch.zeros_like(reading.attentions[0][0]),),))


@pytest.mark.parametrize("rules", ["sound", "official"])
def test_a_general_question_that_gets_nothing_is_a_typed_error(rules: Rules) -> None:
    vlm = Silent()
    (tokens,) = vlm.encode([PAGE.image])
    with pytest.raises(NonFiniteSaliency, match=rf"rel-att map is not finite.*rules={rules}"):
        importance(vlm, "rel-att", rules=rules).glance(WHOLE, tokens, "which ?")


def test_running_out_of_memory_drops_what_is_kept_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = ToyVlm()
    (tokens,) = vlm.encode([PAGE.image])

    differentiate = torch.autograd.grad

    def fail(outputs: Any, *arguments: Any, **more: Any) -> Any:
        if "retain_graph" in more:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return differentiate(outputs, *arguments, **more)

    monkeypatch.setattr(torch.autograd, "grad", fail)
    with pytest.raises(OutOfMemory):
        importance(vlm, "grad-att").glance(WHOLE, tokens, "which ?")
    assert vlm.forgotten == 1


def blurred(pixels: Tensor) -> Tensor:
    """torchvision's Gaussian blur with a kernel of 3, written out."""
    kernel = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64) ** 2) / (2 * 0.8**2))
    kernel = (kernel / kernel.sum())[:, None] * (kernel / kernel.sum())[None]
    channels = F.pad(pixels.permute(2, 0, 1)[:, None], (1, 1, 1, 1), mode="reflect")
    return F.conv2d(channels, kernel[None, None])[:, 0].permute(1, 2, 0)


@pytest.mark.parametrize(("rules", "side"), [("official", 7), ("sound", 3)])
def test_detail_is_where_a_picture_differs_from_its_blur_more_than_at_the_median(rules: Rules, side: int) -> None:
    image = random_page(42, 28, seed=1).image
    pixels = torch.from_numpy(np.asarray(image) / 255)
    length = (pixels - blurred(pixels)).norm(dim=-1)[None, None]
    # The median's window is mirrored at the edge, edge pixel included, which torch cannot pad: compared inside.
    windows = F.unfold(length, side).median(1).values.view(28 - side + 1, 42 - side + 1)
    margin = side // 2
    found = has_detail(image, PatchGrid(2, 3, 0, 0, 42, 28), (28, 42), rules)
    inner = found[margin:-margin, margin:-margin]
    threshold = windows.numpy()[~inner].max()
    assert (windows.numpy()[inner] > threshold - 1e-12).all()
    assert 0.4 < found.mean() <= 0.5


def test_the_picture_of_a_padded_view_has_no_detail_on_its_padding() -> None:
    image = random_page(40, 20, seed=1).image
    grid = PatchGrid(4, 4, 0, -10, 40, 30)
    found = has_detail(image, grid, (40, 40), "sound")
    assert found[12:28].any()
    assert not found[:8].any()
    assert not found[-8:].any()
    assert has_detail(image, grid, (40, 40), "official")[:8].any()  # squashed over all of it


def glance(values: np.ndarray, grid: PatchGrid) -> Glance:
    return Glance(values, grid, 1.0, 0.5, None)


def test_maps_of_blocks_are_joined_as_they_are() -> None:
    blocks = [np.full((2, 3), float(number)) for number in range(4)]
    boxes = block_boxes(2246, 1582)
    glances = [glance(block, PatchGrid(2, 3, 0, 0, box.width, box.height)) for block, box in zip(blocks, boxes, strict=True)]
    joined = mosaic(glances, boxes, 2, 2)
    np.testing.assert_allclose(joined, np.block([[blocks[0], blocks[1]], [blocks[2], blocks[3]]]))


def test_a_coarser_or_padded_block_is_averaged_into_cells_of_its_own() -> None:
    boxes = [Box(0, 0, 100, 100), Box(100, 0, 200, 100)]
    fine = glance(np.arange(16.0).reshape(4, 4), PatchGrid(4, 4, 0, 0, 100, 100))
    coarse = glance(np.array([[1.0, 2.0], [3.0, 4.0]]), PatchGrid(2, 2, 0, 0, 100, 100))
    padded = glance(np.array([[0.0] * 4, [1.0] * 4, [2.0] * 4, [0.0] * 4]), PatchGrid(4, 4, 0, -100, 100, 300))
    joined = mosaic([fine, coarse], boxes, 1, 2)
    np.testing.assert_allclose(joined[:, :4], fine.values)
    np.testing.assert_allclose(joined[:, 4:], np.repeat(np.repeat(coarse.values, 2, 0), 2, 1))
    # One cell of 100 px covers the whole block; the cells of the padding none of it.
    np.testing.assert_allclose(mosaic([fine, padded], boxes, 1, 2)[:, 4:], np.ones((4, 4)))


# --------------------------------------------------------------------------------------------------------- the method

SIDE = 8
CELLS = SIDE * SIDE
SMALL = coordinate_page(80, 80)
TOTAL, DATE, LONG = Question("total", "What is the total?"), Question("date", "Which date?"), Question("x", "Too long?")


def lit(row: int, col: int) -> np.ndarray:
    values = np.full((SIDE, SIDE), 0.1)
    values[row, col] = 1.0
    return values


def attends(text: str, box: Box) -> np.ndarray:
    """The question's words attend to a cell, the general question to all alike."""
    return np.full((SIDE, SIDE), 0.1) if "general description" in text else lit(3, 5)


def flat(read: int, box: Box) -> np.ndarray:
    return lit(2, 2)


def scripted(**script: Any) -> ScriptedVlm:
    return ScriptedVlm(flat, **{"attends": attends, **script})


def configured(variant: str = "rel-att", **changes: object) -> MethodConfig:
    settings = {"block": "2", "base_px": "20", "variant": variant} | {key: str(value) for key, value in changes.items()}
    return method_config("vicrop", "llava", None, settings)


def ask(vlm: Any, config: MethodConfig, *questions: Question, page: Any = SMALL, **more: Any) -> list[Answer]:
    return list(answer_page(vlm, page, questions, config, **more))


def cost(answer: Answer) -> Usage:
    return replace(answer.usage, seconds=0.0)


@pytest.mark.parametrize("variant", ["rel-att", "grad-att"])
def test_the_answer_is_given_from_the_page_and_one_crop_around_what_was_attended_to(variant: str) -> None:
    vlm = scripted()
    (answer,) = ask(vlm, configured(variant), TOTAL)
    (piece,) = answer.evidence
    assert piece.box.contains(55, 35)
    assert (piece.box.width, piece.box.height) == (20, 20)
    assert vlm.answered == [(SMALL.box, piece.box)]
    (step,) = answer.steps
    assert (step.stop_reason, step.views) == (StopReason.ROUNDS, (SMALL.box,))
    assert step.regions[0].box == piece.box
    assert (step.regions[0].cells, piece.cell_px) == (4, (10.0, 10.0))
    assert step.maps[0].values.argmax() == 3 * SIDE + 5
    assert piece.score == pytest.approx(step.regions[0].saliency / step.maps[0].total)
    assert (step.gradient_norm is None) == (answer.signals.gradient_norm is None) == (variant == "rel-att")
    assert answer.signals.entropy_drop == pytest.approx(step.token_entropy - 0.5)


@pytest.mark.parametrize(
    ("variant", "forward", "backward", "encodes"), [("rel-att", 2, 0, 0), ("grad-att", 1, 1, 0), ("pure-grad", 2, 2, 2)]
)
def test_a_map_costs_what_the_paper_says(variant: str, forward: int, backward: int, encodes: int) -> None:
    """Map, answer of page and crop, refusal; encoded: page, crop, and for pure-grad the page with its graph."""
    (answer,) = ask(scripted(), configured(variant), TOTAL)
    assert cost(answer) == Usage(
        forward_passes=forward + 1 + 1,
        backward_passes=backward,
        vision_encodes=1 + encodes + 1,
        visual_tokens=(forward + 2 + 2) * CELLS,
        decoded_tokens=1,
    )


@pytest.mark.parametrize(
    ("variant", "forward", "backward", "encodes"), [("rel-att", 1, 0, 0), ("grad-att", 1, 1, 0), ("pure-grad", 1, 1, 1)]
)
def test_later_questions_of_a_page_do_not_ask_the_general_one_again(
    variant: str, forward: int, backward: int, encodes: int
) -> None:
    answers = ask(scripted(), configured(variant), TOTAL, DATE, replace(DATE, question_id="again"))
    for answer in answers[1:]:
        assert cost(answer) == Usage(forward + 2, backward, encodes + 1, (forward + 4) * CELLS, decoded_tokens=1)


@pytest.mark.parametrize(
    ("variant", "forward", "backward", "encodes"), [("rel-att", 2, 0, 0), ("grad-att", 1, 1, 0), ("pure-grad", 2, 2, 2)]
)
def test_the_high_resolution_map_costs_as_much_for_every_block(
    variant: str, forward: int, backward: int, encodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.methods.vicrop.window.BLOCK_PX", 40)
    page = coordinate_page(120, 80)
    vlm, beats = scripted(), []
    config = configured(variant, high_resolution="true")
    first, second = ask(vlm, config, TOTAL, DATE, page=page, pulse=lambda: beats.append(len(vlm.grounded)))
    blocks = 2 * 3
    assert cost(first) == Usage(
        forward_passes=forward * blocks + 2,
        backward_passes=backward * blocks,
        vision_encodes=1 + blocks + encodes * blocks + 1,
        visual_tokens=(forward * blocks + 4) * CELLS,
        decoded_tokens=1,
    )
    later = max(forward - 1, 1)
    assert cost(second).forward_passes == later * blocks + 2
    assert cost(second).vision_encodes == encodes // 2 * blocks + 1  # the blocks themselves are encoded once
    assert len(beats) == 2 * blocks
    assert [box for box, crop in vlm.encoded if not crop] == [page.box]
    (step,) = first.steps
    assert step.views == (page.box,)
    assert step.maps[0].values.shape == (2 * SIDE, 3 * SIDE)
    assert first.signals.entropy_drop is None


def test_the_high_resolution_window_is_where_the_block_that_matters_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.methods.vicrop.window.BLOCK_PX", 40)

    def only_in_the_last(text: str, box: Box) -> np.ndarray:
        return lit(6, 6) if box.xyxy == (40, 40, 80, 80) and "total" in text else np.full((SIDE, SIDE), 0.1)

    (answer,) = ask(scripted(attends=only_in_the_last), configured(high_resolution="true"), TOTAL)
    assert answer.evidence[0].box.contains(40 + 6.5 * 5, 40 + 6.5 * 5)


def test_a_page_of_one_block_is_looked_at_as_a_page() -> None:
    plain, high = scripted(), scripted()
    (one,), (other,) = ask(plain, configured(), TOTAL), ask(high, configured(high_resolution="true"), TOTAL)
    assert cost(one) == cost(other)
    assert one.evidence == other.evidence


def test_a_map_without_contrast_gives_no_crop_and_officially_the_corner() -> None:
    even = scripted(attends=lambda text, box: np.full((SIDE, SIDE), 0.1))
    (answer,) = ask(even, configured(), TOTAL)
    assert (answer.text, answer.evidence) == ("yes", ())
    assert answer.steps[0].stop_reason == StopReason.NO_REGIONS
    assert even.answered == [(SMALL.box,)]
    (answer,) = ask(even, configured(rules="official"), TOTAL)
    assert answer.evidence[0].box == Box(0, 0, 20, 20)


def test_a_refusal_is_not_scored_against_itself() -> None:
    (answer,) = ask(scripted(answers=lambda text: "not found"), configured(), TOTAL)
    assert answer.not_found
    assert answer.usage.forward_passes == 3


@pytest.mark.parametrize("variant", ["rel-att", "grad-att", "pure-grad"])
def test_a_question_that_fails_carries_its_failure_and_costs_no_other_its_answer(variant: str) -> None:
    def too_long(prompts: Sequence[Prompt], graph: bool) -> Exception | None:
        return PromptTooLong("900 of 800 positions") if any("Too long" in prompt.text for prompt in prompts) else None

    answers = ask(scripted(fails=too_long), configured(variant), LONG, TOTAL, LONG, DATE)
    assert [answer.text for answer in answers] == [None, "yes", None, "yes"]
    failure = answers[0].failure
    assert failure is not None
    assert (failure.code, failure.message) == ("prompt_too_long", "900 of 800 positions")
    assert (answers[0].evidence, answers[0].steps) == ((), ())


def test_the_map_and_the_answer_are_asked_in_the_same_words() -> None:
    texts: list[str] = []

    def listening(text: str, box: Box) -> np.ndarray:
        texts.append(text)
        return attends(text, box)

    config = configured()
    question = Question("c", "Which?", choices=("red", "blue"))
    ask(scripted(attends=listening), config, question)
    assert texts == [
        prompt_text(question, config.answer),
        prompt_text(Question("g", "Write a general description of the image."), config.answer),
    ]


def test_a_block_that_the_model_does_not_have_is_refused_before_any_pass() -> None:
    vlm = scripted()
    with pytest.raises(UsageError, match="block is 4, but scripted has 4 blocks"):
        build_method(vlm, configured(block=4))
    assert isinstance(build_method(vlm, configured("pure-grad", block=4)), Vicrop)
    assert vlm.usage == Usage()


def test_another_methods_configuration_is_our_bug() -> None:
    with pytest.raises(InternalError, match="configuration of its own"):
        Vicrop(scripted(), method_config("plain", "llava"))


@pytest.mark.parametrize(("key", "value"), [("block", "-1"), ("base_px", "1"), ("variant", "clip"), ("rules", "odd")])
def test_wrong_parameters_are_refused(key: str, value: str) -> None:
    with pytest.raises(UsageError, match=key):
        configured(**{key: value})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_block_and_its_window(family: str) -> None:
    default, official = (method_config("vicrop", family, preset).search for preset in (None, "official"))
    assert isinstance(default, VicropConfig)
    assert default == VicropConfig("rel-att", default.block, default.base_px, False, "sound")
    assert official == replace(default, rules="official")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("variant", "forward", "backward"), [("rel-att", 2, 0), ("grad-att", 1, 1), ("pure-grad", 2, 2)])
@pytest.mark.parametrize(("width", "blocks"), [(150, 1), (180, 2)])
def test_every_family_answers_at_the_closed_forms_cost_and_is_left_as_found(
    family: str,
    variant: str,
    forward: int,
    backward: int,
    width: int,
    blocks: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of each block `forward` and `backward` passes, one for the answer, one for the refusal.

    The page's second question is spared the general question's, half of those of rel-att and pure-grad.
    """
    monkeypatch.setattr("pipeline.methods.vicrop.window.BLOCK_PX", 90)
    vlm: Any = load_vlm(str(build(family, tmp_path)), device="cpu")
    page = random_page(width, 90, seed=4)
    encoded(vlm, page)  # transformers puts hooks of its own on the tower the first time, and leaves them
    marked = next(vlm.model.parameters())
    marked.grad = torch.ones_like(marked)
    weights = {name: weight.clone() for name, weight in vlm.model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    settings = {"variant": variant, "block": "1", "base_px": "40", "high_resolution": str(blocks > 1)}
    before = vlm.usage
    answers = ask(vlm, method_config("vicrop", family, None, settings), TOTAL, DATE, page=page)
    assert [answer.failure for answer in answers] == [None, None]
    assert replace(answers[0].usage + answers[1].usage, seconds=0.0) == vlm.usage - before
    later = max(forward // 2, 1), (backward + 1) // 2
    for answer, (ahead, back) in zip(answers, [(forward, backward), later], strict=True):
        assert answer.usage.forward_passes == ahead * blocks + 1 + 1
        assert answer.usage.backward_passes == back * blocks
        (step,) = answer.steps
        assert np.isfinite(step.maps[0].values).all()
        assert step.maps[0].values.max() > 0
        assert len(answer.evidence) == 1
    assert torch.equal(marked.grad, torch.ones_like(marked))
    assert not any(parameter.requires_grad for parameter in vlm.model.parameters())
    assert all(torch.equal(weight, weights[name]) for name, weight in vlm.model.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.is_grad_enabled()


def test_pure_gradient_is_the_classes_own_gradient_at_its_pixels_where_there_is_detail(tmp_path: Path) -> None:
    """LLaVA-1.5, through one backward pass of transformers' own forward."""
    vlm: Any = load_vlm(str(build("llava", tmp_path)), device="cpu")
    image = random_page(90, 90, seed=8).image
    (tokens,) = vlm.encode([image])
    page = random_page(90, 90, seed=8)
    found = importance(vlm, "pure-grad").glance(View.whole(page), tokens, "which total ?")

    def own(text: str) -> np.ndarray:
        pixels = vlm.images([image], do_pad=True, return_tensors="pt")["pixel_values"].requires_grad_()
        prompt = vlm.render(1, text).replace(vlm.placeholder, vlm.placeholder * 36)
        ids = vlm.tokenizer(prompt, return_tensors="pt")["input_ids"]
        best = vlm.model(input_ids=ids, pixel_values=pixels).logits[0, -1].log_softmax(-1).max()
        return torch.autograd.grad(best, pixels)[0][0].norm(dim=0).double().numpy()

    ratio = own("which total ?") / own("Describe it")
    detailed = has_detail(image, tokens.layers[0].grid, (84, 84), "sound")
    expected = (ratio * detailed).reshape(6, 14, 6, 14).mean((1, 3))
    np.testing.assert_allclose(found.values, expected, rtol=2e-2)


def test_images_are_drawn_as_the_family_draws_them() -> None:
    """A view in the upper half of its grid leaves the lower half of the picture white, so without detail."""
    image = Image.effect_noise((60, 30), 90).convert("RGB")
    found = has_detail(image, PatchGrid(6, 6, 0, 0, 60, 60), (60, 60), "sound")
    assert found[2:28].mean() > 0.5
    assert not found[32:].any()
