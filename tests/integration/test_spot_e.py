"""SPOT-E on the engine: tiny random models of every family, counters against the closed form, batches, rounding."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.answer import answer_page
from pipeline.errors import OutOfMemory
from pipeline.methods import build_method
from pipeline.methods.spot_e.method import SpotE
from pipeline.methods.spot_e.reward import token_entropies
from pipeline.presets import method_config
from pipeline.records import Page, Question
from pipeline.vlms.base import Prompt
from tests.fakes import encoded, make_page
from tests.tiny_models import noise

TOTAL, DATE = Question("total", "What is the total?"), Question("date", "Which date?")
SMALL = {"action_cells": "4", "crop_grid": "2", "steps": "2", "group": "3", "extra_samples": "1", "max_new_tokens": "6"}


pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture
def page() -> Page:
    return make_page(noise(150, 120, seed=3))


def spot_e(vlm: Any, **changes: str) -> SpotE:
    built = build_method(vlm, method_config("spot-e", vlm.identity.family, None, SMALL | changes))
    assert isinstance(built, SpotE)
    return built


def test_every_family_is_searched_and_counted_by_the_closed_form(vlm: Any, page: Page) -> None:
    before = vlm.usage
    config = method_config("spot-e", vlm.identity.family, None, SMALL)
    first, second = answer_page(vlm, page, [TOTAL, DATE], config)
    spent = vlm.usage - before
    assert first.failure is None
    assert second.failure is None
    candidates, refusals = 2 * 3 + 1 + 1, sum(answer.text != "not found" for answer in (first, second))
    assert spent.forward_passes == 2 * (1 + 1 + 5 + candidates + 1) + refusals
    assert spent.backward_passes == 2 * 5
    assert spent.vision_encodes == 1 + 4 + 2 * candidates
    assert replace(first.usage + second.usage, seconds=0.0) == spent
    for answer in (first, second):
        assert len(answer.steps) == 2 + 2
        assert answer.evidence
        assert [piece.box for piece in answer.evidence] == [region.box for region in answer.steps[-1].regions]


def test_a_batch_of_candidates_scores_as_one_by_one(vlm: Any, page: Page) -> None:
    """The noise floor in float32, and the baseline's own score, lie far below the rewards that count."""
    (tokens,) = vlm.encode([page.image])
    (plain,) = vlm.generate(vlm.read([Prompt((tokens,), "total?")]), 6)
    pages = [replace(seen, crop=True) for seen in vlm.encode([page.image, noise(150, 120, seed=4), page.image])]
    prompts, forced = [Prompt((seen,), "total?") for seen in pages], [plain.token_ids] * 3
    together = token_entropies(vlm.read(prompts, forced=forced).logits)
    alone = np.concatenate([token_entropies(vlm.read([p], forced=[plain.token_ids]).logits) for p in prompts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together[0] - together[2]).max() < 1e-5
    # Teacher-forced and decoded step by step are the same distributions.
    assert together[0][: len(plain.entropies)] == pytest.approx(plain.entropies, abs=1e-4)


def test_without_degradation_rewards_are_below_the_noise_floor_and_nothing_moves(vlm: Any, page: Page) -> None:
    method = spot_e(vlm, dim="1.0")
    found = method.find(encoded(vlm, page), TOTAL)
    rewards = [reward.total for group in found.rewards for reward in group]
    assert max(map(abs, rewards)) < 1e-5
    assert found.drift == 0
    (plain,) = answer_page(vlm, page, [TOTAL], method_config("plain", vlm.identity.family, None, {"max_new_tokens": "6"}))
    (answer,) = answer_page(vlm, page, [TOTAL], method_config("spot-e", vlm.identity.family, None, SMALL | {"dim": "1"}))
    assert answer.text == plain.text


def test_weights_gradients_and_random_states_are_left_as_found(vlm: Any, page: Page) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    weights = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    runs = [spot_e(vlm).find(encoded(vlm, page), TOTAL) for _ in range(2)]
    assert runs[0].rewards == runs[1].rewards
    assert all(torch.equal(value, weights[name]) for name, value in vlm.model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in vlm.model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_the_pages_states_survive_the_candidates(vlm: Any, page: Page) -> None:
    """A candidate is a whole page too, and must not push the page's shared beginning out."""
    shown = encoded(vlm, page)
    spot_e(vlm).find(shown, TOTAL)
    before = vlm.usage
    vlm.read([Prompt((shown.tokens,), "again?")])
    assert (vlm.usage - before).visual_tokens == 0


def test_decoding_gives_back_what_was_generated(vlm: Any, page: Page) -> None:
    (tokens,) = vlm.encode([page.image])
    (plain,) = vlm.generate(vlm.read([Prompt((tokens,), "total?")]), 6)
    assert vlm.decode(plain.token_ids).strip() == plain.text


def test_a_device_that_fills_up_fails_the_question_or_halves_the_group(
    vlm: Any, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own error, from its own place: rows through the decoder."""
    config = method_config("spot-e", vlm.identity.family, None, SMALL | {"crop_grid": "0", "group": "4"})
    (expected,) = answer_page(vlm, page, [TOTAL], config)
    run, limit = vlm.decoder.run, 2

    def crowded(rows: Any, *others: Any, **named: Any) -> Any:
        if len(rows) > limit:
            raise torch.OutOfMemoryError("no room")
        return run(rows, *others, **named)

    monkeypatch.setattr(vlm.decoder, "run", crowded)
    (halved,) = answer_page(vlm, page, [TOTAL], config)
    assert halved.text == expected.text
    # Scores of another batch size differ by rounding.
    assert [step.token_entropy for step in halved.steps] == pytest.approx(
        [step.token_entropy for step in expected.steps], abs=1e-4
    )
    limit = 0
    with pytest.raises(OutOfMemory):
        spot_e(vlm).find(encoded(vlm, page), TOTAL)
    (failed,) = answer_page(vlm, page, [TOTAL], config)
    assert failed.failure is not None
    assert (failed.failure.code, failed.failure.retryable) == ("out_of_memory", True)
    assert failed.usage.vision_encodes == 1
