import json
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasext.models import (
    BinaryClassifierMixin,
    ClassifierMixin,
    ClassifierModel,
    MultiLabelClassifierMixin,
    MultiLabelClassifierModel,
)

BACKEND = keras.backend.backend()
# Keras refuses several steps on torch, which takes half a minute to compile a model like these; one
# that takes less is compiled in `test_settings.py`.
COMPILED = [] if BACKEND == "torch" else [{"jit_compile": True}, {"steps_per_execution": 4}]


class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.normalize = layers.BatchNormalization(name="normalize")
        self.drop = layers.Dropout(0.3, seed=5, name="drop")
        self.dense = layers.Dense(3, activation="softmax", name="dense")

    def call(self, inputs, training=False):
        x = self.drop(self.normalize(inputs, training=training), training=training)
        return self.dense(x)


class NetClassifier(ClassifierMixin, Net):
    pass


class SequentialClassifier(ClassifierMixin, keras.Sequential):
    pass


class FunctionalClassifier(ClassifierMixin, keras.Model):
    pass


class Echo(ClassifierMixin, keras.Model):
    """Yields its input, so that a test says what the model computed."""

    def call(self, inputs):
        return inputs


def stack():
    """Layers with a state in training, randomness, and a softmax at the end."""
    return [
        layers.BatchNormalization(name="normalize"),
        layers.Dropout(0.3, seed=5, name="drop"),
        layers.Dense(3, activation="softmax", name="dense"),
    ]


def make_functional(model_class, **kwargs):
    """A functional model of the class."""
    inputs = tensor = keras.Input((8,), name="inputs")
    for layer in stack():
        tensor = layer(tensor)
    return model_class(inputs, tensor, **kwargs)


MAKE = {  # how a model is made, without the mixin and with it
    "subclass": (lambda: Net(name="net"), lambda: NetClassifier(name="net")),
    "functional": (
        lambda: make_functional(keras.Model, name="net"),
        lambda: make_functional(FunctionalClassifier, name="net"),
    ),
    "sequential": (
        lambda: keras.Sequential([keras.Input((8,)), *stack()], name="net"),
        lambda: SequentialClassifier([keras.Input((8,)), *stack()], name="net"),
    ),
}


@pytest.fixture(params=MAKE)
def twins(request, rows):
    """A plain Keras model and one with the mixin, of the same weights."""
    models = [make() for make in MAKE[request.param]]
    for model in models:
        model(rows[:1])
    models[1].set_weights(models[0].get_weights())
    return models


@pytest.fixture
def targets():
    """A class for each row."""
    return np.random.default_rng(7).integers(0, 3, size=70)


def softmax(logits):
    """The softmax of the last axis, in float64."""
    exponentials = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def summary(model):
    """What `summary` prints."""
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    return "\n".join(lines)


def assert_describes(outputs, probabilities):
    """Asserts that the outputs are those of a classifier with these probabilities."""
    assert set(outputs) == {"probabilities", "labels", "confidence"}
    np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(outputs["labels"], probabilities.argmax(axis=-1))
    np.testing.assert_allclose(outputs["confidence"], probabilities.max(axis=-1), rtol=1e-5)


@pytest.mark.parametrize(
    "compiled",
    [{}, {"run_eagerly": True}, *COMPILED],
    ids=str,
)
def test_predict(twins, compiled, rows):
    """However a model is made and run, its rows are the plain model's, the last one alone too."""
    plain, model = twins
    model.compile(**compiled)
    outputs = model.predict(rows, batch_size=23, verbose=0)
    assert_describes(outputs, plain.predict(rows, batch_size=23, verbose=0))


def test_predict_builds(rows):
    """A Sequential without an input shape gets its weights when it predicts first."""
    model = SequentialClassifier(stack())
    outputs = model.predict(rows, batch_size=23, verbose=0)
    plain = keras.Sequential([keras.Input((8,)), *stack()])
    plain.set_weights(model.get_weights())
    assert_describes(outputs, plain.predict(rows, verbose=0))


def test_predict_on_batch(twins, rows):
    """`predict_on_batch` returns the same names as `predict`, for one row too."""
    plain, model = twins
    for batch in (rows[:9], rows[:1]):
        assert_describes(model.predict_on_batch(batch), plain.predict_on_batch(batch))


def tf_dataset(*arrays):
    """The arrays in batches of `tf.data`."""
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(arrays).batch(23)


def data_loader(*arrays):
    """The arrays in batches of torch."""
    data = pytest.importorskip("torch").utils.data
    return data.DataLoader(list(zip(*arrays, strict=True)), batch_size=23)


class Batches(keras.utils.PyDataset):
    """The arrays in batches of Keras."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return tuple(array[index * 23 : (index + 1) * 23] for array in self.arrays)


@pytest.mark.parametrize("make_dataset", [tf_dataset, data_loader, Batches])
def test_predict_from_a_dataset(twins, rows, targets, make_dataset):
    """A dataset that yields targets and weights too is predicted from its inputs."""
    plain, model = twins
    dataset = make_dataset(rows, targets, np.ones(70, "float32"))
    assert_describes(model.predict(dataset, verbose=0), plain.predict(rows, verbose=0))


def test_fit_and_evaluate(twins, rows, targets):
    """Training and evaluation are those of the plain model, to the last weight."""
    losses, scores = [], []
    for model in twins:
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        keras.utils.set_random_seed(1)
        losses.append(model.fit(rows, targets, epochs=2, verbose=0).history["loss"])
        scores.append(model.evaluate(rows, targets, return_dict=True, verbose=0))
    assert losses[0] == pytest.approx(losses[1])
    assert scores[0] == pytest.approx(scores[1])
    for expected, weight in zip(*(model.get_weights() for model in twins), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-7)


def gradients(model, loss_of, x):
    """The gradients of a loss by the weights of a model, as a loop of one's own takes them."""
    weights = [variable.value for variable in model.trainable_variables]
    if BACKEND == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - only where it is the backend

        with tf.GradientTape() as tape:
            loss = loss_of(model(x))
        return tape.gradient(loss, model.trainable_variables)
    if BACKEND == "torch":
        loss_of(model(x)).backward()
        return [weight.grad for weight in weights]
    import jax  # noqa: PLC0415 - only where it is the backend

    other = [variable.value for variable in model.non_trainable_variables]
    return jax.grad(lambda weights: loss_of(model.stateless_call(weights, other, x)[0]))(weights)


def test_gradient(twins, rows):
    """Calling the model yields the plain tensor, through which gradients flow."""
    results = []
    for model in twins:
        found = gradients(model, lambda y_pred: ops.mean(y_pred[:, 1] ** 2), rows)
        assert len(found) == len(model.trainable_variables)
        results.append(list(map(ops.convert_to_numpy, [model(rows), *found])))
    for expected, value in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-8)


def test_summary(twins):
    """`summary` prints what it prints for the plain model."""
    plain, model = map(summary, twins)
    assert model == plain
    assert "dense" in model


@pytest.mark.backends("tensorflow", "jax", reason="Keras exports no model at all with torch 2.13")
@pytest.mark.filterwarnings("ignore:The `native_serialization`:DeprecationWarning")  # JAX's own
def test_export(twins, rows, tmp_path):
    """An exported model serves the plain tensor."""
    tf = pytest.importorskip("tensorflow")
    plain, model = twins
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(rows), plain(rows), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("pack", "unpack"),
    [
        (lambda a, b: {"a": a, "b": b}, lambda out: (out["a"], out["b"])),
        (lambda a, b: {"x": {"a": a}, "b": b}, lambda out: (out["x"]["a"], out["b"])),
        (lambda a, b: [a, b], lambda out: (out["0"], out["1"])),
        (lambda a, b: (a, b), lambda out: (out["0"], out["1"])),
        (lambda a, b: {"x": [a, b]}, lambda out: (out["x"]["0"], out["x"]["1"])),
    ],
    ids=["dict", "nested dict", "list", "tuple", "list in dict"],
)
@pytest.mark.parametrize("functional", [True, False])
def test_heads(rows, pack, unpack, functional):
    """Each head is described under its key or position, in the structure of the outputs."""

    class Heads(ClassifierMixin, keras.Model):
        def call(self, inputs):
            return pack(inputs[:, :3], inputs[:, 3:])

    if functional:
        inputs = keras.Input((8,))
        heads = pack(layers.Identity()(inputs[:, :3]), layers.Identity()(inputs[:, 3:]))
        model = ClassifierModel(inputs, heads, from_logits=True)
    else:
        model = Heads(from_logits=True)
    outputs = model.predict(rows, batch_size=23, verbose=0)
    assert len(outputs) == len(pack(1, 2))
    for head, logits in zip(unpack(outputs), (rows[:, :3], rows[:, 3:]), strict=True):
        assert_describes(head, softmax(logits))


@pytest.mark.parametrize("compiled", [{}, *COMPILED])
def test_own_postprocess(rows, compiled):
    """Outputs that a `postprocess` adds come out beside the mixin's, nested ones too."""

    class WithEntropy(NetClassifier):
        def postprocess(self, y_pred):
            outputs = super().postprocess(y_pred)
            p = outputs["probabilities"]
            extra = {"gini": 1 - ops.sum(p * p, axis=-1), "top": {"two": ops.top_k(p, 2)[1]}}
            return {**outputs, **extra}

    model = WithEntropy()
    model.compile(**compiled)
    outputs = model.predict(rows, batch_size=23, verbose=0)
    p = np.float64(outputs["probabilities"])
    assert set(outputs) == {"probabilities", "labels", "confidence", "gini", "top"}
    np.testing.assert_allclose(outputs["gini"], 1 - (p**2).sum(axis=-1), rtol=1e-4)
    np.testing.assert_array_equal(outputs["top"]["two"], np.argsort(-p, axis=-1)[:, :2])


def test_own_postprocess_takes_some_heads(rows):
    """A `postprocess` may describe one head and hand on another as it is."""

    class Detector(ClassifierMixin, keras.Model):
        def postprocess(self, y_pred):
            return {**super().postprocess(y_pred["kind"]), "box": y_pred["box"]}

    inputs = keras.Input((8,))
    heads = {"kind": layers.Softmax()(inputs[:, :3]), "box": layers.Identity()(inputs[:, 4:])}
    model = Detector(inputs, heads, class_names=["a", "b", "c"])
    outputs = model.predict(rows, batch_size=23, verbose=0)
    np.testing.assert_array_equal(outputs.pop("box"), rows[:, 4:])
    assert_describes(outputs, softmax(rows[:, :3]))


def test_own_predict_step_of_a_base_class(rows):
    """A `predict_step` of a class right of the mixin computes, and the mixin describes."""

    class Averaging(Net):
        def predict_step(self, *args):
            *state, data = args  # no state but on JAX
            first = super().predict_step(*state, data)
            second = super().predict_step(*state, -data)
            return ((first[0] + second[0]) / 2, first[1]) if state else (first + second) / 2

    class AveragingClassifier(ClassifierMixin, Averaging):
        pass

    plain, model = Averaging(), AveragingClassifier()
    expected = plain.predict(rows, verbose=0)
    model(rows[:1])
    model.set_weights(plain.get_weights())
    assert_describes(model.predict(rows, verbose=0), expected)


def test_own_predict_step_that_calls_super(rows):
    """A `predict_step` of the class itself may prepare the data and hand it to the mixin."""

    class Scaling(Echo):
        def predict_step(self, *args):
            *state, data = args  # no state but on JAX
            return super().predict_step(*state, data * 2)

    outputs = Scaling(from_logits=True).predict(rows, verbose=0)
    assert_describes(outputs, softmax(2 * rows))


@pytest.mark.parametrize(
    ("bases", "line"),
    [
        ((keras.Model, ClassifierMixin), "class M(ClassifierMixin, Model)"),
        ((keras.Sequential, BinaryClassifierMixin), "class M(BinaryClassifierMixin, Sequential)"),
        ((Net, MultiLabelClassifierMixin), "class M(MultiLabelClassifierMixin, Net)"),
    ],
)
def test_wrong_order(bases, line):
    """A mixin right of the Keras class is refused with the line to write instead."""
    with pytest.raises(TypeError, match=re.escape(f"write `{line}`")):
        type("M", bases, {})


@pytest.mark.parametrize(
    ("mixin", "settings", "expected"),
    [
        (
            ClassifierMixin,
            {},
            {
                "task": "classifier",
                "from_logits": False,
                "class_names": None,
                "scores": [],
                "top_k": None,
            },
        ),
        (
            ClassifierMixin,
            {"scores": ("entropy",), "top_k": {"a": 3}},
            {
                "task": "classifier",
                "from_logits": False,
                "class_names": None,
                "scores": ["entropy"],
                "top_k": {"a": 3},
            },
        ),
        (
            BinaryClassifierMixin,
            {"threshold": 0.25, "class_names": ("no", "yes")},
            {
                "task": "binary",
                "from_logits": False,
                "class_names": ["no", "yes"],
                "scores": [],
                "threshold": 0.25,
            },
        ),
        (
            MultiLabelClassifierMixin,
            {"from_logits": {"a": True}, "threshold": {"a": np.array([0.5, 0.25])}},
            {
                "task": "multilabel",
                "from_logits": {"a": True},
                "class_names": None,
                "scores": [],
                "threshold": {"a": [0.5, 0.25]},
            },
        ),
    ],
)
def test_prediction_metadata(mixin, settings, expected):
    """A model says its task and its settings in the types of JSON."""
    metadata = type("M", (mixin, keras.Model), {})(**settings).prediction_metadata()
    assert metadata == expected
    assert json.loads(json.dumps(metadata)) == expected


@pytest.mark.parametrize(
    ("pack", "heads"),
    [(lambda p: {"a": p, "b": [p]}, ["a", "b/0"]), (lambda p: (p, p), ["0", "1"])],
)
def test_prediction_metadata_by_head(rows, pack, heads):
    """One list of class names for several heads is told for each of them, after a predict."""

    class Heads(ClassifierMixin, keras.Model):
        def call(self, inputs):
            return pack(ops.softmax(inputs[:, :2]))

    model = Heads(class_names=["no", "yes"])
    model.predict(rows, verbose=0)
    names = model.prediction_metadata()["class_names"]
    assert json.loads(json.dumps(names)) == {head: ["no", "yes"] for head in heads}


def test_own_prediction_metadata():
    """A class adds to the metadata what its file should say."""

    class Dated(MultiLabelClassifierModel):
        def prediction_metadata(self):
            return {**super().prediction_metadata(), "trained": "2024-05-01"}

    trained = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="sigmoid")])
    metadata = Dated.from_model(trained).prediction_metadata()
    assert (metadata["task"], metadata["trained"]) == ("multilabel", "2024-05-01")


@pytest.mark.parametrize(
    "mixin", [ClassifierMixin, BinaryClassifierMixin, MultiLabelClassifierMixin]
)
def test_hidden_mixin(mixin, rows):
    """A class whose own `predict_step` hides the mixin is warned of, once, where it is made."""

    def predict_step(self, data):
        return self(data)

    with pytest.warns(UserWarning, match=r"`predict_step` of M hides the mixin.*class M") as caught:
        hidden = type("M", (mixin, keras.Model), {"predict_step": predict_step})
    assert [warning.filename for warning in caught] == [__file__]
    type("Below", (hidden,), {})  # warnings are errors


def test_hidden_by_another_base():
    """A base class left of the mixin may hide it, and is named."""

    class Step:
        def predict_step(self, data):
            return self(data)

    with pytest.warns(UserWarning, match=r"`predict_step` of Step hides.*Received: class M with"):
        type("M", (Step, ClassifierMixin, keras.Model), {})
    type("M", (ClassifierMixin, Step, keras.Model), {})  # right of it, it computes


@pytest.mark.parametrize("remedy", ["super", "postprocess"])
def test_remedies_of_a_hidden_mixin(rows, remedy):
    """Both ways that the warning names bring the mixin's outputs back."""

    class Twice(ClassifierMixin, keras.Model):
        def call(self, inputs):
            return ops.softmax(inputs)

        def predict_step(self, *args):
            *state, data = args  # no state but on JAX
            if remedy == "super":
                return super().predict_step(*state, 2 * data)
            outputs = self.postprocess(self(2 * data))
            return (outputs, *state) if state else outputs

    assert_describes(Twice().predict(rows, verbose=0), softmax(2 * rows))
