"""A model that remembers: every arm's answers, evidence and costs are those that it has alone, at fewer passes in all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.answer import answer_page
from pipeline.evaluation.arms import parse_arm
from pipeline.evaluation.memory import RememberingVlm
from pipeline.records import Answer, Question
from pipeline.saliency import backward, slope
from pipeline.vlms.base import Prompt
from pipeline.vlms.loading import load_vlm
from tests.fakes import make_page, one_thread
from tests.tiny_models import build, noise

SHORT = "+max_new_tokens=3"
ARMS = (
    "plain",
    "entropy-gradient",
    "entropy-gradient+stop=fixed+rounds=2",
    "entropy-gradient+stop=fixed+rounds=1",
    "entropy-gradient+objective=answer-entropy",
    "entropy-gradient/paper",
    "entropy-gradient+layer=2",
    "entropy-gradient+at=pixels",
    "vicrop+block=1",
    "vicrop+block=1+variant=grad-att",
    "vicrop+variant=pure-grad",
    "zoom-eye+depth=1",
    "spot-e+steps=1+group=2",
    "spot-e+steps=2+group=2",
    "spot-e+steps=2+group=2+choose=mean",
)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Any]:
    folder = build("llava", tmp_path_factory.mktemp("model"))
    return lambda: load_vlm(str(folder))


def answers(vlm: Any, arm: str) -> list[Answer]:
    """Two questions about a page, each by itself, as the runner asks them."""
    page, config = make_page(noise(300, 400)), parse_arm(arm + SHORT, "llava").config
    questions = [Question("a", "What is it?"), Question("b", "Where is it?")]
    return [answer for question in questions for answer in answer_page(vlm, page, [question], config)]


def told(answer: Answer) -> tuple[Any, ...]:
    """What does not vary with the clock."""
    steps = [(step.views, step.stop_reason, step.regions and step.regions[0].box) for step in answer.steps]
    boxes = [piece.box for piece in answer.evidence]
    return answer.text, answer.not_found, answer.failure, boxes, steps, replace(answer.usage, seconds=0.0)


@pytest.mark.parametrize("capacity", [2**30, 50_000])
def test_every_arm_says_and_costs_what_it_does_alone(load: Callable[[], Any], capacity: int) -> None:
    alone, remembering = load(), RememberingVlm(load(), capacity)
    with one_thread():
        for arm in ARMS:
            for expected, found in zip(answers(alone, arm), answers(remembering, arm), strict=True):
                assert told(expected) == told(found), arm
                assert found.signals.mean_logprob == pytest.approx(expected.signals.mean_logprob, abs=1e-4)
                assert found.signals.token_entropy == pytest.approx(expected.signals.token_entropy, abs=1e-4)
    if capacity == 2**30:
        assert remembering.vlm.usage.vision_encodes < alone.usage.vision_encodes
        assert remembering.vlm.usage.backward_passes < alone.usage.backward_passes


def test_what_was_asked_before_costs_the_model_nothing_and_the_asker_as_much(load: Callable[[], Any]) -> None:
    vlm = RememberingVlm(load())
    first = answers(vlm, "entropy-gradient")
    before = vlm.vlm.usage
    again = answers(vlm, "entropy-gradient")
    assert vlm.vlm.usage == before
    assert [told(answer) for answer in again] == [told(answer) for answer in first]
    assert all(0.5 * a.usage.seconds < b.usage.seconds for a, b in zip(first, again, strict=True))


def test_another_gradient_of_the_same_reading_is_its_own(load: Callable[[], Any]) -> None:
    inner = load()
    vlm = RememberingVlm(inner)
    (page,) = vlm.encode([noise(100, 130)])
    found = []
    for objective in ("entropy", "max-probability", "entropy"):
        config = parse_arm(f"entropy-gradient+objective={objective}", "llava").config.search.saliency  # type: ignore[union-attr]
        for model in (inner, vlm):
            model.forget()
            reading = model.read([Prompt((page,), "Where?")], graph=True)
            (gradient,) = backward(reading, [slope(reading.logits[0], config)], reading.leaves[0])
            found.append(gradient)
    for alone, remembered in zip(found[::2], found[1::2], strict=True):
        torch.testing.assert_close(remembered, alone)
    assert not torch.allclose(found[1], found[3])
    assert torch.equal(found[1], found[5])
