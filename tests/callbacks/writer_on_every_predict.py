"""A pytest plugin: every `predict` of Keras's own tests writes a file, which must hold its result.

At the end it says how many calls were compared, so that comparing none can't pass for success.
"""

import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np

from kerasext.callbacks import HDF5PredictionWriter

plain_predict = keras.Model.predict
compared = 0


def flatten(result):
    """The arrays of a result by name."""
    if isinstance(result, np.ndarray):
        return {"predictions": result}
    return {"/".join(map(str, path)): leaf for path, leaf in keras.tree.flatten_with_path(result)}


def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
    """Keras's `predict`, with a file compared with its result."""
    global compared  # noqa: PLW0603 - pytest's hooks below share it
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.h5"
        result = plain_predict(
            self,
            x,
            batch_size=batch_size,
            verbose=verbose,
            steps=steps,
            callbacks=[*(callbacks or ()), HDF5PredictionWriter(path)],
        )
        expected = flatten(result)
        with h5py.File(path) as file:
            assert file["_kerasext/record"][()]["complete"]
            for name, array in expected.items():
                np.testing.assert_array_equal(file[name][()], array)
                assert file[name].dtype == array.dtype
    compared += 1
    return result


def pytest_configure():
    """Puts the writer on every model."""
    keras.Model.predict = predict


def pytest_unconfigure():
    """Says how many calls were compared."""
    print(f"\ncompared {compared} files with what predict returned")
