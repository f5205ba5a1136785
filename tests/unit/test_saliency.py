"""Gradients against finite differences and hand-made models; confident answers; the model is left as found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import SaliencyConfig
from pipeline.errors import NonFiniteSaliency, OutOfMemory
from pipeline.geometry import Box, PatchGrid
from pipeline.records import View
from pipeline.saliency import Gaze, entropy_saliency, merge_layers, objective
from pipeline.vlms.base import Prompt, Reading, TokenLayer
from tests import reference
from tests.fakes import END, ScriptedVlm, ToyVlm, coordinate_page, random_page
from tests.reference import Rules

PAGE = random_page(60, 42, seed=4)
TEXT = "what is the total ?"

OBJECTIVES = [
    ({}, Rules()),
    ({"objective": "top-p-entropy"}, Rules(objective="top-p-entropy")),
    ({"objective": "top-p-entropy", "top_p": 0.4}, Rules(objective="top-p-entropy", top_p=0.4)),
    ({"objective": "max-probability"}, Rules(objective="max-probability")),
    ({"objective": "answer-entropy"}, Rules(objective="answer-entropy")),
    ({"decoding_step": 2}, Rules(step=2)),
    ({"decoding_step": 3}, Rules(step=3)),
]


pytestmark = pytest.mark.usefixtures("thread")


def look(vlm: Any, config: SaliencyConfig, boxes: Sequence[Box] = (PAGE.box,)) -> Gaze:
    """One prompt that shows these parts of the page."""
    views = [View(PAGE, box) for box in boxes]
    tokens = [vlm.encode([view.image], crops=view.box != PAGE.box)[0] for view in views]
    (gaze,) = entropy_saliency(vlm, [Prompt(tuple(tokens), TEXT)], [views], config)
    return gaze


def forced_ids(vlm: ToyVlm, prompt: Prompt, rules: Rules) -> list[int]:
    """What the objective looks past, decoded here token by token."""
    budget = 64 if rules.objective == "answer-entropy" else rules.step - 1
    ids: list[int] = []
    while len(ids) < budget:
        best = int(vlm.distribution(prompt, [view.embeddings for view in prompt.views], forced=ids)[-1].argmax())
        if best == END:
            break
        ids.append(best)
    return ids[:-1] if rules.objective == "answer-entropy" else ids


@pytest.mark.parametrize("leaf", [0, 1, 2])
@pytest.mark.parametrize("layer", [None, 3])
@pytest.mark.parametrize(("settings", "rules"), OBJECTIVES)
def test_maps_are_the_norms_of_central_finite_differences(
    settings: dict[str, Any], rules: Rules, layer: int | None, leaf: int
) -> None:
    """For every objective, leaf and exit, on two views: every token's gradient, component by component."""
    vlm = ToyVlm(3, cell=(20, 21), blocks=3)
    boxes = [PAGE.box, Box(10, 3, 31, 19)]
    views = [View(PAGE, box) for box in boxes]
    tokens = tuple(vlm.encode([view.image], crops=index > 0)[0] for index, view in enumerate(views))
    prompt = Prompt(tokens, TEXT)
    config = SaliencyConfig(leaf=leaf, layer=layer, **settings)
    (gaze,) = entropy_saliency(vlm, [prompt], [views], config)
    forced = forced_ids(vlm, prompt, rules)
    states = vlm.states(prompt, leaf, forced)
    for at, saliency_map in enumerate(gaze.maps):

        def value(leaf_states: Tensor, at: int = at) -> float:
            shown = [leaf_states if index == at else other for index, other in enumerate(states)]
            logits = vlm.distribution(prompt, shown, leaf=leaf, layer=layer, forced=forced)
            return reference.objective(logits.tolist(), rules)

        numeric = reference.central_difference(value, states[at]).norm(dim=-1)
        assert numeric.max() > 1e-6
        values = saliency_map.values.flatten()
        np.testing.assert_allclose(values, numeric[: values.size].numpy(), rtol=2e-5, atol=2e-9)


@pytest.mark.parametrize("leaf", [1, 2])
def test_another_leaf_is_another_map(leaf: int) -> None:
    vlm = ToyVlm(3, blocks=3)
    here, there = look(vlm, SaliencyConfig()), look(vlm, SaliencyConfig(leaf=leaf))
    assert not np.allclose(here.maps[0].values, there.maps[0].values, rtol=1e-2)


def test_the_objectives_on_a_known_distribution() -> None:
    """p = (.5, .3, .1, .1), worked out by hand."""
    logits = torch.tensor([[0.5, 0.3, 0.1, 0.1]], dtype=torch.float64).log()
    ln = math.log
    entropy = -0.5 * ln(0.5) - 0.3 * ln(0.3) - 0.2 * ln(0.1)
    assert float(objective(logits, SaliencyConfig())) == pytest.approx(entropy)
    assert float(objective(logits, SaliencyConfig(objective="max-probability"))) == pytest.approx(ln(0.5))
    # 0.75 is crossed by the second token, which is in the set; it is not renormalised.
    top_p = SaliencyConfig(objective="top-p-entropy", top_p=0.75)
    assert float(objective(logits, top_p)) == pytest.approx(-0.5 * ln(0.5) - 0.3 * ln(0.3))
    two = torch.cat([logits, torch.zeros(1, 4, dtype=torch.float64)])
    assert float(objective(two, SaliencyConfig(objective="answer-entropy"))) == pytest.approx(entropy + ln(4))
    assert float(objective(two, SaliencyConfig())) == pytest.approx(ln(4))


@pytest.mark.parametrize("gap", [40.0, 80.0, 300.0, 700.0])
@pytest.mark.parametrize(("settings", "rules"), OBJECTIVES[:4])
def test_a_confident_answers_map_neither_underflows_nor_loses_its_top_token(
    settings: dict[str, Any], rules: Rules, gap: float
) -> None:
    """At a gap of so many nats the map is the reference's; the top token's slope is a difference that rounding would eat."""
    vlm = ToyVlm(1, confidence=gap)
    gaze = look(vlm, SaliencyConfig(**settings))
    prompt = Prompt((vlm.encode([PAGE.image])[0],), TEXT)
    leaves = [state.requires_grad_() for state in vlm.states(prompt, 0)]
    logits = vlm.distribution(prompt, leaves)
    slope = torch.from_numpy(reference.slope_at_logits(logits.tolist(), rules))
    (gradient,) = torch.autograd.grad(logits, leaves, torch.ldexp(slope, torch.tensor(900 if gap > 200 else 0)))
    expected = np.ldexp(gradient.norm(dim=-1).numpy(), -900 if gap > 200 else 0)
    assert expected.max() > 0
    np.testing.assert_allclose(gaze.maps[0].values.flatten(), expected, rtol=1e-9)
    assert gaze.gradient_norm == pytest.approx(float(np.linalg.norm(expected / expected.max()) * expected.max()), rel=1e-9)


@pytest.mark.parametrize("gap", [0.0, 40.0, 80.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)], ids=str
)
def test_half_precision_maps_equal_the_double_precision_ones_up_to_their_rounding(
    dtype: torch.dtype, tolerance: float, gap: float
) -> None:
    """After scaling to the same total; the loss scale keeps a confident answer's gradient from underflowing."""
    vlm = ToyVlm(2, dtype=dtype, confidence=gap)
    double = ToyVlm(2, dtype=torch.float64, confidence=gap)
    with torch.no_grad():  # the same weights, rounding included
        for mine, theirs in zip(vlm.parameters(), double.parameters(), strict=True):
            theirs.copy_(mine.double())
    values, expected = (look(model, SaliencyConfig()).maps[0].values for model in (vlm, double))
    assert (values > 0).all()
    np.testing.assert_allclose(
        values / values.sum(), expected / expected.sum(), atol=tolerance * (expected / expected.sum()).max()
    )
    if dtype is torch.float32:
        assert values.sum() == pytest.approx(expected.sum(), rel=1e-3)


def test_a_distribution_too_sharp_for_double_precision_gives_an_all_zero_map() -> None:
    gaze = look(ToyVlm(1, confidence=5000.0), SaliencyConfig())
    assert (gaze.maps[0].values == 0).all()
    assert (gaze.gradient_norm, gaze.max_probability, gaze.token_entropy) == (0.0, 1.0, 0.0)
    assert math.copysign(1, gaze.token_entropy) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_raise_and_name_the_dtype(bad: float) -> None:
    vlm = ToyVlm(1)
    with torch.no_grad():
        vlm.head[0, 5] = bad
    with pytest.raises(NonFiniteSaliency, match=r"logits are not finite in torch\.float64; try --dtype float32"):
        look(vlm, SaliencyConfig())


def test_a_gradient_that_is_not_finite_raises_and_names_the_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = ToyVlm(1)
    distribution = vlm.distribution

    def broken(prompt: Prompt, visual: Sequence[Tensor], **options: Any) -> Tensor:
        # sqrt has an infinite slope at zero, and its value there is fine.
        return distribution(prompt, visual, **options) + torch.sqrt(visual[0].sum() - visual[0].detach().sum())

    monkeypatch.setattr(vlm, "distribution", broken)
    with pytest.raises(NonFiniteSaliency, match=r"a gradient is not finite in torch\.float64"):
        look(vlm, SaliencyConfig())


def test_running_out_of_memory_in_the_backward_pass_is_ours_and_drops_what_is_kept_of_the_page() -> None:
    vlm = ToyVlm(1)
    read = vlm.read

    def greedy(*args: Any, **options: Any) -> Reading:
        reading = read(*args, **options)

        def exhaust(_: Tensor) -> None:
            raise torch.OutOfMemoryError

        reading.logits.register_hook(exhaust)
        return reading

    vlm.read = greedy  # type: ignore[method-assign]
    with pytest.raises(OutOfMemory, match="cpu, going backward, ran out of memory; nothing was kept"):
        look(vlm, SaliencyConfig())
    assert vlm.forgotten == 1


def test_weights_grad_fields_and_random_states_are_left_as_found() -> None:
    vlm = ToyVlm(5)
    before = {name: weight.clone() for name, weight in vlm.named_parameters()}
    for weight in vlm.parameters():
        weight.grad = torch.full_like(weight, 7.0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]  # noqa: NPY002
    look(vlm, SaliencyConfig(objective="answer-entropy", leaf=1))
    for name, weight in vlm.named_parameters():
        assert torch.equal(weight, before[name])
        assert not weight.requires_grad
        assert weight.grad is not None
        assert (weight.grad == 7).all()
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # type: ignore[index]  # noqa: NPY002


def test_it_works_where_gradients_are_switched_off() -> None:
    vlm = ToyVlm(5)
    expected = look(vlm, SaliencyConfig()).maps[0].values
    with torch.no_grad():
        gaze = look(vlm, SaliencyConfig())
    np.testing.assert_array_equal(gaze.maps[0].values, expected)


@pytest.mark.parametrize(
    ("config", "forward", "reusable"),
    [
        (SaliencyConfig(), 1, True),
        (SaliencyConfig(leaf=1), 1, True),
        (SaliencyConfig(layer=1), 1, False),
        (SaliencyConfig(decoding_step=2), 2, False),
        (SaliencyConfig(objective="answer-entropy"), 2, False),
    ],
    ids=str,
)
def test_one_prompt_costs_one_forward_and_one_backward_pass_and_one_more_forward_to_decode(
    config: SaliencyConfig, forward: int, reusable: bool
) -> None:
    """The reading is handed on only if it is of the whole model with nothing forced."""
    vlm = ToyVlm(3)
    prompt = Prompt((vlm.encode([PAGE.image])[0],), TEXT)
    before = vlm.usage
    gazes = entropy_saliency(vlm, [prompt], [[View.whole(PAGE)]], config)
    used = vlm.usage - before
    assert (used.forward_passes, used.backward_passes, used.vision_encodes) == (forward, 1, 0)
    assert used.visual_tokens == forward * prompt.views[0].count
    assert (gazes[0].reading is not None) == reusable


def test_a_batch_is_one_backward_pass_a_prompt_and_gives_what_single_prompts_give() -> None:
    vlm = ToyVlm(3)
    boxes = [PAGE.box, Box(5, 5, 30, 30), Box(0, 20, 60, 42)]
    views = [View(PAGE, box) for box in boxes]
    tokens = [vlm.encode([view.image])[0] for view in views]
    prompts = [Prompt((each,), f"{TEXT} {'word ' * index}") for index, each in enumerate(tokens)]
    for config in (SaliencyConfig(), SaliencyConfig(objective="answer-entropy")):
        before = vlm.usage
        together = entropy_saliency(vlm, prompts, [[view] for view in views], config)
        used = vlm.usage - before
        assert used.backward_passes == 3
        for prompt, view, gaze in zip(prompts, views, together, strict=True):
            (alone,) = entropy_saliency(vlm, [prompt], [[view]], config)
            np.testing.assert_allclose(gaze.maps[0].values, alone.maps[0].values, rtol=1e-12)
            assert gaze.token_entropy == pytest.approx(alone.token_entropy, rel=1e-12)
            assert gaze.gradient_norm == pytest.approx(alone.gradient_norm, rel=1e-12)


def test_token_entropy_and_probability_are_the_first_answer_tokens_whatever_is_differentiated() -> None:
    vlm = ToyVlm(3)
    first = look(vlm, SaliencyConfig())
    prompt = Prompt((vlm.encode([PAGE.image])[0],), TEXT)
    (answer,) = vlm.generate(vlm.read([prompt]), 8)
    assert first.token_entropy == pytest.approx(answer.entropies[0])
    assert first.max_probability == pytest.approx(math.exp(answer.logprobs[0]))
    assert len(answer.token_ids) > 1
    for config in (SaliencyConfig(decoding_step=2), SaliencyConfig(objective="answer-entropy")):
        other = look(vlm, config)
        assert (other.token_entropy, other.max_probability) == pytest.approx((first.token_entropy, first.max_probability))


def test_a_decoding_step_after_the_end_of_the_answer_is_its_last_tokens() -> None:
    vlm = ToyVlm(3)
    prompt = Prompt((vlm.encode([PAGE.image])[0],), TEXT)
    (answer,) = vlm.generate(vlm.read([prompt]), 8)
    last = len(answer.token_ids) + 1  # the end token's own distribution
    assert last <= 3
    at_end, beyond = (look(vlm, SaliencyConfig(decoding_step=step)).maps[0].values for step in (last, last + 1))
    np.testing.assert_array_equal(at_end, beyond)


def test_a_scripted_map_comes_back_as_it_was_scripted() -> None:
    """The playback model's gradients are its script, so what is tested with it is tested."""
    values = np.arange(12.0).reshape(3, 4)
    vlm = ScriptedVlm(lambda read, box: values * (read + 1), certainty=lambda read: 0.9)
    page = coordinate_page(40, 30)
    (tokens,) = vlm.encode([page.image])
    for scale in (1, 2):
        (gaze,) = entropy_saliency(vlm, [Prompt((tokens,), "?")], [[View.whole(page)]], SaliencyConfig())
        np.testing.assert_allclose(gaze.maps[0].values, values * scale, rtol=1e-12)
        assert gaze.max_probability == pytest.approx(0.9)


def test_at_the_pixels_a_cell_has_the_norm_over_its_pixels() -> None:
    values = np.array([[0.5, 2.0, 0.0], [1.0, 0.0, 3.0]])
    vlm = ScriptedVlm(lambda read, box: values)
    view = View.whole(coordinate_page(90, 60))
    (tokens,) = vlm.encode([view.image])
    prompt = Prompt((tokens,), "total?")
    (at_tokens,) = entropy_saliency(vlm, [prompt], [[view]], SaliencyConfig())
    (at_pixels,) = entropy_saliency(vlm, [prompt], [[view]], SaliencyConfig(at="pixels"))
    # A scripted cell is 2 x 2 pixels, each with the token's own gradient: the norm over four equal numbers is twice theirs.
    np.testing.assert_allclose(at_pixels.maps[0].values, 2 * at_tokens.maps[0].values, rtol=1e-12)
    assert at_pixels.gradient_norm == pytest.approx(2 * at_tokens.gradient_norm)
    assert at_pixels.token_entropy == at_tokens.token_entropy
    with pytest.raises(ValueError, match="expected leaf 0"):
        SaliencyConfig(at="pixels", leaf=1)


def test_layers_merge_on_the_finest_grid_by_shared_area() -> None:
    """A base cell of 8 over four tile cells adds 2 to each; tokens of no layer (newlines) count nowhere."""
    base = TokenLayer(PatchGrid(1, 1, 0, 0, 20, 20), np.array([[0]]))
    tiles = TokenLayer(PatchGrid(2, 2, 0, 0, 20, 20), np.array([[1, 2], [4, 5]]))
    grid, values = merge_layers([base, tiles], np.array([8.0, 1.0, 2.0, 100.0, 3.0, 4.0]))
    assert grid == tiles.grid
    np.testing.assert_allclose(values, [[3.0, 4.0], [5.0, 6.0]])


def test_layers_whose_cells_do_not_line_up_share_by_overlap() -> None:
    base = TokenLayer(PatchGrid(1, 2, 0, 0, 30, 10), np.array([[0, 1]]))
    tiles = TokenLayer(PatchGrid(1, 3, 0, 0, 30, 10), np.array([[2, 3, 4]]))
    _, values = merge_layers([base, tiles], np.array([3.0, 6.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(values, [[2.0, 1.0 + 2.0, 4.0]])


def test_merging_layers_loses_no_saliency_where_the_finest_covers_the_others() -> None:
    vlm = ToyVlm(3, layout="layers")
    gaze, first = look(vlm, SaliencyConfig()), look(vlm, SaliencyConfig(grids="first"))
    assert (first.maps[0].grid.rows, first.maps[0].grid.cols) == (4, 4)
    prompt = Prompt((vlm.encode([PAGE.image])[0],), TEXT)
    leaves = [state.requires_grad_() for state in vlm.states(prompt, 0)]
    logits = vlm.distribution(prompt, leaves)
    (gradient,) = torch.autograd.grad(objective(logits, SaliencyConfig()), leaves)
    norms = gradient.norm(dim=-1).numpy()
    on_grids = np.concatenate([layer.index.flatten() for layer in prompt.views[0].layers])
    assert len(on_grids) < len(norms)
    assert gaze.maps[0].total == pytest.approx(norms[on_grids].sum())
    assert first.maps[0].total == pytest.approx(norms[:16].sum())


def test_the_official_pad_offset_stretches_the_padded_grid_over_the_view() -> None:
    """LLaVA-1.5: the square's grid begins 9 px above a view of 60 x 42; officially it is laid on the view itself."""
    vlm = ToyVlm(3, layout="square")
    exact, official = look(vlm, SaliencyConfig()), look(vlm, SaliencyConfig(pad_offset="official"))
    assert exact.maps[0].grid == PatchGrid(7, 7, 0.0, -9.0, 60.0, 51.0)
    assert official.maps[0].grid == PatchGrid(7, 7, 0, 0, 60, 42)
    np.testing.assert_array_equal(exact.maps[0].values, official.maps[0].values)
