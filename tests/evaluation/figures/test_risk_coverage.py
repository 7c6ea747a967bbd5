import numpy as np
import pytest

from kerasext.calibration import Abstention
from kerasext.evaluation.figures.risk_coverage import AbstentionSums, RiskSums

RNG = np.random.default_rng(0)


def summed(confidence, is_right, batches=1):
    """The curve of labels that are added in some batches."""
    sums = RiskSums()
    for some, right in zip(
        np.array_split(confidence, batches), np.array_split(is_right, batches), strict=True
    ):
        sums.add(some, right)
    return sums.result()


def sorted_directly(confidence, is_right):
    """Coverage and risk at each confidence that there is, by sorting."""
    thresholds = np.unique(confidence)[::-1]
    chosen = [confidence >= threshold for threshold in thresholds]
    coverage = np.array([mask.mean() for mask in chosen])
    return coverage, np.array([1 - is_right[mask].mean() for mask in chosen])


@pytest.mark.parametrize("batches", [1, 40])
@pytest.mark.parametrize("steps", [16, 255, 1024])
def test_on_the_grid(batches, steps):
    """Of confidences on the grid the curve is that of a sort."""
    confidence = 1 - RNG.integers(0, steps + 1, 3000) / 2 ** int(np.ceil(np.log2(steps)))
    is_right = RNG.random(3000) < confidence
    curve = summed(confidence, is_right, batches)
    coverage, risk = sorted_directly(confidence, is_right)
    np.testing.assert_allclose(curve.coverage, coverage, rtol=1e-12)
    np.testing.assert_allclose(curve.risk, risk, rtol=1e-12, atol=1e-12)


def test_between_steps():
    """Elsewhere each point of the curve is one of the sort's."""
    confidence = RNG.beta(3, 1, 5000).astype("f4").astype("f8")
    is_right = RNG.random(5000) < confidence
    curve = summed(confidence, is_right)
    coverage, risk = sorted_directly(confidence, is_right)
    places = np.searchsorted(coverage, curve.coverage - 1e-9)
    np.testing.assert_allclose(coverage[places], curve.coverage, rtol=1e-12)
    np.testing.assert_allclose(risk[places], curve.risk, rtol=1e-12, atol=1e-12)
    assert len(curve.risk) > 2000


def test_nearly_sure():
    """Confidences next to 1 are told from each other, where most labels of a good model are."""
    confidence = 1 - 2.0 ** -np.arange(1, 25)
    curve = summed(confidence, np.arange(24) >= 12)
    np.testing.assert_allclose(curve.coverage, np.arange(1, 25) / 24)
    np.testing.assert_array_equal(curve.risk[:12], 0)


def test_area():
    """The area is the mean of the risks of all beginnings of the sorted labels."""
    confidence = RNG.permutation(np.arange(1, 257) / 256)
    is_right = RNG.random(256) < confidence
    wrong = ~is_right[np.argsort(-confidence)]
    expected = np.mean(np.cumsum(wrong) / np.arange(1, 257))
    assert summed(confidence, is_right).area == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("is_right", "area"), [([True] * 3, 0), ([False] * 3, 1)])
def test_extremes(is_right, area):
    """Nothing wrong has no area, everything wrong all of it; equal confidences are one point."""
    curve = summed(np.full(3, 0.7), np.array(is_right))
    assert curve.coverage.tolist() == [1]
    assert curve.area == area


def test_without_confidence():
    """Labels without a confidence are the last, below 0 too."""
    curve = summed(np.array([np.nan, 0, 1]), np.array([False, True, True]))
    np.testing.assert_allclose(curve.coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3])


def test_abstention():
    """The labels that are kept are counted, in whatever batches they come."""
    abstained, is_right = RNG.random((2, 90, 4)) < 0.5
    sums = AbstentionSums(Abstention(0.7, 0.1, 0.9, 50, 0.5, 0.4, 0.1), 0)
    for some, right in zip(np.array_split(abstained, 4), np.array_split(is_right, 4), strict=True):
        sums.add(some, right)
    found = sums.result()
    assert found.coverage == pytest.approx(1 - abstained.mean())
    assert found.error_rate == pytest.approx(1 - is_right[~abstained].mean())
    assert (found.risk, found.confidence_level, found.by_label) == (0.1, 0.9, None)


def test_abstention_from_everything():
    """Of nothing no share is wrong, of a label too that is never kept."""
    fitted = Abstention((0.7, 0.7), 0.1, 0.9, 50, (0.5, 0.5), (0.4, 0.4), (0.1, 0.1))
    sums = AbstentionSums(fitted, 2)
    sums.add(np.array([[True, False], [True, True]]), np.array([[True, True], [True, False]]))
    found = sums.result()
    assert (found.coverage, found.error_rate) == (0.25, 0)
    np.testing.assert_array_equal(found.by_label["coverage"], [0, 0.5])
    np.testing.assert_array_equal(found.by_label["error_rate"], [np.nan, 0])
    sums = AbstentionSums(fitted, 2)
    sums.add(np.ones((3, 2), bool), np.zeros((3, 2), bool))
    assert np.isnan(sums.result().error_rate)
