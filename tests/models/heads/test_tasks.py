"""What each task makes of a head: one table for all of them, beside a reference in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasext.models import (
    BinaryClassifierMixin,
    ClassifierMixin,
    MultiLabelClassifierMixin,
    PredictionMixin,
    RegressorMixin,
)


def softmax(logits):
    """The softmax of the last axis, in float64."""
    exponentials = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    """The sigmoid in float64, accurate in both tails."""
    return np.exp(-np.logaddexp(0, -np.float64(logits)))


def classified(p):
    """What a classifier says of probabilities."""
    unknown = np.isnan(p).any(axis=-1)
    return {
        "probabilities": p,
        "labels": np.where(unknown, -1, p.argmax(axis=-1)),
        "confidence": np.where(unknown, np.nan, p.max(axis=-1)),
    }


def decided(p):
    """What a binary head says of the probabilities of class 1."""
    p = np.concatenate([1 - p, p], axis=-1)
    return {**classified(p), "labels": np.where(np.isnan(p[..., 1]), -1, p[..., 1] > 0.5)}


def labelled(p):
    """What a multi-label head says of the probabilities of each label."""
    labels = np.where(np.isnan(p), -1, p > 0.5)
    return {"probabilities": p, "labels": labels, "confidence": np.maximum(p, 1 - p)}


def estimated(y):
    """What a regressor says of numbers."""
    return {"prediction": y[..., 0] if y.shape[-1] == 1 else y}


# The mixin, what makes probabilities of logits, what the outputs are, and numbers of units.
TASKS = {
    "classifier": (ClassifierMixin, softmax, classified, (2, 4)),
    "binary": (BinaryClassifierMixin, sigmoid, decided, (1,)),
    "multilabel": (MultiLabelClassifierMixin, sigmoid, labelled, (1, 3)),
    "regressor": (RegressorMixin, None, estimated, (1, 3)),
}
CASES = [(task, units) for task, row in TASKS.items() for units in row[3]]
KINDS = [task for task in TASKS if task != "regressor"]
TYPES = {"labels": "int32", "confidence": "float32"}


def call(self, inputs):
    """Yields the input, so that a test says what the model computed."""
    return ops.cast(inputs, self.compute_dtype)  # Keras's `predict` on JAX does not


def echo(task, *, mixin=True, **settings):
    """A model that yields its input, of the mixin of a task or with the task as a setting."""
    if mixin:
        return type("Echo", (TASKS[task][0], keras.Model), {"call": call})(**settings)
    return type("Echo", (PredictionMixin, keras.Model), {"call": call})(tasks=task, **settings)


def inputs_of(task, shape, from_logits):
    """Logits or probabilities or numbers of a task, and what is expected of them."""
    logits = np.random.default_rng(3).normal(scale=2, size=shape).astype("float32")
    _, squash, outputs, _ = TASKS[task]
    if squash is None:
        return logits, outputs(logits)
    return (logits if from_logits else squash(logits).astype("float32")), outputs(squash(logits))


def logits_too(cases):
    """Cases, with probabilities and with logits where there is such a thing."""
    return [
        (*case, flag) for case in cases for flag in (False, True) if case[0] in KINDS or not flag
    ]


def flags(from_logits):
    """The settings of a model that yields logits, or does not."""
    return {"from_logits": True} if from_logits else {}


@pytest.mark.parametrize(("task", "units", "from_logits"), logits_too(CASES))
@pytest.mark.parametrize("axes", [(7,), (3, 5), (2, 3, 4), (2, 1, 2, 3)], ids=str)
def test_outputs(task, units, from_logits, axes):
    """Rows, tokens, pixels and voxels are described on the last axis, as NumPy does it."""
    x, expected = inputs_of(task, (*axes, units), from_logits)
    outputs = echo(task, **flags(from_logits)).predict(x, verbose=0)
    assert outputs.keys() == expected.keys()
    for name, array in outputs.items():
        assert array.shape == expected[name].shape
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("task", "units", "from_logits"), logits_too(CASES))
def test_task_as_a_setting(task, units, from_logits):
    """A task that `tasks` names makes the outputs of its mixin, bit for bit."""
    x, _ = inputs_of(task, (9, units), from_logits)
    x[2, -1] = np.nan
    models = [echo(task, mixin=mixin, **flags(from_logits)) for mixin in (True, False)]
    expected, outputs = (model.predict(x, verbose=0) for model in models)
    assert outputs.keys() == expected.keys()
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)
    assert [model.prediction_metadata()["task"] for model in models] == [task, task]


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("float16", "float32"),
    ],
    indirect=["policy"],
)
@pytest.mark.parametrize(("task", "from_logits"), logits_too([(task,) for task in TASKS]))
def test_dtypes(task, policy, dtype, from_logits):
    """The types of the outputs do not depend on the precision, but for float64."""
    x, expected = inputs_of(task, (5, TASKS[task][3][-1]), from_logits)
    outputs = echo(task, dtype=policy, **flags(from_logits)).predict(x, verbose=0)
    found = {name: array.dtype.name for name, array in outputs.items()}
    assert found == {name: TYPES.get(name, dtype) for name in expected}
    if "confidence" in outputs:
        assert np.all((outputs["confidence"] >= 0) & (outputs["confidence"] <= 1))


@pytest.mark.parametrize(("task", "units", "from_logits"), logits_too(CASES))
def test_nan(task, units, from_logits):
    """A NaN makes label -1 and confidence NaN, of its own row, token or label and of no other."""
    x, _ = inputs_of(task, (4, 3, units), from_logits)
    model = echo(task, **flags(from_logits))
    clean = model.predict(x, verbose=0)
    x[1, 2, -1] = np.nan
    outputs = model.predict(x, verbose=0)
    if "labels" in outputs:
        assert np.all(outputs["labels"][1, 2, ...].flat[-1] == -1)
        assert np.isnan(outputs["confidence"][1, 2, ...].flat[-1])
        np.testing.assert_array_equal(outputs["labels"] == -1, np.isnan(outputs["confidence"]))
    for name, array in outputs.items():
        assert name == "labels" or np.isnan(array[1, 2]).any()
        is_other = np.ones((4, 3), bool)
        is_other[1, 2] = False
        np.testing.assert_array_equal(array[is_other], clean[name][is_other])
        if task in ("multilabel", "regressor") and units > 1:
            np.testing.assert_array_equal(array[1, 2, :-1], clean[name][1, 2, :-1])


@pytest.mark.parametrize("values", [np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("task", TASKS)
def test_infinities(task, values):
    """Infinite and huge logits give a label, or NaN, and no error."""
    x = np.zeros((2, TASKS[task][3][-1]), "float32")
    x[0, 0] = values
    outputs = echo(task, **flags(task in KINDS)).predict(x, verbose=0)
    if task == "regressor":
        assert outputs["prediction"][0].flat[0] == np.float32(values)
    else:
        np.testing.assert_array_equal(outputs["labels"] == -1, np.isnan(outputs["confidence"]))
        assert not np.isnan(outputs["confidence"][1]).any()


# A task, the shape of a head that it does not take, and what the error says.
MISFITS = [
    ("classifier", (4, 1), r"one unit per class.*{binary}.*Received: shape="),
    ("classifier", (4, 3, 1), r"one unit per class.*{binary}"),
    ("classifier", (4,), r"one unit per class"),
    ("binary", (4, 2), r"one unit on its last axis.*{classifier}.*{multilabel}"),
    ("binary", (4, 5, 3), r"{classifier}.*{multilabel}"),
    ("binary", (4,), r"one unit on its last axis"),
    ("multilabel", (4,), r"one unit per label"),
]
MIXINS = {task: f"`{row[0].__name__}`" for task, row in TASKS.items()}
SETTINGS = {task: f"`tasks='{task}'`" for task in TASKS}
BY_HEAD = {task: rf"`tasks=\{{'a': '{task}'\}}`" for task in TASKS}


@pytest.mark.parametrize(("task", "shape", "message"), MISFITS)
def test_wrong_shape(task, shape, message):
    """A head of another shape is refused, with the task that fits as the user gives it."""
    x = np.ones((4, 3), "float32")

    def other(self, inputs):
        return ops.ones((ops.shape(inputs)[0], *shape[1:]))

    def head(self, inputs):
        return {"a": other(self, inputs), "b": inputs}

    model = type("M", (TASKS[task][0], keras.Model), {"call": other})()
    with pytest.raises(ValueError, match=message.format(**MIXINS)):
        model.predict(x, verbose=0)
    model = type("M", (PredictionMixin, keras.Model), {"call": other})(tasks=task)
    with pytest.raises(ValueError, match=message.format(**SETTINGS)):
        model.predict(x, verbose=0)
    model = type("M", (PredictionMixin, keras.Model), {"call": head})(tasks={"a": task})
    with pytest.raises(ValueError, match=message.format(**BY_HEAD)):
        model.predict(x, verbose=0)


@pytest.mark.parametrize("task", TASKS)
def test_integers(task):
    """A model that already yields class indices is refused."""

    def indices(self, inputs):
        return ops.argmax(inputs, axis=-1, keepdims=True)

    model = type("M", (TASKS[task][0], keras.Model), {"call": indices})()
    message = r"floating point.*`PredictionModel` without `tasks` passes.*Received: dtype=.*int"
    with pytest.raises(ValueError, match=message):
        model.predict(np.ones((4, 3), "float32"), verbose=0)


@pytest.mark.backends("tensorflow", reason="only it has tensors of strings")
@pytest.mark.parametrize("task", TASKS)
def test_strings(task):
    """A head of strings has no task; without one it is passed on."""

    def names(self, inputs):
        return {"a": ops.convert_to_tensor(inputs), "b": self.text(inputs)}

    import tensorflow as tf  # noqa: PLC0415 - only where it is the backend

    space = {"call": names, "text": lambda _, inputs: tf.strings.as_string(inputs)}
    model = type("M", (PredictionMixin, keras.Model), space)(tasks={"b": task})
    message = r"head 'b' must be floating point.*`tasks=\{'b': None\}`.*dtype=string"
    with pytest.raises(ValueError, match=message):
        model.predict(np.ones((4, 3), "float32"), verbose=0)
    model.tasks = None
    assert model.predict(np.ones((4, 1), "float32"), verbose=0)["b"].tolist()[0] == [b"1.000000"]


@pytest.mark.parametrize(
    ("scale", "of"), [("std", lambda y: y), ("log_std", np.exp)], ids=["std", "log_std"]
)
@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_bfloat16"], indirect=True)
def test_scale(scale, of, units, policy):
    """The second half of a regressor's units comes as a standard deviation, at least float32."""
    x = np.random.default_rng(4).uniform(0.5, 2, size=(6, 5, 2 * units)).astype("float32")
    outputs = echo("regressor", scale=scale, dtype=policy).predict(x, verbose=0)
    assert outputs.keys() == {"prediction", "scale"}
    rtol = 0.01 if policy == "mixed_bfloat16" else 1e-6
    for name, expected in {"prediction": x[..., :units], "scale": of(x[..., units:])}.items():
        assert outputs[name].dtype == ("float64" if policy == "float64" else "float32")
        assert outputs[name].shape == ((6, 5) if units == 1 else (6, 5, units))
        np.testing.assert_allclose(outputs[name].reshape(expected.shape), expected, rtol=rtol)


@pytest.mark.parametrize("scale", ["std", "log_std"])
@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (4, 2, 5)])
def test_scale_of_odd_units(scale, shape):
    """A head without a scale for each number is refused."""
    with pytest.raises(ValueError, match=rf"even number of units.*scale='{scale}' for shape="):
        echo("regressor", scale=scale).predict(np.ones(shape, "float32"), verbose=0)


def test_a_number_for_each_row():
    """A regressor may yield its numbers without an axis of units."""
    model = type("M", (RegressorMixin, keras.Model), {"call": lambda _, x: x[:, 0]})()
    x = np.arange(6, dtype="float32").reshape(3, 2)
    assert model.predict(x, verbose=0)["prediction"].tolist() == [0, 2, 4]


THRESHOLDS = [
    ("binary", 0.5, [0, 0, 0, 1], [0.9, 0.8, 0.5, 0.7]),
    ("binary", 0.2, [0, 0, 1, 1], [0.9, 0.8, 0.5, 0.7]),
    ("binary", 0.6, [0, 0, 0, 1], [0.9, 0.8, 0.5, 0.7]),
    ("binary", 0.7, [0, 0, 0, 0], [0.9, 0.8, 0.5, 0.3]),
    ("binary", 0.0, [1, 1, 1, 1], [0.1, 0.2, 0.5, 0.7]),
    ("binary", 1.0, [0, 0, 0, 0], [0.9, 0.8, 0.5, 0.3]),
    ("multilabel", 0.5, [[0, 0, 1], [0, 1, 0]], [[0.8, 0.5, 0.9], [0.7, 0.6, 1.0]]),
    ("multilabel", 0.2, [[0, 1, 1], [1, 1, 0]], [[0.8, 0.5, 0.9], [0.3, 0.6, 1.0]]),
    ("multilabel", [0.1, 0.6, 0.95], [[1, 0, 0], [1, 0, 0]], [[0.2, 0.5, 0.1], [0.3, 0.4, 1.0]]),
    (
        "multilabel",
        np.array([0.3, 0.5, 0.0]),
        [[0, 0, 1], [0, 1, 0]],
        [[0.8, 0.5, 0.9], [0.7, 0.6, 1.0]],
    ),
]


@pytest.mark.parametrize(("task", "threshold", "labels", "confidence"), THRESHOLDS)
@pytest.mark.parametrize("policy", ["float32", "float64"], indirect=True)
def test_threshold(task, threshold, labels, confidence, policy):
    """A 1 needs more than the threshold; confidence is the probability of what is said."""

    def tenths(self, inputs):  # Keras feeds float32, this has the model's own precision
        inputs = call(self, inputs)
        return inputs / ops.full_like(inputs, 10)

    x = {"binary": [[1], [2], [5], [7]], "multilabel": [[2, 5, 9], [3, 6, 0]]}[task]
    mixin = TASKS[task][0]
    model = type("M", (mixin, keras.Model), {"call": tenths})(threshold=threshold, dtype=policy)
    model.compile(run_eagerly=True)  # TensorFlow and XLA would multiply by 0.1: not the same
    outputs = model.predict(np.array(x, "float32"), verbose=0)
    assert outputs["labels"].tolist() == labels
    np.testing.assert_allclose(outputs["confidence"], confidence, rtol=1e-6)


@pytest.mark.parametrize(("threshold", "value"), [(0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_threshold_at_the_ends(task, threshold, value):
    """A probability equal to the threshold is 0 at the ends of the range too."""
    model = echo(task, threshold=threshold)
    assert not model.predict(np.array([[value]], "float32"), verbose=0)["labels"].any()


def test_threshold_per_label_of_tokens():
    """Thresholds belong to the last axis, also where another axis has the same length."""
    x = np.full((2, 3, 3), 0.5, "float32")
    outputs = echo("multilabel", threshold=[0.4, 0.5, 0.6]).predict(x, verbose=0)
    assert outputs["labels"].tolist() == [[[1, 0, 0]] * 3] * 2


@pytest.mark.parametrize(
    ("task", "threshold", "message"),
    [
        ("binary", [0.2, 0.3], r"one number.*Received: \(0.2, 0.3\)"),
        ("multilabel", [0.5], r"3 labels\. Received: 1 numbers"),
        ("multilabel", [0.2, 0.3], r"3 labels\. Received: 2 numbers"),
        ("multilabel", [0.1] * 4, r"3 labels\. Received: 4 numbers"),
    ],
)
def test_wrong_number_of_thresholds(task, threshold, message):
    """Thresholds that do not fit the units are refused: at once where the graph is known."""
    units = TASKS[task][3][-1]
    with pytest.raises(ValueError, match=message):
        echo(task, threshold=threshold).predict(np.ones((4, units), "float32"), verbose=0)
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(units, activation="sigmoid")(inputs)
    model_class = type("M", (TASKS[task][0], keras.Model), {})
    with pytest.raises(ValueError, match=message):
        model_class(inputs, outputs, threshold=threshold)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_tails(policy):
    """Neither column of a large logit of a binary head rounds to zero."""
    logits = np.array([-30, -17, 17, 30])
    model = echo("binary", from_logits=True, dtype=policy)
    probabilities = model.predict(np.float32(logits)[:, None], verbose=0)["probabilities"]
    assert np.all(probabilities > 0)
    np.testing.assert_allclose(probabilities[:, 0], sigmoid(-logits), rtol=1e-4)
    np.testing.assert_allclose(probabilities[:, 1], sigmoid(logits), rtol=1e-4)
