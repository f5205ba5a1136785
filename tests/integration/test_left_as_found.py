"""Every method on every family leaves the model and the process as it found them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.answer import answer_page
from pipeline.presets import METHODS, method_config
from pipeline.records import Page, Question
from tests.fakes import make_page
from tests.tiny_models import noise

VICROP = {"block": "1", "base_px": "40"}
SPOT_E = {"eye": "vlm", "action_cells": "4", "crop_grid": "2", "steps": "1", "group": "2", "extra_samples": "1"}
ZOOM_EYE = {"cues": "question", "side_px": "64", "depth": "1"}
CASES: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("plain", {}),
    "entropy-gradient": ("entropy-gradient", {"rounds": "2", "stop": "fixed"}),
    "spot-e": ("spot-e", SPOT_E),
    "vicrop-rel-att": ("vicrop", VICROP | {"variant": "rel-att"}),
    "vicrop-grad-att": ("vicrop", VICROP | {"variant": "grad-att"}),
    "vicrop-pure-grad": ("vicrop", VICROP | {"variant": "pure-grad"}),
    "zoom-eye": ("zoom-eye", ZOOM_EYE),
}
DIFFERENTIATES = {"entropy-gradient", "spot-e", "vicrop-grad-att", "vicrop-pure-grad"}
QUESTIONS = [Question("total", "Total?"), Question("date", "Date?")]

pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture(scope="module")
def page() -> Page:
    return make_page(noise(150, 120, seed=3))


def test_no_method_is_left_out() -> None:
    assert {method for method, _ in CASES.values()} == set(METHODS)


@pytest.mark.parametrize("case", CASES)
def test_weights_flags_modes_and_random_states_are_left_as_found(vlm: Any, page: Page, case: str) -> None:
    method, settings = CASES[case]
    config = method_config(method, vlm.identity.family, None, settings | {"max_new_tokens": "4"})
    # Away from where a seed puts them, so that to seed one anew would show.
    torch.rand(3), np.random.random(3), random.random()  # noqa: NPY002
    model = vlm.model
    tensors = {name: value.clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    before = vlm.usage

    answers = list(answer_page(vlm, page, QUESTIONS, config))

    assert [answer.failure for answer in answers] == [None, None]
    assert all(answer.steps for answer in answers) == (method != "plain")
    assert ((vlm.usage - before).backward_passes > 0) == (case in DIFFERENTIATES)
    after = dict([*model.named_parameters(), *model.named_buffers()])
    assert after.keys() == tensors.keys()
    assert [name for name, value in after.items() if not same_bits(value, tensors[name])] == []
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None] == []
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_equal(np.random.get_state(), states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Not only equal: zeros of either sign are told apart, and what is not a number is the same as itself."""
    return one.shape == other.shape and one.detach().numpy().tobytes() == other.detach().numpy().tobytes()
