"""The order statistic behind prediction sets."""

from __future__ import annotations

import math

import numpy as np

_ROUNDING = 1e-9  # of sums of weights, and of levels such as 0.7 times 10


def conformal_threshold(
    scores: np.ndarray,
    alpha: float,
    weights: np.ndarray | None = None,
    rows: int | None = None,
) -> float:
    """The least threshold whose loss on a new row is at most `alpha` on average.

    Conformal risk control, Angelopoulos, Bates, Fisch, Lei and Schuster (ICLR 2024), equation 4: a
    row loses the weights of its scores above the threshold, at most 1. The threshold is the least
    score at which the losses of all rows, and 1 for the new one, are at most `alpha * (rows + 1)`.
    If each row has one score, of weight 1, this is the `ceil((rows + 1) * (1 - alpha))`-th smallest
    score, as in split conformal prediction (Papadopoulos et al., 2002; Sadinle, Lei and
    Wasserman, 2019). The `+ 1` is what makes it hold for few rows.

    Args:
        scores: Float array of shape `(scores,)`. How strange what is true is to the model; infinity
            for what is never covered.
        alpha: Float in (0, 1). The risk: 1 less the coverage.
        weights: Array of shape `(scores,)`: 1 / scores of the same row. Defaults to `None`, for one
            score per row.
        rows: Int. Number of rows. Defaults to `None`, for the number of scores.

    Returns:
        Float. One of `scores`; infinity if there are too few rows, or too many infinite scores.
    """
    rows = len(scores) if rows is None else rows
    budget = alpha * (rows + 1) - 1 + _ROUNDING
    if budget < 0:
        return math.inf
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    weights = np.ones(len(scores)) if weights is None else weights[order]
    above = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0)
    # Of equal scores only the last has none of them above it.
    is_last = np.append(ordered[1:] != ordered[:-1], True)
    return float(ordered[np.argmax(is_last & (above <= budget))])


def fewest_rows(alpha: float) -> int:
    """The number of rows from which on a threshold exists: 19 for `alpha=0.05`."""
    return math.ceil(1 / alpha - 1 - _ROUNDING)
