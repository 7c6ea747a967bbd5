import keras
import numpy as np
import pytest
from keras import ops

from kerasext import predict_to_hdf5
from kerasext.models import BinaryClassifierMixin, ClassifierMixin, ClassifierModel


class Echo(ClassifierMixin, keras.Model):
    """Yields its input, so that a test says what the model computed."""

    def call(self, inputs):
        return ops.cast(inputs, self.compute_dtype)  # Keras's `predict` on JAX does not


def softmax(logits):
    """The softmax of the last axis, in float64."""
    exponentials = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture
def logits():
    """Logits of 9 rows and 4 classes."""
    return np.random.default_rng(1).normal(scale=3, size=(9, 4)).astype("float32")


def test_axes_of_unknown_length():
    """One model classifies sequences of different lengths."""
    inputs = keras.Input((None, 2))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    model = ClassifierModel(inputs, outputs, class_names=["a", "b", "c"])
    for length in (4, 7):
        x = np.ones((5, length, 2), "float32")
        assert model.predict(x, verbose=0)["labels"].shape == (5, length)


def test_probabilities_pass_unchanged(logits):
    """What the model calls probabilities comes out bit for bit."""
    x = softmax(logits).astype("float32")
    np.testing.assert_array_equal(Echo().predict(x, verbose=0)["probabilities"], x)


@pytest.mark.parametrize("policy", ["float64"], indirect=True)
def test_float64_softmax(logits, policy):
    """A float64 model has float64 accuracy."""
    outputs = Echo(dtype=policy, from_logits=True).predict(np.float64(logits), verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], softmax(logits), rtol=1e-13)


@pytest.mark.backends("jax", reason="the others always have float64")
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning")  # JAX's own
def test_float64_where_there_is_none(logits):
    """Without `jax_enable_x64` a float64 model is float32 on JAX, and so is what it says."""
    outputs = Echo(dtype="float64", from_logits=True).predict(logits, verbose=0)
    assert outputs["probabilities"].dtype == "float32"
    np.testing.assert_allclose(outputs["probabilities"], softmax(logits), rtol=1e-5)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_logits(logits, half):
    """Half precision costs the logits their digits, the softmax none of its own."""
    model = Echo(dtype=f"mixed_{half}", from_logits=True)
    model.compile(run_eagerly=True)  # XLA leaves out what rounds to half precision and back
    outputs = model.predict(logits, verbose=0)
    rounded = np.float32(ops.convert_to_numpy(ops.cast(logits, half)))
    np.testing.assert_allclose(outputs["probabilities"], softmax(rounded), rtol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_model(rows, policy):
    """A model under a mixed policy says nearly what its float32 twin says."""
    models = [
        keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, dtype=dtype)])
        for dtype in ("float32", policy)
    ]
    models[1].set_weights(models[0].get_weights())
    outputs = ClassifierModel.from_model(models[1], from_logits=True).predict(rows, verbose=0)
    expected = softmax(models[0].predict(rows, verbose=0))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=0.02)
    np.testing.assert_allclose(outputs["confidence"], outputs["probabilities"].max(axis=-1))


@pytest.mark.parametrize(
    ("probabilities", "label"),
    [
        ([0.4, 0.4, 0.2], 0),
        ([0.2, 0.4, 0.4], 1),
        ([0.25, 0.5, 0.25], 1),
        ([0.0, 0.0, 0.0], 0),
    ],
)
def test_ties(probabilities, label):
    """Of equal probabilities the first class wins."""
    outputs = Echo().predict(np.array([probabilities], "float32"), verbose=0)
    assert outputs["labels"].tolist() == [label]


def test_ties_of_half_precision_logits():
    """Logits that half precision makes equal are a tie, so the first one wins."""
    x = np.array([[1.0, 1.0 + 1e-5, 0.0]], "float32")
    model = Echo(dtype="mixed_float16", from_logits=True)
    model.compile(run_eagerly=True)  # XLA leaves out what rounds to half precision and back
    assert model.predict(x, verbose=0)["labels"].tolist() == [0]


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("position", [0, 1, 3])
def test_nan_row(logits, position, from_logits):
    """A NaN anywhere in a row makes its label -1 and its confidence NaN; other rows keep theirs."""
    x = logits if from_logits else softmax(logits).astype("float32")
    model = Echo(from_logits=from_logits)
    clean = model.predict(x, verbose=0)
    x[2, position] = np.nan
    outputs = model.predict(x, verbose=0)
    assert outputs["labels"][2] == -1
    assert np.isnan(outputs["confidence"][2])
    assert np.isnan(outputs["probabilities"][2]).any()
    for name, expected in clean.items():
        np.testing.assert_array_equal(np.delete(outputs[name], 2, 0), np.delete(expected, 2, 0))


def test_nan_token():
    """One NaN token leaves the other tokens of its sequence classified."""
    x = np.tile(np.array([0.1, 0.7, 0.2], "float32"), (2, 3, 1))
    x[1, 2, 0] = np.nan
    outputs = Echo().predict(x, verbose=0)
    assert outputs["labels"].tolist() == [[1, 1, 1], [1, 1, -1]]
    assert np.isnan(outputs["confidence"]).tolist() == [[False] * 3, [False, False, True]]


@pytest.mark.parametrize("offset", [-1e4, 0, 1e4])
def test_large_logits(offset):
    """Logits far from zero overflow nothing: only their differences count."""
    x = np.array([[0, 1, 2], [-80, 0, 80], [500, -500, 499]], "float32") + np.float32(offset)
    outputs = Echo(from_logits=True).predict(x, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], softmax(x), rtol=1e-5, atol=1e-30)
    assert outputs["labels"].tolist() == [2, 2, 0]


MIXED = [
    (ClassifierMixin, "digit", "even", "binary"),
    (BinaryClassifierMixin, "even", "digit", "classifier"),
]


@pytest.mark.parametrize(("mixin", "fits", "other", "task"), MIXED)
def test_heads_of_different_kinds(mixin, fits, other, task, rows):
    """The task of the head that the mixin does not fit is named, and works."""
    inputs = keras.Input((8,))
    outputs = {
        "digit": keras.layers.Dense(10, activation="softmax")(inputs),
        "even": keras.layers.Dense(1, activation="sigmoid")(inputs),
    }

    class Plain(mixin, keras.Model):
        pass

    class Own(mixin, keras.Model):
        def postprocess(self, y_pred):
            outputs = super().postprocess({fits: y_pred[fits]})
            return {**y_pred, **outputs}

    with pytest.raises(ValueError, match=rf"of head.*takes `tasks=\{{'{other}': '{task}'\}}`"):
        Plain(inputs, outputs)
    named = Plain(inputs, outputs, tasks={other: task}).predict(rows, verbose=0)
    assert named["digit"]["labels"].shape == named["even"]["labels"].shape == (70,)
    result = Own(inputs, outputs).predict(rows, verbose=0)
    assert result[fits]["labels"].shape == (70,)
    assert {type(result["digit"]), type(result["even"])} == {dict, np.ndarray}


@pytest.mark.filterwarnings("ignore:.*activation='linear'")
def test_an_embedding_beside_a_classifier(rows, path):
    """A head that is no classifier is not made one: what the error says stores it as it is."""
    inputs = keras.Input((8,))
    outputs = {
        "animal": keras.layers.Dense(3, activation="softmax")(inputs),
        "embedding": keras.layers.Dense(4)(inputs),
    }
    message = r"`from_logits=\{'embedding': True\}` if.*logits.*override `postprocess`"
    with pytest.raises(ValueError, match=message):
        predict_to_hdf5(ClassifierModel(inputs, outputs), rows, path, verbose=0)

    class Animals(ClassifierModel):
        def postprocess(self, y_pred):
            return {**y_pred, **super().postprocess({"animal": y_pred["animal"]})}

    with predict_to_hdf5(Animals(inputs, outputs), rows, path, verbose=0) as predictions:
        assert predictions["embedding"].shape == (70, 4)
        assert predictions["animal/labels"].shape == (70,)


def largest(probabilities, k):
    """Indices of the k largest on the last axis, the first ones of equals."""
    return np.argsort(-np.float64(probabilities), axis=-1, kind="stable")[..., :k]


@pytest.mark.parametrize(
    ("shape", "k"), [((6, 3), 1), ((6, 3), 3), ((3, 5, 4), 2), ((2, 3, 2, 30), 5), ((7, 40), 40)]
)
@pytest.mark.parametrize("compiled", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_top_k(shape, k, compiled):
    """The k most probable classes come best first, of each row, token or pixel."""
    if compiled.get("jit_compile") and keras.backend.backend() == "torch" and len(shape) != 3:
        pytest.skip("torch takes long to compile: once")
    logits = np.random.default_rng(5).normal(scale=2, size=shape).astype("float32")
    model = Echo(from_logits=True, top_k=k)
    model.compile(**compiled)
    outputs = model.predict(logits, verbose=0)
    assert outputs["top_k_labels"].dtype == "int32"
    np.testing.assert_array_equal(outputs["top_k_labels"], largest(logits, k))
    np.testing.assert_array_equal(outputs["top_k_labels"][..., 0], outputs["labels"])
    np.testing.assert_array_equal(outputs["top_k_probabilities"][..., 0], outputs["confidence"])
    expected = np.take_along_axis(outputs["probabilities"], outputs["top_k_labels"], axis=-1)
    np.testing.assert_array_equal(outputs["top_k_probabilities"], expected)


def test_no_top_k(logits):
    """Without `top_k` nothing is added."""
    outputs = Echo(from_logits=True, top_k=None).predict(logits, verbose=0)
    assert set(outputs) == {"probabilities", "labels", "confidence"}


@pytest.mark.parametrize(
    ("policy", "dtype"),
    [
        ("float64", "float64"),
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("float16", "float32"),
        ("bfloat16", "float32"),
    ],
    indirect=["policy"],
)
@pytest.mark.parametrize("from_logits", [False, True])
def test_top_k_dtypes(logits, policy, dtype, from_logits):
    """The largest probabilities have the dtype and the values of `probabilities`."""
    x = logits if from_logits else softmax(logits)
    logits[3, 1] = np.nan
    outputs = Echo(dtype=policy, from_logits=from_logits, top_k=3).predict(x, verbose=0)
    assert outputs["top_k_labels"].dtype == "int32"
    assert outputs["top_k_probabilities"].dtype == dtype
    known = outputs["labels"] >= 0
    expected = -np.sort(-outputs["probabilities"][known], axis=-1)[:, :3]
    np.testing.assert_array_equal(outputs["top_k_probabilities"][known], expected)


@pytest.mark.parametrize("k", [1, 2, 5, 50])
@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}], ids=str)
def test_top_k_of_ties(k, compiled):
    """The label is first among equals on every backend, and no class comes twice."""
    rng = np.random.default_rng(6)
    x = rng.integers(0, 4, size=(200, 50)).astype("float32") / 4
    x[0] = 0
    model = Echo(top_k=k)
    model.compile(**compiled)
    outputs = model.predict(x, verbose=0)
    labels, probabilities = outputs["top_k_labels"], outputs["top_k_probabilities"]
    np.testing.assert_array_equal(labels[:, 0], x.argmax(axis=-1))
    np.testing.assert_array_equal(labels[:, 0], outputs["labels"])
    np.testing.assert_array_equal(probabilities, -np.sort(-x, axis=-1)[:, :k])
    np.testing.assert_array_equal(probabilities, np.take_along_axis(x, labels, axis=-1))
    assert all(len(set(row)) == k for row in labels.tolist())


@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 4), (2, 3, 40)])
@pytest.mark.parametrize("from_logits", [False, True])
def test_top_k_of_nan(shape, from_logits):
    """A NaN in a row or token makes all its labels -1, and NaN of its probabilities."""
    x = np.random.default_rng(7).normal(size=shape).astype("float32")
    x = x if from_logits else softmax(x).astype("float32")
    model = Echo(from_logits=from_logits, top_k=shape[-1])
    clean = model.predict(x, verbose=0)
    x[0, ..., 0] = x[1, ..., -1] = np.nan
    outputs = model.predict(x, verbose=0)
    unknown = np.isnan(x).any(axis=-1)
    assert np.all(outputs["top_k_labels"][unknown] == -1)
    assert np.all(np.isnan(outputs["top_k_probabilities"][unknown]))
    for name in ("top_k_labels", "top_k_probabilities"):
        np.testing.assert_array_equal(outputs[name][~unknown], clean[name][~unknown])


def test_top_k_by_head(logits):
    """Each head has the `top_k` of its own dict entry."""

    class Heads(ClassifierMixin, keras.Model):
        def call(self, inputs):
            return {"kind": inputs, "size": inputs[:, :2]}

    model = Heads(from_logits=True, top_k={"kind": 3})
    outputs = model.predict(logits, verbose=0)
    np.testing.assert_array_equal(outputs["kind"]["top_k_labels"], largest(logits, 3))
    assert "top_k_labels" not in outputs["size"]
    model.top_k = 2
    outputs = model.predict(logits, verbose=0)
    np.testing.assert_array_equal(outputs["size"]["top_k_labels"], largest(logits[:, :2], 2))


def test_too_large_top_k(logits):
    """More than the classes is refused: where there is a graph at once, else at the first step."""
    message = "`top_k` must be at most 4, the number of classes. Received: top_k=5"
    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=message):
        ClassifierModel(inputs, keras.layers.Softmax()(inputs), top_k=5)
    with pytest.raises(ValueError, match=message):
        Echo(from_logits=True, top_k=5).predict(logits, verbose=0)
    with pytest.raises(ValueError, match=r"4, the number of classes of head 'b'.*top_k=5"):
        ClassifierModel(inputs, {"b": keras.layers.Softmax()(inputs)}, top_k={"b": 5})


@pytest.mark.backends("tensorflow", reason="only its axes may be unknown in a trace")
def test_too_large_top_k_of_unknown_classes():
    """More than the classes is refused in the first step where its trace does not know them."""
    import tensorflow as tf  # noqa: PLC0415 - only where it is the backend

    class Chosen(Echo):
        def call(self, inputs):
            return tf.boolean_mask(inputs, tf.reduce_any(inputs > 0, axis=0), axis=1)

    x = np.eye(3, 4, dtype="float32")
    outputs = Chosen(top_k=3, scores=["entropy", "margin"]).predict(x, verbose=0)
    assert outputs["top_k_labels"][:, 0].tolist() == [0, 1, 2]
    assert outputs["margin"].tolist() == [1, 1, 1]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"3.*5"):
        Chosen(top_k=5).predict(x, verbose=0)
