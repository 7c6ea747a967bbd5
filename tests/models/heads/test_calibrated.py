"""What a calibration, prediction sets and abstention do in the compiled step."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasext.calibration import Abstention, Calibration, PredictionSets
from kerasext.models import PredictionMixin

FIGURES = {
    "rows": 100,
    "negative_log_likelihood_before": 1.0,
    "negative_log_likelihood_after": 0.5,
    "expected_calibration_error_before": 0.2,
    "expected_calibration_error_after": 0.1,
}
TEMPERATURE = Calibration("temperature", scale=0.35, bias=0.0, **FIGURES)
SHARPER = Calibration("temperature", scale=3.0, bias=0.0, **FIGURES)
VECTOR = Calibration("vector", scale=(0.5, 1.5, 0.2, 1.0), bias=(0.3, -0.1, 0.2, -0.4), **FIGURES)
PLATT = Calibration("platt", scale=0.6, bias=-0.7, **FIGURES)
PLATT_PER_LABEL = Calibration("platt", scale=(0.6, 2.0, 1.0), bias=(-0.7, 0.1, 0.0), **FIGURES)


def sets(threshold):
    """Prediction sets with a threshold, or one for each class."""
    return PredictionSets(
        method="lac",
        confidence_level=0.9,
        class_conditional=isinstance(threshold, tuple),
        threshold=threshold,
        rows=100,
        coverage=0.9,
        mean_size=1.5,
    )


def abstention(threshold):
    """Abstention with a threshold, or one for each label."""
    is_tuple = isinstance(threshold, tuple)

    def each(value):
        return (value,) * len(threshold) if is_tuple else value

    return Abstention(
        threshold=threshold,
        risk=0.05,
        confidence_level=0.95,
        rows=100,
        coverage=each(0.5),
        error_rate_before=each(0.2),
        error_rate_after=each(0.02),
    )


def softmax(logits):
    """Probabilities of classes."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    """Probabilities of labels."""
    return 1 / (1 + np.exp(-logits))


def two_columns(p):
    """Probabilities of no and of yes."""
    return np.concatenate([1 - p, p], axis=-1)


# The task, its units, what makes probabilities of logits, what it yields, and a calibration.
CASES = [
    ("classifier", 4, softmax, lambda p: p, TEMPERATURE),
    ("classifier", 4, softmax, lambda p: p, SHARPER),
    ("classifier", 4, softmax, lambda p: p, VECTOR),
    ("binary", 1, sigmoid, two_columns, PLATT),
    ("multilabel", 3, sigmoid, lambda p: p, PLATT_PER_LABEL),
]


class Echo(PredictionMixin, keras.Model):
    """Yields its input, so that a test says what the model computed."""

    def call(self, inputs):
        return ops.cast(inputs, self.compute_dtype)


def logits_of(units, shape=(40,)):
    """Logits, among them large ones, in float64."""
    logits = np.random.default_rng(1).normal(scale=3, size=(*shape, units))
    logits[0] *= 5
    return logits


@pytest.mark.parametrize("shape", [(40,), (7, 5)])
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(("task", "units", "squash", "columns", "calibration"), CASES)
def test_probabilities(task, units, squash, columns, calibration, from_logits, shape):
    """The step and `Calibration.apply` calibrate alike, and labels and confidence follow."""
    logits = logits_of(units, shape).astype("float32")
    yielded = logits if from_logits else squash(np.float64(logits)).astype("float32")
    model = Echo(tasks=task, from_logits=from_logits, calibration=calibration)
    outputs = model.predict(yielded, batch_size=3, verbose=0)
    p = squash(np.float64(logits)) if from_logits else np.float64(yielded)
    expected = calibration.apply(columns(p))
    p = outputs["probabilities"]
    assert p.dtype == "float32"
    np.testing.assert_allclose(p, expected, rtol=2e-4, atol=2e-7)
    plain = Echo(tasks=task).predict(p[..., 1:] if task == "binary" else p, verbose=0)
    np.testing.assert_array_equal(outputs["labels"], plain["labels"])
    np.testing.assert_allclose(outputs["confidence"], plain["confidence"], rtol=1e-5)


@pytest.mark.parametrize("policy", ["float64"], indirect=True)
@pytest.mark.parametrize(("task", "units", "squash", "columns", "calibration"), CASES)
def test_float64(task, units, squash, columns, calibration, policy):
    """A model of float64 is calibrated in float64."""
    logits = logits_of(units)
    model = Echo(tasks=task, from_logits=True, calibration=calibration, dtype=policy)
    # Not by `predict`, which makes float32 of its input on TensorFlow.
    outputs = model.postprocess(ops.convert_to_tensor(logits, "float64"))
    p = ops.convert_to_numpy(outputs["probabilities"])
    assert p.dtype == "float64"
    np.testing.assert_allclose(p, calibration.apply(columns(squash(logits))), rtol=1e-9)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(("task", "units", "squash", "columns", "calibration"), CASES)
def test_nan(task, units, squash, columns, calibration, from_logits):
    """A row with NaN has no label, is in no set and abstains; other rows stay."""
    x = squash(logits_of(units)).astype("float32")
    good = Echo(tasks=task, from_logits=from_logits, calibration=calibration)
    clean = good.predict(x, verbose=0)
    x[3, 0] = np.nan
    several = task == "multilabel"
    model = Echo(
        tasks=task,
        from_logits=from_logits,
        calibration=calibration,
        prediction_sets=sets(0.0),
        abstention=abstention((0.0,) * units if several else 0.0),
    )
    outputs = model.predict(x, verbose=0)
    for name, values in clean.items():
        np.testing.assert_array_equal(np.delete(outputs[name], 3, 0), np.delete(values, 3, 0))
    where = (3, 0) if several else 3
    assert outputs["labels"][where] == -1
    assert np.isnan(outputs["confidence"][where])
    assert not outputs["prediction_set"][where].any()
    assert outputs["abstained"][where]
    assert outputs["set_size"][3] == (units - 1 if several else 0)


@pytest.mark.parametrize("from_logits", [False, True])
def test_impossible_classes(from_logits):
    """Masked classes, of logit -inf or probability 0, stay impossible and spoil no other."""
    x = np.array([[-np.inf, 1, 2, 0], [-np.inf, -np.inf, -np.inf, 0]], "float32")
    x = x if from_logits else softmax(np.float64(x)).astype("float32")
    for calibration in (TEMPERATURE, SHARPER, VECTOR):
        model = Echo(tasks="classifier", from_logits=from_logits, calibration=calibration)
        p = model.predict(x, verbose=0)["probabilities"]
        np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
        assert p[0, 0] < 1e-7
        assert p[1, 3] > 1 - 1e-6


@pytest.mark.parametrize("threshold", [0.3, (0.3, 0.0, 1.0, 0.25)])
@pytest.mark.parametrize("shape", [(40,), (7, 5)])
def test_sets_of_classes(shape, threshold):
    """A class is in the set if its probability reaches the threshold, ties included."""
    p = softmax(logits_of(4, shape)).astype("float32")
    p.reshape(-1, 4)[5] = [0.3, 0.25, 0.2, 0.25]
    model = Echo(tasks="classifier", prediction_sets=sets(threshold))
    outputs = model.predict(p, verbose=0)
    chosen = outputs["prediction_set"]
    assert (chosen.dtype, outputs["set_size"].dtype) == ("bool", "int32")
    np.testing.assert_array_equal(chosen, p >= np.float32(threshold))
    np.testing.assert_array_equal(chosen, sets(threshold).apply(p))
    np.testing.assert_array_equal(outputs["set_size"], chosen.sum(axis=-1))


def test_sets_of_other_tasks():
    """A binary head has sets of its two classes, a multi-label head one set of labels."""
    p = np.array([[0.1], [0.5], [0.95]], "float32")
    outputs = Echo(tasks="binary", prediction_sets=sets(0.2)).predict(p, verbose=0)
    assert outputs["prediction_set"].tolist() == [[True, False], [True, True], [False, True]]
    p = np.array([[0.1, 0.5, 0.95]], "float32")
    outputs = Echo(tasks="multilabel", prediction_sets=sets(0.5)).predict(p, verbose=0)
    assert outputs["prediction_set"].tolist() == [[False, True, True]]
    assert outputs["set_size"].tolist() == [2]


def test_abstention():
    """Rows are abstained whose confidence is below the threshold; labels stay."""
    p = np.array([[0.1], [0.5], [0.95]], "float32")
    outputs = Echo(tasks="binary", abstention=abstention(0.9)).predict(p, verbose=0)
    assert outputs["abstained"].tolist() == [False, True, False]
    assert outputs["abstained"].dtype == "bool"
    assert outputs["labels"].tolist() == [0, 0, 1]
    p = np.array([[0.1, 0.5, 0.95]], "float32")
    model = Echo(tasks="multilabel", abstention=abstention((0.95, 0.5, 0.5)))
    assert model.predict(p, verbose=0)["abstained"].tolist() == [[True, False, False]]


def test_by_head(rows):
    """Each head has its own, and a head without a task none."""
    inputs = keras.Input((8,))
    outputs = {
        "kind": keras.layers.Dense(4, activation="softmax")(inputs),
        "sick": keras.layers.Dense(1, activation="sigmoid")(inputs),
    }

    class Two(PredictionMixin, keras.Model):
        tasks = {"kind": "classifier", "sick": "binary"}  # noqa: RUF012 - made immutable

    model = Two(
        inputs,
        outputs,
        calibration={"kind": VECTOR, "sick": PLATT.as_json()},
        prediction_sets={"kind": sets(0.2)},
    )
    plain = Two(inputs, outputs).predict(rows, verbose=0)
    found = model.predict(rows, verbose=0)
    for head, calibration in (("kind", VECTOR), ("sick", PLATT)):
        expected = calibration.apply(plain[head]["probabilities"])
        np.testing.assert_allclose(found[head]["probabilities"], expected, rtol=1e-5)
    assert "prediction_set" in found["kind"]
    assert "prediction_set" not in found["sick"]


MISFITS = [
    ("classifier", {"calibration": PLATT}),
    ("classifier", {"calibration": VECTOR}),
    ("classifier", {"prediction_sets": sets((0.1, 0.2))}),
    ("binary", {"calibration": TEMPERATURE}),
    ("binary", {"calibration": PLATT_PER_LABEL}),
    ("multilabel", {"calibration": PLATT}),
    ("multilabel", {"abstention": abstention((0.1, 0.2))}),
]


@pytest.mark.parametrize(("task", "settings"), MISFITS)
def test_of_another_head(task, settings):
    """What was fitted for a head of another task, or of more classes, is refused."""
    x = np.full((2, 1 if task == "binary" else 3), 0.5, "float32")
    with pytest.raises(ValueError, match=r"fitted on a head of this kind"):
        Echo(tasks=task, **settings).predict(x, verbose=0)
