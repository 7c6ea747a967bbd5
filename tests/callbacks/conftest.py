"""Models whose predict step yields a given structure, and a way to compare files with results."""

import h5py
import keras
import numpy as np
import pytest

from kerasext.models import ClassifierModel


class StructureModel(keras.Model):
    """Yields whatever a function makes of its input."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


@pytest.fixture
def structure_model():
    """The class of a model that is one function."""
    return StructureModel


@pytest.fixture
def classifier():
    """A functional softmax classifier of four classes."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(4, activation="softmax")(inputs)
    return ClassifierModel(inputs, outputs, class_names=["ant", "bee", "cat", "doe"], name="zoo")


@pytest.fixture
def assert_file_equals():
    """Checks with plain h5py that a file holds exactly what `predict` returned."""

    def check(path, result, *, complete=True):
        if isinstance(result, np.ndarray):
            result = {"predictions": result}
        expected = {
            "/".join(map(str, where)): array
            for where, array in keras.tree.flatten_with_path(result)
        }
        found = {}
        with h5py.File(path, "r") as file:
            record = file["_kerasext/record"][()]
            file.visititems(
                lambda name, node: (
                    found.update({name: node[()]})
                    if isinstance(node, h5py.Dataset) and not name.startswith("_kerasext")
                    else None
                )
            )
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert record["rows"] == len(array)
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
        assert bool(record["complete"]) is complete

    return check
