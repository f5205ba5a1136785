"""Figures that compare right with wrong take their questions from results; a tiny model draws them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.evaluation.arms import REFERENCE
from pipeline.evaluation.figures import Studio, figure
from pipeline.evaluation.results import DIGITS, Result
from pipeline.evaluation.selection import Wanted, select
from pipeline.geometry import Box
from tests.fakes import ToyVlm
from tests.official_folders import picture
from tests.unit.test_evaluation_tables import result

ATTENTION = "vicrop+block=1"
"""Of a model of two blocks."""
TRUTH, ELSEWHERE = Box(20, 40, 60, 52), Box(100, 80, 130, 100)
NEAR = Box(18, 38, 62, 54)
"""704 px of a page of 160 x 120: 3.7 %."""
FIRST = [0, 1, 2]
"""Whose turn it is where no result decides: every question is of a task of its own."""
UNCHOSEN = "The first questions of different tasks, not chosen by results."


pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """Six questions about a page, all but the last with a true box."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "one.png").write_bytes(picture("R2011", "PNG"))
    record = {"part": "test", "quality": "clean", "document": "one.png", "type": "text", "choices": [], "answerable": True}
    lines = [
        record
        | {"id": f"q{number}", "task": f"task-{number}", "question": f"Number {number}?", "answers": ["R2011"]}
        | {"evidence": [{"page": 1, "box": list(TRUTH.xyxy)}] * (number < 5)}
        for number in range(6)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    vlm: Any = ToyVlm()
    return Studio(select("pages", folder, None, Wanted()), [vlm])


def answered(studio: Studio, arm: str, number: int, right: bool, *regions: Box, **changes: Any) -> Result:
    model = studio.vlm.identity
    asked = {"benchmark": studio.selection.sha256[:DIGITS], "weights": model.weights_sha256[:DIGITS], "dtype": model.dtype}
    page = {"page_wh": (160, 120), "truths": (TRUTH,), "regions": regions, "first_regions": regions}
    return result(arm, f"q{number}", right, family="toy", **(asked | page | changes))


def draw(studio: Studio, number: int, results: Sequence[Result]) -> str:
    return figure(number, replace(studio, results=results))


def told(drawing: str) -> str:
    return " ".join(" ".join(ElementTree.fromstring(drawing).itertext()).split())


def drawn(drawing: str) -> list[int]:
    """The questions of a figure, in order."""
    return [int(number) for number in re.findall(r"Q: Number (\d+)\?", told(drawing))]


def apart(studio: Studio, **changes: Any) -> list[Result]:
    """Only ours is right of one with a true box, of one without, and of one that attention was not asked."""
    rights = {0: (True, True), 1: (False, False), 2: (False, True), 4: (True, False), 5: (True, False)}
    ours = [answered(studio, REFERENCE, number, right, **changes) for number, (right, _) in rights.items()]
    theirs = [answered(studio, ATTENTION, number, right, **changes) for number, (_, right) in rights.items()]
    return [*ours, answered(studio, REFERENCE, 3, True, **changes), *theirs]


def test_attention_and_gradient_are_compared_where_only_the_gradient_is_right(studio: Studio) -> None:
    drawing = draw(studio, 3, apart(studio))
    assert drawn(drawing) == [4]
    assert "Questions chosen by results: only ours is right. " in told(drawing)
    assert "n = 1 questions of benchmark" in told(drawing)
    assert UNCHOSEN not in told(drawing)


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "f" * 16},
        {"dtype": "bfloat16"},
        {"config": "f" * 16},
        {"disturbance": "noise-2"},
        {"benchmark": "f" * 16},
    ],
    ids=str,
)
def test_results_of_another_model_configuration_or_document_choose_nothing(studio: Studio, other: dict[str, str]) -> None:
    drawing = draw(studio, 3, apart(studio, **other))
    assert drawn(drawing) == FIRST
    assert UNCHOSEN in told(drawing)


def test_what_is_misread_was_found_and_answered_wrongly(studio: Studio) -> None:
    whole = Box(0, 0, 160, 120)
    results = [
        answered(studio, REFERENCE, 0, True, NEAR),
        answered(studio, REFERENCE, 1, False, ELSEWHERE, NEAR),  # found second
        answered(studio, REFERENCE, 2, False, whole),  # no hit: all of the page holds the true box
        answered(studio, REFERENCE, 3, False, NEAR),
        answered(studio, "plain", 4, False, NEAR),
    ]
    drawing = draw(studio, 13, results)
    assert drawn(drawing) == [3]
    assert "Questions chosen by results: hit, and wrong. " in told(drawing)
    others = draw(studio, 13, results[:3])
    assert drawn(others) == FIRST
    assert UNCHOSEN in told(others)


def test_three_questions_are_drawn_of_more_that_fit(studio: Studio) -> None:
    misread = [answered(studio, REFERENCE, number, False, NEAR) for number in (4, 3, 2, 1)]
    assert drawn(draw(studio, 13, misread)) == [1, 2, 3]


REFINED = {"rounds": 2}
LATE = {"first_regions": (ELSEWHERE,)}
SEVERAL = {"truths": (TRUTH, ELSEWHERE), "places": 2}


def test_each_kind_of_refinement_has_a_question_of_its_own(studio: Studio) -> None:
    results = [
        answered(studio, REFERENCE, 0, True, NEAR),  # found at once, and that was all
        answered(studio, REFERENCE, 1, True, NEAR, ELSEWHERE, **REFINED, **SEVERAL),
        answered(studio, REFERENCE, 2, False, ELSEWHERE, **REFINED),  # never found
        answered(studio, REFERENCE, 3, True, NEAR, ELSEWHERE, **SEVERAL),
        answered(studio, REFERENCE, 4, True, NEAR, **LATE, **REFINED),
    ]
    drawing = draw(studio, 5, results)
    # The second could stand for several places too, but stands for another kind already.
    assert drawn(drawing) == [1, 4, 3]
    kinds = ("found at once, then refined", "a wrong start, then found", "several places")
    assert "; ".join(f"{kind}: chosen by results" for kind in kinds) in told(drawing)


def test_a_kind_of_refinement_without_a_result_says_so(studio: Studio) -> None:
    results = [
        answered(studio, REFERENCE, 3, True, NEAR, **REFINED, **SEVERAL),  # one place of two is not shown
        answered(studio, REFERENCE, 4, True, NEAR, **LATE, **REFINED),
    ]
    drawing = draw(studio, 5, results)
    assert drawn(drawing) == [0, 4, 1]
    assert "found at once, then refined: no such result, another question; a wrong start, then found: chosen" in told(
        drawing
    )
    assert "several places: no such result, another question." in told(drawing)
