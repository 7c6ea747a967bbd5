"""Exact binomial bounds."""

import math

import pytest
from scipy import stats

from kerasext.calibration import binomial_upper_bound
from kerasext.calibration.binomial import binomial_tail, fewest_rows


@pytest.mark.parametrize("rows", [1, 2, 10, 59, 500, 20_000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("delta", [0.001, 0.05, 0.4])
def test_as_in_scipy(rows, share, delta):
    """The bound is the quantile of the beta distribution that Clopper and Pearson's is."""
    errors = int(share * rows)
    expected = stats.beta.ppf(1 - delta, errors + 1, rows - errors)
    assert binomial_upper_bound(errors, rows, delta) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [1, 10, 500, 100_000])
@pytest.mark.parametrize("share", [0.0, 1e-9, 0.05, 0.5, 0.999, 1.0])
def test_tail(rows, share):
    """The probability of so few errors, to its last digits, also where it is tiny."""
    for errors in {-1, 0, rows // 20, rows // 2, rows - 1, rows}:
        expected = stats.binom.cdf(errors, rows, share)
        assert binomial_tail(errors, rows, share) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_by_hand():
    """Without an error the bound is `1 - delta ** (1 / rows)`; of all errors it is 1."""
    assert binomial_upper_bound(0, 59, 0.05) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert binomial_upper_bound(7, 7, 0.05) == 1


@pytest.mark.parametrize("risk", [0.01, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("delta", [0.01, 0.05, 1 - 0.95, 0.9])
def test_fewest_rows(risk, delta):
    """It is the least number of rows that show the risk without an error, or with some."""
    for errors in (1, 20):
        rows = fewest_rows(risk, delta, errors)
        assert binomial_tail(errors, rows, risk) <= delta < binomial_tail(errors, rows - 1, risk)
    rows = fewest_rows(risk, delta)
    assert binomial_upper_bound(0, rows, delta) <= risk * (1 + 1e-9)
    assert rows == 1 or binomial_upper_bound(0, rows - 1, delta) > risk
    assert math.isclose(rows, math.log(delta) / math.log1p(-risk), abs_tol=1)
