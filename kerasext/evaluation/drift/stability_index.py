"""How far two distributions are apart: the population stability index."""

from __future__ import annotations

import numpy as np

_DEVIATIONS = 4  # of a normal distribution, which exceeds them once in some 30,000 times


def stability_index(counts: np.ndarray, others: np.ndarray) -> float:
    """The population stability index, `sum((p - q) * log(p / q))` over bins.

    A bin that is empty in both adds nothing. A bin that is empty in one of them counts as half a
    count there, so that the logarithm exists.

    Args:
        counts: Integer array of shape `(..., bins)`.
        others: Integer array of shape `(..., bins)`.

    Returns:
        Float, 0 or greater: the largest index along the last axis. NaN if a distribution has no
        counts at all.

    Example:

    ```python
    stability_index(np.array([30, 70]), np.array([50, 50]))  # 0.169: 0.2 * log(0.7 / 0.3)
    ```
    """
    totals = counts.sum(axis=-1, keepdims=True), others.sum(axis=-1, keepdims=True)
    if not counts.size or not all(np.all(total > 0) for total in totals):
        return float("nan")
    in_any = (counts > 0) | (others > 0)
    p = np.where(in_any, np.maximum(counts, 0.5), 1) / totals[0]
    q = np.where(in_any, np.maximum(others, 0.5), 1) / totals[1]
    terms = np.where(in_any, (p - q) * np.log(p / q), 0)
    return float(terms.sum(axis=-1).max())


def index_by_chance(bins: int, rows: int, other_rows: int) -> float:
    """The index that two samples of one distribution exceed once in some 30,000 times.

    The index is about `(1 / rows + 1 / other_rows)` times a chi-squared variable of `bins - 1`
    degrees of freedom: Yurdakul, "Statistical Properties of Population Stability Index" (2018). Its
    quantile is approximated as by Wilson and Hilferty, "The Distribution of Chi-Square" (1931).

    Args:
        bins: Int. Number of bins.
        rows: Int. Rows of one sample, at least 1.
        other_rows: Int. Rows of the other sample, at least 1.
    """
    degrees = max(bins - 1, 1)
    spread = 2 / (9 * degrees)
    highest = degrees * (1 - spread + _DEVIATIONS * np.sqrt(spread)) ** 3
    return float((1 / rows + 1 / other_rows) * highest)
