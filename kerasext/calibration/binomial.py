"""Exact bounds on a share that was counted."""

from __future__ import annotations

import math

import numpy as np

_HALVINGS = 60


def binomial_tail(errors: int, rows: int, share: float) -> float:
    """The probability of at most `errors` errors in `rows` rows, each with probability `share`."""
    if errors < 0:
        return 0.0
    if errors >= rows or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    # Logarithms of each term by that of the one before it.
    k = np.arange(1, errors + 1)
    odds = math.log(share) - math.log1p(-share)
    terms = np.concatenate([[0.0], np.cumsum(np.log((rows - k + 1) / k) + odds)])
    most = terms.max()
    first = rows * math.log1p(-share)
    return min(math.exp(first + most + math.log(np.exp(terms - most).sum())), 1.0)


def binomial_upper_bound(errors: int, rows: int, delta: float) -> float:
    """The upper confidence bound of an error rate, exact for every number of rows.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial" (1934), one-sided: the largest rate under which so few errors have the probability
    `delta`. Found by bisection.

    Args:
        errors: Int. Rows that are wrong.
        rows: Int. All rows.
        delta: Float in (0, 1). How often the bound may be too low, such as 0.05.

    Returns:
        Float in [0, 1].

    Example:

    ```python
    binomial_upper_bound(0, 59, 0.05)  # 0.0495: 59 rows without an error show 5 %
    ```
    """
    if errors >= rows:
        return 1.0
    low, high = errors / rows, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if binomial_tail(errors, rows, middle) > delta:
            low = middle
        else:
            high = middle
    return high


def fewest_rows(risk: float, delta: float, errors: int = 0) -> int:
    """The number of rows from which on so many errors show the risk: 59 for none, 0.05 and 0.05."""
    low, high = errors, errors + 1
    while binomial_tail(errors, high, risk) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_tail(errors, middle, risk) > delta:
            low = middle
        else:
            high = middle
    return high
