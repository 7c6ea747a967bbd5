"""How far two distributions are apart: the population stability index, with NumPy only.

Siddiqi, "Credit Risk Scorecards" (2006), whose rule of thumb is that below 0.1 there is no change
to speak of, from 0.1 to 0.25 a small one, and above 0.25 one to look into. Yurdakul, "Statistical
Properties of Population Stability Index" (2018), says what it is of samples of one distribution.
"""

from __future__ import annotations

import numpy as np

_DEVIATIONS = 4  # of a normal distribution, which exceeds them once in some 30,000 times


def stability_index(counts: np.ndarray, reference: np.ndarray) -> float:
    """The population stability index, `sum((p - q) * log(p / q))` over bins.

    Empty bins: one that is empty in both counts nothing, and one that is empty in one of them is
    taken for half a count there, so that the logarithm exists.

    Args:
        counts: Integer array of shape `(..., bins)`.
        reference: Integer array of shape `(..., bins)`.

    Returns:
        Float, 0 or greater: the largest of those along the last axis. NaN where either counts
        nothing at all.

    Example:

    ```python
    stability_index(np.array([30, 70]), np.array([50, 50]))  # 0.169: 0.2 * log(0.7 / 0.3)
    ```
    """
    totals = counts.sum(axis=-1, keepdims=True), reference.sum(axis=-1, keepdims=True)
    if not counts.size or not all(np.all(total > 0) for total in totals):
        return float("nan")
    in_any = (counts > 0) | (reference > 0)
    p = np.where(in_any, np.maximum(counts, 0.5), 1) / totals[0]
    q = np.where(in_any, np.maximum(reference, 0.5), 1) / totals[1]
    terms = np.where(in_any, (p - q) * np.log(p / q), 0)
    return float(terms.sum(axis=-1).max())


def index_by_chance(bins: int, rows: int, reference_rows: int) -> float:
    """What the index of two samples of one distribution does not exceed but by a rare chance.

    By Yurdakul (2018) it is about `(1 / rows + 1 / reference_rows)` times a chi-squared variable of
    `bins - 1` degrees of freedom, whose quantiles are those of Wilson and Hilferty, "The
    Distribution of Chi-Square" (1931).

    Args:
        bins: Int. Number of bins.
        rows: Int. Rows of one sample, at least one.
        reference_rows: Int. Rows of the other one, at least one.
    """
    degrees = max(bins - 1, 1)
    spread = 2 / (9 * degrees)
    highest = degrees * (1 - spread + _DEVIATIONS * np.sqrt(spread)) ** 3
    return float((1 / rows + 1 / reference_rows) * highest)
