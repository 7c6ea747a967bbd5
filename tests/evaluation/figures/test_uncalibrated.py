import numpy as np
import pytest

from kerasext.calibration import Calibration
from kerasext.evaluation.figures.uncalibrated import UncalibratedSums

RNG = np.random.default_rng(0)
FIGURES = (1.0, 1.0, 0.1, 0.1)


def summed(calibration, probabilities, truth, threshold=None, *, is_multilabel=False):
    """The figures of labels that are added in some batches."""
    sums = UncalibratedSums(calibration, 15, threshold, is_multilabel=is_multilabel)
    for some, true in zip(np.array_split(probabilities, 4), np.array_split(truth, 4), strict=True):
        sums.add(some, true)
    return sums.result()


def test_a_temperature():
    """Labels stay, and the error is that of the probabilities before."""
    before = RNG.dirichlet(np.full(4, 0.2), 400).astype("f4")
    before[7] = np.nan
    truth = RNG.integers(0, 4, 400)
    calibration = Calibration("temperature", 0.5, 0.0, 100, *FIGURES)
    found = summed(calibration, calibration.apply(before), truth)
    labels = np.where(np.isnan(before[:, 0]), -1, before.argmax(axis=1))
    assert found.accuracy == pytest.approx((labels == truth).mean())
    assert found.calibration_curve.counts.sum() == 399
    known = ~np.isnan(before[:, 0])
    assert found.calibration_curve.confidence[-1] == pytest.approx(
        before[known].max(axis=1)[before[known].max(axis=1) > 14 / 15].mean(), rel=1e-5
    )
    of_truth = np.take_along_axis(before, truth[:, None], axis=1)[known]
    expected = -np.log(np.maximum(of_truth.astype("f8"), np.finfo("f4").tiny)).mean()
    assert found.negative_log_likelihood == pytest.approx(expected, rel=1e-4)


def test_vector_scaling_changes_labels():
    """The accuracy is that of the labels before."""
    before = RNG.dirichlet(np.ones(3), 300).astype("f4")
    truth = before.argmax(axis=1)
    calibration = Calibration("vector", (1.0, 2.0, 1.0), (0.0, 1.5, -1.5), 100, *FIGURES)
    after = calibration.apply(before)
    assert (after.argmax(axis=1) != truth).sum() > 20
    assert summed(calibration, after, truth).accuracy == 1


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_thresholds(is_multilabel):
    """Labels of a binary or multi-label head are those of its threshold, and NaN has none."""
    p = RNG.random((200, 2)).astype("f4")
    p[3] = np.nan
    if is_multilabel:
        before, threshold = p, np.array([0.3, 0.8])
        calibration = Calibration("platt", (0.5, 2.0), (0.1, -1.0), 100, *FIGURES)
        labels, confidence = p > threshold, np.where(p > threshold, p, 1 - p)
    else:
        p = p[:, 1]
        before, threshold = np.stack([1 - p, p], axis=1), np.array(0.3)
        calibration = Calibration("platt", 0.5, 0.1, 100, *FIGURES)
        labels, confidence = p > 0.3, np.where(p > 0.3, p, 1 - p)
    truth = RNG.integers(0, 2, labels.shape)
    found = summed(
        calibration, calibration.apply(before), truth, threshold, is_multilabel=is_multilabel
    )
    is_right = (labels == truth) & ~np.isnan(p)
    assert found.accuracy == pytest.approx(is_right.mean())
    filled = found.calibration_curve.counts > 0
    mean = np.average(
        found.calibration_curve.confidence[filled], weights=found.calibration_curve.counts[filled]
    )
    assert mean == pytest.approx(np.nanmean(confidence), rel=1e-5)
