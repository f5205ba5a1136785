"""SPOT-E's loop on a model that plays back certainties: every branch, what each costs, and what is left behind."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.answer import answer_page
from pipeline.config import MethodConfig
from pipeline.errors import InternalError, MethodError, OutOfMemory, PromptTooLong
from pipeline.geometry import Box
from pipeline.methods import build_method
from pipeline.methods.spot_e.method import Found, SpotE
from pipeline.presets import method_config
from pipeline.records import Answer, Question, StopReason, Usage
from pipeline.vlms.base import Prompt
from tests.fakes import encoded
from tests.spotlights import CELLS, LitVlm, entropy, grey_page

PAGE = grey_page()
TARGET = Box(56, 56, 112, 112)
"""The lower right quarter of the page."""
TOTAL, DATE, LONG = Question("total", "What is the total?"), Question("date", "Which date?"), Question("x", "Too long?")
STEPS, GROUP, EXTRA = 3, 4, 2
TOKENS = CELLS * CELLS


def sharper(number: int, lit: float, rest: float) -> float:
    """Surer of the answer's tokens the more the target stands out; of the end token always."""
    return 0.5 + 0.4 * (lit - rest) if number < 3 else 0.9


def worse(number: int, lit: float, rest: float) -> float:
    """Whatever is dimmed makes it less sure."""
    return 0.3 + 0.3 * min(lit, rest)


def indifferent(number: int, lit: float, rest: float) -> float:
    return 0.5


def bright_target() -> np.ndarray:
    """A gradient that lies on the target."""
    values = np.full((CELLS, CELLS), 0.01)
    values[4:, 4:] = 1.0
    return values


def configured(**changes: object) -> MethodConfig:
    small = {"action_cells": 4, "crop_grid": 0, "steps": STEPS, "group": GROUP, "extra_samples": EXTRA}
    return method_config("spot-e", "lit", None, {key: str(value) for key, value in (small | changes).items()})


def ask(vlm: LitVlm, config: MethodConfig, *questions: Question) -> list[Answer]:
    return list(answer_page(vlm, PAGE, questions, config))


def find(vlm: LitVlm, question: Question = TOTAL, **changes: object) -> Found:
    method = build_method(vlm, configured(**changes))
    assert isinstance(method, SpotE)
    return method.find(encoded(vlm, PAGE), question)


def cost(answer: Answer) -> Usage:
    return replace(answer.usage, seconds=0.0)


def totals(found: Found) -> list[list[float]]:
    return [[reward.total for reward in group] for group in found.rewards]


# --------------------------------------------------------------------------------------------------------------- costs


def test_the_passes_are_those_of_the_closed_form() -> None:
    """T = 3 updates of N = 4 masks, four windows, E = 2: the answer, its score, eye, candidates, the answer, the refusal."""
    vlm = LitVlm(PAGE, TARGET, sharper)
    first, second = ask(vlm, configured(crop_grid=2), TOTAL, DATE)
    passes = 1 + 1 + (1 + 4) + STEPS * GROUP + 1 + EXTRA + 1 + 1
    candidates = STEPS * GROUP + 1 + EXTRA
    assert cost(first) == Usage(passes, 5, 1 + 4 + candidates, passes * TOKENS, 2 * 3)
    # Page and windows are encoded once for all questions of the page.
    assert cost(second) == Usage(passes, 5, candidates, passes * TOKENS, 2 * 3)
    assert cost(first) + cost(second) == vlm.usage
    assert first.usage.seconds > 0


def test_candidates_are_scored_in_one_batch_a_step() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper)
    ask(vlm, configured(), TOTAL)
    assert vlm.batches == [1, *[GROUP] * STEPS, 1 + EXTRA]


def test_the_control_shows_the_same_number_of_masks_and_never_moves() -> None:
    tuned, control = (LitVlm(PAGE, TARGET, sharper) for _ in range(2))
    (a,), (b,) = ask(tuned, configured(), TOTAL), ask(control, configured(update=False), TOTAL)
    assert cost(a) == cost(b)
    with_update, without = find(tuned), find(control, update=False)
    assert with_update.drift > 0.1
    assert without.drift == 0
    # The first group is the same: the policy begins alike and so does its chance.
    assert totals(with_update)[0] == totals(without)[0]
    assert totals(with_update)[1] != totals(without)[1]
    assert [step.gradient_norm for step in without.steps] == [pytest.approx(8.0), *[None] * (STEPS + 1)]


def test_without_steps_the_initial_mask_is_all_there_is() -> None:
    """Arms of the comparison: theta_0's mask alone."""
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=bright_target())
    (answer,) = ask(vlm, configured(steps=0, extra_samples=0), TOTAL)
    assert vlm.batches == [1, 1]
    assert [step.round for step in answer.steps] == [0, 1]
    assert np.array_equal(answer.steps[0].maps[0].values, answer.steps[1].maps[0].values)


# ------------------------------------------------------------------------------------------- steps, choice and evidence


def test_the_steps_are_the_untouched_page_the_updates_and_the_choice() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=bright_target())
    found = find(vlm)
    assert [step.round for step in found.steps] == list(range(STEPS + 2))
    assert [step.stop_reason for step in found.steps] == [None] * (STEPS + 1) + [StopReason.ROUNDS]
    assert found.steps[0].token_entropy == pytest.approx(entropy(0.5))
    assert found.steps[0].max_probability == pytest.approx(0.5)
    for step, group in zip(found.steps[1:], found.rewards, strict=False):
        assert step.token_entropy == max(group, key=lambda reward: reward.total).answer_entropy
        assert entropy(step.max_probability) == pytest.approx(step.token_entropy)
        assert step.gradient_norm is not None
        assert step.gradient_norm > 0
    grid = found.steps[0].maps[0].grid
    assert (grid.rows, grid.cols, grid.x1, grid.y1) == (4, 4, 112, 112)
    assert all(step.maps[0].values.min() > 0 and step.maps[0].values.max() < 1 for step in found.steps)


def test_the_best_of_all_masks_is_chosen_and_the_answer_is_given_from_it() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=bright_target(), pieces=lambda lit: (f"{lit:.4f}",))
    (answer,) = ask(vlm, configured(), TOTAL)
    shares = [float((np.asarray(image, np.float64)[56:, 56:] / 200).mean()) for image in vlm.shown]
    found = find(LitVlm(PAGE, TARGET, sharper, saliency=bright_target(), pieces=lambda lit: (f"{lit:.4f}",)))
    assert found.chosen is not None
    best = found.chosen.reward.total
    assert best >= max(max(group) for group in totals(found)) > 0
    assert answer.text in {f"{share:.4f}" for share in shares[1:]}
    assert answer.signals.entropy_drop == pytest.approx(entropy(0.5) - found.chosen.reward.answer_entropy)
    assert answer.signals.entropy_drop > 0
    assert answer.steps[-1].token_entropy == found.chosen.reward.answer_entropy


def test_the_bright_regions_of_the_chosen_mask_are_the_evidence() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=bright_target())
    (answer,) = ask(vlm, configured(noise=0.01), TOTAL)
    (evidence,) = answer.evidence
    assert evidence.box == TARGET
    assert (evidence.rank, evidence.page, evidence.cell_px) == (1, 1, (28.0, 28.0))
    lit = answer.steps[-1].maps[0].values
    assert evidence.saliency == pytest.approx(lit[2:, 2:].sum())
    assert evidence.score == pytest.approx(lit[2:, 2:].sum() / lit.sum())
    assert answer.signals.spatial_entropy == 0.0
    assert answer.signals.gradient_norm == pytest.approx(np.linalg.norm(bright_target()), rel=1e-6)


def test_no_more_regions_than_asked_for_become_evidence() -> None:
    values = np.full((CELLS, CELLS), 0.01)
    values[0, 0] = values[0, 7] = values[7, 0] = 1.0
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=values)
    for regions in (1, 2, 3):
        (answer,) = ask(vlm, configured(action_cells=8, noise=0.001, regions=regions), TOTAL)
        assert len(answer.evidence) == len(answer.steps[0].regions) == regions


def test_of_masks_that_are_worth_the_same_the_first_is_chosen() -> None:
    """Nothing to learn: no step is taken, and the choice is the first sample."""
    found = find(LitVlm(PAGE, TARGET, indifferent))
    assert {total for group in totals(found) for total in group} == {0.0}
    assert found.drift == 0
    assert found.chosen is not None
    assert np.array_equal(found.steps[1].maps[0].values, found.steps[-1].maps[0].values)


def test_the_tuned_mean_may_be_chosen_unseen() -> None:
    found = find(LitVlm(PAGE, TARGET, sharper), choose="mean")
    assert found.chosen is not None
    assert found.chosen.reward.total < max(max(group) for group in totals(found))


def test_without_degradation_every_mask_is_worth_nothing() -> None:
    """x~ = x: the rewards are zero to the last bit, the policy stays, the answer is the plain one."""
    vlm = LitVlm(PAGE, TARGET, sharper)
    found = find(vlm, dim=1.0)
    assert {total for group in totals(found) for total in group} == {0.0}
    assert found.drift == 0


def test_windows_find_what_the_page_shows_too_coarsely() -> None:
    """The page's bright cell is a block of the field, each window's a single cell of its quarter."""
    values = np.full((CELLS, CELLS), 0.01)
    values[5, 5] = 1.0
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=values)
    (step, *_) = find(vlm, crop_grid=2, overlap=0.0, action_cells=8, steps=0, extra_samples=0).steps
    lit = step.maps[0].values
    assert lit.shape == (16, 16)
    from_windows = {(5, 5), (5, 13), (13, 5), (13, 13)}
    from_page = {(10, 10), (10, 11), (11, 10), (11, 11)}
    assert {(int(y), int(x)) for y, x in np.argwhere(lit > 0.5)} == from_windows | from_page


def test_fields_of_several_views_may_be_averaged_instead() -> None:
    """Table 4's ablation."""
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=np.random.default_rng(0).random((CELLS, CELLS)))
    largest, mean = (
        find(vlm, crop_grid=2, steps=0, extra_samples=0, fusion=how).steps[0].maps[0].values for how in ("max", "mean")
    )
    assert not np.allclose(largest, mean, atol=0.1)


# --------------------------------------------------------------------------------------------------------------- tuning


def test_the_policy_learns_where_to_light_and_forgets_it_after_the_question() -> None:
    """A flat gradient says nothing; the rewards alone must lead to the target."""
    vlm = LitVlm(PAGE, TARGET, sharper)
    settings = {"steps": 60, "group": 8, "offset_rate": 0.03}
    found = find(vlm, **settings)
    means = [sum(group) / len(group) for group in totals(found)]
    assert np.mean(means[-10:]) > np.mean(means[:10]) + 0.02
    lit = found.steps[-1].maps[0].values
    assert lit[2:, 2:].mean() > lit[:2, :2].mean() + 0.3
    method = build_method(vlm, configured(**settings))
    assert isinstance(method, SpotE)
    page = encoded(vlm, PAGE)
    again = [totals(method.find(page, question)) for question in (TOTAL, DATE, TOTAL)]
    assert again[0] == again[2] == totals(found)
    assert again[1] != again[0]


def test_the_seed_page_and_question_decide_everything() -> None:
    runs = [totals(find(LitVlm(PAGE, TARGET, sharper), seed=seed)) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


def test_random_states_and_gradients_are_left_as_found() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    with torch.no_grad():
        find(LitVlm(PAGE, TARGET, sharper), crop_grid=2)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


# --------------------------------------------------------------------------------------------------- stops and do no harm


def test_a_certain_answer_is_left_alone_when_asked_for() -> None:
    vlm = LitVlm(PAGE, TARGET, lambda number, lit, rest: 0.9999)
    (answer,) = ask(vlm, configured(skip_entropy=0.02), TOTAL)
    (step,) = answer.steps
    assert (step.stop_reason, step.maps, answer.evidence) == (StopReason.CERTAIN, (), ())
    assert (answer.text, answer.signals.entropy_drop) == ("12.50", 0.0)
    # The plain answer, its score, the refusal's.
    assert cost(answer) == Usage(3, 0, 1, 3 * TOKENS, 3)
    (usual,) = ask(LitVlm(PAGE, TARGET, lambda number, lit, rest: 0.9999), configured(), TOTAL)
    assert len(usual.steps) == STEPS + 2


def test_do_no_harm_answers_from_the_untouched_page_when_no_mask_helps() -> None:
    vlm = LitVlm(PAGE, TARGET, worse, pieces=lambda lit: ("seen whole",) if lit == 1 else ("seen dimly",))
    (harmed,), (safe,) = ask(vlm, configured(), TOTAL), ask(vlm, configured(do_no_harm=True), TOTAL)
    assert (harmed.text, safe.text) == ("seen dimly", "seen whole")
    assert harmed.signals.entropy_drop is not None
    assert harmed.signals.entropy_drop < 0 == safe.signals.entropy_drop
    assert harmed.evidence
    assert safe.evidence == ()
    assert safe.steps[-1].stop_reason is StopReason.NO_GAIN
    # The plain answer is there already.
    assert safe.usage.forward_passes == harmed.usage.forward_passes - 1


def test_do_no_harm_lets_a_mask_that_helps_be() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper, saliency=bright_target())
    (free,), (careful,) = ask(vlm, configured(), TOTAL), ask(vlm, configured(do_no_harm=True), TOTAL)
    assert free.evidence == careful.evidence != ()


def test_patience_ends_a_search_that_no_longer_finds_better_masks() -> None:
    vlm = LitVlm(PAGE, TARGET, indifferent)
    found = find(vlm, steps=8, patience=3)
    # The first mask of all is better than none; then three steps without another.
    assert len(found.rewards) == 4
    assert found.steps[-1].stop_reason is StopReason.NO_GAIN
    assert found.chosen is not None


def test_a_search_without_any_gain_stops_after_its_first_step_when_asked_for() -> None:
    found = find(LitVlm(PAGE, TARGET, worse), stop_below=1e-3)
    assert len(found.rewards) == 1
    assert found.steps[-1].stop_reason is StopReason.NO_GAIN
    helped = find(LitVlm(PAGE, TARGET, sharper, saliency=bright_target()), stop_below=1e-3)
    assert (len(helped.rewards), helped.steps[-1].stop_reason) == (STEPS, StopReason.ROUNDS)


# -------------------------------------------------------------------------------------------------------- output formats


def rationale(lit: float) -> Sequence[str]:
    return ("I", " see", " it", ".", "\n", "Final", " answer", ":", " 12", ".50", ".")


def test_a_marked_answer_is_what_follows_the_marker() -> None:
    vlm = LitVlm(PAGE, TARGET, lambda number, lit, rest: 0.4 if number in {8, 9} else 0.9, pieces=rationale)
    (answer,) = ask(vlm, configured(answer_format="final-answer"), TOTAL)
    assert answer.text == "12.50."
    assert vlm.scored == ["I see it.\nFinal answer: not found", "not found"]
    assert answer.steps[0].token_entropy == pytest.approx(entropy(0.4))
    assert answer.signals.refusal_margin == pytest.approx(-0.25 - -3.0)


def test_a_marker_that_the_output_lacks_is_forced_behind_it() -> None:
    """One reading more and up to 32 tokens, for the baseline and for the answer; the span is what follows the marker."""
    after = (" 12", ".50", *[" and so on"] * 40)
    vlm = LitVlm(
        PAGE,
        TARGET,
        lambda number, lit, rest: 0.4 if number == 3 else 0.9,  # 3: the first token behind output and marker
        pieces=lambda lit: (" I see", " 12.50"),
        after=after,
    )
    (answer,) = ask(vlm, configured(answer_format="final-answer"), TOTAL)
    assert answer.text == "12.50" + " and so on" * 30
    tops = [0.4, *[0.9] * 31]
    assert answer.steps[0].token_entropy == pytest.approx(sum(map(entropy, tops)) / 32)
    passes = 2 + 1 + 1 + STEPS * GROUP + 1 + EXTRA + 2 + 2
    assert (answer.usage.forward_passes, answer.usage.decoded_tokens) == (passes, 2 * (2 + 32))


def test_an_output_that_leaves_even_a_forced_marker_empty_is_all_answer() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper, pieces=lambda lit: ("twelve", " fifty"), after=(" ",))
    (answer,) = ask(vlm, configured(answer_format="final-answer"), TOTAL)
    assert answer.text == "twelve fifty"


def test_a_marked_refusal_is_not_scored_against_itself() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper, pieces=lambda lit: ("Final answer:", " not", " found", "."))
    (answer,) = ask(vlm, configured(answer_format="final-answer"), TOTAL)
    assert (answer.text, answer.not_found, answer.signals.refusal_margin) == ("not found.", True, 0.0)
    assert not hasattr(vlm, "scored")


def test_a_marked_answer_is_asked_for_behind_the_common_words() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper)
    bare, marked = (SpotE(vlm, configured(answer_format=form)) for form in ("bare", "final-answer"))
    question = Question("c", "Which?", choices=("red", "blue"))
    assert marked.prompt(question).startswith(bare.prompt(question) + "\nThink briefly")
    assert marked.prompt(question).endswith("exactly: Final answer: <answer>")
    assert "(B) blue" in bare.prompt(question)


@pytest.mark.parametrize(("pieces", "ended", "length"), [(("12",), True, 2), (("12", "0"), False, 2), ((), True, 1)])
def test_the_end_token_is_scored_when_it_was_produced(pieces: Sequence[str], ended: bool, length: int) -> None:
    """An output cut short has none; an empty one consists of it."""
    found = find(LitVlm(PAGE, TARGET, sharper, pieces=lambda lit: pieces, ended=ended))
    assert len(found.baseline.entropies) == length
    assert found.baseline.span == (tuple(range(len(pieces))) or (0,))
    assert found.baseline.anchors == tuple(range(length))


# -------------------------------------------------------------------------------------------------------------- failures


def test_a_device_without_room_for_a_group_scores_its_halves() -> None:
    def crowded(prompts: Sequence[Prompt], graph: bool, forced: bool) -> MethodError | None:
        return OutOfMemory("no room") if len(prompts) > 2 else None

    roomy, tight = LitVlm(PAGE, TARGET, sharper), LitVlm(PAGE, TARGET, sharper, fails=crowded)
    (expected,), (found,) = ask(roomy, configured(crop_grid=2), TOTAL), ask(tight, configured(crop_grid=2), TOTAL)
    assert tight.batches == [1, *[2, 2] * STEPS, 1, 2]
    assert [step.token_entropy for step in found.steps] == [step.token_entropy for step in expected.steps]
    assert found.evidence == expected.evidence
    assert found.usage.forward_passes == expected.usage.forward_passes
    assert found.usage.vision_encodes > expected.usage.vision_encodes  # the groups that did not fit were encoded


def test_a_question_that_fails_carries_its_error_and_the_run_goes_on() -> None:
    def fails(prompts: Sequence[Prompt], graph: bool, forced: bool) -> MethodError | None:
        if "Too long" in prompts[0].text:
            return PromptTooLong("900 of 800 positions")
        return OutOfMemory("no room") if "date" in prompts[0].text and forced else None

    answers = ask(LitVlm(PAGE, TARGET, sharper, fails=fails), configured(), TOTAL, LONG, DATE, TOTAL)
    assert [answer.text for answer in answers] == ["12.50", None, None, "12.50"]
    assert [answer.failure and answer.failure.code for answer in answers] == [None, "prompt_too_long", "out_of_memory", None]
    assert (answers[1].evidence, answers[1].steps) == ((), ())
    # What the failed one had cost before it failed: the plain answer.
    assert cost(answers[2]) == Usage(1, 0, 0, TOKENS, 3)


def test_numbers_that_are_not_finite_fail_the_question() -> None:
    vlm = LitVlm(PAGE, TARGET, lambda number, lit, rest: 0.5 if lit == 1 else float("nan"))
    (answer,) = ask(vlm, configured(), TOTAL)
    assert answer.failure is not None
    assert answer.failure.code == "non_finite_saliency"


def test_what_the_pulse_raises_ends_the_search_between_batches() -> None:
    vlm = LitVlm(PAGE, TARGET, sharper)
    beats = iter(range(4))

    def pulse() -> None:
        if next(beats) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(answer_page(vlm, PAGE, [TOTAL], configured(), pulse))
    assert vlm.batches == [1, GROUP]


def test_spot_e_without_its_configuration_is_our_bug() -> None:
    with pytest.raises(InternalError, match="needs its own configuration"):
        SpotE(LitVlm(PAGE, TARGET, sharper), replace(configured(), search=None))
