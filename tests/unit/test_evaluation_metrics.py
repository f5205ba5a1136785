"""Each metric against a case worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation import metrics
from pipeline.geometry import Box, PatchGrid

PAGE_AREA = 100 * 100


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("ab", "ba", 2)],
)
def test_levenshtein(one: str, other: str, distance: int) -> None:
    assert metrics.levenshtein(one, other) == metrics.levenshtein(other, one) == distance


@pytest.mark.parametrize(
    ("prediction", "accepted", "score"),
    [
        ("$1,575.00", ["$1,575.00"], 1.0),
        ("  Grand   TOTAL ", ["grand total"], 1.0),  # case and white space do not count
        ("kitten", ["sitting", "kitchen"], 1 - 2 / 7),  # kit(t>ch)en: two edits of seven; the better answer counts
        ("ab", ["ax"], 0.5),  # exactly tau counts
        ("abc", ["axy"], 0.0),  # one third is below tau
        ("anything", [], 0.0),
        ("", [""], 1.0),
    ],
)
def test_anls(prediction: str, accepted: list[str], score: float) -> None:
    assert metrics.anls(prediction, accepted) == pytest.approx(score)


def test_exact_match_forgives_case_space_and_outer_punctuation_only() -> None:
    assert metrics.exact_match(" Total  due: ", ["total due"])
    assert metrics.exact_match('"Yes".', ["no", "yes"])
    assert not metrics.exact_match("1,575", ["1575"])


def test_not_found_detection() -> None:
    # Four refusals, three of them due; five questions without an answer.
    refused = [True, True, True, True, False, False, False]
    absent = [True, True, True, False, True, True, False]
    found = metrics.not_found_detection(refused, absent)
    assert (found.precision, found.recall) == (3 / 4, 3 / 5)
    assert found.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))


def test_not_found_detection_of_nothing_is_undefined_not_zero() -> None:
    assert metrics.not_found_detection([False], [False]) == metrics.Detection(None, None, None)
    assert metrics.not_found_detection([False], [True]) == metrics.Detection(None, 0.0, 0.0)


def test_a_hit_needs_the_centre_inside_the_first_region_and_a_small_region() -> None:
    truth = Box(40, 40, 60, 50)  # centre (50, 45)
    small = Box(45, 40, 65, 60)  # 20 x 20 px: 4 % of the page
    assert metrics.hit_at([small], [truth], PAGE_AREA, 0.05)
    assert not metrics.hit_at([small], [truth], PAGE_AREA, 0.02)  # too large
    assert not metrics.hit_at([Box(0, 0, 10, 10), small], [truth], PAGE_AREA, 0.05)  # only the first counts
    assert not metrics.hit_at([Box(51, 40, 71, 60)], [truth], PAGE_AREA, 0.05)  # overlaps, but not the centre
    assert not metrics.hit_at([], [truth], PAGE_AREA, 0.05)


def test_any_hit_wants_every_true_box_covered_by_regions_that_are_small_together() -> None:
    truths = [Box(10, 10, 20, 20), Box(80, 80, 90, 90)]
    first, second = Box(5, 5, 25, 25), Box(75, 75, 95, 95)  # 400 px each, apart: 8 %
    assert metrics.any_hit([first, second], truths, PAGE_AREA, 0.15)
    assert not metrics.any_hit([first], truths, PAGE_AREA, 0.15)
    assert not metrics.any_hit([first, second], truths, PAGE_AREA, 0.07)
    assert metrics.any_hit([first, first, second], truths, PAGE_AREA, 0.08)  # a box shown twice is shown once
    assert not metrics.any_hit([first], [], PAGE_AREA, 0.15)


def test_union_area_counts_overlaps_once() -> None:
    assert metrics.union_area([Box(0, 0, 10, 10), Box(5, 5, 15, 15)]) == 175
    assert metrics.union_area([Box(0, 0, 10, 10), Box(2, 2, 4, 4)]) == 100


def test_iou_is_the_first_regions_with_its_best_true_box() -> None:
    # 10 x 10 and 10 x 10 shifted by 5 in x: 50 shared of 150.
    assert metrics.best_iou([Box(0, 0, 10, 10)], [Box(5, 0, 15, 10), Box(90, 90, 99, 99)]) == pytest.approx(1 / 3)
    assert metrics.best_iou([], [Box(0, 0, 1, 1)]) == 0.0


def test_saliency_inside_counts_cut_cells_by_their_part() -> None:
    grid = PatchGrid(2, 2, 0, 0, 20, 20)  # cells of 10 x 10
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    # The upper left cell whole and half of the upper right one: (1 + 1) of 10, on 1.5 of 4 cells.
    assert metrics.saliency_inside(values, grid, [Box(0, 0, 15, 10)]) == (pytest.approx(0.2), pytest.approx(0.375))
    # The same box twice is one place.
    assert metrics.saliency_inside(values, grid, [Box(0, 0, 15, 10)] * 2)[1] == pytest.approx(0.375)
    assert metrics.saliency_inside(np.zeros((2, 2)), grid, [Box(0, 0, 20, 20)]) == (0.0, 1.0)


def test_gap_closed() -> None:
    assert metrics.gap_closed(0.4, 0.7, 0.8) == pytest.approx(0.75)
    assert metrics.gap_closed(0.5, 0.6, 0.5) is None


def test_bootstrap_of_equal_values_has_no_width_and_of_none_is_none() -> None:
    assert metrics.bootstrap_mean([0.25] * 10) == metrics.Interval(0.25, 0.25, 0.25)
    assert metrics.bootstrap_mean([]) is None


def test_bootstrap_interval_is_near_the_normal_one_and_repeats() -> None:
    values = [1.0] * 280 + [0.0] * 120
    found = metrics.bootstrap_mean(values)
    assert found is not None
    # sqrt(0.7 * 0.3 / 400) = 0.0229; 1.96 of it is 0.045.
    assert found.value == 0.7
    assert found.low == pytest.approx(0.655, abs=0.01)
    assert found.high == pytest.approx(0.745, abs=0.01)
    assert found == metrics.bootstrap_mean(values)
    assert found != metrics.bootstrap_mean(values, seed=1)


def test_a_paired_difference_is_narrower_than_the_arms() -> None:
    theirs = [0.0, 1.0] * 50
    ours = [1.0 if number < 4 else value for number, value in enumerate(theirs)]  # two of a hundred better
    found = metrics.bootstrap_difference(ours, theirs)
    assert found is not None
    assert found.value == pytest.approx(0.02)
    assert found.low >= 0.0
    assert found.high <= 0.06
    with pytest.raises(ValueError, match="3 and 2"):
        metrics.bootstrap_difference([1, 2, 3], [1, 2])


def test_resamples_where_the_statistic_is_undefined_are_left_out() -> None:
    refused, absent = np.array([True, False, True]), np.array([True, False, False])
    found = metrics.bootstrap(3, lambda rows: metrics.not_found_detection(refused[rows], absent[rows]).f1)
    assert found is not None
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == (0.0, 1.0)


def test_calibration_error_by_hand() -> None:
    # Bins (0.1, 0.2], (0.8, 0.9]: half the answers claim 0.2 and none is right, half 0.9 and all are.
    assert metrics.calibration_error([0.2, 0.2, 0.9, 0.9], [False, False, True, True]) == pytest.approx(0.15)
    assert metrics.calibration_error([0.0, 1.0], [False, True]) == 0.0
    # Within a bin what is claimed too much makes up for what is claimed too little.
    assert metrics.calibration_error([0.5, 0.45], [True, False]) == pytest.approx(0.025)
    assert metrics.calibration_error([], []) is None


def test_auroc_by_hand() -> None:
    assert metrics.auroc([3, 2, 1], [True, True, False]) == 1.0
    assert metrics.auroc([3, 2, 1], [False, True, True]) == 0.0
    assert metrics.auroc([1, 1, 2, 0], [True, False, True, False]) == pytest.approx(3.5 / 4)
    assert metrics.auroc([1, 2], [True, True]) is None
