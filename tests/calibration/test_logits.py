"""From probabilities to logits and back."""

import numpy as np
import pytest

from kerasext.calibration.logits import (
    SMALLEST,
    SMALLEST_COMPLEMENT,
    LogProbabilities,
    log_odds,
    log_odds_of_columns,
    log_probabilities,
    sigmoid,
    softmax,
)


def test_floor():
    """Zeros get the logarithm of the least normal float32; NaN stays."""
    logs = log_probabilities(np.float32([0, 1e-45, 1, np.nan]))
    np.testing.assert_array_equal(logs, [np.log(SMALLEST)] * 2 + [0, np.nan])
    assert logs.dtype == np.float64


def test_log_odds():
    """They are the inverse of the sigmoid, and grow up to 1.0 by less than a step before it."""
    logits = np.linspace(-30, 15, 100)
    np.testing.assert_allclose(log_odds(1 / (1 + np.exp(-logits))), logits, atol=1e-8)
    near = log_odds(np.float32([1 - 2.0**-23, 1 - 2.0**-24, 1]))
    np.testing.assert_allclose(np.diff(near), np.log(2), rtol=1e-5)
    assert near[-1] == -np.log(SMALLEST_COMPLEMENT)


def test_log_odds_of_columns():
    """Each column has digits of its own, far beyond where their sum is rounded."""
    logits = np.linspace(-80, 80, 100)
    columns = np.stack([sigmoid(-logits), sigmoid(logits)], axis=-1)
    np.testing.assert_allclose(log_odds_of_columns(columns), logits, atol=1e-8)


def test_sigmoid_and_softmax():
    """No overflow, all digits of small probabilities, and NaN for a row that has one."""
    np.testing.assert_allclose(sigmoid(np.array([-700.0, 0, 700])), [np.exp(-700), 0.5, 1])
    p = softmax(np.array([[1000.0, 0, -1000], [0, 0, np.nan]]))
    np.testing.assert_array_equal(p, [[1, 0, 0], [np.nan] * 3])


@pytest.mark.parametrize("rows", [slice(0, 2), slice(1, 3)])
def test_log_probabilities_of_a_block(rows):
    """Only the rows that are read are computed."""
    p = np.float32([[0.5, 0.5], [0.1, 0.9], [1, 0]])
    logs = LogProbabilities(p)
    assert logs.shape == (3, 2)
    np.testing.assert_array_equal(logs[rows], log_probabilities(p[rows]))
