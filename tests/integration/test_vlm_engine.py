"""The engine against transformers' own forward and generate, on tiny random models of every family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import OutOfMemory, PromptTooLong
from pipeline.records import Usage
from pipeline.vlms.base import Prompt, Reading, VisualTokens
from pipeline.vlms.loading import load_vlm
from tests.tiny_models import FAMILIES, build, noise

TOLERANCE = {"rtol": 1e-4, "atol": 2e-5}


pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture
def page(vlm: Any) -> VisualTokens:
    return vlm.encode([noise(100, 130, seed=1)])[0]


@pytest.fixture
def crops(vlm: Any) -> list[VisualTokens]:
    return vlm.encode([noise(60, 40, seed=2), noise(30, 90, seed=3)], crops=True)


def unshared(prompt: Prompt) -> Prompt:
    """The same prompt, for which the engine keeps nothing."""
    return Prompt(tuple(replace(view, crop=True) for view in prompt.views), prompt.text)


def entropy(reading: Reading) -> Tensor:
    logp = reading.logits.log_softmax(-1)
    return -(logp.exp() * logp).sum()


def gradients(reading: Reading) -> list[Tensor]:
    return list(torch.autograd.grad(entropy(reading), [leaf for row in reading.leaves for leaf in row], retain_graph=True))


def own_inputs(vlm: Any, images: list[Image.Image], text: str) -> dict[str, Tensor]:
    """What the family's transformers class takes, made by its own image processor and the documented placeholders."""
    pixels: dict[str, Any] = {}
    if vlm.family == "embedded":
        looks = [vlm.look(image, crop=False) for image in images]
        pixels["pixel_values"] = torch.stack([look.pixels for look in looks])
        counts = [look.count for look in looks]
    elif vlm.family == "llava":
        pixels = dict(vlm.images(images, do_pad=True, return_tensors="pt"))
        counts = [36] * len(images)
    elif vlm.family == "llava_next":
        pixels = dict(vlm.images(images, return_tensors="pt"))
        features = vlm.model.model.get_image_features(**pixels, return_dict=True).pooler_output
        counts = [len(feature) for feature in features]
    elif vlm.family == "internvl":
        pixels = dict(vlm.images(images, crop_to_patches=True, return_tensors="pt"))
        counts = [4 * int(tiles) for tiles in pixels.pop("num_patches")]
    else:
        pixels = dict(vlm.images(images, return_tensors="pt"))
        counts = [int(grid.prod()) // 4 for grid in pixels["image_grid_thw"]]
    around = ("<img>", "</img>") if vlm.family == "internvl" else ("", "")
    first, *rest = vlm.render(len(images), text).split(vlm.placeholder)
    slots = [around[0] + vlm.placeholder * count + around[1] for count in counts]
    prompt = first + "".join(slot + words for slot, words in zip(slots, rest, strict=True))
    ids = vlm.tokenizer(prompt, return_tensors="pt")["input_ids"]
    if vlm.family == "qwen2_5_vl":
        pixels["mm_token_type_ids"] = (ids == vlm.model.config.image_token_id).int()
    pixels["pixel_values"] = pixels["pixel_values"].to(vlm.decoder.dtype)
    return {"input_ids": ids, **pixels}


@contextmanager
def own_model(vlm: Any) -> Iterator[Any]:
    """The transformers model, put back to how the engine left it."""
    yield vlm.model
    if vlm.family == "qwen2_5_vl":
        vlm.model.model.rope_deltas = None


@pytest.mark.parametrize("views", [1, 3])
def test_logits_are_those_of_the_class_itself(vlm: Any, views: int) -> None:
    images = [noise(100, 130, seed=index) for index in range(views)]
    prompt = Prompt(tuple(vlm.encode(images)), "What is it?")
    with own_model(vlm) as model, torch.no_grad():
        expected = model(**own_inputs(vlm, images, "What is it?")).logits[:, -1:]
    torch.testing.assert_close(vlm.read([prompt]).logits, expected, **TOLERANCE)
    torch.testing.assert_close(vlm.read([unshared(prompt)], graph=True).logits.detach(), expected, **TOLERANCE)


def test_views_of_different_sizes_are_read_as_the_class_itself_reads_them(vlm: Any) -> None:
    if vlm.family == "embedded":
        pytest.skip("its class takes one size at a time")
    images = [noise(100, 130), noise(200, 40, seed=1), noise(5, 3, seed=2)]
    with own_model(vlm) as model, torch.no_grad():
        expected = model(**own_inputs(vlm, images, "Which?")).logits[:, -1:]
    torch.testing.assert_close(vlm.read([Prompt(tuple(vlm.encode(images)), "Which?")]).logits, expected, **TOLERANCE)


def test_generation_is_greedy_generate(vlm: Any) -> None:
    image = noise(100, 130, seed=4)
    inputs = own_inputs(vlm, [image], "How many?")
    with own_model(vlm) as model:
        made = model.generate(**inputs, do_sample=False, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :].tolist()
    (generation,) = vlm.generate(vlm.read([Prompt(tuple(vlm.encode([image])), "How many?")]), 12)
    ids = list(generation.token_ids)
    assert made[: len(ids)] == ids
    assert len(ids) == 12 or made[len(ids)] in vlm._end_ids
    assert len(generation.logprobs) == len(generation.entropies) == min(len(ids) + 1, 12)


def test_a_batch_is_the_same_as_one_by_one(vlm: Any, page: VisualTokens, crops: list[VisualTokens]) -> None:
    prompts = [
        Prompt((page,), "A?"),
        Prompt((page, *crops), "A much longer question, is it not?"),
        Prompt((crops[1],), "What now?"),
        Prompt((), "No picture at all?"),
    ]
    together = vlm.read(prompts)
    alone = [vlm.read([prompt]) for prompt in prompts]
    torch.testing.assert_close(together.logits, torch.cat([reading.logits for reading in alone]), **TOLERANCE)
    expected = [vlm.generate(reading, 6)[0].token_ids for reading in alone]
    assert [generation.token_ids for generation in vlm.generate(together, 6)] == expected


def test_a_page_and_a_prompt_without_views_share_a_batch(vlm: Any, page: VisualTokens) -> None:
    prompts = [Prompt((page,), "A?"), Prompt((), "No picture?")]
    alone = [vlm.read([prompt]).logits for prompt in prompts]
    torch.testing.assert_close(vlm.read(prompts).logits, torch.cat(alone), **TOLERANCE)


def test_gradients_of_a_batch_are_those_of_one_by_one(vlm: Any, page: VisualTokens, crops: list[VisualTokens]) -> None:
    prompts = [Prompt((page,), "A?"), Prompt((page, *crops), "A much longer question?")]
    for leaf in (0, 2):
        together = gradients(vlm.read(prompts, graph=True, leaf=leaf))
        alone = [gradient for prompt in prompts for gradient in gradients(vlm.read([prompt], graph=True, leaf=leaf))]
        assert len(together) == len(alone) == 4
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize(("leaf", "layer"), [(0, None), (2, None), (0, 2), (1, 2)])
def test_the_shared_beginning_changes_no_number(
    vlm: Any, page: VisualTokens, crops: list[VisualTokens], leaf: int, layer: int | None
) -> None:
    for views, text in [((page,), "One?"), ((page,), "Another question?"), ((page, *crops), "One?")]:
        prompt = Prompt(views, text)
        shared = vlm.read([prompt], graph=True, leaf=leaf, layer=layer)
        whole = vlm.read([unshared(prompt)], graph=True, leaf=leaf, layer=layer)
        torch.testing.assert_close(shared.logits, whole.logits, **TOLERANCE)
        for one, other in zip(gradients(shared), gradients(whole), strict=True):
            torch.testing.assert_close(one, other, **TOLERANCE)
        for tokens, one, other in zip(views, shared.leaves[0], whole.leaves[0], strict=True):
            assert one.shape == other.shape == tokens.embeddings.shape


def test_what_is_kept_serves_every_later_reading_of_the_page(
    vlm: Any, page: VisualTokens, crops: list[VisualTokens]
) -> None:
    def cost(**arguments: Any) -> int:
        before = vlm.usage
        vlm.read([Prompt((page, *crops), "Why?")], **arguments)
        return vlm.usage.visual_tokens - before.visual_tokens

    own = sum(crop.count for crop in crops)
    assert cost() == page.count + own
    assert cost() == own
    assert cost(layer=2) == own
    assert cost(graph=True) == page.count + own  # a graph cannot be had afterwards
    assert cost(graph=True) == own
    assert cost() == own  # but serves those who need none
    assert cost(graph=True, layer=2) == own
    assert cost(graph=True, leaf=1) == page.count + own
    vlm.read([Prompt((crops[0],), "And this?")], graph=True)
    assert cost(graph=True, leaf=1) == own  # a crop by itself does not push the page out
    vlm.read([Prompt(tuple(vlm.encode([noise(50, 50)])), "Next page?")])
    assert cost() == page.count + own


def test_grounding_by_an_early_exit_and_answering_do_not_push_each_other_out(vlm: Any, page: VisualTokens) -> None:
    before = vlm.usage
    for question in ("One?", "Two?", "Three?"):
        gradients(vlm.read([Prompt((page,), question)], graph=True, layer=2))
        vlm.read([Prompt((page,), question)])
    assert (vlm.usage - before).visual_tokens == 2 * page.count


def test_no_more_than_one_graph_is_kept_and_nothing_that_another_serves(vlm: Any, page: VisualTokens) -> None:
    for arguments in ({}, {"graph": True, "layer": 2}, {"graph": True, "leaf": 1}, {}, {"graph": True}):
        vlm.read([Prompt((page,), "Keep?")], **arguments)
        assert sum(kept.plan.graph for kept in vlm._kept) <= 1
    assert [kept.plan.graph for kept in vlm._kept] == [True]
    vlm.read([Prompt(tuple(vlm.encode([noise(50, 50)])), "Next page?")])
    assert len(vlm._kept) == 1


def test_a_forward_pass_shares_the_beginning_over_a_batch(vlm: Any, page: VisualTokens) -> None:
    prompts = [Prompt((page,), text) for text in ("One?", "Question two?", "3?")]
    whole = vlm.read([unshared(prompt) for prompt in prompts])
    before = vlm.usage
    shared = vlm.read(prompts)
    assert vlm.usage - before == Usage(forward_passes=3, visual_tokens=page.count)
    torch.testing.assert_close(shared.logits, whole.logits, **TOLERANCE)
    texts = [generation.token_ids for generation in vlm.generate(shared, 5)]
    assert texts == [generation.token_ids for generation in vlm.generate(whole, 5)]


@pytest.mark.parametrize("leaf", [0, 1, 2])
def test_the_leaves_are_the_states_entering_their_block(vlm: Any, page: VisualTokens, leaf: int) -> None:
    prompt = Prompt((page,), "Where?")
    seen = []
    norm = vlm.model.model.language_model.layers[leaf].input_layernorm
    hook = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    plain = vlm.read([unshared(prompt)])
    hook.remove()
    states = torch.cat(seen, dim=1)  # the last block is given the positions that are only looked back at apart
    reading = vlm.read([prompt], graph=True, leaf=leaf)
    torch.testing.assert_close(reading.logits, plain.logits, **TOLERANCE)
    start = next(i for i in range(states.shape[1]) if torch.allclose(states[0, i], reading.leaves[0][0][0], atol=1e-4))
    torch.testing.assert_close(reading.leaves[0][0], states[0, start : start + page.count], **TOLERANCE)
    assert reading.leaves[0][0].is_leaf


def nudged_entropy(vlm: Any, inputs: dict[str, Tensor], block: int, places: Tensor, by: Tensor) -> float:
    """The class's own entropy with something added to the visual tokens' states entering a block."""
    hook = vlm.model.model.language_model.layers[block].register_forward_pre_hook(
        lambda _, args: (args[0].index_add(1, places, by), *args[1:])
    )
    with own_model(vlm) as model, torch.no_grad():
        logp = model(**inputs).logits[0, -1].double().log_softmax(-1)
    hook.remove()
    return float(-(logp.exp() * logp).sum())


def slope(vlm: Any, inputs: dict[str, Tensor], block: int, places: Tensor, direction: Tensor, step: float) -> float:
    """The entropy's central difference along a direction."""
    up, down = (nudged_entropy(vlm, inputs, block, places, way * direction[None]) for way in (step, -step))
    return (up - down) / (2 * step)


@pytest.mark.parametrize("leaf", [0, 2])
def test_gradients_agree_with_finite_differences(tmp_path: Any, leaf: int) -> None:
    for family in FAMILIES:
        vlm: Any = load_vlm(str(build(family, tmp_path / family)), device="cpu", dtype="float64")
        image = noise(60, 40)
        inputs = own_inputs(vlm, [image], "Which one?")
        reading = vlm.read([Prompt(tuple(vlm.encode([image])), "Which one?")], graph=True, leaf=leaf)
        (gradient,) = gradients(reading)
        noise_like = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0), dtype=gradient.dtype)
        direction = gradient / gradient.norm() + noise_like / gradient.numel() ** 0.5
        places = (inputs["input_ids"][0] == vlm.model.config.image_token_id).nonzero()[:, 0]

        # A long step errs by the curvature, a short one by the norms inside the blocks, which round to float32. Between them
        # a right gradient agrees; a wrong one agrees nowhere.
        slopes = [slope(vlm, inputs, leaf, places, direction, step) for step in (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)]
        expected = float((gradient * direction).sum())
        assert min(abs(found - expected) for found in slopes) <= 5e-3 * abs(expected), (family, expected, slopes)


def test_an_early_exit_goes_to_the_head_without_the_final_norm(vlm: Any, page: VisualTokens) -> None:
    states, later = [], []
    layers = vlm.model.model.language_model.layers
    hooks = [
        layers[1].register_forward_hook(lambda _m, _a, out: states.append(out)),
        layers[2].register_forward_hook(lambda _m, _a, _o: later.append(1)),
    ]
    reading = vlm.read([unshared(Prompt((page,), "Early?"))], layer=2)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(reading.logits, vlm.model.lm_head(states[0][:, -1:]).float())
    assert not later
    assert reading.state is None


def test_an_early_exit_after_the_last_block_still_goes_without_the_norm(vlm: Any, page: VisualTokens) -> None:
    """Table 5's last layer, as the released code runs it, is not the whole model."""
    prompt = unshared(Prompt((page,), "Last?"))
    exited, whole = vlm.read([prompt], layer=vlm.blocks), vlm.read([prompt])
    assert exited.state is None
    assert not torch.allclose(exited.logits, whole.logits)


def test_forced_tokens_are_read_as_if_they_were_there(vlm: Any, page: VisualTokens) -> None:
    prompt, other = Prompt((page,), "Say it?"), Prompt((page,), "Or not, and why?")
    (generation,) = vlm.generate(vlm.read([prompt]), 4)
    tail = generation.token_ids[:3]
    for graph in (False, True):
        reading = vlm.read([prompt, other], graph=graph, forced=[tail, ()])
        assert reading.logits.shape[:2] == (2, len(tail) + 1)
        assert reading.logits.isfinite().all()
        logprobs = reading.logits[0].detach().log_softmax(-1)
        taken = [float(logprobs[step, token]) for step, token in enumerate(tail)]
        assert taken == pytest.approx(generation.logprobs[: len(tail)], abs=1e-4)
        torch.testing.assert_close(reading.logits[1, :1], vlm.read([other]).logits[0], **TOLERANCE)
    with pytest.raises(ValueError, match="as much forced on each"):
        vlm.generate(reading, 3)


def test_decoding_goes_on_behind_forced_tokens_as_if_they_had_been_decoded(vlm: Any, page: VisualTokens) -> None:
    prompts = [Prompt((page,), "Say it?"), Prompt((page,), "Or not, and why?")]
    whole = vlm.generate(vlm.read(prompts), 5)
    count = min(2, *(len(generation.token_ids) for generation in whole))
    rest = vlm.generate(vlm.read(prompts, forced=[generation.token_ids[:count] for generation in whole]), 5 - count)
    for generation, following in zip(whole, rest, strict=True):
        assert following.token_ids == generation.token_ids[count:]
        assert following.logprobs == pytest.approx(generation.logprobs[count:], abs=1e-4)


def test_scores_are_teacher_forced_log_probabilities_with_the_end(vlm: Any, page: VisualTokens) -> None:
    prompts = [Prompt((page,), "Say it?"), Prompt((page,), "Or not?")]
    before = vlm.usage
    scores = vlm.score(prompts, ["ab", "not found"])
    assert vlm.usage - before == Usage(forward_passes=2, visual_tokens=page.count)
    for prompt, text, score in zip(prompts, ["ab", "not found"], scores, strict=True):
        ids = vlm.continuation_ids(text)
        assert ids[-1] == vlm.tokenizer.eos_token_id
        logprobs = vlm.read([prompt], forced=[ids[:-1]]).logits[0].log_softmax(-1)
        assert score.logprobs == pytest.approx(
            [float(row[token]) for row, token in zip(logprobs, ids, strict=True)], abs=1e-4
        )
        assert score.entropies == pytest.approx((-(logprobs.exp() * logprobs).sum(-1)).tolist(), abs=1e-4)
        assert score.mean_logprob == pytest.approx(sum(score.logprobs) / len(ids))


def test_usage_is_what_hooks_on_the_model_count(vlm: Any) -> None:
    rows: list[int] = []
    positions: list[int] = []
    encoded: list[int] = []

    def on_block(_module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        rows.append(output.shape[0])
        positions.append(output.shape[1])

    def on_projector(_module: Any, args: Any, output: Tensor) -> None:
        encoded.append(1)

    projector = vlm.model.model.visual if vlm.family == "qwen2_5_vl" else vlm.model.model.multi_modal_projector
    hooks = [
        vlm.model.model.language_model.layers[0].register_forward_hook(on_block),
        projector.register_forward_hook(on_projector),
    ]
    before = vlm.usage
    (page,) = vlm.encode([noise(100, 130)])
    crops = vlm.encode([noise(60, 40), noise(60, 40, seed=1)], crops=True)
    assert len(encoded) == 2  # two of one size share a batch
    assert vlm.usage - before == Usage(vision_encodes=3)
    for question in ("One?", "Two?"):
        reading = vlm.read([Prompt((page, *crops), question)], graph=True)
        gradients(reading)
        vlm.generate(reading, 5)
    for hook in hooks:
        hook.remove()
    decoding = [count for count in positions if count == 1]
    own = sum(crop.count for crop in crops)
    assert vlm.usage - before == Usage(
        forward_passes=2,
        backward_passes=2,
        vision_encodes=3,
        visual_tokens=page.count + 2 * own,
        decoded_tokens=len(decoding),
    )
    assert len(positions) - len(decoding) == 3  # the beginning once, what is new twice
    assert set(rows) == {1}
    text = sum(count for count in positions if count > 1) - (page.count + 2 * own)
    assert 0 < text < 2 * (len(vlm.render(3, "One?")) + 8)


def test_every_row_with_a_gradient_is_a_backward_pass(vlm: Any, page: VisualTokens) -> None:
    reading = vlm.read([Prompt((page,), "One?"), Prompt((page,), "Two?")], graph=True)
    before = vlm.usage
    entropy(reading).backward(inputs=[leaf for row in reading.leaves for leaf in row], retain_graph=True)
    assert (vlm.usage - before).backward_passes == 2
    torch.autograd.grad(reading.logits[0].logsumexp(-1).sum(), reading.leaves[0], retain_graph=True)
    assert (vlm.usage - before).backward_passes == 3


def test_rows_that_have_ended_are_not_decoded_further(vlm: Any, page: VisualTokens, monkeypatch: Any) -> None:
    reading = vlm.read([Prompt((page,), "One?"), Prompt((page,), "A second one?")])
    first = [generation.token_ids for generation in vlm.generate(reading, 6)]
    monkeypatch.setattr(vlm, "_end_ids", (first[0][2],))
    stop = first[0].index(first[0][2])
    before = vlm.usage
    generations = vlm.generate(reading, 6)
    lengths = [len(generation.logprobs) for generation in generations]
    assert generations[0].token_ids == first[0][:stop]
    assert lengths[0] == stop + 1
    assert vlm.usage - before == Usage(decoded_tokens=sum(lengths) - 2)


def test_a_reading_can_be_continued_twice_and_after_another_page(vlm: Any, page: VisualTokens) -> None:
    reading = vlm.read([Prompt((page,), "Again?")], graph=True)
    first = vlm.generate(reading, 4)
    vlm.generate(vlm.read([Prompt(tuple(vlm.encode([noise(50, 60)])), "Other?")]), 4)
    assert vlm.generate(reading, 4) == first
    assert len(gradients(reading)) == 1


def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(vlm: Any, page: VisualTokens) -> None:
    context = vlm.decoder.context
    with pytest.raises(
        PromptTooLong, match=rf"the prompt has \d+ tokens \({page.count} of them visual, 1 views\).*{context}"
    ):
        vlm.read([Prompt((page,), "x" * context)])


def test_decoding_stops_at_the_end_of_the_context(vlm: Any, page: VisualTokens, monkeypatch: Any) -> None:
    reading = vlm.read([Prompt((page,), "How long?")])
    monkeypatch.setattr(vlm.decoder, "context", reading.state.lengths[0] + 2)
    monkeypatch.setattr(vlm, "_end_ids", ())
    assert len(vlm.generate(reading, 50)[0].token_ids) == 2


def test_running_out_of_memory_keeps_nothing_and_can_be_tried_again(vlm: Any, page: VisualTokens, monkeypatch: Any) -> None:
    prompt = Prompt((page,), "Big?")
    expected = vlm.read([prompt], graph=True).logits.detach()

    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(vlm.decoder, "logits", fail)
        with pytest.raises(OutOfMemory, match="ran out of memory"):
            vlm.read([prompt], graph=True)
    before = vlm.usage
    torch.testing.assert_close(vlm.read([prompt]).logits, expected, **TOLERANCE)
    assert (vlm.usage - before).visual_tokens == page.count


def test_the_model_is_left_as_it_was_found(vlm: Any) -> None:
    vlm.encode([noise(70, 70)])  # transformers puts hooks of its own on the tower the first time, and leaves them
    hooks = [len(module._forward_hooks) for module in vlm.model.modules()]
    weights = {name: weight.clone() for name, weight in vlm.model.state_dict().items()}
    (page,) = vlm.encode([noise(70, 70)])
    assert not page.embeddings.requires_grad
    for leaf in (0, 1):
        reading = vlm.read([Prompt((page,), "Trace?")], graph=True, leaf=leaf)
        entropy(reading).backward(inputs=list(reading.leaves[0]), retain_graph=True)
        vlm.generate(reading, 2)
    assert torch.is_grad_enabled()
    assert page.embeddings.grad is None
    for module in vlm.model.modules():
        assert not module.training
        assert not module._forward_pre_hooks
    assert [len(module._forward_hooks) for module in vlm.model.modules()] == hooks
    assert not any(hooks[-len(list(vlm.model.model.language_model.modules())) :])
    for parameter in vlm.model.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
    for name, weight in vlm.model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    assert getattr(vlm.model.model, "rope_deltas", None) is None


def test_a_graph_is_built_where_gradients_are_switched_off(vlm: Any, page: VisualTokens) -> None:
    with torch.no_grad():
        reading = vlm.read([Prompt((page,), "Still?")], graph=True, leaf=1)
    assert all(float(gradient.norm()) > 0 for gradient in gradients(reading))


def test_control_tokens_in_a_question_are_only_words(vlm: Any, page: VisualTokens) -> None:
    text = f"What does {vlm.placeholder} mean, or {vlm.tokenizer.eos_token}?"
    row = vlm._row(Prompt((page,), text), ())
    ids = [token for piece in row.pieces for token in piece.ids]
    written = vlm._row(Prompt((page,), "What?"), ())
    assert vlm._image_id not in ids
    assert ids.count(vlm.tokenizer.eos_token_id) == [t for p in written.pieces for t in p.ids].count(
        vlm.tokenizer.eos_token_id
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {"leaf": 3},
        {"layer": 4},
        {"layer": 0},
        {"leaf": 2, "layer": 2},
        {"leaf": -1},
        {"attentions": (3,)},
        {"attentions": (2,), "layer": 2},
    ],
)
def test_leaves_and_exits_outside_the_model_are_refused(vlm: Any, page: VisualTokens, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="of a model of 3 blocks"):
        vlm.read([Prompt((page,), "Where?")], graph=True, **arguments)


def test_eager_attention_gives_the_same_numbers(vlm: Any, page: VisualTokens, crops: list[VisualTokens]) -> None:
    prompts = [Prompt((page, *crops), "Eager?"), Prompt((page,), "Or not so eager?")]
    expected, slopes = vlm.read(prompts).logits, gradients(vlm.read(prompts[:1], graph=True))
    language_model = vlm.model.model.language_model
    language_model.set_attn_implementation("eager")
    vlm.forget()
    try:
        torch.testing.assert_close(vlm.read(prompts).logits, expected, **TOLERANCE)
        for one, other in zip(gradients(vlm.read(prompts[:1], graph=True)), slopes, strict=True):
            torch.testing.assert_close(one, other, **TOLERANCE)
    finally:
        language_model.set_attn_implementation("sdpa")
        vlm.forget()


@pytest.mark.parametrize("vlm", ["qwen2_5_vl"], indirect=True)
def test_three_dimensional_positions_are_the_models_own(vlm: Any) -> None:
    images = [noise(100, 130), noise(300, 40), noise(5, 3)]
    inputs = own_inputs(vlm, images, "Where?")
    expected, _ = vlm.model.model.get_rope_index(
        inputs["input_ids"], mm_token_type_ids=inputs["mm_token_type_ids"], image_grid_thw=inputs["image_grid_thw"]
    )
    row = vlm._row(Prompt(tuple(vlm.encode(images)), "Where?"), ())
    assert torch.equal(row.positions, expected[:, 0])


@pytest.mark.parametrize("vlm", ["internvl", "qwen2_5_vl"], indirect=True)
def test_without_a_chat_template_the_documented_format_is_written(vlm: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(vlm.tokenizer, "chat_template", None)
    prompt = vlm.render(2, "What?")
    assert prompt.count(vlm.placeholder) == 2
    assert prompt.endswith("What?<|im_end|>\n<|im_start|>assistant\n")


def own_attentions(vlm: Any, images: list[Image.Image], text: str) -> tuple[list[Tensor], Tensor, Tensor]:
    """The class's own eager attention of each block [1, heads, L, L], its logits, and the visual tokens' positions."""
    inputs = own_inputs(vlm, images, text)
    language_model = vlm.model.model.language_model
    language_model.set_attn_implementation("eager")
    try:
        with own_model(vlm) as model:
            found = model(**inputs, output_attentions=True)
    finally:
        language_model.set_attn_implementation("sdpa")
    return list(found.attentions), found.logits, (inputs["input_ids"][0] == vlm.model.config.image_token_id).nonzero()[:, 0]


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("graph", [False, True])
def test_attentions_are_the_classes_own_eager_ones(vlm: Any, views: int, graph: bool) -> None:
    images = [noise(100, 130, seed=index) for index in range(views)]
    prompt = Prompt(tuple(vlm.encode(images)), "What is it?")
    with torch.no_grad():
        expected, logits, places = own_attentions(vlm, images, "What is it?")
    for shown in (prompt, unshared(prompt)):
        reading = vlm.read([shown], graph=graph, attentions=(2, 0))
        assert [len(rows) for rows in reading.attentions] == [1, 1]
        for block, (weights,) in zip((2, 0), reading.attentions, strict=True):
            torch.testing.assert_close(weights.detach(), expected[block][0, :, -1, places], **TOLERANCE)
        torch.testing.assert_close(reading.logits.detach(), logits[:, -1:], **TOLERANCE)


def test_the_logits_slope_at_the_attentions_is_the_classes_own(vlm: Any) -> None:
    images = [noise(100, 130, seed=5)]
    prompt = Prompt(tuple(vlm.encode(images)), "Where?")
    for block in range(3):
        expected = own_slope(vlm, images, block)
        for shown in (prompt, unshared(prompt)):
            reading = vlm.read([shown], graph=True, leaf=block, attentions=(block,))
            ((weights,),) = reading.attentions
            best = reading.logits[0, -1].log_softmax(-1).max()
            (slope_at,) = torch.autograd.grad(best, weights, retain_graph=True)
            torch.testing.assert_close(slope_at, expected, rtol=1e-3, atol=2e-5)


def own_slope(vlm: Any, images: list[Image.Image], block: int) -> Tensor:
    """d log max p / d attention [heads, N] of the last position, through the class's own eager forward."""
    inputs = own_inputs(vlm, images, "Where?")
    language_model = vlm.model.model.language_model
    language_model.set_attn_implementation("eager")
    hook = language_model.layers[0].register_forward_pre_hook(lambda _, args: (args[0].requires_grad_(), *args[1:]))
    try:
        with own_model(vlm) as model:
            found = model(**inputs, output_attentions=True)
    finally:
        hook.remove()
        language_model.set_attn_implementation("sdpa")
    best = found.logits[0, -1].log_softmax(-1).max()
    (slope_at,) = torch.autograd.grad(best, found.attentions[block])
    return slope_at[0, :, -1, (inputs["input_ids"][0] == vlm.model.config.image_token_id).nonzero()[:, 0]]


def test_attentions_of_a_batch_are_those_of_one_by_one(vlm: Any, page: VisualTokens, crops: list[VisualTokens]) -> None:
    prompts = [Prompt((page,), "A?"), Prompt((page, *crops), "A much longer question?"), Prompt((), "No picture?")]
    for graph, asked in ((False, prompts), (True, prompts[:2])):
        (together,) = vlm.read(asked, graph=graph, attentions=(1,)).attentions
        for prompt, weights in zip(asked, together, strict=True):
            ((alone,),) = vlm.read([prompt], graph=graph, attentions=(1,)).attentions
            assert weights.shape[1] == sum(view.count for view in prompt.views)
            torch.testing.assert_close(weights.detach(), alone.detach(), **TOLERANCE)


def test_attentions_are_those_before_anything_forced_and_a_reading_goes_on_from_them(vlm: Any, page: VisualTokens) -> None:
    prompt = Prompt((page,), "Say it?")
    plain = vlm.read([prompt], attentions=(1,))
    tail = vlm.generate(plain, 4)[0].token_ids[:3]
    forced = vlm.read([prompt, Prompt((page,), "Or not?")], forced=[tail, ()], attentions=(1,))
    torch.testing.assert_close(forced.attentions[0][0], plain.attentions[0][0], **TOLERANCE)
    assert vlm.generate(plain, 4)[0].token_ids == vlm.generate(vlm.read([prompt]), 4)[0].token_ids


def test_nothing_is_watched_unless_asked_and_no_block_keeps_a_trace_of_it(
    vlm: Any, page: VisualTokens, monkeypatch: Any
) -> None:
    language_model = vlm.model.model.language_model
    before = [(dict(block._modules), block.self_attn.config._attn_implementation) for block in language_model.layers]
    vlm.read([Prompt((page,), "Look?")], graph=True, attentions=(0, 1, 2))
    after = [(dict(block._modules), block.self_attn.config._attn_implementation) for block in language_model.layers]
    assert before == after
    monkeypatch.setattr("pipeline.vlms.decoder.WatchedBlock", None)
    assert vlm.read([Prompt((page,), "Look?")]).attentions == ()


def own_pixel_gradient(vlm: Any, image: Image.Image) -> Tensor:
    """d entropy / d the class's own pixel input, by one backward pass through everything."""
    inputs = own_inputs(vlm, [image], "Where?")
    inputs["pixel_values"].requires_grad_()
    with own_model(vlm) as model:
        logp = model(**inputs).logits[0, -1].log_softmax(-1)
    (gradient,) = torch.autograd.grad(-(logp.exp() * logp).sum(), inputs["pixel_values"])
    return gradient


@pytest.mark.parametrize("size", [(100, 130), (200, 40)])
def test_pixel_gradients_are_those_of_one_backward_pass_through_the_class(
    vlm: Any, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tokens that need no graph are made in bf16 where the processor has it; the class's own pass is in float32 throughout.
    monkeypatch.setattr("pipeline.vlms.embedded.modeling.multiplies_bf16", lambda _: False)
    image = noise(*size, seed=6)
    look = vlm.look(image, crop=False)
    expected = vlm.picture(look, own_pixel_gradient(vlm, image).reshape(look.pixels.shape))
    (tokens,) = vlm.encode([image])
    (at_tokens,) = gradients(vlm.read([Prompt((tokens,), "Where?")], graph=True))
    before = vlm.usage
    found, none = vlm.pixel_gradients(image, [at_tokens, torch.zeros_like(at_tokens)])
    assert vlm.usage - before == Usage(vision_encodes=1)
    assert not none.any()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(100, 130), (200, 40), (30, 200)])
def test_the_picture_is_what_the_finest_layer_lies_on(vlm: Any, size: tuple[int, int]) -> None:
    """A white stripe in the view is bright in the picture where the grid says that it lies."""
    image = Image.new("RGB", size, "black")
    across = size[0] * 2 // 3
    image.paste("white", (across, 0, size[0], size[1]))
    look = vlm.look(image, crop=False)
    picture = vlm.picture(look, look.pixels).mean(0)
    grid = max((layer.grid for layer in look.layers), key=lambda grid: grid.rows * grid.cols)
    assert picture.shape[0] % grid.rows == picture.shape[1] % grid.cols == 0
    scale_x, scale_y = picture.shape[1] / (grid.x1 - grid.x0), picture.shape[0] / (grid.y1 - grid.y0)
    row = picture[round((size[1] / 2 - grid.y0) * scale_y)]
    black, white = (row[round((x - grid.x0) * scale_x)] for x in (across * 0.7, (across + size[0]) / 2))
    if vlm.family == "embedded":
        black, white = white, black  # its pixels are ink
    assert white > black + 0.5
