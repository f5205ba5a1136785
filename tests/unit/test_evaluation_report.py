"""Tables from results whose scores are known by hand; thresholds and regions chosen on the validation part."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RegionConfig, SaliencyConfig
from pipeline.errors import UsageError
from pipeline.evaluation import fit, metrics
from pipeline.evaluation.metrics import Interval
from pipeline.evaluation.pages import Benchmark, Item, Truth
from pipeline.evaluation.report import LARGE, Row, Scores, as_csv, difference, gap, markdown, others, quantities, score
from pipeline.evaluation.results import Result
from pipeline.geometry import Box, PatchGrid
from pipeline.records import Question, SaliencyMap, Usage, View
from tests.fakes import coordinate_page

TRUTH = Box(40, 40, 60, 60)
NEAR, FAR = Box(40, 40, 62, 62), Box(0, 0, 20, 20)  # 4.84 % and 4 % of a page of 100 x 100


@dataclass(frozen=True)
class Asked:
    """A question: its id, accepted answers and the page of its true box."""

    example: str
    group: str
    split: str
    answers: tuple[str, ...]
    page: int


def item(number: int, *answers: str, split: str = "test", group: str = "field", page: int = 1) -> Asked:
    return Asked(f"{split}/{group}/{number}", group, split, answers, page)


def scores_of(asked: Asked, text: str | None) -> dict[str, float]:
    if not asked.answers or text is None:
        due = float(not asked.answers and text is None)
        return {"anls": due, "exact": due}
    return {"anls": metrics.anls(text, asked.answers), "exact": float(metrics.exact_match(text, asked.answers))}


def result(asked: Asked, text: str | None, *regions: Box, arm: str = "a", **changes: object) -> Result:
    failed = changes.get("failure") is not None
    fields: dict[str, object] = {
        "dataset": "pages", "split": asked.split, "benchmark": "b" * 16, "disturbance": "", "example": asked.example,
        "group": asked.group, "unit": asked.example, "quality": "clean", "answerable": bool(asked.answers),
        "model": "toy", "family": "toy", "weights": "c" * 16, "dtype": "float32", "arm": arm, "config": arm,
        "text": text, "not_found": text is None, "failure": None, "page": 1, "page_wh": (100, 100),
        "truths": (TRUTH,) if asked.answers and asked.page == 1 else (), "places": len(asked.answers[:1]),
        "regions": regions, "first_regions": regions, "inside": None, "inside_area": None, "pointed": None, "rounds": 1,
        "stop": None, "margin": None, "certainty": -0.1, "entropy": 0.1, "spatial_entropy": None, "gradient_norm": 1.0,
        "disruption": None,
        "usage": Usage(3, 1, seconds=2.0),
        "scores": {"anls": 0.0, "exact": 0.0} if failed else scores_of(asked, text),
    }  # fmt: skip
    return Result(**(fields | changes))  # type: ignore[arg-type]


def row(asked: Asked, text: str | None, *regions: Box, **changes: object) -> Row:
    return Row(result(asked, text, *regions, **changes))  # type: ignore[arg-type]


def value(found: Interval | None) -> float:
    assert found is not None
    return found.value


@pytest.fixture
def scores() -> Scores:
    """Right and hit; nearly right and a miss; refused though there; refused for good reason; answered though absent."""
    there = [item(number, "total") for number in range(3)]
    absent = [item(number, group="not-found") for number in range(2)]
    return Scores(
        [
            row(there[0], "Total", NEAR, inside=0.4, inside_area=0.04, pointed=True),
            row(there[1], "totol", FAR, NEAR, inside=0.0, inside_area=0.04, pointed=False),
            row(there[2], None),
            row(absent[0], None, FAR),
            row(absent[1], "total"),
        ]
    )


def test_answers(scores: Scores) -> None:
    assert [row.score for row in scores.rows] == [1.0, 0.8, 0.0, 1.0, 0.0]
    assert value(scores.score()) == pytest.approx(2.8 / 5)
    assert value(scores.right()) == pytest.approx(2 / 5)
    assert value(scores.wrong_answers()) == pytest.approx(2 / 3)
    refusals = scores.refusals()
    assert (refusals.precision, refusals.recall, refusals.f1) == (0.5, 0.5, 0.5)
    assert (scores.spent("seconds"), scores.spent("forward_passes")) == (2.0, 3.0)


def test_places(scores: Scores) -> None:
    assert len(scores.located) == 3  # questions with a true box
    assert value(scores.hits(LARGE)) == pytest.approx(1 / 3)
    assert value(scores.hits(0.02)) == 0.0
    assert value(scores.any_hits()) == pytest.approx(2 / 3)
    assert value(scores.pointing()) == 0.5
    assert value(scores.lift()) == pytest.approx(0.2 / 0.04)
    assert value(scores.iou()) == pytest.approx(400 / 484 / 3)
    assert value(scores.coverage()) == pytest.approx(2 / 3)
    assert scores.median_shown() == pytest.approx(0.0484)
    assert value(scores.right_given(hit=True)) == 1.0
    assert value(scores.right_given(hit=False)) == 0.0


def test_certainty_is_measured_on_answers_that_were_given() -> None:
    asked = [item(number, "ab") for number in range(4)]
    texts = {"ab": -0.1, "xy": -2.0}
    rows = [row(one, text, certainty=certainty) for one, (text, certainty) in zip(asked, [*texts.items()] * 2, strict=True)]
    arm = Scores([*rows, row(item(9), None, certainty=-0.01)])
    certainty, right = arm.certainties
    assert certainty.tolist() == [-0.1, -0.1, -2.0, -2.0]
    assert right.tolist() == [True, True, False, False]
    report = markdown({"a": arm})
    line = next(part for part in report.split("### Certainty")[1].splitlines() if part.startswith("| a |"))
    assert [cell.strip() for cell in line.split("|")[2:4]] == ["4", f"{(np.exp(-0.1) + np.exp(-2)) / 2:.2f}"]
    assert "| 1.00 | -0.100 |" in line  # AUROC, and from where the surer half is


def test_another_page_is_no_hit() -> None:
    assert not row(item(0, "total", page=2), "total", NEAR).hit(LARGE)


def test_a_failed_question_is_wrong() -> None:
    for asked in (item(0, "total"), item(0)):
        failed = row(asked, None, not_found=False, failure="out_of_memory", page=None, page_wh=None)
        assert (failed.score, failed.right, failed.shown) == (0.0, False, 0.0)


def arm_of(items: list[Asked], texts: list[str], name: str) -> Scores:
    return Scores(row(asked, text, arm=name) for asked, text in zip(items, texts, strict=True))


def test_gap_and_difference_are_paired() -> None:
    items = [item(number, "total") for number in range(4)]
    plain = arm_of(items, ["total", "x", "x", "x"], "plain")
    grounded = arm_of(items, ["total", "total", "x", "x"], "g")
    oracle = arm_of(items[:3], ["total", "total", "total"], "oracle-crop")
    # On the three common questions: 1/3, 2/3 and 1.
    assert value(gap(plain, grounded, oracle)) == pytest.approx(0.5)
    against = difference(grounded, plain)
    assert against is not None
    assert against.difference.value == pytest.approx(0.25)
    assert (against.test.wins, against.test.losses, against.test.p) == (1, 0, 1.0)
    assert gap(plain, grounded, plain) is None


def test_an_official_aggregate_that_is_no_mean_is_resampled_by_units() -> None:
    # Two questions a unit: the interval of four wrong-right pairs has no width, that of eight questions would have one.
    rows = [row(item(number, "total"), "total" if number % 2 else "x", unit=f"unit-{number // 2}") for number in range(8)]
    found = Scores(rows).score()
    assert found is not None
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_the_report_names_digests_and_every_arm_and_group(scores: Scores) -> None:
    stray = [
        result(item(9, "other"), "other"),
        result(item(0, "total"), "of an older preset", config="older"),
        result(item(0, "total"), "of an arm not wanted", config="z"),
    ]
    wanted = [row.result.example for row in scores.rows]
    found = score([*(row.result for row in scores.rows), *stray], {"none": "none", "renamed": "a"}, wanted)
    assert list(found) == ["renamed"]
    text = markdown(found, ["Cold start: 1 s."])
    assert "b" * 16 in text
    assert "c" * 16 in text
    assert "- Cold start: 1 s." in text
    assert "| renamed | 5 | 0.56 [" in text
    for heading in ("### Answers", "### Cost of a question", "### Places", "### Score / exact match by group"):
        assert heading in text
    assert "| not-found | 2 |" in text


def test_every_row_of_a_table_is_as_long_as_its_header(scores: Scores) -> None:
    plain = Scores(row(item(number, "total"), "total", arm="plain") for number in range(3))
    for line in markdown({"plain": plain, "a": scores}).split("\n\n"):
        if line.startswith("|"):
            assert len({cells.count("|") for cells in line.strip().split("\n")}) == 1


def test_the_csv_holds_every_figure_in_full(scores: Scores) -> None:
    plain = arm_of([item(0, "total"), item(1, "total")], ["x", "total"], "plain")
    lines = list(csv.DictReader(io.StringIO(as_csv({"plain": plain, "a": scores}))))
    figures = {line["quantity"]: line for line in lines if line["arm"] == "a"}
    assert float(figures["score"]["value"]) == pytest.approx(0.56)
    assert float(figures["score"]["low"]) < 0.56 < float(figures["score"]["high"])
    assert (figures["wins over plain"]["value"], figures["losses to plain"]["value"]) == ("1.0", "1.0")
    assert figures["mean forward_passes"]["value"] == "3.0"
    assert {name for name, _, found in quantities(scores, plain) if found is not None} == set(figures)


def test_arms_are_compared_with_each_other_too() -> None:
    """Worked by hand: b is right where a is wrong twice, never the other way round; all three differences times Holm's."""
    items = [item(number, "total") for number in range(4)]
    said = {"plain": "xxxx", "a": "txxx", "b": "tttx", "c": "xxxx"}
    arms = {name: arm_of(items, ["total" if c == "t" else "x" for c in text], name) for name, text in said.items()}
    compared = {(a, b): (found.test.wins, found.test.losses, found.test.p) for a, b, found in others(arms)}
    assert compared == {("a", "b"): (0, 2, 0.5), ("a", "c"): (1, 0, 1.0), ("b", "c"): (3, 0, 0.25)}
    text = markdown(arms)
    assert "| b - c | 4 | +0.75 [" in text
    assert "| 3 : 0 | 0.250 | 0.750 |" in text
    lines = list(csv.DictReader(io.StringIO(as_csv(arms))))
    (raw,) = (line for line in lines if (line["arm"], line["quantity"]) == ("b", "McNemar's p against c"))
    assert float(raw["value"]) == 0.25
    del arms["plain"]  # without plain there are no columns for it, but every pair
    assert len(others(arms)) == 3
    assert "| a - b | 4 | -0.50 [" in markdown(arms)


def test_each_dtype_is_compared_with_its_own_plain() -> None:
    asked = [item(number, "total") for number in range(2)]
    answers = {("plain", "float32"): "x", ("a", "float32"): "total", ("plain", "bfloat16"): "total", ("a", "bfloat16"): "x"}
    rows = [result(one, said, arm=arm, dtype=dtype) for one in asked for (arm, dtype), said in answers.items()]
    text = markdown(score(rows, {"plain": "plain", "a": "a"})).split("### Certainty")[0]
    lines = {line.split(" | ")[0]: line.split(" | ") for line in text.splitlines() if line.count(" | ") > 8}
    assert lines["| a (float32)"][5] == "2 : 0"
    assert lines["| a (bfloat16)"][5] == "0 : 2"


def test_an_arm_run_in_two_dtypes_is_two_rows(scores: Scores) -> None:
    both = [*(row.result for row in scores.rows), result(item(0, "total"), "total", dtype="bfloat16")]
    found = score(both, {"a": "a"})
    assert {name: len(arm.rows) for name, arm in found.items()} == {"a (float32)": 5, "a (bfloat16)": 1}


def test_a_threshold_weighs_refusals_against_answers() -> None:
    # Margins of answers to what is absent lie below those of right answers, but for one.
    there = [item(number, "total", split="validation") for number in range(3)]
    absent = [item(number, split="validation", group="not-found") for number in range(3)]
    rows = [
        *(row(asked, "total", margin=margin) for asked, margin in zip(there, (0.5, 2.0, 3.0), strict=True)),
        *(row(asked, "x", margin=margin) for asked, margin in zip(absent, (0.1, 0.2, 2.5), strict=True)),
    ]
    best, *others, words = fit.fit_refusals(rows)
    assert words.margin is None
    assert words.anls == pytest.approx(3 / 6)
    assert best.margin is not None
    assert 0.2 < best.margin <= 0.5
    assert best.anls == pytest.approx(5 / 6)
    assert best.detection.precision == 1.0
    assert best.detection.recall == pytest.approx(2 / 3)
    assert others
    assert "| words |" in fit.refusals_table([best, *others, words])


def a_question() -> Item:
    return Item("test", "field", "clean", "one.png", Question("test/field/0", "?"), ("total",), (Truth(1, TRUTH),))


def test_nothing_is_chosen_on_the_test_part() -> None:
    with pytest.raises(UsageError, match="validation"):
        fit.fit_refusals([row(item(0, "total"), "total", margin=1.0)])
    with pytest.raises(UsageError, match="validation"):
        fit.fit_regions(None, Benchmark(Path(), "", (a_question(),)), [], [])  # type: ignore[arg-type]


def test_regions_are_measured_on_the_map() -> None:
    values = np.zeros((10, 10))
    values[4:6, 4:6] = 1.0  # the truth's four cells of 10 x 10 px
    view = View.whole(coordinate_page(100, 100))
    look = fit.Look(a_question(), SaliencyMap(view, PatchGrid(10, 10, 0, 0, 100, 100), values), (TRUTH,))
    sharp = RegionConfig(sigma_rows=0, sigma_cols=0, mask="above")
    wide = RegionConfig(sigma_rows=0, sigma_cols=0, mask="above", margin_rows=1, margin_cols=1)
    one, other = (fit._measure(SaliencyConfig(), config, [look]) for config in (sharp, wide))
    assert (one.large, one.small, one.together) == (1.0, 0.0, 1.0)  # 4 % of the page
    assert one.lift == pytest.approx(25.0)
    assert one.area == pytest.approx(0.04)
    assert (other.large, other.together) == (0.0, 0.0)  # 16 %
    assert one.worth > other.worth
    assert "| entropy | 0 | 0, 0 | elbow | 0, 0 | 1.000 |" in fit.regions_table([one, other])


def test_the_command_needs_no_torch_until_it_runs() -> None:
    code = "import sys, pipeline.evaluation.command; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
