"""Models whose values can't be compared go on if they are asked to, and the file says so."""

import functools

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter

X = np.random.default_rng(0).normal(size=(70, 5, 3)).astype("float32")


class Random(keras.Model):
    """Dropout that is on in `predict`, as in Monte Carlo dropout."""

    def __init__(self):
        super().__init__()
        self.dropout = layers.Dropout(0.5, seed=1)
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(self.dropout(x[:, 0], training=True))


def stateful():
    """A model that goes on with the state of the batch before."""
    inputs = keras.Input(batch_shape=(10, 5, 3))
    return keras.Model(inputs, layers.LSTM(2, stateful=True)(inputs))


MODELS = {
    "random": (Random, "this model draws random numbers in `predict`"),
    "stateful": (stateful, r"depend on earlier batches, by the layers \['lstm"),
}


class StopsAfter(keras.callbacks.Callback):
    """Stops after three steps."""

    def on_predict_batch_end(self, batch, logs=None):
        self.model.stop_predicting = batch == 2


def callback(model, x, path, *others, **options):
    """Predicts with a writer."""
    with HDF5PredictionWriter(path, accumulate=False, **options) as writer:
        model.predict(x, batch_size=10, verbose=0, callbacks=[writer, *others])


def job(model, x, path, *others, **options):
    """Predicts by a whole job."""
    predict_to_hdf5(model, x, path, batch_size=10, verbose=0, callbacks=others, **options).close()


not_jax = pytest.mark.backends(
    "tensorflow", "torch", reason="on JAX Keras's `predict` forgets the state after each batch"
)


@pytest.mark.parametrize("kind", ["random", pytest.param("stateful", marks=not_jax)])
@pytest.mark.parametrize("predict", [callback, job])
def test_goes_on(predict, kind, path):
    """The error says why values differ and what to do, which works and stays in the file."""
    make, reason = MODELS[kind]
    model = make()
    model(X[:10])
    resume = functools.partial(predict, model, X, path, mode="resume")
    predict(model, X, path, StopsAfter())
    with h5py.File(path) as file:
        before = file["predictions"][:30]
        assert file["_kerasext/record"]["rows"] == 30
    with pytest.raises(ValueError, match=f"{reason}.*; pass mode='w'.*or resume_check=False"):
        resume()
    resume(resume_check=False)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (70, True)
        np.testing.assert_array_equal(predictions["predictions"][:30], before)
        assert predictions.origin["unchecked_resumes"] == 1
        predictions.verify()
    with pytest.raises(ValueError, match=reason):
        resume()
    content = path.read_bytes()
    resume(resume_check=False)
    assert path.read_bytes() == content


@pytest.mark.parametrize("predict", [callback, job])
def test_everything_else_is_compared(predict, path):
    """Without the check of values ids and the number of rows must be the same."""
    model = Random()
    model(X[:10])
    ids = np.arange(70)
    options = {"mode": "resume", "resume_check": False}
    predict(model, X, path, StopsAfter(), ids=ids)
    with pytest.raises(ValueError, match=r"same data|the data of the last"):
        predict(model, X, path, ids=ids + 1, **options)
    predict(model, X, path, ids=ids, **options)
    with pytest.raises(ValueError, match=r"same data|the data of the last"):
        predict(model, X, path, ids=ids + 1, **options)
    with pytest.raises(ValueError, match=r"same data|the data of the last"):
        predict(model, X[:60], path, ids=ids[:60], **options)


def test_a_model_like_others_is_compared(path):
    """The count stays zero where values were compared, and another model is refused."""
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, layers.Flatten()(inputs))
    callback(model, X, path, StopsAfter())
    with pytest.raises(ValueError, match="same model, and the same data in the same order"):
        callback(model, X + 1, path, mode="resume")
    callback(model, X, path, mode="resume")
    with PredictionFile(path) as predictions:
        assert predictions.origin["unchecked_resumes"] == 0
