import itertools

import numpy as np
import pytest

from kerasext.calibration import PredictionSets, fit_prediction_sets
from kerasext.evaluation.figures.set_report import SetSums, expected_interval

RNG = np.random.default_rng(0)


def fitted(level=0.9, rows=100, *, class_conditional=False):
    """How sets were made; the threshold does not matter here."""
    threshold = (0.1, 0.2) if class_conditional else 0.1
    return PredictionSets("lac", level, class_conditional, threshold, rows, level, 1.0)


def summed(sets, truth, *, is_multilabel=False, batches=3, **of):
    """The report on sets that are added in some batches."""
    sums = SetSums(fitted(**of), sets.shape[-1], is_multilabel=is_multilabel)
    for some, true in zip(
        np.array_split(sets, batches), np.array_split(truth, batches), strict=True
    ):
        sums.add(some, true)
    return sums.result()


def test_one_target_a_row():
    """Coverage, sizes and both by class and size are those of the definition."""
    sets = RNG.random((200, 4)) < [0.9, 0.5, 0.2, 0.1]
    truth = RNG.integers(0, 3, 200)
    found = summed(sets, truth)
    is_in, sizes = sets[np.arange(200), truth], sets.sum(axis=1)
    assert found.coverage == pytest.approx(is_in.mean())
    assert found.mean_size == pytest.approx(sizes.mean())
    assert found.size_counts.tolist() == [(sizes == size).sum() for size in range(5)]
    assert found.empty_share == pytest.approx((sizes == 0).mean())
    assert found.class_counts.tolist() == np.bincount(truth, minlength=4).tolist()
    for place in range(3):
        assert found.coverage_by_class[place] == pytest.approx(is_in[truth == place].mean())
    assert np.isnan(found.coverage_by_class[3])
    for size in range(5):
        expected = is_in[sizes == size].mean() if (sizes == size).any() else np.nan
        assert found.coverage_by_size[size] == pytest.approx(expected, nan_ok=True)
    assert found.confidence_level == 0.9
    assert found.expected_interval == expected_interval(0.9, 100, 200)


@pytest.mark.parametrize(("positions", "is_multilabel"), [((), True), ((5,), False), ((5,), True)])
def test_mean_share(positions, is_multilabel):
    """Several positions or labels: the mean over rows of their share, as it was fitted.

    A row without a true label is left out, and there is no interval.
    """
    probabilities = RNG.random((300, *positions, 3)).astype("f4")
    if is_multilabel:
        truth = (RNG.random(probabilities.shape) < 0.3).astype("i8")
    else:
        probabilities /= probabilities.sum(axis=-1, keepdims=True)
        truth = RNG.integers(0, 3, probabilities.shape[:-1])
    task = "multilabel" if is_multilabel else "classifier"
    sets = fit_prediction_sets(probabilities, truth, task=task)
    found = summed(sets.apply(probabilities), truth, is_multilabel=is_multilabel)
    assert found.coverage == pytest.approx(sets.coverage)
    assert found.mean_size == pytest.approx(sets.mean_size)
    assert found.expected_interval is None
    assert found.size_counts.sum() == 300 * max(positions, default=1)


def test_labels_by_class_and_size():
    """Of several labels, the coverage of a class is its recall by the sets."""
    sets = np.array([[1, 0], [1, 1], [0, 0], [1, 0]], bool)
    truth = np.array([[1, 1], [0, 1], [0, 0], [1, 0]])
    found = summed(sets, truth, is_multilabel=True)
    assert found.coverage == pytest.approx((0.5 + 1 + 1) / 3)
    np.testing.assert_allclose(found.coverage_by_class, [1, 0.5])
    assert found.class_counts.tolist() == [2, 2]
    np.testing.assert_allclose(found.coverage_by_size, [np.nan, 0.75, 1])
    assert found.size_counts.tolist() == [1, 2, 1]


def test_no_true_label():
    """Rows without a single true label have no coverage."""
    found = summed(np.ones((3, 2), bool), np.zeros((3, 2), int), is_multilabel=True)
    assert np.isnan(found.coverage)
    assert found.mean_size == 2


def test_promise_by_class_has_no_interval():
    """Sets with a threshold for each class promise something else than their mean coverage."""
    found = summed(np.ones((3, 2), bool), np.zeros(3, int), class_conditional=True)
    assert (found.coverage, found.expected_interval) == (1.0, None)


@pytest.mark.parametrize(
    ("level", "rows"),
    [
        *itertools.product([0.07, 0.5, 0.9, 0.95, 0.99], [1, 2, 10, 797]),
        *((0.07, 200_000), (0.95, 200_000)),  # SciPy takes a second for each
    ],
)
def test_interval(level, rows):
    """It is the central 95 % of SciPy's Beta-Binomial distribution, across blocks, too."""
    stats = pytest.importorskip("scipy.stats")
    for fitted_rows in (99, 500, 5000):
        rank = int(np.ceil(np.round((fitted_rows + 1) * level, 9)))
        chance = stats.betabinom(rows, rank, fitted_rows + 1 - rank)
        expected = chance.ppf(0.025) / rows, chance.ppf(0.975) / rows
        assert expected_interval(level, fitted_rows, rows) == pytest.approx(expected, abs=1e-12)


def test_interval_of_the_study():
    """With 500 fitted rows and 797 others, a coverage from 0.87 to 0.93 is no evidence."""
    low, high = expected_interval(0.9, 500, 797)
    assert (round(low, 2), round(high, 2)) == (0.86, 0.93)


def test_interval_is_right():
    """Coverage of sets that keep their promise leaves the interval in about 5 % of draws."""
    outside = 0
    low, high = expected_interval(0.8, 50, 200)
    for _ in range(600):
        scores = RNG.random(250)
        threshold = np.sort(scores[:50])[int(np.ceil(51 * 0.8)) - 1]
        outside += not low <= (scores[50:] <= threshold).mean() <= high
    assert 0.02 < outside / 600 < 0.08
