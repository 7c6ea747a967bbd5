"""Negative log likelihood, Brier score and expected calibration error."""

import numpy as np
import pytest
from overconfident import logits_and_targets, noisy_digits, softmax, yes_or_no
from sklearn.metrics import brier_score_loss, log_loss

from kerasext.calibration import expected_calibration_error, log_losses, squared_errors
from kerasext.calibration.figures import reliability_bins


def test_classes_as_in_scikit_learn():
    """Means over rows of several classes are scikit-learn's."""
    logits, targets = logits_and_targets(300, 5)
    p = softmax(logits)
    assert log_losses(p, targets).mean() == pytest.approx(log_loss(targets, p))
    expected = ((p - np.eye(5)[targets]) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_errors(p, targets), expected, atol=1e-15)


def test_two_classes_as_in_scikit_learn():
    """Two columns and one label give the same, which is scikit-learn's."""
    logits, targets = yes_or_no(300)
    p = 1 / (1 + np.exp(-logits))
    columns = np.stack([1 - p, p], axis=-1)
    for function, peer in ((log_losses, log_loss), (squared_errors, brier_score_loss)):
        assert function(p, targets).mean() == pytest.approx(peer(targets, p))
        np.testing.assert_allclose(function(columns, targets), function(p, targets), atol=1e-15)


def test_shapes_and_nan():
    """There is one number per target, NaN where the probability is; 0 counts as 1.2e-38."""
    p = np.float32([[[0.5, 0.25, 0.25], [0, 1, 0]], [[np.nan] * 3, [0.1, 0.1, 0.8]]])
    targets = np.array([[0, 0], [1, 2]])
    losses = log_losses(p, targets)
    np.testing.assert_allclose(losses, [[np.log(2), 87.33654], [np.nan, 0.22314355]], rtol=1e-6)
    np.testing.assert_allclose(squared_errors(p, targets), [[0.375, 2], [np.nan, 0.06]], rtol=1e-6)
    assert losses.dtype == np.float64


def test_expected_error_by_hand():
    """Two bins of two: the gaps are 0.2 and 0.15, of NaN nothing counts."""
    confidence = np.array([0.6, 0.8, 0.1, 0.2, np.nan])
    is_right = np.array([True, False, False, False, True])
    error = expected_calibration_error(confidence, is_right, bins=2)
    assert error == pytest.approx((0.2 + 0.15) / 2)
    assert np.isnan(expected_calibration_error(confidence[4:], is_right[4:]))


def test_edges():
    """A bin has its upper edge and not its lower one; 0 is in the first bin, 1 in the last."""
    confidence = np.array([0, 0.25, 0.5, 0.75, 0.7500001, 1, 1 + 1e-7])
    counts, sums, right = reliability_bins(confidence, np.ones(7, bool), 4)
    assert counts.tolist() == right.tolist() == [2, 1, 1, 3]
    assert sums == pytest.approx([0.25, 0.5, 0.75, 2.7500002])


def test_blocks_add_up():
    """The sums of several blocks are those of all rows."""
    p, targets = noisy_digits()
    sure, right = p.max(axis=1), p.argmax(axis=1) == targets
    whole = np.array(reliability_bins(sure, right))
    parts = sum(
        np.array(reliability_bins(sure[rows], right[rows]))
        for rows in (slice(0, 5), slice(5, 700), slice(700, None))
    )
    np.testing.assert_allclose(parts, whole)
    counts, sums, hits = whole
    error = np.abs(hits - sums).sum() / counts.sum()
    assert expected_calibration_error(sure, right) == pytest.approx(error)
