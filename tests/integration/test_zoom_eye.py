"""ZoomEye on the engine, with tiny random models of every family, and from the command line into the store and out again."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.answer import answer_page
from pipeline.cli import main
from pipeline.config import MethodConfig
from pipeline.methods.zoom_eye import words
from pipeline.methods.zoom_eye.asking import YesNo
from pipeline.presets import method_config
from pipeline.records import Page, Question, StopReason
from pipeline.vlms.base import Prompt
from tests.fakes import coordinate_page, make_page
from tests.tiny_models import build, noise
from tests.yes_no_vlm import Asked, YesNoVlm

QUESTIONS = [Question("total", "Total?"), Question("date", "Date?")]


pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture
def page() -> Page:
    return make_page(noise(200, 150, seed=3))


def configured(vlm: Any, preset: str, **changes: str) -> MethodConfig:
    small = {"cues": "question", "side_px": "64", "depth": "2", "max_new_tokens": "4"}
    return method_config("zoom-eye", vlm.identity.family, preset, small | changes)


@pytest.mark.parametrize("preset", ["document", "official"])
@pytest.mark.parametrize("view", ["local", "global-local"])
def test_every_family_is_searched_and_counted_by_the_closed_form(vlm: Any, page: Page, preset: str, view: str) -> None:
    before = vlm.usage
    answers = list(answer_page(vlm, page, QUESTIONS, configured(vlm, preset, view=view, tau_up="1", tau_low="0.99")))
    spent = vlm.usage - before
    assert [answer.failure for answer in answers] == [None, None]
    total = answers[0].usage + answers[1].usage
    assert replace(total, seconds=0.0) == spent
    assert spent.backward_passes == 0
    for number, answer in enumerate(answers):
        refusal = 0 if answer.text == "not found" else 1
        visits, queued = len(answer.steps), sum(step.maps[0].values.size for step in answer.steps if not leaf(step))
        assert answer.usage.forward_passes == visits + 2 * queued + 1 + refusal
        if number == 0 and preset == "document":
            assert answer.usage.vision_encodes <= 1 + queued * (2 if view == "global-local" else 1)
        assert answer.steps[-1].stop_reason in {StopReason.FLOOR, StopReason.FOUND}


def leaf(step: Any) -> bool:
    return bool(step.maps[0].values.size == 1)


def test_siblings_asked_together_are_as_sure_as_one_by_one(vlm: Any, page: Page) -> None:
    pictures = [page.image.crop(box) for box in ((0, 0, 100, 75), (100, 0, 200, 75), (0, 75, 60, 150))]
    prompts = [
        Prompt((tokens,), f"Is there a {cue}?") for tokens in vlm.encode(pictures, crops=True) for cue in ("dog", "total")
    ]
    asker = YesNo(vlm, released=False)
    together = asker.beliefs(prompts)
    alone = [asker.beliefs([prompt])[0] for prompt in prompts]
    for joint, single in zip(together, alone, strict=True):
        assert joint.confidence == pytest.approx(single.confidence, abs=1e-4)
        assert joint.token_entropy == pytest.approx(single.token_entropy, abs=1e-4)
    assert len({belief.confidence for belief in together}) > 1


def test_confidence_is_what_the_models_own_distribution_says(vlm: Any, page: Page) -> None:
    (tokens,) = vlm.encode([page.image])
    prompt = Prompt((tokens,), "Question?")
    (belief,) = YesNo(vlm, released=True).beliefs([prompt])
    yes, no = (vlm.score([prompt], [word])[0].logprobs[0] for word in ("Yes", "No"))
    probability = np.exp(yes) / (np.exp(yes) + np.exp(no))
    assert belief.confidence == pytest.approx(2 * probability - 1, abs=1e-4)


def test_objects_are_asked_for_without_a_picture(vlm: Any, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models' contexts do not hold all demonstrations, and their replies name nothing."""
    monkeypatch.setattr(words, "DEMONSTRATIONS", (("Q?", "a and b"),))
    before = vlm.usage
    asked, quiet = (
        next(iter(answer_page(vlm, page, QUESTIONS[:1], configured(vlm, "document", cues=cues))))
        for cues in ("model-or-question", "question")
    )
    assert asked.failure is None
    assert (vlm.usage - before).decoded_tokens > 8
    assert asked.usage.forward_passes == quiet.usage.forward_passes + 1
    assert (asked.text, asked.evidence) == (quiet.text, quiet.evidence)


def test_a_request_that_exceeds_the_context_fails_the_question_by_name(
    vlm: Any, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "DEMONSTRATIONS", (("Q?", "a and b" * vlm.decoder.context),))
    answers = list(answer_page(vlm, page, QUESTIONS, configured(vlm, "document", cues="model")))
    assert [answer.failure.code for answer in answers if answer.failure] == ["prompt_too_long"] * 2


def test_weights_gradients_and_random_states_are_left_as_found(vlm: Any, page: Page) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    weights = {name: value.clone() for name, value in vlm.model.state_dict().items()}
    runs = [list(answer_page(vlm, page, QUESTIONS, configured(vlm, "document"))) for _ in range(2)]
    assert [[(answer.text, answer.evidence) for answer in run] for run in runs[:1]] == [
        [(answer.text, answer.evidence) for answer in run] for run in runs[1:]
    ]
    assert all(torch.equal(value, weights[name]) for name, value in vlm.model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in vlm.model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_a_question_alone_is_answered_as_among_others(vlm: Any, page: Page) -> None:
    """What the engine keeps of the page for one question does not change another's search."""
    config = configured(vlm, "document")
    together = list(answer_page(vlm, page, QUESTIONS, config))
    (alone,) = answer_page(vlm, page, QUESTIONS[1:], config)
    assert (together[1].text, together[1].evidence) == (alone.text, alone.evidence)
    assert [step.views for step in together[1].steps] == [step.views for step in alone.steps]


def test_an_answer_goes_into_the_store_and_its_evidence_steps_and_picture_come_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = coordinate_page(256, 256)
    drawn.image.save(tmp_path / "page.png")
    goal = (128, 0, 192, 64)

    def confidence(asked: Asked) -> float:
        if asked.kind == "answering":
            return 0.8 if asked.box.xyxy == goal else -0.9
        return 0.5 if asked.box.x0 <= goal[0] < asked.box.x1 and asked.box.y0 == 0 else -0.5

    monkeypatch.setattr("pipeline.vlms.loading.load_vlm", lambda *_, **__: YesNoVlm(drawn.box, confidence))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXHIBIT_DB_URL", f"sqlite:///{tmp_path}/exhibit.db")
    build("embedded", tmp_path / "model")
    settings = [item for text in ("side_px=32", "depth=3", "patch_scale=1") for item in ("--set", text)]
    arguments = [
        "run",
        "page.png",
        "-q",
        "What is the total?",
        "--method",
        "zoom-eye",
        "--model",
        "model",
        "--json",
        *settings,
    ]
    assert main(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["status"], record["answer"]["text"]) == ("answered", "yes")
    assert [piece["box_px"] for piece in record["evidence"]] == [list(goal)]
    assert record["evidence"][0]["score"] == pytest.approx(0.9)
    assert [step["stop_reason"] for step in record["steps"]] == [None, None, "found"]
    assert (record["provenance"]["method"], record["provenance"]["preset"]) == ("zoom-eye", "document")
    assert record["usage"]["forward_passes"] == 3 + 2 * 8 + 2
    assert main(["show", record["answer_id"], "-o", "why.png"]) == 0
    with Image.open("why.png") as picture:
        assert picture.width > 600
    assert main(["audit"]) == 0
