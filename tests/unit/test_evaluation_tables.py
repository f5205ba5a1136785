"""Tables laid out like the papers': every arm of the data file exists, figures stand where the papers print them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.config import SpotEConfig
from pipeline.errors import UsageError
from pipeline.evaluation.ablations import fits
from pipeline.evaluation.arms import parse_arm, with_preset
from pipeline.evaluation.command import DATASETS
from pipeline.evaluation.datasets import FORMATS
from pipeline.evaluation.disturb import KINDS, SEVERITIES
from pipeline.evaluation.results import DIGITS, Result
from pipeline.evaluation.tables import (
    GAIN,
    QUANTITIES,
    PaperTable,
    ablations,
    filled,
    numbered,
    paper_tables,
    prompt_of,
    render,
)
from pipeline.geometry import Box
from pipeline.records import Usage

FAMILIES = ("embedded", "llava", "llava_next", "internvl", "qwen2_5_vl")


def result(
    arm: str, example: str, right: bool, dataset: str = "pages", family: str = "embedded", **changes: object
) -> Result:
    score = float(right)
    scores = {"anls": score, "exact": score} if dataset == "pages" else {FORMATS[dataset].scoring.metric: score}
    fields: dict[str, object] = {
        "dataset": dataset, "split": "test", "benchmark": "b" * 16, "disturbance": "", "example": example, "group": "",
        "unit": example, "quality": "", "answerable": True, "model": "toy", "family": family, "weights": "c" * 16,
        "dtype": "float32", "arm": arm, "config": parse_arm(arm, family, prompt_of(dataset)).sha256[:DIGITS], "text": "x",
        "not_found": False, "failure": None, "page": 1, "page_wh": (100, 100), "truths": (Box(40, 40, 60, 60),),
        "places": 1, "regions": (Box(40, 40, 62, 62),) if right else (), "first_regions": (), "inside": None,
        "inside_area": None, "pointed": None, "rounds": 1, "stop": None, "margin": None, "certainty": None,
        "entropy": None, "spatial_entropy": None, "gradient_norm": None, "disruption": None,
        "usage": Usage(3, 1, seconds=2.0), "scores": scores,
    }  # fmt: skip
    return Result(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("table", paper_tables(), ids=lambda table: table.name)
def test_every_arm_and_column_exists(table: PaperTable) -> None:
    for family in FAMILIES:
        for arm in table.arms(family):
            assert parse_arm(arm, family).name in {arm, f"{arm}+eye=vlm", f"{arm}+eye=clip"}
    for column in table.columns:
        assert column.dataset in FORMATS
        assert column.quantity in {*QUANTITIES, GAIN}
        kind, _, severity = column.disturbance.rpartition("-")
        assert not column.disturbance or (kind in KINDS and 1 <= int(severity) <= SEVERITIES)
    for group in table.groups:
        assert all(len(row.figures) <= len(table.columns) for row in group.rows)


def test_the_papers_tables_are_numbered_one_to_nine() -> None:
    assert [numbered(number).source for number in range(1, 10)] == [
        f"arXiv:2604.08456v1, Table {number}" for number in range(1, 10)
    ]
    with pytest.raises(UsageError, match="--table 10: expected one of 1, 2, 3, 4, 5, 6, 7, 8, 9"):
        numbered(10)


def test_ablations_by_name() -> None:
    assert [table.name for table in ablations(["regions", "stopping"])] == ["regions", "stopping"]
    assert {f"spot-e-{part}" for part in ("reward", "spotlight", "anchors", "lambda", "group", "rate", "steps")} <= {
        table.name for table in ablations()
    }
    with pytest.raises(UsageError, match="unknown; known: stopping"):
        ablations(["stoping"])


def test_names_of_tables_and_arms_of_a_table_are_unique() -> None:
    names = [table.name for table in paper_tables()]
    assert len(set(names)) == len(names)
    for table in ablations():
        digests = [parse_arm(arm, "embedded").sha256 for arm in table.arms("embedded")]
        assert len(set(digests)) == len(digests), table.name


def test_figures_stand_where_the_paper_prints_them() -> None:
    one = numbered(1)
    llava = next(group for group in one.groups if group.family == "llava")
    grounded = next(row for row in llava.rows if row.arm == "entropy-gradient")
    figures = dict(zip([column.dataset for column in one.columns], grounded.figures, strict=False))
    assert figures["vstar"] == 56.02
    assert figures["infographicvqa"] == 22.33
    layers = {row.label: row.figures for row in numbered(5).groups[0].rows}
    assert layers["20"] == (88.84, 78.01, 62.68, 61.18)
    steps = next(table for table in paper_tables() if table.name == "spot-e-steps")
    assert steps.groups[0].rows[4].figures == (86.9, 70.8, 58.5, 2.41)


def test_ours_stand_beside_the_papers_and_other_models_below() -> None:
    found = [
        *(result("plain", f"q{n}", n < 1, "docvqa", "llava_next") for n in range(4)),
        *(result("entropy-gradient", f"q{n}", n < 3, "docvqa", "llava_next") for n in range(4)),
        *(result("plain", f"p{n}", n < 2) for n in range(4)),
        *(result("entropy-gradient", f"p{n}", True) for n in range(2)),
    ]
    text = render(numbered(2), found)
    first, *_ = [line for line in text.splitlines() if line.startswith("| LLaVA-1.6: paper / ours (toy cccccccc float32)")]
    assert "| base | 87.8 | 57.59 | 64.94 / 25.0 [" in first
    assert "| spatial entropy | 89.31 | 73.3 | 65.07 / 75.0 [" in text
    assert "| confidence | 89.07 | 70.16 | 64.26 |" in text  # no result of ours
    # Other models have no figures of the paper, and arms are compared on the questions that all of them answered.
    (own,) = [line for line in text.splitlines() if line.startswith("| toy cccccccc float32")]
    assert "57.59" not in own
    assert own.endswith("| 2 |")
    assert "100.0 [100.0, 100.0]" in own


def test_a_table_of_methods_shows_each_on_all_its_questions_and_its_gain_on_those_that_plain_answered() -> None:
    (methods,) = ablations(["methods"])
    found = [
        *(result("plain", f"q{n}", n < 2) for n in range(8)),
        *(result("entropy-gradient", f"q{n}", n < 4) for n in range(8)),
        *(result("spot-e", f"q{n}", n < 1) for n in range(2)),
    ]
    lines = {line.split(" | ")[1]: line.split(" | ") for line in render(methods, found).splitlines() if " | " in line}
    plain, ours, spot_e = (
        lines[name] for name in ("plain", "entropy gradient, document", "SPOT-E, the model's eye (eye: vlm)")
    )
    assert [line[-1].removesuffix(" |") for line in (plain, ours, spot_e)] == ["8", "8", "2"]
    assert [line[2].split()[0] for line in (plain, ours, spot_e)] == ["25.0", "50.0", "50.0"]
    assert [line[3].split()[0] for line in (ours, spot_e)] == ["25.0", "-50.0"]
    assert plain[3] == ""
    assert plain[9] == "3.00"  # forward passes, without an interval


def test_a_table_is_filled_when_half_of_its_lines_are() -> None:
    (regions,) = ablations(["regions"])  # five lines
    arms = ("plain", "entropy-gradient", "entropy-gradient+regions=1")
    found = [result(arm, "q", True) for arm in arms]
    assert filled(regions, found)
    assert not filled(regions, found[:2])


def test_a_table_without_results_is_the_papers() -> None:
    text = render(numbered(9), [])
    assert "LLaVA-1.6: paper |" in text
    assert "| 29 |" in text


def test_spot_e_says_whose_eye_it_looks_with() -> None:
    names = [parse_arm(arm, "embedded").name for arm in ("spot-e", "spot-e/paper", "spot-e+eye=vlm", "disruption+group=2")]
    assert names == ["spot-e+eye=vlm", "spot-e/paper+eye=clip", "spot-e+eye=vlm", "disruption+group=2+eye=vlm"]
    assert parse_arm(names[0], "embedded").sha256 == parse_arm("spot-e", "embedded").sha256
    (table,) = ablations(["hits"])
    assert "| SPOT-E (eye: vlm) |" in render(table, [result("spot-e", "q", True)])
    assert "ZoomEye" not in render(table, [result("spot-e", "q", True)])  # a line that says nothing
    (table,) = ablations(["spot-e-group"])
    assert "| 8 (paper's eye: clip) | 87 |" in render(table, [])
    own = render(table, [result("spot-e+group=8", "q", True, "pages", "qwen2_5_vl")])
    assert "| 8 (eye: vlm; paper's eye: clip) | 87 |" in own


def test_every_table_with_spot_e_has_its_control() -> None:
    for table in paper_tables():
        for group in table.groups:
            arms = [parse_arm(row.arm, "embedded") for row in group.rows if row.arm]
            tuned = {arm.config.search.update for arm in arms if isinstance(arm.config.search, SpotEConfig)}
            paper = any(row.arm.startswith("spot-e/paper") for row in group.rows)
            assert tuned in (set(), {True, False}) or paper, table.name


def test_two_builds_of_a_benchmark_are_not_mixed() -> None:
    found = [result("plain", f"q{n}", True) for n in range(3)] + [result("plain", "q9", False, benchmark="d" * 16)]
    assert "100.0 [100.0, 100.0]" in render(numbered(2), found)


def test_a_preset_is_for_the_methods_that_have_it() -> None:
    assert with_preset("entropy-gradient+regions=3", "paper") == "entropy-gradient/paper+regions=3"
    assert with_preset("entropy-gradient/official", "paper") == "entropy-gradient/official"
    assert [with_preset(arm, "paper") for arm in ("plain", "oracle-crop")] == ["plain", "oracle-crop"]
    assert with_preset("entropy-gradient", None) == "entropy-gradient"
    with pytest.raises(UsageError, match="--preset papre: unknown; known: paper, "):
        with_preset("plain", "papre")
    arm = parse_arm("entropy-gradient/paper", "embedded")
    ours = replace(result("plain", "q", True), arm=arm.name, config=arm.sha256[:DIGITS])
    assert "100.0" in render(numbered(3), [ours], "paper")
    assert "100.0" not in render(numbered(3), [ours])


def test_what_a_model_has_too_few_blocks_for_is_left_out() -> None:
    asked = [parse_arm(f"entropy-gradient+{key}", "embedded") for key in ("layer=5", "leaf=5", "leaf=4", "layer=6")]
    assert [fits(arm, 5) for arm in asked] == [True, False, True, False]
    assert fits(parse_arm("plain", "embedded"), 1)
    assert [fits(parse_arm(f"vicrop+block=3+variant={variant}", "llava"), 3) for variant in ("rel-att", "pure-grad")] == [
        False,
        True,
    ]


def test_the_command_lists_the_datasets_that_there_are() -> None:
    assert set(DATASETS) == set(FORMATS)
