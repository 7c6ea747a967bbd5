"""Whole jobs whose rows differ in shape."""

import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

ROWS = np.random.default_rng(0).random((300, 6)).astype("float32")
on_tensorflow = pytest.mark.backends("tensorflow", reason="ragged tensors, and shapes by values")


class AsWideAsTheBatch(keras.Model):
    """Yields rows of 6 x (rows of the batch) numbers: another shape in the last batch."""

    def call(self, x):
        return {"wide": x[:, :, None] * keras.ops.ones((1, 1, keras.ops.shape(x)[0])), "x": x}


@pytest.mark.parametrize("batch_size", [1, 32, 300])
def test_arrays(batch_size, path):
    """Each row has the shape that its batch gave it."""
    model = AsWideAsTheBatch()
    with predict_to_hdf5(
        model, ROWS, path, batch_size=batch_size, ragged=["wide"], verbose=0
    ) as predictions:
        assert predictions.complete
        np.testing.assert_array_equal(predictions["x"], ROWS)
        for number, row in enumerate(predictions["wide"]):
            width = min(batch_size, 300 - number // batch_size * batch_size)
            np.testing.assert_array_equal(row, np.repeat(ROWS[number][:, None], width, axis=1))


def test_without_asking(path):
    """The batch that differs is refused with the remedy, and the rows before it are kept."""
    with pytest.raises(ValueError, match=r"pass `ragged=\['wide'\]`"):
        predict_to_hdf5(AsWideAsTheBatch(), ROWS, path, batch_size=32, verbose=0)
    with PredictionFile(path) as predictions:
        assert predictions.rows == 288


@on_tensorflow
@pytest.mark.parametrize("batch_size", ["auto", 2, 50])
def test_ragged_tensors(batch_size, path):
    """A ragged output is written however the job is cut; a resumed one is complete already."""

    class Model(keras.Model):
        def call(self, x):
            return tf.ragged.boolean_mask(x, x > 0.5)

    def predict(**options):
        return predict_to_hdf5(
            Model(), ROWS, path, batch_size=batch_size, ragged=True, verbose=0, **options
        )

    with predict() as predictions:
        for row, right in zip(predictions["predictions"], ROWS, strict=True):
            np.testing.assert_array_equal(row, right[right > 0.5])
    with predict(mode="resume") as predictions:
        assert predictions.rows == 300
