"""Metrics over answers and regions, and their intervals. Pure numbers; each is checked by hand in its unit test.

Answers are compared as each benchmark's official script does (`text`, `choices`, `yes_no`, `mmmu`, `mathvista`); the pages
benchmark's as `pipeline.questions.normalise` leaves them or, for ANLS, in lower case. An unanswerable question has no
accepted answer and is right when the method says "not found".
"""

from pipeline.evaluation.metrics.boxes import (
    any_hit,
    best_iou,
    coverage,
    covered_hit,
    hit_at,
    intersection_area,
    pointing_hit,
    saliency_inside,
    union_area,
)
from pipeline.evaluation.metrics.certainty import auroc, calibration_error
from pipeline.evaluation.metrics.choices import (
    LETTERS,
    likeliest,
    named_option,
    nearest_option,
    rotations,
    shuffled,
)
from pipeline.evaluation.metrics.intervals import (
    RESAMPLES,
    Detection,
    Interval,
    bootstrap,
    bootstrap_difference,
    bootstrap_mean,
    gap_closed,
    mean,
    not_found_detection,
)
from pipeline.evaluation.metrics.text import (
    ANLS_TAU,
    anls,
    exact_match,
    levenshtein,
    normalise_vqa,
    relaxed_match,
    top_1,
    vqa_accuracy,
)
from pipeline.evaluation.metrics.yes_no import figures, says_yes

__all__ = [
    "ANLS_TAU",
    "LETTERS",
    "RESAMPLES",
    "Detection",
    "Interval",
    "anls",
    "any_hit",
    "auroc",
    "best_iou",
    "bootstrap",
    "bootstrap_difference",
    "bootstrap_mean",
    "calibration_error",
    "coverage",
    "covered_hit",
    "exact_match",
    "figures",
    "gap_closed",
    "hit_at",
    "intersection_area",
    "levenshtein",
    "likeliest",
    "mean",
    "named_option",
    "nearest_option",
    "normalise_vqa",
    "not_found_detection",
    "pointing_hit",
    "relaxed_match",
    "rotations",
    "saliency_inside",
    "says_yes",
    "shuffled",
    "top_1",
    "union_area",
    "vqa_accuracy",
]
