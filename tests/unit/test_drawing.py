"""What is drawn of an answer, in pixels."""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipeline.drawing import STRIP_WIDTH_PX, DrawnAnswer, DrawnStep, draw_answer, heat, lit
from pipeline.geometry import Box, PatchGrid
from pipeline.store import StoredMap

PAGE = Image.new("RGB", (40, 40), (200, 200, 200))
LEFT = StoredMap(Box(0, 0, 40, 40), PatchGrid(1, 4, 0.0, 0.0, 40.0, 40.0), np.array([[1.0, 1.0, 0.0, 0.0]], np.float32))
"""Nothing but the left half."""


def test_saliency_is_red_and_a_spotlight_is_bright() -> None:
    size = (40, 40)
    red, bright = np.asarray(heat(PAGE, [LEFT], size)).astype(int), np.asarray(lit(PAGE, [LEFT], size)).astype(int)
    assert red[20, 5, 0] > red[20, 5, 1] + 50
    assert red[20, 35].tolist() == [200, 200, 200]
    assert bright[20, 2].tolist() == [200, 200, 200]
    assert bright[20, 37].max() < 150


def test_the_strip_of_a_spotlight_has_no_crops() -> None:
    step = DrawnStep("round 0", (LEFT,), (Box(0, 0, 20, 40),))
    shown = [
        draw_answer(DrawnAnswer(PAGE, ("a question",), ((Box(0, 0, 20, 40), "1"),), (step,), spotlight=spotlight))
        for spotlight in (False, True)
    ]
    paper = [int((np.asarray(sheet)[:, -STRIP_WIDTH_PX:] == 200).all(axis=2).sum()) for sheet in shown]
    assert paper[0] > paper[1] + 60 * 120 / 2  # the evidence, enlarged three times
