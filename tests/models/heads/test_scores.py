import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasext.models import BinaryClassifierMixin, ClassifierMixin, MultiLabelClassifierMixin

BOTH = ("entropy", "margin")


class Yields(keras.Model):
    """Yields its input, so that a test says what the model computed."""

    def call(self, inputs):
        return ops.cast(inputs, self.compute_dtype)  # Keras's `predict` on JAX does not


class Classifier(ClassifierMixin, Yields):
    pass


class Binary(BinaryClassifierMixin, Yields):
    pass


class MultiLabel(MultiLabelClassifierMixin, Yields):
    pass


def entropy(row):
    """The entropy of one distribution in nats, term by term."""
    return math.fsum(float(p) * math.log(1 / float(p)) for p in row if p > 0)


def margin(row):
    """The difference of the two largest probabilities of one distribution."""
    *_, second, first = sorted(map(float, row))
    return first - second


def by_row(score, distributions):
    """A score of every distribution on the last axis."""
    return np.apply_along_axis(score, -1, np.float64(distributions))


def two_classes(p):
    """The distributions over two classes of which these are the probabilities of one."""
    return np.stack([1 - np.float64(p), np.float64(p)], axis=-1)


def softmax(logits):
    """The softmax of the last axis, in float64."""
    exponentials = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def distributions(*shape):
    """Random distributions on the last axis, float32."""
    logits = np.random.default_rng(11).normal(scale=3, size=shape)
    return softmax(logits).astype("float32")


def assert_scores(outputs, expected):
    """Asserts that the outputs have the scores of these distributions, float32 and in range."""
    assert outputs["entropy"].dtype == outputs["margin"].dtype == "float32"
    np.testing.assert_allclose(outputs["entropy"], by_row(entropy, expected), rtol=1e-4, atol=2e-6)
    np.testing.assert_allclose(outputs["margin"], by_row(margin, expected), rtol=1e-4, atol=2e-6)
    assert np.all(outputs["entropy"] >= 0)
    assert np.all((outputs["margin"] >= 0) & (outputs["margin"] <= 1))


@pytest.mark.parametrize(
    ("model_class", "shape", "compiled"),
    [
        (Classifier, (9, 2), {}),
        (Classifier, (9, 4), {}),
        (Classifier, (3, 5, 4), {"jit_compile": True}),
        (Classifier, (2, 3, 2, 30), {"run_eagerly": True}),
        (Binary, (9, 1), {}),
        (Binary, (3, 5, 1), {"jit_compile": True}),
        (Binary, (9, 1), {"run_eagerly": True}),
        (MultiLabel, (9, 1), {}),
        (MultiLabel, (9, 2), {"run_eagerly": True}),
        (MultiLabel, (2, 3, 4), {"jit_compile": True}),
    ],
)
@pytest.mark.parametrize("from_logits", [False, True])
def test_values(model_class, shape, compiled, from_logits):
    """Scores are those of the distribution of each row, token, pixel or label, run in any way."""
    logits = np.random.default_rng(12).normal(scale=3, size=shape).astype("float32")
    if model_class is Classifier:
        expected = p = softmax(logits)
    else:
        p = 1 / (1 + np.exp(-np.float64(logits)))
        expected = two_classes(p[..., 0] if model_class is Binary else p)
    model = model_class(scores=BOTH, from_logits=from_logits)
    model.compile(**compiled)
    assert_scores(model.predict(logits if from_logits else np.float32(p), verbose=0), expected)


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}], ids=str)
def test_certain_and_undecided(compiled):
    """A probability of exactly 0 adds nothing; equal ones have the largest entropy, no margin."""
    x = [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4, [0.5, 0.25, 0.25, 0]]
    model = Classifier(scores=BOTH)
    model.compile(**compiled)
    outputs = model.predict(np.array(x, "float32"), verbose=0)
    expected = [0, math.log(2), math.log(4), 1.5 * math.log(2)]
    np.testing.assert_allclose(outputs["entropy"], expected, rtol=1e-6)
    assert outputs["margin"].tolist() == [1, 0, 0, 0.25]


@pytest.mark.parametrize("model_class", [Binary, MultiLabel])
def test_certain_and_undecided_alone(model_class):
    """One probability, of a binary output or a label, is scored against its rest."""
    x = np.array([[0], [0.25], [0.5], [0.75], [1]], "float32")
    outputs = model_class(scores=BOTH, threshold=0.1).predict(x, verbose=0)
    quarter = entropy([0.25, 0.75])
    expected = [0, quarter, math.log(2), quarter, 0]
    np.testing.assert_allclose(outputs["entropy"].reshape(-1), expected, rtol=1e-6)
    assert outputs["margin"].reshape(-1).tolist() == [1, 0.5, 0, 0.5, 1]


@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}], ids=str)
def test_hardly_possible(compiled):
    """Probabilities too small for a backend's logarithm count as 0, not as NaN or infinite."""
    x = np.array([[1, 1e-40, 1e-44], [1, 2e-38, 0], [1, 1e-30, 1e-20]], "float32")
    model = Classifier(scores=["entropy"])
    model.compile(**compiled)
    outputs = model.predict(x, verbose=0)["entropy"]
    assert np.all((outputs >= 0) & (outputs < 1e-17))


def test_never_negative():
    """A softmax that rounds to more than 1 has the entropy 0, not less."""
    x = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0]], "float32")
    assert Classifier(scores=["entropy"]).predict(x, verbose=0)["entropy"].tolist() == [0]


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_nan(classes):
    """A NaN anywhere in a row makes its scores NaN; other rows keep theirs."""
    x = distributions(6, classes)
    model = Classifier(scores=BOTH)
    clean = model.predict(x, verbose=0)
    x[0, 0] = x[2, classes - 1] = x[4] = np.nan
    outputs = model.predict(x, verbose=0)
    for name in BOTH:
        assert np.isnan(outputs[name]).tolist() == [True, False] * 3
        np.testing.assert_array_equal(outputs[name][1::2], clean[name][1::2])


@pytest.mark.parametrize("model_class", [Binary, MultiLabel])
@pytest.mark.parametrize("from_logits", [False, True])
def test_nan_alone(model_class, from_logits):
    """A probability that is NaN makes its own scores NaN, and no other."""
    x = np.array([[[0.9], [np.nan]], [[0.0], [0.5]]], "float32")
    outputs = model_class(scores=BOTH, from_logits=from_logits).predict(x, verbose=0)
    for name in BOTH:
        assert np.isnan(outputs[name]).reshape(-1).tolist() == [False, True, False, False]


@pytest.mark.parametrize("model_class", [Classifier, Binary, MultiLabel])
@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize(
    "policy",
    ["float64", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"],
    indirect=True,
)
def test_precision(model_class, from_logits, policy):
    """Scores are float32 under every policy, and exact of the probabilities that come with them."""
    x = distributions(9, 1 if model_class is Binary else 5)
    model = model_class(dtype=policy, scores=BOTH, from_logits=from_logits)
    outputs = model.predict(x * 3 if from_logits else x, verbose=0)
    p = np.float64(outputs["probabilities"])
    assert_scores(outputs, two_classes(p) if model_class is MultiLabel else p)


@pytest.mark.parametrize("scores", [(), ("entropy",), ("margin",), ("margin", "entropy")])
@pytest.mark.parametrize("model_class", [Classifier, Binary, MultiLabel])
def test_only_what_was_asked_for(model_class, scores):
    """The outputs are the three of every mixin and the scores named, in whatever order."""
    x = distributions(4, 1 if model_class is Binary else 3)
    outputs = model_class(scores=scores).predict(x, verbose=0)
    assert set(outputs) == {"probabilities", "labels", "confidence", *scores}


def test_heads():
    """Each head has the scores of its own dict entry, or those given for all."""

    class Heads(ClassifierMixin, keras.Model):
        def call(self, inputs):
            return {"kind": inputs[:, :3], "size": [inputs[:, 3:]]}

    x = np.concatenate([distributions(6, 3), distributions(6, 2)], axis=1)
    outputs = Heads(scores={"size/0": ["entropy"]}).predict(x, verbose=0)
    assert not set(BOTH) & set(outputs["kind"])
    size = outputs["size"]["0"]
    assert "margin" not in size
    np.testing.assert_allclose(size["entropy"], by_row(entropy, x[:, 3:]), rtol=1e-4)
    outputs = Heads(scores=BOTH).predict(x, verbose=0)
    assert_scores(outputs["kind"], x[:, :3])
    assert_scores(outputs["size"]["0"], x[:, 3:])


@pytest.mark.backends("jax", reason="it shows what XLA makes of a step")
@pytest.mark.parametrize("shape", [(8, 100), (2, 3, 100)])
def test_nothing_is_sorted(shape):
    """On a CPU XLA looks for the largest classes, and does not sort all: 20 times the time."""
    import jax  # noqa: PLC0415 - only where it is the backend

    model = Classifier(scores=BOTH, top_k=5)
    compiled = jax.jit(model.postprocess).lower(distributions(*shape)).compile()
    assert " sort(" not in compiled.as_text()
