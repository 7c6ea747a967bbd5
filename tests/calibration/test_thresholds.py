"""The threshold with the largest metric."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_curve

from kerasext.calibration import ThresholdChoice, fit_threshold

RNG = np.random.default_rng(0)


def scored(rows=300, digits=8, seed=0):
    """Probabilities, rounded so that some are equal, and targets."""
    rng = np.random.default_rng(seed)
    targets = (rng.uniform(size=rows) < 0.3).astype(int)
    p = 1 / (1 + np.exp(-rng.normal(size=rows) - 1.5 * targets + 1))
    return p.round(digits).astype("f4"), targets


def youden(targets, labels):
    """Recall plus specificity, minus 1."""
    return labels[targets == 1].mean() + 1 - labels[targets == 0].mean() - 1


METRICS = {"f1": f1_score, "youden": youden}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("digits", [1, 2, 8])
@pytest.mark.parametrize("seed", range(5))
def test_largest(metric, digits, seed):
    """No threshold at all has a larger metric, and the values are those of its labels."""
    p, targets = scored(digits=digits, seed=seed)
    choice = fit_threshold(p, targets, metric=metric, several_labels=False)
    value = METRICS[metric]
    labels = (p > np.float32(choice.threshold)).astype(int)
    assert choice.value_after == pytest.approx(value(targets, labels))
    assert choice.value_before == pytest.approx(value(targets, (p > 0.5).astype(int)))
    best = max(value(targets, (p > each).astype(int)) for each in [0, *np.unique(p)])
    assert choice.value_after == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_youden_of_the_roc_curve(seed):
    """Youden's index is the largest distance of scikit-learn's ROC curve from the diagonal."""
    p, targets = scored(seed=seed)
    false_alarms, hits, _ = roc_curve(targets, p)
    choice = fit_threshold(p, targets, metric="youden", several_labels=False)
    assert choice.value_after == pytest.approx((hits - false_alarms).max())


def test_between_two_probabilities():
    """The threshold lies halfway, so that rounding elsewhere moves no label."""
    p, targets = np.float32([0.1, 0.2, 0.7, 0.9]), np.array([0, 0, 1, 1])
    choice = fit_threshold(p, targets, before=0.8, several_labels=False)
    assert choice.threshold == pytest.approx(0.45)
    assert (choice.value_before, choice.value_after) == (pytest.approx(2 / 3), 1)


@pytest.mark.parametrize("low", [0.0, 0.25, 0.7, 1 - 2.0**-24])
def test_neighbours_in_float32(low):
    """Two probabilities without a float32 between them are told apart."""
    low = np.float32(low)
    high = np.nextafter(low, np.float32(2))
    p, targets = np.array([low, low, high, high]), np.array([0, 0, 1, 1])
    for before in (0.0, 0.5, 1.0):
        choice = fit_threshold(p, targets, before=before, several_labels=False)
        assert choice.value_after == 1
        assert (p > np.float32(choice.threshold)).tolist() == [False, False, True, True]


@pytest.mark.parametrize("p", [[0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [1e-45, 0.2, 0.5]])
def test_all_yes(p):
    """All labels are 1 only with a threshold below all; a probability of 0 is never above one."""
    p, targets = np.float32(p), np.array([1, 1, 0])
    choice = fit_threshold(p, targets, several_labels=False)
    labels = p > np.float32(choice.threshold)
    assert choice.threshold >= 0
    assert choice.value_after == pytest.approx(f1_score(targets, labels, zero_division=0))
    assert labels.all() == (p > 0).all()


def test_none_is_yes():
    """The best may be a threshold above all."""
    p, targets = np.float32([0.1, 0.6, 1.0]), np.array([1, 0, 0])
    choice = fit_threshold(p, targets, metric="youden", several_labels=False)
    assert choice.value_after == 0
    labels = p > np.float32(choice.threshold)
    assert labels.all() or not labels.any()


@pytest.mark.parametrize("before", [0.3, 0.5, 0.6])
def test_stays_if_as_good(before):
    """A threshold that is as good as any stays as it is."""
    p, targets = np.float32([0.1, 0.2, 0.7, 0.9]), np.array([0, 0, 1, 1])
    choice = fit_threshold(p, targets, before=before, several_labels=False)
    assert choice.threshold == before


def test_nearest_of_equally_good():
    """Of two best thresholds it is the one that is nearer to that before."""
    p, targets = np.float32([0.1, 0.2, 0.3, 0.6, 0.7, 0.8]), np.array([0, 1, 0, 0, 1, 0])
    for before, expected in ((0.0, 0.15), (0.9, 0.65), (0.5, 0.65), (0.3, 0.15)):
        choice = fit_threshold(p, targets, metric="youden", before=before, several_labels=False)
        assert choice.threshold == pytest.approx(expected)


def test_several_labels():
    """Each label has a threshold; one whose targets are all the same keeps that before."""
    columns = [scored(seed=seed) for seed in range(3)]
    p, targets = (np.stack(arrays, axis=1) for arrays in zip(*columns, strict=True))
    targets[:, 1] = 0
    choice = fit_threshold(p, targets, before=(0.5, 0.25, 0.5), several_labels=True)
    for label in (0, 2):
        alone = fit_threshold(p[:, label], targets[:, label], several_labels=False)
        assert choice.threshold[label] == alone.threshold
        assert choice.value_after[label] == alone.value_after
    assert choice.threshold[1] == 0.25
    assert math.isnan(choice.value_after[1])
    assert choice.labels_without_fit == (1,)
    assert str(choice).endswith("only one class occurs: labels [1]")


def test_positions_and_nan():
    """Positions count like rows; those with NaN are left out."""
    p, targets = scored()
    flat = fit_threshold(p[4:], targets[4:], several_labels=False)
    p[:4] = np.nan
    choice = fit_threshold(p.reshape(-1, 4), targets.reshape(-1, 4), several_labels=False)
    assert choice.threshold == flat.threshold
    assert choice.rows == 74
    several = fit_threshold(p.reshape(-1, 4, 1), targets.reshape(-1, 4, 1), several_labels=True)
    assert several.threshold == (flat.threshold,)


def test_text_and_json():
    """It prints the figures and comes back from JSON bit for bit, NaN included."""
    p, targets = scored()
    choice = fit_threshold(p, targets, several_labels=False)
    assert str(choice).startswith(f"threshold {choice.threshold:.4g}, fitted on 300 rows\nf1 ")
    assert ThresholdChoice.from_json(json.loads(json.dumps(choice.as_json()))) == choice
    several = ThresholdChoice((0.1, 0.5), "f1", 9, (0.2, math.nan), (0.3, math.nan))
    stored = json.dumps(several.as_json(), allow_nan=False)
    assert ThresholdChoice.from_json(json.loads(stored)) == several


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "f2"}, "`metric` must be one of"),
        ({"before": 1.5}, "`before` must be finite and in"),
        ({"before": (0.5, 0.5)}, "`before` must be one number, or one for each"),
        ({"targets": np.zeros(300, int)}, r"must have 0 and 1, .* only \[0\]"),
        ({"targets": np.full(300, 2)}, "`targets` must be class numbers from 0 to 1"),
        ({"targets": np.zeros(299, int)}, "`targets` must have the shape"),
        ({"probabilities": np.zeros(300, "f2")}, "`probabilities` must be float32 or float64"),
        ({"several_labels": True}, "must have the labels on the last axis"),
    ],
)
def test_refused(changes, message):
    """Wrong arguments are an error that says what would be right."""
    p, targets = scored()
    arguments = {"probabilities": p, "targets": targets, "several_labels": False, **changes}
    with pytest.raises(ValueError, match=message):
        fit_threshold(**arguments)


def test_no_label_to_fit():
    """If each label has one class only, nothing can be fitted."""
    targets = np.repeat([[0, 1]], 20, axis=0)
    with pytest.raises(ValueError, match=r"must have 0 and 1, .* only \[0, 1\]"):
        fit_threshold(np.full((20, 2), 0.5, "f4"), targets, several_labels=True)
