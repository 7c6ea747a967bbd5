"""Prediction sets and calibration error are those of the packages that are known for them."""

import warnings

import numpy as np
import pytest
from overconfident import logits_and_targets, noisy_digits, softmax
from sklearn.base import BaseEstimator, ClassifierMixin

from kerasext.calibration import (
    expected_calibration_error,
    fit_calibration,
    fit_prediction_sets,
    fit_temperature,
)


class Fitted(ClassifierMixin, BaseEstimator):
    """A classifier whose rows are its probabilities."""

    def __init__(self, classes=2):
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, p, targets):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, p):
        return p

    def predict(self, p):
        return p.argmax(axis=1)


@pytest.fixture(params=["digits", "50 classes", "ties"])
def data(request):
    """Probabilities and targets: of a net, many classes, and two columns with many ties."""
    if request.param == "digits":
        return noisy_digits()
    logits, targets = logits_and_targets(1500, 50 if request.param == "50 classes" else 2)
    p = softmax(logits).astype("f4")
    if request.param == "ties":
        p[:, 1] = p[:, 1].round(1)
        p[:, 0] = 1 - p[:, 1]
    return p, targets


@pytest.mark.parametrize("rows", [30, 100, 700])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_lac_sets_of_mapie(rows, data, level):
    """Every cell of every set is MAPIE's.

    Of calibrated probabilities: MAPIE lets in what is 1e-8 below the threshold, which is more than
    the threshold itself where a net is far too sure.
    """
    p, targets = data
    p = fit_calibration(p, targets, task="classifier").apply(p)
    mapie = pytest.importorskip("mapie.classification")
    peer = mapie.SplitConformalClassifier(
        estimator=Fitted(p.shape[1]), confidence_level=level, conformity_score="lac", prefit=True
    )
    with warnings.catch_warnings(action="ignore"):  # of probabilities that are no float64
        peer.conformalize(p[:rows].astype("f8"), targets[:rows])
        _, expected = peer.predict_set(p[rows:].astype("f8"))
    sets = fit_prediction_sets(p[:rows], targets[:rows], task="classifier", confidence_level=level)
    np.testing.assert_array_equal(sets.apply(p[rows:]), expected[..., 0])


@pytest.mark.parametrize("bins", [10, 15, 40])
def test_expected_calibration_error_of_netcal(data, bins):
    """The expected calibration error is netcal's."""
    p, targets = data
    metrics = pytest.importorskip("netcal.metrics")
    confidence, is_right = p.max(axis=1).astype("f8"), p.argmax(axis=1) == targets
    peer = metrics.ECE(bins).measure(confidence, is_right.astype(int))
    assert expected_calibration_error(confidence, is_right, bins) == pytest.approx(peer, abs=1e-12)


def test_temperature_of_netcal():
    """The temperature is netcal's, as far as its optimizer goes."""
    scaling = pytest.importorskip("netcal.scaling")
    p, targets = noisy_digits()
    peer = scaling.TemperatureScaling()
    with warnings.catch_warnings(action="ignore"):
        peer.fit(p.astype("f8"), targets)
    found = fit_calibration(p, targets, task="classifier").temperature
    assert found == pytest.approx(fit_temperature(np.log(p.clip(1e-38)), targets), rel=1e-6)
    assert found == pytest.approx(1 / float(np.ravel(peer.temperature)[0]), rel=1e-3)
