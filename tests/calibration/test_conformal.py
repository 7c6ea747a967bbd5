"""The order statistic with its correction for few rows."""

import math

import numpy as np
import pytest

from kerasext.calibration.conformal import conformal_threshold, fewest_rows

RNG = np.random.default_rng(0)


def by_definition(scores, alpha, weights, rows):
    """The least score at which the losses, and 1 for the new row, keep to the risk."""
    for threshold in np.unique(scores):
        lost = weights[scores > threshold].sum()
        if lost + 1 <= alpha * (rows + 1) + 1e-9:
            return threshold
    return math.inf


@pytest.mark.parametrize("rows", [1, 5, 9, 18, 19, 20, 100, 333])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 1 - 0.9, 0.3, 1 - 0.7, 0.5, 0.99])
def test_one_score_per_row(rows, alpha):
    """It is the `ceil((rows + 1) * (1 - alpha))`-th smallest score, or infinity without one."""
    scores = RNG.normal(size=rows)
    place = math.ceil(round((rows + 1) * (1 - alpha), 9))
    expected = math.inf if place > rows else np.sort(scores)[place - 1]
    assert conformal_threshold(scores, alpha) == expected
    assert (rows >= fewest_rows(alpha)) == (expected < math.inf)


@pytest.mark.parametrize(("alpha", "rows"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99)])
def test_fewest_rows(alpha, rows):
    """The level 0.95 needs 19 rows, also where the level is 1 less a rounded number."""
    assert fewest_rows(alpha) == fewest_rows(1 - (1 - alpha)) == rows
    assert fewest_rows(alpha * 0.999) == rows + 1


@pytest.mark.parametrize("seed", range(30))
def test_weights(seed):
    """Rows of several scores, with ties, lose the weights of the scores above the threshold."""
    rng = np.random.default_rng(seed)
    row_of = np.sort(rng.integers(0, 40, 200))
    row_of = np.unique(row_of, return_inverse=True)[1]
    scores = rng.integers(0, 25, 200) / 25
    weights, rows = 1 / np.bincount(row_of)[row_of], row_of[-1] + 1
    for alpha in (0.02, 0.1, 0.35):
        found = conformal_threshold(scores, alpha, weights, rows)
        assert found == by_definition(scores, alpha, weights, rows)


def test_ties():
    """Of equal scores none is above the threshold, so that it may be lower than its rank."""
    scores = np.array([0.1] * 10 + [0.5] * 5 + [0.9] * 4)
    assert conformal_threshold(scores, 0.5) == 0.1  # the 10th of 19
    assert conformal_threshold(scores, 0.45) == 0.5
    assert conformal_threshold(scores, 0.25) == 0.5  # the 15th
    assert conformal_threshold(scores, 0.2) == 0.9


def test_infinite_scores():
    """What is never covered makes the threshold infinite if it is more than the risk."""
    scores = np.array([*np.linspace(0, 1, 18), math.inf])
    assert conformal_threshold(scores, 0.1) == 1
    assert conformal_threshold(scores, 0.05) == math.inf
