import copy
import pickle
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.inference import compile_predict, predict_to_hdf5
from kerasext.keras_internals.own_methods import PREDICTION_METHODS
from kerasext.models import (
    BinaryClassifierMixin,
    BinaryClassifierModel,
    ClassifierMixin,
    ClassifierModel,
    MultiLabelClassifierModel,
    PredictionModel,
    RegressorModel,
    load_model,
)


@keras.saving.register_keras_serializable(package="test_trained")
class LouderInTraining(layers.Layer):
    """A layer that nobody can overlook in training."""

    def call(self, inputs, training=False):
        return inputs * 10 if training else inputs


@keras.saving.register_keras_serializable(package="test_trained")
class Net(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.louder = LouderInTraining()
        self.dense = layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return self.dense(self.louder(inputs))


@keras.saving.register_keras_serializable(package="test_trained")
class TrainingNet(Net):
    def call(self, inputs, training=False):
        return self.dense(self.louder(inputs, training=training))


@keras.saving.register_keras_serializable(package="test_trained")
class TrainingByDefaultNet(Net):
    def call(self, inputs, training=True):
        return self.dense(self.louder(inputs, training=training))


@keras.saving.register_keras_serializable(package="test_trained")
class TwoInputsNet(Net):
    def call(self, inputs):
        return self.dense(self.louder(inputs["a"] + inputs["b"]))


def own_class(name, *bases, calls=None):
    """A new class with a method of its own, for Keras rewrites the bases of functional ones."""

    def method(self, *args, **kwargs):
        if calls is not None:
            calls.append(name)
        return getattr(super(Own, self), name)(*args, **kwargs)

    class Own(*bases):
        pass

    setattr(Own, name, method)
    return Own


@keras.saving.register_keras_serializable(package="test_trained")
class WithGini(ClassifierModel):
    """A ready-made model with an output of its own."""

    def postprocess(self, y_pred):
        outputs = super().postprocess(y_pred)
        return {**outputs, "gini": 1 - ops.sum(outputs["probabilities"] ** 2, axis=-1)}


def functional(inputs=None, units=3, activation="softmax", model_class=keras.Model):
    """A plain functional model of rows of 8 features, in the structure of inputs given."""
    inputs = keras.Input((8,)) if inputs is None else inputs
    x = layers.Add()(keras.tree.flatten(inputs)) if isinstance(inputs, dict | list) else inputs
    return model_class(inputs, layers.Dense(units, activation=activation)(x), name="trained")


def two_inputs():
    """The inputs `a` and `b`."""
    return {name: keras.Input((8,), name=name) for name in "ab"}


def as_dict(rows):
    """Rows for a model with the inputs `a` and `b`."""
    return {"a": rows, "b": rows[::-1]}


def sequential():
    """A plain Sequential model."""
    return keras.Sequential([keras.Input((8,)), layers.Dense(3, activation="softmax")])


TRAINED = {  # a model, and what to give it
    "functional": (functional, lambda rows: rows),
    "functional of a dict": (lambda: functional(two_inputs()), as_dict),
    "functional of a list": (
        lambda: functional(list(two_inputs().values())),
        lambda rows: [rows, rows[::-1]],
    ),
    "sequential": (sequential, lambda rows: rows),
    "subclass": (Net, lambda rows: rows),
    "subclass with training": (TrainingNet, lambda rows: rows),
    "subclass with training by default": (TrainingByDefaultNet, lambda rows: rows),
    "subclass of a dict": (TwoInputsNet, as_dict),
}


@pytest.fixture(params=TRAINED)
def trained(request, rows):
    """A plain model that has its weights, and inputs for it."""
    make, arrange = TRAINED[request.param]
    model, x = make(), arrange(rows)
    model(keras.tree.map_structure(ops.convert_to_tensor, x))
    return model, x


def assert_same_weights(dressed, model):
    """Asserts that the models have the same variables, not copies."""
    assert len(model.weights) > 0
    assert all(a is b for a, b in zip(dressed.weights, model.weights, strict=True))


def test_predict(trained):
    """The dressed model describes what the trained model predicts, whatever its inputs are."""
    model, x = trained
    expected = model.predict(x, batch_size=23, verbose=0)
    dressed = ClassifierModel.from_model(model, class_names=["a", "b", "c"])
    outputs = dressed.predict(x, batch_size=23, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=1e-6)
    np.testing.assert_array_equal(outputs["labels"], expected.argmax(axis=-1))
    assert dressed.class_names == ("a", "b", "c")
    assert dressed.name == model.name


def test_shared_weights(trained):
    """The variables are those of the trained model, so training it shows in the dressed one."""
    model, x = trained
    dressed = ClassifierModel.from_model(model)
    before = dressed.predict(x, verbose=0)["probabilities"]
    assert_same_weights(dressed, model)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.zeros(70, "int32"), verbose=0)
    after = dressed.predict(x, verbose=0)["probabilities"]
    np.testing.assert_allclose(after, model.predict(x, verbose=0), rtol=1e-6)
    assert np.abs(after - before).max() > 1e-3


def test_fit(trained):
    """The dressed model is trained and evaluated as the model itself would be."""
    model, x = trained
    targets = np.random.default_rng(1).integers(0, 3, size=70)
    start, results = model.get_weights(), []
    for to_fit in (model, ClassifierModel.from_model(model)):
        model.set_weights(start)
        to_fit.compile("sgd", "sparse_categorical_crossentropy")
        loss = to_fit.fit(x, targets, shuffle=False, verbose=0).history["loss"]
        results.append([*loss, to_fit.evaluate(x, targets, verbose=0)])
    assert results[1] == pytest.approx(results[0])


@pytest.mark.parametrize("make", [Net, TrainingNet, lambda: keras.Sequential([layers.Dense(3)])])
def test_unbuilt(rows, make):
    """A model without weights yet gets them when the dressed one predicts."""
    model = make()
    outputs = ClassifierModel.from_model(model, from_logits=True).predict(rows, verbose=0)
    logits = np.float64(model.predict(rows, verbose=0))
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=1e-5)


def test_heads(rows):
    """A model with a dict of heads is dressed with settings by head."""
    inputs = keras.Input((8,))
    heads = {
        "kind": layers.Dense(3, activation="softmax")(inputs),
        "size": layers.Dense(2)(inputs),
    }
    model = keras.Model(inputs, heads)
    dressed = ClassifierModel.from_model(model, from_logits={"size": True})
    expected, outputs = (m.predict(rows, verbose=0) for m in (model, dressed))
    np.testing.assert_allclose(outputs["kind"]["probabilities"], expected["kind"], rtol=1e-6)
    np.testing.assert_allclose(outputs["size"]["probabilities"].sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(outputs["size"]["labels"], expected["size"].argmax(axis=-1))


@pytest.mark.parametrize("model_class", [BinaryClassifierModel, MultiLabelClassifierModel])
@pytest.mark.parametrize("graph", [True, False])
def test_each_ready_made_model(rows, model_class, graph):
    """Each ready-made model dresses models with a graph and without, with its own settings."""

    class Probability(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1, activation="sigmoid")

        def call(self, inputs):
            return self.dense(inputs)

    model = functional(units=1, activation="sigmoid") if graph else Probability()
    dressed = model_class.from_model(model, threshold=0.25, scores=["margin"])
    outputs = dressed.predict(rows, verbose=0)
    expected = model.predict(rows, verbose=0)
    np.testing.assert_array_equal(outputs["labels"].reshape(-1, 1), expected > 0.25)
    np.testing.assert_allclose(
        outputs["margin"].reshape(-1, 1), abs(2 * expected - 1), rtol=1e-4, atol=1e-6
    )
    assert isinstance(dressed, model_class)


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16", "mixed_bfloat16"])
def test_precision(dtype, x64):
    """The dressed model computes in the precision in which the trained one predicts."""

    class Third(keras.Model):
        def call(self, inputs):
            third = inputs / 3
            return ops.stack([third, 1 - third], axis=-1)

    x = ops.convert_to_tensor(np.array([0.1, 0.9, 0.3]), "float64")
    model = Third(dtype=dtype)
    dressed = ClassifierModel.from_model(model)
    for each in (model, dressed):
        each.compile(run_eagerly=True)
    expected, outputs = (each.predict_on_batch(x) for each in (model, dressed))
    np.testing.assert_array_equal(outputs["probabilities"], np.float64(expected))


def test_round_trip(trained, tmp_path):
    """A dressed model is saved and loaded with its weights and settings, in safe mode."""
    model, x = trained
    settings = {"class_names": ("a", "b", "c"), "top_k": 2, "scores": ("entropy",)}
    dressed = ClassifierModel.from_model(model, **settings)
    expected = dressed.predict(x, verbose=0)
    dressed.save(tmp_path / "dressed.keras")
    loaded = keras.saving.load_model(tmp_path / "dressed.keras")
    assert type(loaded) is type(dressed)
    assert {name: getattr(loaded, name) for name in settings} == settings
    assert {"top_k_labels", "top_k_probabilities", "entropy"} < set(expected)
    keras.tree.map_structure(np.testing.assert_array_equal, loaded.predict(x, verbose=0), expected)


def test_loaded_model(trained, tmp_path):
    """A model read from a `.keras` file is dressed as the one that was saved."""
    model, x = trained
    model.save(tmp_path / "trained.keras")
    loaded = keras.saving.load_model(tmp_path / "trained.keras")
    dressed = ClassifierModel.from_model(loaded)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(dressed.predict(x, verbose=0)["probabilities"], expected, rtol=1e-6)
    assert_same_weights(dressed, loaded)


@pytest.mark.parametrize("model", ["digits.keras", None, layers.Dense(3), Net], ids=repr)
def test_no_model(model):
    """What is no model is refused, and shown."""
    with pytest.raises(TypeError, match=r"must be a keras\.Model\. Received: model="):
        ClassifierModel.from_model(model)


def test_settings_are_checked(rows):
    """Settings that do not fit the trained model are refused: at once where it has a graph."""
    with pytest.raises(ValueError, match="the last layer applies softmax"):
        ClassifierModel.from_model(sequential(), from_logits=True)
    with pytest.raises(ValueError, match="each of the 3 classes"):
        ClassifierModel.from_model(functional(), class_names=["a", "b"])
    with pytest.raises(ValueError, match="each of the 3 classes"):
        ClassifierModel.from_model(Net(), class_names=["a", "b"]).predict(rows, verbose=0)


@pytest.mark.parametrize("make", [functional, sequential, Net])
@pytest.mark.parametrize("unknown", ["threshold", "classnames"])
def test_unknown_settings(make, unknown):
    """A keyword that is no setting of the mixin is refused by name."""
    with pytest.raises(TypeError, match=unknown):
        ClassifierModel.from_model(make(), **{unknown: 0.5})


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("name", PREDICTION_METHODS)
def test_own_methods(rows, name, graph):
    """A method of the model's class is carried, and called as the model's is."""
    calls = []
    own = own_class(name, keras.Model if graph else Net, calls=calls)
    model = functional(model_class=own) if graph else own()
    model(rows)  # or JAX, which calls `call` in its steps, would call `__call__` to build it
    calls.clear()
    expected = model.predict(rows, verbose=0)
    of_the_model = len(calls)
    dressed = ClassifierModel.from_model(model)
    outputs = dressed.predict(rows, verbose=0)
    assert bool(calls[of_the_model:]) == bool(of_the_model)
    np.testing.assert_array_equal(outputs["probabilities"], expected)
    assert isinstance(dressed, ClassifierModel)
    assert isinstance(dressed, own)
    np.testing.assert_array_equal(dressed.predict_on_batch(rows)["labels"], outputs["labels"])
    assert name != "predict_on_batch" or calls


@keras.saving.register_keras_serializable(package="test_trained")
class Scaled(keras.Model):
    """Prepares its data in `predict` with an attribute of its own, as those of KerasHub do."""

    divisor = 8

    def predict(self, x, **kwargs):
        return super().predict(np.array([[len(word) / self.divisor] for word in x]), **kwargs)


def scaled():
    """A model of words, with the words."""
    inputs = keras.Input((1,))
    model = Scaled(inputs, layers.Dense(3, activation="softmax")(inputs))
    return model, np.array(["a", "bcd", "efghijklm"] * 9)


@pytest.mark.parametrize("dtype", [str, object])
def test_own_predict(dtype, path):
    """An own `predict` prepares the data of each way to predict, strings too."""
    model, words = scaled()
    words, model.divisor = words.astype(dtype), 4
    expected = model.predict(words, verbose=0)
    dressed = ClassifierModel.from_model(model, class_names=["a", "b", "c"])
    outputs = dressed.predict(words, verbose=0)
    np.testing.assert_array_equal(outputs["probabilities"], expected)
    np.testing.assert_array_equal(model.predict(words, verbose=0), expected)
    dressed.predict(words, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    for written in (path, path.with_name("job.h5")):
        if written != path:
            predict_to_hdf5(dressed, words, written, verbose=0).close()
        with PredictionFile(written) as predictions:
            assert list(predictions.class_names) == ["a", "b", "c"]
            for name, values in outputs.items():
                np.testing.assert_array_equal(predictions[name][:], values)
    found = compile_predict(dressed)(words)
    keras.tree.map_structure(np.testing.assert_array_equal, found, outputs)


@keras.saving.register_keras_serializable(package="test_trained")
class Decoding(keras.Model):
    """Makes other outputs in its step than its graph has, as detectors do."""

    def predict_step(self, *args):
        result = super().predict_step(*args)
        y_pred, rest = result if isinstance(result, tuple) else (result, None)
        outputs = {"kind": y_pred, "best": ops.argmax(y_pred, axis=-1)}
        return outputs if rest is None else (outputs, rest)


def test_own_predict_step(rows):
    """What an own `predict_step` returns is what the mixin makes outputs of."""
    model = functional(model_class=Decoding)
    expected = model.predict(rows, verbose=0)
    dressed = PredictionModel.from_model(model, tasks={"kind": "classifier"})
    outputs = dressed.predict(rows, verbose=0)
    np.testing.assert_array_equal(outputs["kind"]["probabilities"], expected["kind"])
    np.testing.assert_array_equal(outputs["best"], expected["best"])
    with pytest.raises(ValueError, match="the nearest is 'kind'"):
        PredictionModel.from_model(model, tasks={"kin": "classifier"}).predict(rows, verbose=0)


def test_own_predict_step_right_of_the_mixin(rows):
    """A step that a mixin adds to is carried, though it is not the first of its name."""
    model = type("M", (ClassifierMixin, own_class("predict_step", Net)), {})()
    expected = model.predict(rows, verbose=0)["probabilities"]
    dressed = MultiLabelClassifierModel.from_model(model)
    assert dressed.prediction_metadata()["task"] == "multilabel"
    np.testing.assert_array_equal(dressed.predict(rows, verbose=0)["probabilities"], expected)


def carried(kind):
    """A dressed model with code of its own, and inputs for it."""
    rows = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")
    if kind == "predict":
        model, words = scaled()
        return ClassifierModel.from_model(model, top_k=2), words
    if kind == "predict_step":
        model = functional(model_class=Decoding)
        return PredictionModel.from_model(model, tasks={"kind": "classifier"}), rows
    if kind == "postprocess":
        return WithGini.from_model(functional(model_class=Tempered)), rows
    net = Net()
    net(rows)
    return ClassifierModel.from_model(net, scores=["margin"]), rows


@keras.saving.register_keras_serializable(package="test_trained")
class Tempered(keras.Model):
    """A functional model with a method of its own."""

    def predict(self, x, **kwargs):
        return super().predict(x / 2, **kwargs)


KINDS = ["predict", "predict_step", "postprocess", "call"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy", "again", "config"])
def test_carried_on(kind, way, tmp_path):
    """A model with code of its own is saved, pickled, copied and dressed again with all it has."""
    model, x = carried(kind)
    expected = model.predict(x, verbose=0)
    if way == "file":
        model.save(tmp_path / "model.keras")
        other = load_model(tmp_path / "model.keras")
    elif way == "pickle":
        other = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    elif way == "deepcopy":
        other = copy.deepcopy(model)
    elif way == "again":
        other = type(model).from_model(model)
    else:
        other = type(model).from_config(model.get_config())
        other.set_weights(model.get_weights())
    assert type(other) is type(model)
    assert isinstance(other, type(model)._form_of)
    outputs = other.predict(x, verbose=0)
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)
    settings = {name: getattr(model, name) for name in model._settings}
    assert {name: getattr(other, name) for name in model._settings} == settings


def test_own_class_in_the_file(tmp_path, rows):
    """A class of one's own that is not registered is needed by name only, with the model's own."""

    class Named(ClassifierModel):
        pass

    class Halved(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(x / 2, **kwargs)

    model = Named.from_model(functional(model_class=Halved))
    model.save(tmp_path / "model.keras")
    own = {"Named": Named, "Halved": Halved}
    loaded = load_model(tmp_path / "model.keras", custom_objects=own)
    assert isinstance(loaded, Named)
    outputs = [each.predict(rows, verbose=0) for each in (model, loaded)]
    keras.tree.map_structure(np.testing.assert_array_equal, *outputs)
    with pytest.raises(TypeError, match="Could not locate class 'Named'"):
        load_model(tmp_path / "model.keras")


def test_own_training():
    """An own `train_step`, attributes and layers without part in the graph are carried."""

    class Counting(keras.Model):
        def compute_loss(self, *args, **kwargs):
            self.batches.append(1)
            return super().compute_loss(*args, **kwargs)

    model = functional(model_class=Counting)
    model.batches, model.extra = [], layers.Rescaling(2)
    model.compile("sgd", "mse", run_eagerly=True)
    dressed = ClassifierModel.from_model(model)
    assert not dressed.compiled
    assert dressed.extra is model.extra
    dressed.compile("sgd", "mse", run_eagerly=True)
    dressed.fit(np.ones((4, 8)), np.ones((4, 3)), verbose=0)
    assert model.batches
    assert model.optimizer is not dressed.optimizer


@pytest.mark.parametrize("make", [Net, lambda: functional(model_class=Tempered)])
def test_apart(rows, make):
    """Settings, names and attributes of one are not those of the other, nor of a third."""
    model = make()
    model(rows)
    expected = model.predict(rows, verbose=0)
    first = ClassifierModel.from_model(model, name="first", top_k=1)
    second = PredictionModel.from_model(model, tasks="classifier", top_k=2)
    third = ClassifierModel.from_model(second, scores=["margin"])
    first.attribute = 1
    for _ in range(2):
        for dressed, top_k in ((first, 1), (second, 2), (third, 2)):
            outputs = dressed.predict(rows, verbose=0)
            assert outputs["top_k_labels"].shape == (70, top_k)
            assert ("margin" in outputs) == (dressed is third)
        np.testing.assert_array_equal(model.predict(rows, verbose=0), expected)
    assert (first.name, model.name) == ("first", second.name)
    assert {"top_k", "attribute"}.isdisjoint(vars(model))
    assert not isinstance(third, PredictionModel)


@pytest.mark.parametrize("make", [functional, sequential, Net])
@pytest.mark.parametrize("name", ["predict", "predict_on_batch", "predict_step"])
def test_methods_set_on_the_model(make, name):
    """A method that was set on the model itself would predict with that, and is refused."""
    model = make()
    setattr(model, name, len)
    with pytest.raises(TypeError, match=f"`{name}` was set on the model itself.*define it in a cl"):
        ClassifierModel.from_model(model)


@pytest.mark.parametrize("name", ["postprocess", "prediction_metadata"])
def test_own_hooks(rows, name):
    """What a class adds by a hook of the mixin is kept by all ready-made models."""

    def hook(self, *args):
        return {**getattr(super(own, self), name)(*args), "mine": 1}

    own = type("Own", (ClassifierModel,), {name: hook})
    model = own.from_model(functional())
    for ready_made in (own, ClassifierModel, PredictionModel, MultiLabelClassifierModel):
        dressed = ready_made.from_model(model)
        assert isinstance(dressed, ready_made)
        assert "mine" in getattr(dressed, name)(*([rows[:, :3]] if name == "postprocess" else []))
        if ready_made is own:  # which has a graph
            continue
        dressed = ready_made.from_model(own_of_mixin(name)())
        assert "mine" in getattr(dressed, name)(*([rows[:, :3]] if name == "postprocess" else []))
    plain = ClassifierModel.from_model(functional())
    setattr(plain, name, len)
    with pytest.raises(TypeError, match=f"`{name}` was set on the model itself"):
        ClassifierModel.from_model(plain)


def own_of_mixin(name):
    """A class with a mixin and a hook."""

    def hook(self, *args):
        return {**getattr(super(own, self), name)(*args), "mine": 1}

    own = type("Own", (ClassifierMixin, Net), {name: hook})
    return own


@pytest.mark.parametrize(
    "names", [["settings_version"], ["class_names"], ["task"], ["from_model", "top_k"]]
)
def test_names_of_the_mixin(rows, names):
    """What a class calls by a name of the mixin is refused; both remedies work."""
    taken = type("Taken", (Net,), dict.fromkeys(names, 1))
    message = " and ".join(f"`{name}`" for name in names)
    with pytest.raises(TypeError, match=f"{message} of the model would be hidden.*in Taken"):
        ClassifierModel.from_model(taken())
    model = Net()
    for name in names:
        setattr(model, name, 1)
    with pytest.raises(TypeError, match=f"{message} of the model would be hidden"):
        ClassifierModel.from_model(model)
    inputs = keras.Input((8,))
    for dressed in (
        ClassifierModel(inputs, model(inputs)),
        ClassifierModel.from_model(type("Renamed", (Net,), {"mine": 1})()),
    ):
        assert dressed.predict(rows, verbose=0)["labels"].shape == (70,)


def test_own_postprocess_without_a_mixin():
    """A `postprocess` that is not the mixin's is refused; a `top_k` that this one lacks is not."""
    own = type("Own", (Net,), {"postprocess": lambda _, y_pred: {"boxes": y_pred}})
    with pytest.raises(TypeError, match=r"`postprocess` of the model would be.*rename it in Own"):
        ClassifierModel.from_model(own())
    model = Net()
    model.top_k = 5
    assert RegressorModel.from_model(model).top_k == 5


def test_own_build(rows):
    """A class that makes its variables in `build` must be built before they can be shared."""

    class Building(keras.Model):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], 3))

        def call(self, inputs):
            return ops.softmax(inputs @ self.kernel)

    model = Building()
    with pytest.raises(ValueError, match=r"must be built.*call it on a batch first"):
        ClassifierModel.from_model(model)
    model(rows)
    dressed = ClassifierModel.from_model(model)
    expected = model.predict(rows, verbose=0)
    np.testing.assert_array_equal(dressed.predict(rows, verbose=0)["probabilities"], expected)
    assert_same_weights(dressed, model)


def test_own_call_of_a_sequential(rows):
    """A Sequential whose class has a `call` of its own is held, not taken apart."""

    class Halved(keras.Sequential):
        def call(self, inputs, **kwargs):
            return super().call(inputs / 2, **kwargs)

    assert_held(Halved(sequential().layers), rows)


@pytest.mark.parametrize("make", [functional, sequential])
def test_call_set_on_the_model(rows, make):
    """A model whose `call` was set on it is held, not taken apart."""
    model = make()
    inherited = model.call
    model.call = lambda inputs, **kwargs: inherited(inputs / 2, **kwargs)
    assert_held(model, rows)


def assert_held(model, rows):
    """Asserts that a dressed model describes what the model predicts."""
    expected = model.predict(rows, verbose=0)
    outputs = ClassifierModel.from_model(model).predict(rows, verbose=0)
    np.testing.assert_allclose(outputs["probabilities"], expected, rtol=1e-5)


def test_dressed_again(rows):
    """A dressed model may be dressed again, with other settings."""
    dressed = BinaryClassifierModel.from_model(functional(units=1, activation="sigmoid"))
    again = BinaryClassifierModel.from_model(dressed, threshold=0.0)
    assert again.predict(rows, verbose=0)["labels"].tolist() == [1] * 70


ALL = {"class_names": ("a", "b", "c"), "top_k": 2, "scores": ("margin",)}


@pytest.mark.parametrize("make", [functional, sequential, Net], ids=["functional", "seq", "held"])
def test_settings_of_a_dressed_model(make, rows):
    """A model that has a mixin gives its settings to the new one; those that are given win."""
    model = make()
    model(rows)
    dressed = ClassifierModel.from_model(model, **ALL)
    again = ClassifierModel.from_model(dressed)
    assert {name: getattr(again, name) for name in ALL} == ALL
    keras.tree.map_structure(
        np.testing.assert_array_equal,
        again.predict(rows, verbose=0),
        dressed.predict(rows, verbose=0),
    )
    assert_same_weights(again, model)
    again = ClassifierModel.from_model(dressed, top_k=1, class_names=None)
    assert (again.top_k, again.class_names, again.scores) == (1, None, ("margin",))


def test_settings_of_a_class_with_a_mixin(rows):
    """Settings of a class that has the mixin itself are kept, by head and in logits as well."""

    class Heads(ClassifierMixin, keras.Model):
        def call(self, inputs):
            return {"a": inputs[:, :3], "b": ops.softmax(inputs)}

    model = Heads(from_logits={"a": True}, class_names={"a": ["x", "y", "z"]})
    again = ClassifierModel.from_model(model)
    assert dict(again.from_logits) == {"a": True}
    expected, outputs = (m.predict(rows, verbose=0) for m in (model, again))
    keras.tree.map_structure(np.testing.assert_array_equal, outputs, expected)


def test_settings_of_another_task():
    """What means the same in another task is kept, which the names of two classes do not."""
    inputs = keras.Input((8,))
    logits = layers.Dense(3)(inputs)
    settings = {"from_logits": True, "class_names": ("a", "b", "c"), "scores": ("entropy",)}
    model = ClassifierModel(inputs, logits, top_k=2, **settings)
    labels = MultiLabelClassifierModel.from_model(model, threshold=0.25)
    assert {name: getattr(labels, name) for name in settings} == settings
    assert not hasattr(labels, "top_k")
    back = ClassifierModel.from_model(labels)
    assert {name: getattr(back, name) for name in settings} == settings
    assert back.top_k is None
    one = layers.Dense(1)(inputs)
    binary = BinaryClassifierModel(
        inputs, one, threshold=0.25, class_names=["no", "yes"], from_logits=True
    )
    label = MultiLabelClassifierModel.from_model(binary)
    assert (label.threshold, label.class_names, label.from_logits) == (0.25, None, True)
    again = BinaryClassifierModel.from_model(binary)
    assert (again.threshold, again.class_names, again.from_logits) == (0.25, ("no", "yes"), True)


def test_settings_and_class_attributes():
    """A class attribute gives way to what was set on the model, but not to its defaults."""

    class Best(ClassifierModel):
        top_k = 3
        scores = ("margin",)

    dressed = ClassifierModel.from_model(functional(), top_k=2)
    again = Best.from_model(dressed)
    assert (again.top_k, again.scores) == (2, ("margin",))


@pytest.mark.parametrize("unknown", ["args", "kwargs"])
def test_parameters_are_no_settings(unknown):
    """The names of a constructor's `*args` and `**kwargs` are no settings."""
    with pytest.raises(TypeError, match="The settings of ClassifierModel are") as caught:
        ClassifierModel.from_model(functional(), **{unknown: ()})
    known, received = str(caught.value).split("Received")
    assert unknown in received
    assert unknown not in known


@pytest.mark.parametrize(
    ("ready_made", "line"),
    [
        (ClassifierModel, "class M(ClassifierMixin, keras.Model)"),
        (BinaryClassifierModel, "class M(BinaryClassifierMixin, keras.Model)"),
        (MultiLabelClassifierModel, "class M(MultiLabelClassifierMixin, keras.Model)"),
    ],
)
def test_no_call_of_its_own(ready_made, line):
    """A subclass of a ready-made model with a `call` is refused with the line to write."""
    with pytest.raises(TypeError, match=re.escape(line)):
        type("M", (ready_made,), {"call": Net.call})


@pytest.mark.parametrize("make", [functional, sequential])
def test_own_postprocess(rows, make):
    """A subclass of a ready-made model with outputs of its own dresses models with a graph."""
    outputs = WithGini.from_model(make(), class_names=["a", "b", "c"]).predict(rows, verbose=0)
    p = np.float64(outputs["probabilities"])
    np.testing.assert_allclose(outputs["gini"], 1 - (p**2).sum(axis=-1), rtol=1e-5)


def test_own_postprocess_of_a_model_with_code(rows):
    """A subclass with outputs of its own dresses functional models with code of their own."""
    model = functional(model_class=Tempered)
    outputs = WithGini.from_model(model).predict(rows, verbose=0)
    expected = model.predict(rows, verbose=0)
    np.testing.assert_array_equal(outputs["probabilities"], expected)
    np.testing.assert_allclose(outputs["gini"], 1 - (expected**2).sum(axis=-1), rtol=1e-5)


def test_own_classes_that_do_not_fit(rows):
    """A subclass with a graph or a constructor says so to a model with code; the remedy works."""

    class Warm(ClassifierModel):
        def __init__(self, *args, warmth=2, **kwargs):
            super().__init__(*args, **kwargs)
            self.warmth = warmth

    assert Warm.from_model(functional(), warmth=3).warmth == 3
    with pytest.raises(TypeError, match=r"Warm has a constructor.*list the mixin before"):
        Warm.from_model(functional(model_class=Tempered))
    with pytest.raises(TypeError, match=r"WithGini has a graph.*list the mixin before"):
        WithGini.from_model(Net())

    class Own(ClassifierMixin, Net):
        def postprocess(self, y_pred):
            return {**super().postprocess(y_pred), "mine": y_pred[:, 0]}

    assert Own().predict(rows, verbose=0)["mine"].shape == (70,)


def test_functional_use_changes_no_other_class(rows):
    """Making a functional model leaves classes with `call` as they were, older and newer ones."""

    class Before(ClassifierMixin, Net):
        pass

    ClassifierModel.from_model(functional())
    BinaryClassifierModel.from_model(functional(units=1, activation="sigmoid"))

    class After(ClassifierMixin, Net):
        pass

    class AfterBinary(BinaryClassifierMixin, keras.Model):
        def call(self, inputs):
            return ops.sigmoid(inputs[:, :1])

    for model_class in (Before, After, AfterBinary):
        assert model_class().predict(rows, verbose=0)["labels"].shape == (70,)
        assert not isinstance(model_class(), type(functional()))
    assert Net().predict(rows, verbose=0).shape == (70, 3)
    assert ClassifierModel.from_model(Net()).predict(rows, verbose=0)["labels"].shape == (70,)
