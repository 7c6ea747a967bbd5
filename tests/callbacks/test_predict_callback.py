"""What is no `predict` of a Keras model is refused by all callbacks, at its start."""

import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor


@pytest.fixture(params=["writer", "monitor"])
def callback(request, path):
    """One of the callbacks."""
    return HDF5PredictionWriter(path) if request.param == "writer" else PredictionMonitor()


@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_other_methods(method, callback, classifier, rows, path):
    """Given to `fit` or `evaluate`, a callback of `predict` says so instead of doing nothing."""
    classifier.compile("sgd", "sparse_categorical_crossentropy")
    before = classifier.get_weights()
    with pytest.raises(ValueError, match=f"in `predict` only.*a call of `{method}`"):
        getattr(classifier, method)(rows, np.zeros(70), verbose=0, callbacks=[callback])
    for old, new in zip(before, classifier.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not path.exists()


def test_predict_in_fit(classifier, rows, path):
    """The way that the error names: another callback predicts after each epoch."""

    class PredictsAfterEpoch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            writer = HDF5PredictionWriter(path.with_name(f"{epoch}.h5"))
            self.model.predict(rows, verbose=0, callbacks=[writer])

    classifier.compile("sgd", "sparse_categorical_crossentropy")
    callbacks = [PredictsAfterEpoch()]
    classifier.fit(rows, np.zeros(70), epochs=2, verbose=0, callbacks=callbacks)
    for epoch in (0, 1):
        with PredictionFile(path.with_name(f"{epoch}.h5")) as predictions:
            assert (predictions.rows, predictions.complete) == (70, True)


def test_no_model(callback):
    """Keras's own list of callbacks gives what it has: a callback takes a model only."""
    with pytest.raises(TypeError, match=r"must be a keras\.Model"):
        callback.set_model(object())


@pytest.mark.parametrize("path", [7, None, np.zeros(3)])
def test_no_path(path):
    """A path is a string or path-like, and an array is not shown."""
    with pytest.raises(TypeError, match="`path` must be a string or path-like"):
        HDF5PredictionWriter(path)
