import numpy as np
import pytest

from kerasext.evaluation.figures.calibration_curve import CalibrationSums

RNG = np.random.default_rng(0)


def summed(confidence, is_right, bins, batches=1):
    """The curve of labels that are added in some batches."""
    sums = CalibrationSums(bins)
    for some, right in zip(
        np.array_split(confidence, batches), np.array_split(is_right, batches), strict=True
    ):
        sums.add(some, right)
    return sums.result()


def by_definition(confidence, is_right, bins):
    """Bins and expected calibration error as Guo et al. define them, one label at a time."""
    members = [[] for _ in range(bins)]
    upper_edges = [number / bins for number in range(1, bins + 1)]
    places = np.digitize(confidence, upper_edges, right=True)
    for place, sure, right in zip(places, confidence, is_right, strict=True):
        members[place].append((sure, right))
    error = 0.0
    for labels in members:
        if labels:
            sure, right = zip(*labels, strict=True)
            error += len(labels) * abs(sum(right) / len(labels) - sum(sure) / len(labels))
    return [len(labels) for labels in members], error / len(confidence)


@pytest.mark.parametrize("bins", [1, 2, 7, 10, 15, 100])
@pytest.mark.parametrize("batches", [1, 50])
def test_expected_error(bins, batches):
    """Counts and error are those of the definition, in whatever batches the labels come."""
    confidence = np.sort(RNG.beta(5, 1, 400).astype("f4").astype("f8"))
    is_right = RNG.random(400) < confidence**2
    counts, error = by_definition(confidence, is_right, bins)
    curve = summed(confidence, is_right, bins, batches)
    assert curve.counts.tolist() == counts
    assert curve.expected_error == pytest.approx(error, rel=1e-12)
    assert len(curve.bin_edges) == bins + 1
    assert error > 0.01


def test_edges():
    """A bin has its upper edge and not its lower one; 0 is in the first bin, 1 in the last."""
    curve = summed(np.array([0, 0.25, 0.5, 0.75, 0.7500001, 1]), np.ones(6, bool), 4)
    assert curve.counts.tolist() == [2, 1, 1, 2]


def test_empty_bins():
    """Bins without labels have NaN, and don't change the error."""
    curve = summed(np.array([0.9, 1.0, np.nan]), np.array([True, False, True]), 4)
    np.testing.assert_array_equal(curve.counts, [0, 0, 0, 2])
    np.testing.assert_array_equal(curve.confidence, [np.nan] * 3 + [0.95])
    np.testing.assert_array_equal(curve.accuracy, [np.nan] * 3 + [0.5])
    assert curve.expected_error == pytest.approx(0.45)


def test_no_labels():
    """Without a single label that has a confidence there is no error."""
    assert np.isnan(summed(np.array([np.nan]), np.array([False]), 3).expected_error)
