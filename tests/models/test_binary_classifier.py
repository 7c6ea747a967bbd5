import keras
import numpy as np
import pytest
from keras import ops

from kerasext.models import BinaryClassifierMixin


class Echo(BinaryClassifierMixin, keras.Model):
    """Yields its input, so that a test says what the model computed."""

    def call(self, inputs):
        return ops.cast(inputs, self.compute_dtype)  # Keras's `predict` on JAX does not


class Tenths(Echo):
    """Yields a tenth of its input: Keras feeds float32, this has the model's own precision."""

    def call(self, inputs):
        inputs = super().call(inputs)
        return inputs / ops.full_like(inputs, 10)


def column(*values):
    """The values as the float32 output of a model with one unit."""
    return np.array(values, "float32")[:, None]


def sigmoid(logits):
    """The sigmoid in float64, accurate in both tails."""
    return np.exp(-np.logaddexp(0, -np.float64(logits)))


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("float32", "float32"),
        ("float64", "float64"),
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
    ],
    indirect=["policy"],
)
def test_keys_shapes_and_dtypes(policy, dtype, from_logits):
    """The names, shapes and dtypes that `predict` returns do not depend on the precision."""
    x = column(0.1, 0.5, 0.8)
    outputs = Echo(dtype=policy, from_logits=from_logits).predict(x, verbose=0)
    assert {name: (array.shape, array.dtype.name) for name, array in outputs.items()} == {
        "probabilities": ((3, 2), dtype),
        "labels": ((3,), "int32"),
        "confidence": ((3,), "float32"),
    }


def test_two_columns():
    """The columns are the probabilities of class 0 and of class 1."""
    outputs = Echo().predict(column(0.0, 0.25, 0.75, 1.0), verbose=0)
    expected = [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    np.testing.assert_array_equal(outputs["probabilities"], expected)
    assert outputs["labels"].tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(outputs["confidence"], [1, 0.75, 0.75, 1])


@pytest.mark.parametrize(
    ("threshold", "labels", "confidence"),
    [
        (0.5, [0, 0, 0, 1], [0.9, 0.8, 0.5, 0.7]),
        (0.2, [0, 0, 1, 1], [0.9, 0.8, 0.5, 0.7]),
        (0.6, [0, 0, 0, 1], [0.9, 0.8, 0.5, 0.7]),
        (0.7, [0, 0, 0, 0], [0.9, 0.8, 0.5, 0.3]),
        (0.0, [1, 1, 1, 1], [0.1, 0.2, 0.5, 0.7]),
        (1.0, [0, 0, 0, 0], [0.9, 0.8, 0.5, 0.3]),
    ],
)
@pytest.mark.parametrize("policy", ["float32", "float64"], indirect=True)
def test_threshold(threshold, labels, confidence, policy):
    """Class 1 needs more than the threshold, and confidence is the column of the label."""
    model = Tenths(threshold=threshold, dtype=policy)
    model.compile(run_eagerly=True)  # TensorFlow and XLA would multiply by 0.1: not the same
    outputs = model.predict(column(1, 2, 5, 7), verbose=0)
    assert outputs["labels"].tolist() == labels
    np.testing.assert_allclose(outputs["confidence"], confidence, rtol=1e-6)


@pytest.mark.parametrize(("threshold", "value"), [(0.0, 0.0), (1.0, 1.0)])
def test_threshold_at_the_ends(threshold, value):
    """A probability equal to the threshold is class 0 at the ends of the range too."""
    assert Echo(threshold=threshold).predict(column(value), verbose=0)["labels"].tolist() == [0]


@pytest.mark.parametrize("shape", [(7, 1), (3, 5, 1), (2, 3, 4, 1)])
@pytest.mark.parametrize("from_logits", [False, True])
def test_leading_axes(shape, from_logits):
    """Rows, tokens and pixels are each decided."""
    logits = np.random.default_rng(3).normal(scale=2, size=shape).astype("float32")
    positive = sigmoid(logits)
    x = logits if from_logits else positive.astype("float32")
    outputs = Echo(from_logits=from_logits).predict(x, verbose=0)
    expected = np.concatenate([1 - positive, positive], axis=-1)
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(outputs["labels"], positive[..., 0] > 0.5)
    np.testing.assert_allclose(outputs["confidence"], expected.max(axis=-1), rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_tails(policy):
    """Neither column of a large logit rounds to zero."""
    logits = np.array([-30, -17, 17, 30])
    model = Echo(from_logits=True, dtype=policy)
    probabilities = model.predict(column(*logits), verbose=0)["probabilities"]
    assert np.all(probabilities > 0)
    np.testing.assert_allclose(probabilities[:, 0], sigmoid(-logits), rtol=1e-4)
    np.testing.assert_allclose(probabilities[:, 1], sigmoid(logits), rtol=1e-4)


@pytest.mark.parametrize("from_logits", [False, True])
def test_nan(from_logits):
    """A NaN makes label -1 and confidence NaN, in its own row."""
    outputs = Echo(from_logits=from_logits).predict(column(0.9, np.nan, -0.0), verbose=0)
    assert outputs["labels"].tolist() == [1, -1, 0]
    assert np.isnan(outputs["confidence"]).tolist() == [False, True, False]
    assert np.isnan(outputs["probabilities"]).tolist() == [[False] * 2, [True] * 2, [False] * 2]


@pytest.mark.parametrize("shape", [(4, 2), (4, 5, 3)])
def test_several_units(shape):
    """A model with several units is sent to the mixins that fit it."""
    with pytest.raises(ValueError, match=r"`ClassifierMixin`.*`MultiLabelClassifierMixin`"):
        Echo().predict(np.ones(shape, "float32"), verbose=0)


def test_threshold_is_one_number():
    """A threshold for each label makes no sense for one unit."""
    with pytest.raises(ValueError, match=r"one number.*Received: \(0.2, 0.3\)"):
        Echo(threshold=[0.2, 0.3]).predict(column(0.5), verbose=0)
