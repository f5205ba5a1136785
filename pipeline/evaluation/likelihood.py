"""Multiple choice by the likelihood of the options, which are not shown: V*Bench's own protocol.

What an arm looks for and where is left as it is; what it then shows (the page and the crops behind its answer, the page as
a spotlight leaves it, tiles, a smaller page) is asked the bare question, and each option is scored as the reply. The
likeliest, by mean log-probability per token, is the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from pipeline.evaluation.arms import Arm, Shown, answer_examples, scaled, tile_boxes
from pipeline.evaluation.datasets import Example
from pipeline.evaluation.metrics import LETTERS, likeliest
from pipeline.records import Answer, Page, Usage, View
from pipeline.vlms.base import Prompt, VisualTokens, Vlm
from pipeline.zoom import EncodedPage


def answer_by_likelihood(vlm: Vlm, page: Page, example: Example, arm: Arm, reference: Callable[[Example], Shown]) -> Answer:
    """Answer with the letter of the likeliest option, given the views that the arm's own answer rests on.

    Raises:
        MethodError: The search failed, the page could not be encoded, or the prompt is too long.
    """
    started, before = time.perf_counter(), vlm.usage
    bare = replace(example, question=replace(example.question, choices=()))
    asked = arm.asked("verbatim")
    try:
        found, views = _lit(vlm, page, bare, asked) if _is_spotlight(arm) else _shown(vlm, page, bare, asked, reference)
        if found.failure is not None:
            return replace(found, question=example.question)
        choices = example.question.choices
        scores = vlm.score([Prompt(views, example.question.text)] * len(choices), choices)
    finally:
        vlm.forget()
    letter = LETTERS[likeliest([score.mean_logprob for score in scores])]
    usage = vlm.usage - before + Usage(seconds=time.perf_counter() - started)
    return replace(found, question=example.question, text=letter, not_found=False, usage=usage)


def _is_spotlight(arm: Arm) -> bool:
    return arm.config.method == "spot-e"


def _lit(vlm: Vlm, page: Page, example: Example, arm: Arm) -> tuple[Answer, tuple[VisualTokens, ...]]:
    """SPOT-E's answer and the page that it chose."""
    from pipeline.methods.spot_e.method import SpotE

    view = View.whole(page)
    (tokens,) = vlm.encode([view.image])
    found, lit = SpotE(vlm, arm.config).lit(EncodedPage(view, tokens), example.question)
    return found, (lit,)


def _shown(
    vlm: Vlm, page: Page, example: Example, arm: Arm, reference: Callable[[Example], Shown]
) -> tuple[Answer, tuple[VisualTokens, ...]]:
    """An arm's answer; the page and the crops behind it, or the page's tiles."""
    (found,) = answer_examples(vlm, page, [example], arm, reference)
    whole = vlm.encode([scaled(page, arm.long_side_px).image])
    boxes = tuple(evidence.box for evidence in found.evidence)
    if arm.control == "plain-tiles":
        boxes, whole = tile_boxes(vlm, EncodedPage(View.whole(page), whole[0]), reference(example)), []
    crops = vlm.encode([View(page, box).image for box in boxes], crops=True) if boxes else []
    return found, (*whole, *crops)
