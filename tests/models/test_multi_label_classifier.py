import keras
import numpy as np
import pytest
from keras import ops

from kerasext.models import MultiLabelClassifierMixin, MultiLabelClassifierModel


class Echo(MultiLabelClassifierMixin, keras.Model):
    """Yields its input, so that a test says what the model computed."""

    def call(self, inputs):
        return ops.cast(inputs, self.compute_dtype)  # Keras's `predict` on JAX does not


class Tenths(Echo):
    """Yields a tenth of its input: Keras feeds float32, this has the model's own precision."""

    def call(self, inputs):
        inputs = super().call(inputs)
        return inputs / ops.full_like(inputs, 10)


def sigmoid(logits):
    """The sigmoid in float64."""
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
    x = np.full((5, 3), 0.25, "float32")
    outputs = Echo(dtype=policy, from_logits=from_logits).predict(x, verbose=0)
    assert {name: (array.shape, array.dtype.name) for name, array in outputs.items()} == {
        "probabilities": ((5, 3), dtype),
        "labels": ((5, 3), "int32"),
        "confidence": ((5, 3), "float32"),
    }


@pytest.mark.parametrize("shape", [(6, 3), (6, 1), (4, 5, 3), (2, 3, 4, 2)])
@pytest.mark.parametrize("from_logits", [False, True])
def test_each_label_on_its_own(shape, from_logits):
    """Indicators and confidence have the shape of the probabilities, whatever the leading axes."""
    logits = np.random.default_rng(4).normal(scale=2, size=shape).astype("float32")
    expected = sigmoid(logits)
    x = logits if from_logits else expected.astype("float32")
    outputs = Echo(from_logits=from_logits).predict(x, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=1e-5)
    np.testing.assert_array_equal(outputs["labels"], expected > 0.5)
    confidence = np.maximum(expected, 1 - expected)
    np.testing.assert_allclose(outputs["confidence"], confidence, rtol=1e-5)


@pytest.mark.parametrize(
    ("threshold", "labels", "confidence"),
    [
        (0.5, [[0, 0, 1], [0, 1, 0]], [[0.8, 0.5, 0.9], [0.7, 0.6, 1.0]]),
        (0.2, [[0, 1, 1], [1, 1, 0]], [[0.8, 0.5, 0.9], [0.3, 0.6, 1.0]]),
        ([0.1, 0.6, 0.95], [[1, 0, 0], [1, 0, 0]], [[0.2, 0.5, 0.1], [0.3, 0.4, 1.0]]),
        (np.array([0.3, 0.5, 0.0]), [[0, 0, 1], [0, 1, 0]], [[0.8, 0.5, 0.9], [0.7, 0.6, 1.0]]),
    ],
)
@pytest.mark.parametrize("policy", ["float32", "float64"], indirect=True)
def test_threshold(threshold, labels, confidence, policy):
    """An indicator needs more than its threshold; confidence is p, or 1 - p of an indicator 0."""
    x = np.array([[2, 5, 9], [3, 6, 0]], "float32")
    model = Tenths(threshold=threshold, dtype=policy)
    model.compile(run_eagerly=True)  # TensorFlow and XLA would multiply by 0.1: not the same
    outputs = model.predict(x, verbose=0)
    assert outputs["labels"].tolist() == labels
    np.testing.assert_allclose(outputs["confidence"], confidence, rtol=1e-6)


def test_threshold_per_label_of_tokens():
    """Thresholds belong to the last axis, also where another axis has the same length."""
    x = np.full((2, 3, 3), 0.5, "float32")
    outputs = Echo(threshold=[0.4, 0.5, 0.6]).predict(x, verbose=0)
    assert outputs["labels"].tolist() == [[[1, 0, 0]] * 3] * 2


@pytest.mark.parametrize("from_logits", [False, True])
def test_nan(from_logits):
    """A NaN makes its own indicator -1 and its own confidence NaN, and no other."""
    x = np.array([[0.9, np.nan, 0.6], [-0.1, 0.7, np.nan]], "float32")
    outputs = Echo(from_logits=from_logits).predict(x, verbose=0)
    assert outputs["labels"].tolist() == [[1, -1, 1], [0, 1, -1]]
    np.testing.assert_array_equal(np.isnan(outputs["confidence"]), np.isnan(x))


@pytest.mark.parametrize("threshold", [[0.5], [0.2, 0.3], [0.1] * 4])
def test_wrong_number_of_thresholds(threshold):
    """Thresholds that do not fit the labels are refused where the graph is known, at once."""
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(3, activation="sigmoid")(inputs)
    with pytest.raises(ValueError, match=rf"3 labels\. Received: {len(threshold)} numbers"):
        MultiLabelClassifierModel(inputs, outputs, threshold=threshold)


def test_wrong_number_of_thresholds_of_a_subclass():
    """Thresholds that do not fit the labels are refused at the first predict of a subclass."""
    with pytest.raises(ValueError, match=r"3 labels\. Received: 2 numbers"):
        Echo(threshold=[0.2, 0.3]).predict(np.ones((4, 3), "float32"), verbose=0)


def test_no_label_axis():
    """An output without an axis of labels is refused."""

    class Scalar(Echo):
        def call(self, inputs):
            return inputs[:, 0]

    with pytest.raises(ValueError, match="one unit per label"):
        Scalar().predict(np.ones((4, 2), "float32"), verbose=0)
