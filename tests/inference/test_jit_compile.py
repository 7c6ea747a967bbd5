"""Which compilation a job uses, and what its file says of it."""

import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.inference import array_job
from kerasext.models import ClassifierModel

BACKEND = keras.backend.backend()
KERASS = BACKEND == "jax"  # what Keras chooses on a CPU

pytestmark = pytest.mark.backends(
    "tensorflow", "jax", reason="`torch.compile` needs a compiler, and takes long"
)


@pytest.fixture
def model():
    """A classifier with a hidden layer."""
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(16, activation="tanh")(inputs)
    return ClassifierModel(inputs, keras.layers.Dense(4, activation="softmax")(hidden))


class Stops(keras.callbacks.Callback):
    def on_predict_batch_end(self, batch, logs=None):
        self.model.stop_predicting = batch == 1


def compilation(path):
    """What the file says."""
    with PredictionFile(path) as predictions:
        return predictions.origin["jit_compile"]


@pytest.mark.parametrize("jit_compile", [None, True, False])
def test_values_are_those_of_predict_compiled_alike(model, rows, path, jit_compile):
    """Bit for bit, and the file says which compilation it was; the model keeps its own."""
    before = model.jit_compile
    predict_to_hdf5(model, rows, path, batch_size=23, jit_compile=jit_compile, verbose=0).close()
    assert model.jit_compile is before
    resolved = KERASS if jit_compile is None else jit_compile
    assert compilation(path) == resolved
    model.compile(jit_compile=resolved)
    expected = model.predict(rows, batch_size=23, verbose=0)
    with PredictionFile(path) as predictions:
        for name, array in expected.items():
            np.testing.assert_array_equal(predictions[name][:], array)


def test_as_the_model_was_compiled(model, rows, path):
    """Without a wish it is that of `model.compile`, for the callback as well."""
    model.compile(jit_compile=not KERASS)
    predict_to_hdf5(model, rows, path, verbose=0).close()
    assert compilation(path) is not KERASS
    model.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path, mode="w")])
    assert compilation(path) is not KERASS


@pytest.mark.parametrize("wish", [None, "tune"])
def test_resume_keeps_it(model, rows, path, wish):
    """A resumed job goes on as it began; another wish is refused, and the file stays."""
    options = {"batch_size": 8, "verbose": 0}
    other = not KERASS
    predict_to_hdf5(model, rows, path, jit_compile=other, callbacks=[Stops()], **options).close()
    before = path.read_bytes()
    with pytest.raises(
        ValueError, match=rf"the same `jit_compile`.*Received: jit_compile={KERASS}"
    ):
        predict_to_hdf5(model, rows, path, mode="resume", jit_compile=KERASS, **options)
    assert path.read_bytes() == before
    predict_to_hdf5(model, rows, path, mode="resume", jit_compile=wish, **options).close()
    assert compilation(path) is other
    model.compile(jit_compile=other)
    expected = model.predict(rows, batch_size=8, verbose=0)
    with PredictionFile(path) as predictions:
        assert predictions.complete
        np.testing.assert_array_equal(predictions["probabilities"][:], expected["probabilities"])


def test_resume_with_the_callback(model, rows, path):
    """A callback can't compile the model: the error says who can."""
    options = {"batch_size": 8, "verbose": 0}
    predict_to_hdf5(
        model, rows, path, jit_compile=not KERASS, callbacks=[Stops()], **options
    ).close()
    writer = HDF5PredictionWriter(path, mode="resume")
    with pytest.raises(ValueError, match=r"pass it to `model\.compile`"):
        model.predict(rows, callbacks=[writer], **options)
    model.compile(jit_compile=not KERASS)
    model.predict(rows, callbacks=[writer], **options)
    with PredictionFile(path) as predictions:
        assert predictions.complete


@pytest.mark.parametrize("faster", [True, False])
def test_tune_takes_the_faster_one(model, rows, path, faster, monkeypatch):
    """Both are timed on rows that are not kept; every row is in the file once."""
    many = np.tile(rows, (30, 1))
    timed = []

    def time(self, step, size, batches):
        timed.append(batches)
        return 10.0 * batches if len(timed) > 2 and not faster else 20.0 * batches / len(timed)

    monkeypatch.setattr(array_job.ArrayJob, "_time", time)
    with predict_to_hdf5(model, many, path, jit_compile="tune", verbose=0) as predictions:
        assert predictions.rows == len(many)
    assert len(timed) == 4
    assert compilation(path) is faster


def test_tune_changes_no_state(rows, path, monkeypatch):
    """A model that is random in `predict` draws the same numbers as without."""

    class Draws(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.generator = keras.random.SeedGenerator(1)

        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator)

    def make():
        inputs = keras.Input((8,))
        return keras.Model(inputs, Draws()(inputs))

    monkeypatch.setattr(array_job, "_WORTH_COMPILING_SECONDS", 0)
    monkeypatch.setattr(array_job, "_CLEARLY_FASTER", np.inf if KERASS else -1)
    many = np.tile(rows, (30, 1))
    options = {"batch_size": 70, "verbose": 0}
    expected = make().predict(many, **options)
    with predict_to_hdf5(make(), many, path, jit_compile="tune", **options) as predictions:
        assert predictions.origin["jit_compile"] is KERASS
        np.testing.assert_array_equal(predictions["predictions"][:], expected)


def test_tune_of_a_short_job(model, rows, path):
    """A job that takes no time is not compiled twice."""
    many = np.tile(rows, (30, 1))
    predict_to_hdf5(model, many, path, jit_compile="tune", verbose=0).close()
    assert compilation(path) is KERASS


def uncompiled(model):
    """Makes the model run eagerly."""
    model.compile(run_eagerly=True)
    return model


def with_a_layer_that_xla_does_not_know(model):
    """A model with a layer that Keras does not let XLA compile."""
    layer = keras.layers.Identity()
    layer.supports_jit = False
    return keras.Model(model.input, layer(model.output))


@pytest.mark.parametrize("change", [uncompiled, with_a_layer_that_xla_does_not_know])
def test_what_can_not_be_compiled(model, rows, path, change):
    """A model that XLA can't compile is refused before there is a file, if asked for it."""
    model = change(model)
    with pytest.raises(ValueError, match="can be compiled by XLA only if"):
        predict_to_hdf5(model, rows, path, jit_compile=True, verbose=0)
    assert not path.exists()
    for wish in (None, "tune"):
        predict_to_hdf5(model, rows, path, mode="w", jit_compile=wish, verbose=0).close()
        assert compilation(path) is False


def test_where_keras_compiles(model, rows, path):
    """With data that go to Keras as they are it can't be chosen."""

    def batches():
        yield (rows,)

    with pytest.raises(ValueError, match=r"pass it to `model.compile`.*jit_compile=True"):
        predict_to_hdf5(model, batches(), path, jit_compile=True, verbose=0)
    with pytest.raises(ValueError, match=r"a bool, None or 'tune'.*'xla'"):
        predict_to_hdf5(model, rows, path, jit_compile="xla", verbose=0)
    assert not path.exists()
