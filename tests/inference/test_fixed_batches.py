"""Models that take batches of one size are given such batches."""

import keras
import numpy as np
import pytest
from keras import layers

from kerasext import PredictionFile, predict_to_hdf5, tune_batch_size

SIZE = 16
ROWS = 70
X = np.random.default_rng(0).normal(size=(ROWS, 5, 3)).astype("float32")


def fixed():
    """A model whose inputs have a size, without a state."""
    inputs = keras.Input(batch_shape=(SIZE, 5, 3))
    return keras.Model(inputs, layers.LSTM(2)(inputs))


def stateful():
    """A model that goes on with the state of each row of the batch before."""
    inputs = keras.Input(batch_shape=(SIZE, 5, 3))
    return keras.Model(inputs, layers.LSTM(2, stateful=True)(inputs))


def without_graph():
    """The same without a graph."""

    class Recurrent(keras.Model):
        def __init__(self):
            super().__init__()
            self.lstm = layers.LSTM(2, stateful=True)

        def call(self, x):
            return self.lstm(x)

    model = Recurrent()
    model(X[:SIZE])
    model.lstm.reset_states()
    return model


@pytest.mark.parametrize("make", [fixed, stateful, without_graph])
@pytest.mark.parametrize("rows", [64, ROWS])
def test_auto(rows, make, path):
    """`"auto"` is that size, and the last batch is filled up, of which nothing is kept."""
    model = make()
    filled = np.concatenate([X, np.repeat(X[-1:], -ROWS % SIZE, axis=0)])
    expected = model.predict(filled, batch_size=SIZE, verbose=0)[:rows]
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_states()
    with predict_to_hdf5(model, X[:rows], path, verbose=0) as predictions:
        np.testing.assert_allclose(predictions["predictions"][:], expected, rtol=1e-5, atol=1e-6)
        assert predictions.complete


def test_another_size(path):
    """Another size than the model has is refused before anything is written."""
    with pytest.raises(ValueError, match=r"`batch_size` must be 16.*batch_size=32"):
        predict_to_hdf5(fixed(), X, path, batch_size=32, verbose=0)
    assert not path.exists()
    with pytest.raises(ValueError, match="batch_size=16"):
        tune_batch_size(fixed(), np.repeat(X, 3, axis=0))


def test_resume(path):
    """An interrupted job of fixed batches goes on in them."""

    class StopsAfter(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = batch == 1

    model = fixed()
    predict_to_hdf5(model, X, path, verbose=0, callbacks=StopsAfter()).close()
    with PredictionFile(path) as predictions:
        assert predictions.rows == 2 * SIZE
    with predict_to_hdf5(model, X, path, mode="resume", verbose=0) as predictions:
        assert (predictions.rows, predictions.complete) == (ROWS, True)
