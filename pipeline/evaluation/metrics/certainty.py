"""Whether an answer's certainty tells that it is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

BINS = 10


def calibration_error(probabilities: Sequence[float] | np.ndarray, right: Sequence[bool] | np.ndarray) -> float | None:
    """Expected calibration error: mean distance of a bin's probability from its share of right answers, by its size.

    Ten bins of equal width (Guo et al. 2017, arXiv:1706.04599, Eq. 3); None without answers.
    """
    claimed, hits = np.asarray(probabilities, float), np.asarray(right, float)
    if not len(claimed):
        return None
    # A bin is half-open at its lower end, as in the paper; what is exactly 0 joins the first.
    bins = np.clip(np.ceil(claimed * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, claimed - hits, BINS)
    return float(np.abs(gaps).sum() / len(claimed))


def auroc(values: Sequence[float] | np.ndarray, right: Sequence[bool] | np.ndarray) -> float | None:
    """Probability that a right answer has the larger value than a wrong one, ties counting half; None without either."""
    hits = np.asarray(right, bool)
    positives, negatives = int(hits.sum()), int((~hits).sum())
    if not positives or not negatives:
        return None
    ranks = rankdata(np.asarray(values, float))
    return float((ranks[hits].sum() - positives * (positives + 1) / 2) / (positives * negatives))
