import numpy as np
import pytest

from kerasext.evaluation.figures.probability_scores import ScoreSums

RNG = np.random.default_rng(0)


def summed(probabilities, truth, batches=7):
    """The scores of labels that are added in some batches."""
    sums = ScoreSums()
    for some, true in zip(
        np.array_split(probabilities, batches), np.array_split(truth, batches), strict=True
    ):
        sums.add(some, true)
    return sums.result()


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("positions", [(), (4,)])
def test_classes(classes, positions):
    """Both scores are scikit-learn's, of every position."""
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities = RNG.dirichlet(np.ones(classes), (60, *positions)).astype("f4")
    truth = RNG.integers(0, classes, (60, *positions))
    found = summed(probabilities, truth)
    flat = probabilities.reshape(-1, classes).astype("f8")
    flat /= flat.sum(axis=1, keepdims=True)
    expected = metrics.log_loss(truth.ravel(), flat, labels=range(classes))
    assert found.negative_log_likelihood == pytest.approx(expected, rel=1e-6)
    score = flat[:, 1] if classes == 2 else flat
    labels = None if classes == 2 else range(classes)
    expected = metrics.brier_score_loss(truth.ravel(), score, labels=labels)
    assert found.brier_score == pytest.approx(expected, rel=1e-6)


def test_several_labels():
    """Of several labels both are the means of each label's score."""
    metrics = pytest.importorskip("sklearn.metrics")
    probabilities = RNG.random((60, 3)).astype("f4")
    truth = RNG.integers(0, 2, (60, 3))
    found = summed(probabilities, truth)
    columns = [*zip(truth.T, probabilities.T, strict=True)]
    losses = [metrics.log_loss(true, some) for true, some in columns]
    assert found.negative_log_likelihood == pytest.approx(np.mean(losses), rel=1e-5)
    scores = [metrics.brier_score_loss(true, some) for true, some in columns]
    assert found.brier_score == pytest.approx(np.mean(scores), rel=1e-5)


def test_nan_is_left_out():
    """A label with a NaN in any of its probabilities does not count; with no other both are NaN."""
    probabilities = np.array([[0.25, 0.5, 0.25], [0.5, 0.5, np.nan]])
    found = summed(probabilities, np.array([1, 1]), batches=2)
    assert found.negative_log_likelihood == pytest.approx(np.log(2))
    assert found.brier_score == pytest.approx(0.25 + 2 * 0.0625)
    assert np.isnan(summed(probabilities[1:], np.array([1]), batches=1)).all()


def test_zeros_are_finite():
    """What was impossible and happened counts as the least float32, and not as infinity."""
    found = summed(np.array([[0.0, 1.0]], "f4"), np.array([0]), batches=1)
    assert found.negative_log_likelihood == pytest.approx(87.34, abs=0.01)
    assert found.brier_score == 1
