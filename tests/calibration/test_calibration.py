"""A calibration as a whole: the fit, the map and its inverse."""

import json
import math

import numpy as np
import pytest
from overconfident import logits_and_targets, noisy_digits, softmax, yes_or_no

from kerasext.calibration import (
    Calibration,
    arguments,
    expected_calibration_error,
    fit_calibration,
    fit_platt,
    fit_temperature,
    fit_vector_scaling,
    rows_digest,
)
from kerasext.calibration.calibration import METHODS


def sigmoid(logits):
    """The probability of yes."""
    return 1 / (1 + np.exp(-logits))


def classes(rows=400, number=4):
    """Probabilities of one class out of several, and targets."""
    logits, targets = logits_and_targets(rows, number)
    return softmax(logits).astype("f4"), targets


def binary(rows=400):
    """Two columns, each with all its digits, and targets."""
    logits, targets = yes_or_no(rows)
    return np.stack([sigmoid(-logits), sigmoid(logits)], axis=-1).astype("f4"), targets


def labels(rows=400):
    """Probabilities of three labels, and targets."""
    columns = [yes_or_no(rows, scale, bias=scale, seed=int(9 * scale)) for scale in (0.3, 0.6, 1)]
    logits, targets = (np.stack(arrays, axis=-1) for arrays in zip(*columns, strict=True))
    return sigmoid(logits).astype("f4"), targets


DATA = {"classifier": classes, "binary": binary, "multilabel": labels}
FITS = [(task, method) for task, methods in METHODS.items() for method in methods]


def a_calibration(**changes):
    """A calibration that could have been fitted."""
    values = {"method": "temperature", "scale": 0.5, "bias": 0.0, "rows": 100}
    for when in ("before", "after"):
        values |= {
            f"negative_log_likelihood_{when}": 1.0,
            f"expected_calibration_error_{when}": 0.1,
        }
    return Calibration(**values | changes)


@pytest.mark.parametrize(("task", "method"), FITS)
def test_better_than_before(task, method):
    """The likelihood and the confidence on the fitted rows become better, and the text says so."""
    p, targets = DATA[task]()
    fitted = fit_calibration(p, targets, task=task, method=method, fitted_on="net")
    assert fitted.negative_log_likelihood_after < fitted.negative_log_likelihood_before
    assert fitted.expected_calibration_error_after < fitted.expected_calibration_error_before
    assert (fitted.method, fitted.rows, fitted.fitted_on) == (method, 400, "net")
    assert "fitted on 400 rows\nnegative log likelihood " in str(fitted)
    assert f" -> {fitted.expected_calibration_error_after:.4g}" in str(fitted)


@pytest.mark.parametrize(("task", "method"), FITS)
def test_figures(task, method):
    """The figures are those of the probabilities before and after."""
    p, targets = DATA[task]()
    fitted = fit_calibration(p, targets, task=task, method=method)
    for when, values in (("before", p.astype("f8")), ("after", fitted.apply(p.astype("f8")))):
        if task == "multilabel":
            true, right = np.where(targets, values, 1 - values), (values > 0.5) == targets
            confidence = np.maximum(values, 1 - values)
        else:
            true = values[np.arange(400), targets]
            right, confidence = values.argmax(axis=1) == targets, values.max(axis=1)
        loss = getattr(fitted, f"negative_log_likelihood_{when}")
        assert loss == pytest.approx(-np.log(true).mean())
        error = getattr(fitted, f"expected_calibration_error_{when}")
        assert error == pytest.approx(expected_calibration_error(confidence.ravel(), right.ravel()))


def test_temperature_of_probabilities():
    """From probabilities it is what it is from logits, and the map is the softmax of them."""
    logits, targets = logits_and_targets(400, 4)
    fitted = fit_calibration(softmax(logits), targets, task="classifier")
    assert fitted.temperature == pytest.approx(fit_temperature(logits, targets), rel=1e-9)
    expected = softmax(logits / fitted.temperature)
    np.testing.assert_allclose(fitted.apply(softmax(logits)), expected, rtol=1e-9)


def test_vector_of_probabilities():
    """From probabilities it is what it is from logits, which are centred."""
    logits, targets = logits_and_targets(400, 4)
    fitted = fit_calibration(softmax(logits), targets, task="classifier", method="vector")
    scale, bias = fit_vector_scaling(logits, targets)
    np.testing.assert_allclose(fitted.scale, scale, rtol=1e-8)
    np.testing.assert_allclose(fitted.bias, bias, atol=1e-8)
    expected = softmax(scale * (logits - logits.mean(axis=1, keepdims=True)) + bias)
    np.testing.assert_allclose(fitted.apply(softmax(logits)), expected, rtol=1e-7)
    with pytest.raises(ValueError, match="Only method='temperature' has a temperature"):
        _ = fitted.temperature


def test_platt_of_probabilities():
    """Of two columns it has one scale, of several labels one each."""
    logits, targets = yes_or_no(400)
    p = np.stack([sigmoid(-logits), sigmoid(logits)], axis=-1)
    fitted = fit_calibration(p, targets, task="binary")
    assert (fitted.scale, fitted.bias) == pytest.approx(fit_platt(logits, targets))
    expected = sigmoid(fitted.scale * logits + fitted.bias)
    np.testing.assert_allclose(fitted.apply(p), np.stack([1 - expected, expected], -1), rtol=1e-9)
    fitted = fit_calibration(p[:, 1:], targets[:, None], task="multilabel")
    assert fitted.scale == pytest.approx((fit_platt(logits, targets)[0],), rel=1e-6)
    np.testing.assert_allclose(fitted.apply(p[:, 1:])[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("task", "method"), FITS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_undo(task, method, dtype):
    """`undo` gives back what `apply` was given, in the same dtype."""
    p, targets = DATA[task]()
    fitted = fit_calibration(p, targets, task=task, method=method)
    p = p.astype(dtype)
    again = fitted.undo(fitted.apply(p))
    assert again.dtype == fitted.apply(p).dtype == dtype
    np.testing.assert_allclose(again, p, atol=1e-6 if dtype == "f4" else 1e-12)


@pytest.mark.parametrize(("task", "method"), FITS)
def test_blocks_and_shapes(task, method, monkeypatch):
    """Rows are read in blocks, positions count like rows, and neither changes anything."""
    p, targets = DATA[task]()
    fitted = fit_calibration(p, targets, task=task, method=method)
    applied = fitted.apply(p)
    monkeypatch.setattr(arguments, "_BLOCK_NUMBERS", 7 * p.shape[-1])
    np.testing.assert_array_equal(fitted.apply(p), applied)
    p, targets = p.reshape(20, 5, 4, -1), targets.reshape(20, 5, 4, *targets.shape[1:])
    pixels = fit_calibration(p, targets, task=task, method=method)
    np.testing.assert_allclose(pixels.scale, fitted.scale, rtol=1e-8)
    assert pixels.rows == 20
    np.testing.assert_array_equal(fitted.apply(p).reshape(applied.shape), applied)


@pytest.mark.parametrize(("task", "method"), FITS)
def test_nan(task, method):
    """Rows with NaN are left out of the fit, and stay NaN."""
    p, targets = DATA[task]()
    expected = fit_calibration(p[10:], targets[10:], task=task, method=method)
    p[:10, 0] = np.nan
    fitted = fit_calibration(p, targets, task=task, method=method)
    assert (fitted.scale, fitted.bias, fitted.rows) == (expected.scale, expected.bias, 390)
    others = task != "multilabel"  # whose labels are told one by one
    for values in (fitted.apply(p), fitted.undo(p)):
        assert np.isnan(values[:10, 0]).all()
        assert (np.isnan(values[:10, 1:]) == others).all()
        assert not np.isnan(values[10:]).any()


@pytest.mark.parametrize(("task", "method"), FITS)
def test_extreme_probabilities(task, method):
    """0 and 1 give finite numbers in [0, 1], and a larger probability stays the larger one."""
    p, targets = DATA[task]()
    fitted = fit_calibration(p, targets, task=task, method=method)
    values = np.float32([0, 1e-45, 1e-30, 0.3, 0.5, 1 - 2.0**-24, 1])
    rest = (1 - values) / (p.shape[-1] - 1)
    rows = np.stack([values, *[rest] * (p.shape[-1] - 1)], axis=-1)
    applied = fitted.apply(rows)
    assert ((applied >= 0) & (applied <= 1)).all()
    assert (np.diff(applied[:, 0]) >= 0).all()
    assert applied[0, 0] < applied[3, 0] < applied[4, 0] < applied[-1, 0]


def test_saturated_labels():
    """A sigmoid that is 1.0 counts as a logit of 17, as it would in double precision."""
    logits, targets = yes_or_no(2000)
    logits = 3 * logits
    p = sigmoid(logits.astype("f4"))[:, None]
    assert (p == 1).sum() > 50
    fitted = fit_calibration(p, targets[:, None], task="multilabel")
    assert fitted.scale[0] == pytest.approx(fit_platt(logits, targets)[0], rel=0.15)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_applied_dtypes(dtype):
    """Probabilities of half precision become float32, others keep their dtype."""
    p, _ = classes(20)
    applied = a_calibration().apply(p.astype(dtype))
    assert applied.dtype == np.result_type(dtype, "f4")
    assert applied.shape == (20, 4)
    assert a_calibration().apply(p[0]).shape == (4,)
    assert a_calibration().apply(p[:0]).shape == (0, 4)


@pytest.mark.parametrize(("task", "method"), FITS)
def test_json(task, method):
    """A calibration comes back from JSON bit for bit."""
    p, targets = DATA[task]()
    fitted = fit_calibration(p, targets, task=task, method=method)
    stored = json.dumps(fitted.as_json(), allow_nan=False)
    again = Calibration.from_json(json.loads(stored))
    assert again == fitted
    assert hash(again) == hash(fitted)
    np.testing.assert_array_equal(again.apply(p), fitted.apply(p))


def test_digest():
    """It tells other rows, targets and orders apart, and not a temperature."""
    p, targets = classes()
    digest = fit_calibration(p, targets, task="classifier").rows_digest
    assert digest == rows_digest(p, targets) == rows_digest(p.astype("f8"), targets.astype("u1"))
    assert digest == rows_digest(a_calibration().apply(p), targets)
    assert len(digest) == 8
    others = {
        rows_digest(p[:-1], targets[:-1]),
        rows_digest(p[::-1], targets[::-1]),
        rows_digest(p, (targets + 1) % 4),
        rows_digest(1 - p, targets),
        digest,
    }
    assert len(others) == 5
    p, targets = labels()
    assert rows_digest(p, targets) != rows_digest(1 - p, targets)
    p[0] = np.nan
    assert rows_digest(p, targets) == rows_digest(p, targets.astype(bool))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "isotonic"}, "`method` must be one of"),
        ({"scale": 0.0}, "`scale` must be finite and positive"),
        ({"scale": math.inf}, "`scale` must be finite and positive"),
        ({"scale": "1"}, "`scale` must be finite and positive"),
        ({"scale": [0.5, 0.5]}, "`scale` and `bias` must both be one number"),
        ({"scale": [0.5, 0.5], "bias": [0.0, 0.0]}, "`scale` must be one number"),
        ({"bias": 1.0}, "A temperature has the bias 0"),
        ({"bias": None}, "`bias` must be finite"),
        ({"method": "vector"}, "Vector scaling has a scale per class"),
        ({"rows": True}, "`rows` must be a positive integer"),
        ({"negative_log_likelihood_after": -1.0}, "`negative_log_likelihood_after` must be"),
        ({"expected_calibration_error_before": 1.5}, "`expected_calibration_error_before` must be"),
        ({"rows_digest": None}, "`rows_digest` must be a string"),
    ],
)
def test_damaged_json(change, message):
    """What a fit can't have made is refused."""
    with pytest.raises(ValueError, match=message):
        Calibration.from_json({**a_calibration().as_json(), **change})


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (), "must have the classes on the last axis"),
        ({"method": "platt"}, (5, 3), "must have 2 values on the last axis"),
        (
            {"method": "vector", "scale": (1.0, 1.0), "bias": (0.0, 0.0)},
            (5, 3),
            "must have 2 values on the last axis",
        ),
    ],
)
def test_other_shapes(changes, shape, message):
    """Probabilities must have the classes that were fitted."""
    calibration = a_calibration(**changes)
    for function in (calibration.apply, calibration.undo):
        with pytest.raises(ValueError, match=message):
            function(np.ones(shape, "f4"))


def test_apply_refuses_integers():
    """Integers are labels, or counts, or stored as fixed point."""
    with pytest.raises(ValueError, match=r"`probabilities` must be floats; .*uint8"):
        a_calibration().apply(np.ones((5, 3), "u1"))


def test_one_label_fails():
    """If a label can't be fitted, the error names it."""
    p, targets = labels()
    targets[:, 1] = 0
    with pytest.raises(ValueError, match=r"needs rows of both classes; .*, for label 1$"):
        fit_calibration(p, targets, task="multilabel")


def even(**changes):
    """Arguments of the fit on rows of four classes."""
    p, targets = classes(100)
    return {"probabilities": p, "targets": targets, "task": "classifier", **changes}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (even(task="regressor"), "`task` must be one of"),
        (
            even(method="platt"),
            r"of the task 'classifier' must be one of \['temperature', 'vector'",
        ),
        (even(method="isotonic"), "`method` of the task 'classifier'"),
        (even(targets=np.zeros(100, int)), "at least two classes; .* only class 0"),
        (even(targets=classes(100)[0].argmax(axis=1)), "only if some rows are wrong"),
        (even(targets=classes(100)[0].argmin(axis=1)), "better than chance"),
    ],
)
def test_refused(arguments, message):
    """What can't be calibrated is an error that says what could be."""
    with pytest.raises(ValueError, match=message):
        fit_calibration(**arguments)


def test_digits():
    """A net that knows its training rows by heart becomes half as wrong about its confidence."""
    p, targets = noisy_digits()
    fitted = fit_calibration(p[:400], targets[:400], task="classifier")
    assert fitted.temperature > 2
    before, after = (
        expected_calibration_error(values.max(axis=1), values.argmax(axis=1) == targets[400:])
        for values in (p[400:], fitted.apply(p[400:]))
    )
    assert after < before / 2
