"""Factor and bias of a binary logit."""

import math

import numpy as np
import pytest
from overconfident import yes_or_no
from sklearn.linear_model import LogisticRegression

from kerasext.calibration import fit_platt


@pytest.mark.parametrize("rows", [30, 500, 20_000])
@pytest.mark.parametrize("bias", [-3.0, 0.0, 0.7])
def test_as_in_scikit_learn(rows, bias):
    """Without a penalty, logistic regression on the logit is the same."""
    logits, targets = yes_or_no(rows, bias=bias)
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], targets)
    found = fit_platt(logits, targets)
    assert found == pytest.approx((peer.coef_[0, 0], peer.intercept_[0]), abs=1e-5)


def test_by_hand():
    """Two logits, of which 1 in 4 and 4 in 5 are yes: the map goes through both."""
    logits = np.array([-2.0] * 4 + [3.0] * 5)
    targets = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0])
    scale, bias = fit_platt(logits, targets)
    assert -2 * scale + bias == pytest.approx(math.log(1 / 3))
    assert 3 * scale + bias == pytest.approx(math.log(4))


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_extreme_logits(factor):
    """Tiny and huge logits have an optimum like others."""
    logits, targets = yes_or_no(300)
    scale, bias = fit_platt(logits, targets)
    assert fit_platt(factor * logits, targets) == pytest.approx((scale / factor, bias))


def test_one_row_far_away():
    """A single saturated logit does not keep Newton's method from the optimum."""
    logits, targets = yes_or_no(2000)
    logits[0], targets[0] = 5000.0, 1
    scale, bias = fit_platt(logits, targets)
    rest = 1 / (1 + np.exp(-np.minimum(scale * logits + bias, 700))) - targets
    assert rest.mean() == pytest.approx(0, abs=1e-12)
    assert (rest * logits).mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        ([1.0, 2.0], [1, 1], "rows of both classes; .* 0 rows of class 0 and 2 of class 1"),
        ([1.0, 2.0], [0, 0], "rows of both classes"),
        ([1.0, 2.0, 3.0], [0, 0, 1], "classes that overlap"),
        ([1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1], "classes that overlap"),
        ([1.0, 2.0, 3.0], [1, 0, 0], "classes that overlap"),
        ([2.0, 2.0, 2.0], [1, 0, 0], "classes that overlap"),
        ([1.0, 2.0, 3.0, 4.0], [1, 0, 1, 0], "better than chance"),
        ([1.0, 2.0, 3.0], [0, 1, 0], "better than chance"),
    ],
)
def test_no_optimum(logits, targets, message):
    """Without a second class, an overlap or better than chance there is no optimum."""
    with pytest.raises(ValueError, match=message):
        fit_platt(np.array(logits), np.array(targets))
