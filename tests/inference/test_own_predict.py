import re

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor
from kerasext.inference import predict_to_hdf5
from kerasext.models import ClassifierMixin

ROWS = 200


@pytest.fixture
def x():
    """200 rows of 8 numbers from 0 to 255."""
    return np.random.default_rng(0).integers(0, 256, (ROWS, 8)).astype("float32")


def functional(model_class):
    """A functional model of a class, which knows nothing of what its class prepares."""
    inputs = keras.Input((8,))
    return model_class(inputs, keras.layers.Dense(4, activation="softmax")(inputs))


def of_class():
    """A model whose class prepares its data in `predict`, as those of KerasHub do."""

    class Scaled(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(x / 255, **kwargs)

    return functional(Scaled)


def of_instance():
    """A model on which a `predict` was set."""
    model = functional(keras.Model)
    inherited = model.predict
    model.predict = lambda x, **kwargs: inherited(x / 255, **kwargs)
    return model


def with_mixin():
    """A model whose own `predict` stands right of a mixin."""

    class Scaled(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(x / 255, **kwargs)

    class ScaledClassifier(ClassifierMixin, Scaled):
        pass

    return functional(ScaledClassifier)


MODELS = [of_class, of_instance, with_mixin]


def stored(path):
    """What a complete file holds, read with h5py."""
    with h5py.File(path) as file:
        assert file["_kerasext/record"]["complete"] == 1
        return {name: file[name][()] for name in file if isinstance(file[name], h5py.Dataset)}


def assert_holds(path, outputs, **columns):
    """The file is complete, and has the outputs of `predict` and the columns."""
    expected = outputs if isinstance(outputs, dict) else {"predictions": outputs}
    found = stored(path)
    for name, values in {**expected, **columns}.items():
        np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("size", ["auto", 16])
def test_holds_what_predict_returns(make, x, path, size):
    """The file has what the model's own `predict` returns, not what Keras's would of the rows."""
    model = make()
    expected = model.predict(x, verbose=0, **({} if size == "auto" else {"batch_size": size}))
    with predict_to_hdf5(model, x, path, batch_size=size, verbose=0) as predictions:
        assert (predictions.rows, predictions.complete) == (ROWS, True)
    assert_holds(path, expected)
    raw = keras.Model.predict(model, x, verbose=0)
    raw, prepared = (y["probabilities"] if isinstance(y, dict) else y for y in (raw, expected))
    assert np.abs(raw - prepared).max() > 0.1  # or nothing is shown


def test_data_as_they_are(path):
    """Data that only the model's own `predict` takes, such as text, reach it untouched."""

    class OfText(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(np.array([[len(text)] * 8 for text in x], "float32"), **kwargs)

    texts = np.array(["a", "bc", "def"] * 20)
    model = functional(OfText)
    expected = model.predict(texts, verbose=0)
    for number, data in enumerate((texts, list(texts))):
        file = path.with_name(f"{number}.h5")
        predict_to_hdf5(model, data, file, ids=list(range(60)), verbose=0).close()
        assert_holds(file, expected, ids=np.arange(60))


def test_ids_targets_and_keep(x, path):
    """Ids and targets are joined to the rows, as for other models."""
    model = of_class()
    expected = model.predict(x, verbose=0)
    ids, targets = np.arange(ROWS) + 1000, np.arange(ROWS) % 4
    keep = lambda step: step["ids"] % 2 == 0  # noqa: E731 - shorter here
    predict_to_hdf5(model, x, path, ids=ids, targets=targets, keep=keep, verbose=0).close()
    assert_holds(path, expected[::2], ids=ids[::2], targets=targets[::2])


def test_ids_among_the_inputs(x, path):
    """Ids under a key of a dict of arrays never reach the model's own `predict`."""

    class Named(keras.Model):
        def predict(self, x, **kwargs):
            return super().predict(x["x"] / 255, **kwargs) if set(x) == {"x"} else None

    model = functional(Named)
    expected = model.predict({"x": x}, verbose=0)
    data = {"x": x, "name": np.arange(ROWS)}
    predict_to_hdf5(model, data, path, ids="name", verbose=0).close()
    assert_holds(path, expected, ids=np.arange(ROWS))


def test_wrong_number_of_ids(x, path):
    """Ids of another number than that of the rows raise."""
    with pytest.raises(ValueError, match="ids"):
        predict_to_hdf5(of_class(), x, path, ids=list(range(ROWS - 1)), verbose=0)


class StopsAfter(keras.callbacks.Callback):
    """Ends `predict` after some steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.seen = 0

    def on_predict_batch_end(self, batch, logs=None):
        self.seen += 1
        self.model.stop_predicting = self.seen == self.steps


@pytest.mark.parametrize("sizes", [(16, 16), (16, "auto"), ("auto", "auto")])
@pytest.mark.parametrize("make", MODELS)
def test_resume(make, x, path, sizes):
    """A job that was stopped goes on, and computes no committed step but the last again."""
    model = make()
    expected = model.predict(x, verbose=0)
    options = {"mode": "resume", "verbose": 0, "ids": np.arange(ROWS)}
    stops = StopsAfter(3)
    with predict_to_hdf5(
        model, x, path, batch_size=sizes[0], callbacks=[stops], **options
    ) as predictions:
        assert not predictions.complete
    predict_to_hdf5(model, x, path, batch_size=sizes[1], **options).close()
    found = stored(path)
    expected = expected if isinstance(expected, dict) else {"predictions": expected}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["ids"], np.arange(ROWS))


def test_callbacks_and_monitor(x, path):
    """Other callbacks of the job see its steps, a monitor too."""
    steps, monitor = StopsAfter(0), PredictionMonitor()
    callbacks = [steps, monitor]
    predict_to_hdf5(with_mixin(), x, path, batch_size=20, callbacks=callbacks, verbose=0).close()
    assert (steps.seen, monitor.rows) == (10, ROWS)


def own(function):
    """A model whose class has this `predict`."""
    return functional(type("Own", (keras.Model,), {"predict": function}))


def keras_predict(model, x, **kwargs):
    """Keras's own `predict`."""
    return keras.Model.predict(model, x, **kwargs)


WRONG = {
    "no callbacks": (
        lambda self, x: keras_predict(self, x, verbose=0),
        TypeError,
        "add `**kwargs` to it and pass them to `super().predict`. Received: batch_size, callbacks",
    ),
    "no batch size": (
        lambda self, x, callbacks=None: keras_predict(self, x, callbacks=callbacks),
        TypeError,
        "Received: batch_size, verbose, and a model with `predict` of Own",
    ),
    "callbacks that are dropped": (
        lambda self, x, **kwargs: keras_predict(self, x, verbose=kwargs["verbose"]),
        ValueError,
        "must hand `callbacks` to Keras's",
    ),
    "two calls": (
        lambda self, x, **kwargs: (
            keras_predict(self, x[:100], **kwargs),
            keras_predict(self, x[100:], **kwargs),
        )[0],
        ValueError,
        "must call Keras's once, with all rows",
    ),
    "other outputs": (
        lambda self, x, **kwargs: [keras_predict(self, x, **kwargs), "a name"],
        ValueError,
        "must return what Keras's does",
    ),
}


@pytest.mark.parametrize("mode", ["x", "w"])
@pytest.mark.parametrize(("function", "error", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_written(function, error, message, mode, x, path):
    """A `predict` by which the file would not hold its result raises: no file is complete."""
    if mode == "w":
        predict_to_hdf5(functional(keras.Model), x, path, verbose=0).close()
        before = path.read_bytes()
    with pytest.raises(error, match=re.escape(message)):
        predict_to_hdf5(own(function), x, path, batch_size=50, mode=mode, verbose=0)
    if path.exists():
        with PredictionFile(path) as predictions:
            assert not predictions.complete or path.read_bytes() == before


def test_error_after_the_last_step(x, path):
    """What a `predict` raises of outputs that it did not get is explained in a note."""

    def predict(self, x, **kwargs):
        return keras_predict(self, x, **kwargs)[0]

    with pytest.raises(KeyError) as caught:
        predict_to_hdf5(own(predict), x, path, verbose=0)
    assert "no outputs because they go to the file" in caught.value.__notes__[-1]
    with PredictionFile(path) as predictions:
        assert not predictions.complete


def test_outputs_for_another_writer(x, path):
    """A second writer that wants the outputs kept would hide what the model does to them."""
    second = HDF5PredictionWriter(path.with_name("second.h5"), accumulate=True)
    with pytest.raises(ValueError, match=r"pass accumulate=False.*HDF5PredictionWriter"):
        predict_to_hdf5(of_class(), x, path, callbacks=[second], verbose=0)
    second = HDF5PredictionWriter(path.with_name("second.h5"), accumulate=False)
    predict_to_hdf5(of_class(), x, path, callbacks=[second], verbose=0).close()
    assert_holds(path.with_name("second.h5"), stored(path)["predictions"])


def test_the_model_is_left_as_it_was(x, path):
    """Afterwards, and after an error, the model predicts as before, and trains."""
    model = of_class()
    expected = model.predict(x, verbose=0)
    with pytest.raises(ValueError, match="ids"):
        predict_to_hdf5(model, x, path, ids=[1], verbose=0)
    predict_to_hdf5(model, x, path, mode="w", verbose=0).close()
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.zeros(ROWS), verbose=0)
