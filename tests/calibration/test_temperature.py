"""The one number of temperature scaling."""

import math

import numpy as np
import pytest
import sklearn
from overconfident import logits_and_targets
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV

from kerasext.calibration import arguments, fit_temperature


class Fitted(ClassifierMixin, BaseEstimator):
    """A classifier whose rows are its logits."""

    def fit(self, logits, targets):
        self.classes_ = np.unique(targets)
        return self

    def decision_function(self, logits):
        return logits

    def predict(self, logits):
        return logits.argmax(axis=1)


def in_scikit_learn(logits, targets):
    """The temperature that scikit-learn finds."""
    from sklearn.frozen import FrozenEstimator  # noqa: PLC0415 - older versions do not have it

    classifier = FrozenEstimator(Fitted().fit(logits, targets))
    calibrated = CalibratedClassifierCV(classifier, method="temperature").fit(logits, targets)
    return 1 / calibrated.calibrated_classifiers_[0].calibrators[0].beta_


@pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8), reason="older scikit-learn"
)
@pytest.mark.parametrize(("rows", "classes"), [(60, 3), (1000, 10), (3000, 50)])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_as_in_scikit_learn(rows, classes, temperature):
    """The temperature is that of `CalibratedClassifierCV(method="temperature")`."""
    logits, targets = logits_and_targets(rows, classes, temperature)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(in_scikit_learn(logits, targets), rel=1e-4)
    assert found == pytest.approx(temperature, rel=0.3)


def test_least_loss():
    """The slope of the loss is 0: the mean logit is that of the targets."""
    logits, targets = logits_and_targets(500, 4)
    scaled = logits / fit_temperature(logits, targets)
    p = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    expected, true = (p * logits).sum(axis=1), logits[np.arange(500), targets]
    assert expected.mean() == pytest.approx(true.mean(), abs=1e-12)


def test_by_hand():
    """Three of four rows of two classes are right, all by the same logit: 3 = exp(logit / T)."""
    logits = np.array([[0.0, 5.0]] * 4)
    assert fit_temperature(logits, np.array([1, 1, 1, 0])) == pytest.approx(5 / math.log(3))


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_logits(temperature):
    """Tiny and huge logits have an optimum like others."""
    logits, targets = logits_and_targets(300, 3, temperature)
    usual, _ = logits_and_targets(300, 3, 1)
    found, expected = fit_temperature(logits, targets), fit_temperature(usual, targets)
    assert found == pytest.approx(expected * temperature)


def test_constants_do_not_matter():
    """Each row of logits may be off by a constant, as log probabilities are."""
    logits, targets = logits_and_targets(300, 3)
    moved = logits + np.linspace(-50, 50, 300)[:, None]
    assert fit_temperature(moved, targets) == pytest.approx(fit_temperature(logits, targets))


def test_blocks(monkeypatch):
    """The rows are read in blocks; their size changes nothing."""
    logits, targets = logits_and_targets(100, 4)
    whole = fit_temperature(logits, targets)
    monkeypatch.setattr(arguments, "_BLOCK_NUMBERS", 4 * 7)
    assert fit_temperature(logits, targets) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1, 1, 1], "only if some rows are wrong"),
        ([0, 0, 0], "only if the model is better than chance"),
        ([0, 0, 1], "only if the model is better than chance"),
    ],
)
def test_no_optimum(targets, message):
    """Rows that are all right, or no better than chance, have no best temperature."""
    with pytest.raises(ValueError, match=message):
        fit_temperature(np.array([[0.0, 1.0]] * 3), np.array(targets))


@pytest.mark.parametrize(("size", "message"), [(1e-7, "some rows are wrong"), (1e-5, None)])
def test_almost_right(size, message):
    """A row that is wrong by next to nothing gives no temperature that means something."""
    logits = np.array([[0.0, 1.0]] * 50 + [[0.0, size]])
    targets = np.array([1] * 50 + [0])
    with pytest.raises(ValueError, match="only if some rows are wrong"):
        fit_temperature(logits * size, targets)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad):
    """Logits must be finite."""
    logits = np.array([[0.0, 1.0], [1.0, bad]])
    with pytest.raises(ValueError, match="`logits` must be finite"):
        fit_temperature(logits, np.array([0, 0]))
