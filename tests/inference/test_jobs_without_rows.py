"""A part of a job that has no rows makes a file like those of the others."""

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.models import ClassifierModel
from kerasext.shards import index_shards

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(20, 8)).astype("float32")


@pytest.fixture
def model():
    """A classifier with names."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3, activation="softmax")(inputs)
    return ClassifierModel(inputs, outputs, class_names=["ant", "bee", "cat"])


def columns(rows):
    """What stands beside some rows."""
    return {"ids": np.arange(20)[rows], "targets": np.arange(20)[rows] % 3}


def test_a_complete_file(model, path):
    """The file has the outputs, dtypes and names of one with rows, and is complete."""
    rows, none = path, path.with_name("none.h5")
    predict_to_hdf5(model, X, rows, verbose=0, **columns(slice(None))).close()
    predict_to_hdf5(model, X[:0], none, verbose=0, **columns(slice(0))).close()
    with h5py.File(rows) as some, h5py.File(none) as empty:
        assert empty["_kerasext/record"]["complete"] == 1
        assert sorted(some) == sorted(empty)
        for name in ("probabilities", "labels", "confidence", "ids", "targets"):
            assert empty[name].shape == (0, *some[name].shape[1:])
            assert empty[name].dtype == some[name].dtype
    with PredictionFile(none) as predictions:
        predictions.verify()
        assert list(predictions.class_names) == ["ant", "bee", "cat"]


def test_shards(model, tmp_path):
    """Where the rows of some files are indexed, files without rows are no obstacle."""
    for part, rows in enumerate((slice(0, 10), slice(10, 10), slice(10, 20))):
        path = tmp_path / f"{part}.h5"
        predict_to_hdf5(model, X[rows], path, verbose=0, **columns(rows)).close()
    with PredictionFile(index_shards(tmp_path)) as predictions:
        np.testing.assert_array_equal(predictions["ids"][:], np.arange(20))


@pytest.mark.parametrize("mode", ["w", "a", "resume"])
def test_modes(mode, model, path):
    """Rows can be added to such a file, and none to one with rows."""
    for rows in (slice(0), slice(0), slice(5)):
        options = {"mode": mode, "verbose": 0, **columns(rows)}
        if mode == "resume" and rows.stop:
            with pytest.raises(ValueError, match="of a complete file"):
                predict_to_hdf5(model, X[rows], path, **options)
            return
        predict_to_hdf5(model, X[rows], path, **options).close()
    if mode == "a":
        predict_to_hdf5(model, X[:0], path, mode="a", verbose=0, **columns(slice(0))).close()
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (5, True)


def test_keep_and_callbacks(model, path):
    """`keep` is asked about no rows, and callbacks see no batch."""

    class Fails(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            raise AssertionError

    keep = lambda step: step["confidence"] > 0.5  # noqa: E731
    predictions = predict_to_hdf5(model, X[:0], path, keep=keep, verbose=0, callbacks=[Fails()])
    with predictions:
        assert predictions["row"].shape == (0,)


@pytest.mark.backends("tensorflow", reason="no other backend has strings")
def test_text(path):
    """Text is empty strings then, not zeros."""
    words = keras.Input((1,), dtype="string")
    model = keras.Model(words, keras.layers.StringLookup(vocabulary=["ant"])(words))
    with predict_to_hdf5(model, np.empty((0, 1), "U3"), path, verbose=0) as predictions:
        assert predictions["predictions"].shape == (0, 1)


def test_a_model_that_takes_no_zeros(path):
    """A model that fails on zeros is no mystery: the error says why it was asked."""

    class Picky(keras.Model):
        def call(self, x):
            raise ArithmeticError("zeros")

    model = Picky()
    model.built = True
    with pytest.raises(ValueError, match=r"Data without rows.*raised ArithmeticError"):
        predict_to_hdf5(model, X[:0], path, verbose=0)
    assert not path.exists()


def test_errors_of_the_file(model, path):
    """What is wrong with the file or its options is told as it is for data with rows."""
    with pytest.raises(ValueError, match="the nearest is 'labels'"):
        predict_to_hdf5(model, X[:0], path, outputs=["label"], verbose=0)


def test_arrays_of_other_lengths(model, path):
    """One array without rows beside one with rows is still an error."""
    with pytest.raises(ValueError, match="the same number of rows"):
        predict_to_hdf5(model, {"a": X[:0], "b": X}, path, verbose=0)
