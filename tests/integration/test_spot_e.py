"""SPOT-E on tiny random models of every family: counters, batches, rounding; and from the command line into the store."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from pipeline.answer import answer_page
from pipeline.cli import main
from pipeline.errors import OutOfMemory
from pipeline.methods import build_method
from pipeline.methods.spot_e.method import SpotE
from pipeline.methods.spot_e.reward import token_entropies
from pipeline.presets import method_config
from pipeline.records import Page, Question, StopReason
from pipeline.store import AnswerTrace, Store, StoredMap
from pipeline.vlms.base import Prompt
from tests.documents import pdf
from tests.fakes import encoded, make_page
from tests.tiny_models import build, noise

TOTAL, DATE = Question("total", "What is the total?"), Question("date", "Which date?")
SMALL = {"action_cells": "4", "crop_grid": "2", "steps": "2", "group": "3", "extra_samples": "1", "max_new_tokens": "6"}
Ask = Callable[..., tuple[dict[str, Any], AnswerTrace]]

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


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Ask about a PDF from the command line; the record that is printed, and what is stored behind it."""
    (tmp_path / "invoice.pdf").write_bytes(pdf(["Invoice number: 4711", "Total due: 1,575.00"]))
    build("embedded", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/exhibit.db"
    monkeypatch.setenv("EXHIBIT_DB_URL", url)

    def run(**settings: str) -> tuple[dict[str, Any], AnswerTrace]:
        changes = [item for key, value in settings.items() for item in ("--set", f"{key}={value}")]
        arguments = ["run", "invoice.pdf", "-q", "What is the total?", "--method", "spot-e", "--model", "model", "--json"]
        assert main([*arguments, "--dpi", "60", *changes]) == 0
        record = json.loads(capsys.readouterr().out)
        with Store.open(url) as store:
            return record, store.answer_trace(record["answer_id"])

    return run


def test_an_answer_goes_into_the_store_and_its_masks_evidence_and_picture_come_out(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    record, trace = ask(**SMALL)
    assert (record["status"], record["error"]) == ("answered", None)
    provenance = record["provenance"]
    assert (provenance["method"], provenance["preset"]) == ("spot-e", "document")
    assert provenance["config_sha256"] == method_config("spot-e", "embedded", None, SMALL).sha256
    # The initial mask, the best of each update, the choice.
    assert [step["stop_reason"] for step in record["steps"]] == [None, None, None, "rounds"]
    # The untouched page read and scored, the eye's five views, two updates of three masks and two more, answer and refusal.
    assert record["usage"]["forward_passes"] == 2 + 5 + 8 + 2
    assert record["usage"]["backward_passes"] == 5
    assert record["signals"]["gradient_norm"] > 0

    (page,) = trace.pages
    for step in page.steps:
        (drawn,) = step.maps
        assert drawn.values.shape == (8, 8)
        assert 0 <= drawn.values.min() < drawn.values.max() <= 1
        assert (drawn.grid.x1, drawn.grid.y1) == (page.width, page.height)
        boxes, sums = zip(*bright_places(drawn)[:2], strict=True)
        assert tuple(region.box.xyxy for region in step.regions) == boxes
        assert tuple(region.saliency for region in step.regions) == pytest.approx(sums)
    shown = [list(region.box.xyxy) for region in page.steps[-1].regions]
    assert [piece["box_px"] for piece in record["evidence"]] == shown
    assert [list(piece.box_px.xyxy) for piece in page.evidence] == shown

    assert main(["evidence", "--format", "jsonl"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(piece["answer_id"], piece["box_px"]) for piece in listed] == [(record["answer_id"], box) for box in shown]
    assert main(["show", record["answer_id"], "-o", "why.png"]) == 0
    with Image.open("why.png") as picture:
        assert picture.width > page.width
    assert main(["audit"]) == 0


def bright_places(drawn: StoredMap) -> list[tuple[tuple[int, int, int, int], float]]:
    """Boxes, in whole pixels, around neighbouring cells of half the largest value at least; the largest sum first."""
    places, count = ndimage.label(drawn.values >= drawn.values.max() / 2, np.ones((3, 3)))
    width, height = drawn.grid.cell_width, drawn.grid.cell_height
    found = []
    for place, (rows, cols) in enumerate(ndimage.find_objects(places, count), start=1):
        start, end = (cols.start * width, rows.start * height), (cols.stop * width, rows.stop * height)
        box = *map(math.floor, start), *map(math.ceil, end)
        found.append((box, float(drawn.values[places == place].sum())))
    return sorted(found, key=lambda pair: -pair[1])


def test_an_answer_from_the_untouched_page_is_stored_with_its_masks_and_without_evidence(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """No mask is worth a thousand nats."""
    record, trace = ask(**SMALL, do_no_harm="true", noise_floor="1000")
    assert (record["status"], record["evidence"]) == ("answered", [])
    (page,) = trace.pages
    assert page.evidence == ()
    assert [len(step.maps) for step in page.steps] == [1, 1, 1, 1]
    assert page.steps[-1].stop_reason is StopReason.NO_GAIN
    assert main(["show", record["answer_id"], "-o", "why.png"]) == 2
    assert "has no evidence to draw" in capsys.readouterr().err
    assert main(["audit"]) == 0
