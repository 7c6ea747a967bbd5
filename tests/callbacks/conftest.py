"""Models whose predict step yields a given structure, and a way to compare files with results."""

import importlib

import h5py
import keras
import numpy as np
import pytest

from kerasext.models import ClassifierModel

BACKEND = keras.backend.backend()


@pytest.fixture
def on_host():
    """A function that calls another whenever a step is computed, not when it is compiled.

    It returns the tensor that it is given, which the model has to use.
    """
    if BACKEND == "torch":
        return lambda function, x: (function(), x)[1]
    backend = importlib.import_module(BACKEND)

    def on_host(function, x):
        def called(array):
            function()
            return np.asarray(array)

        if BACKEND == "jax":
            return backend.pure_callback(called, backend.ShapeDtypeStruct(x.shape, x.dtype), x)
        result = backend.numpy_function(called, [x], x.dtype)
        result.set_shape(x.shape)
        return result

    return on_host


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
                    if isinstance(node, h5py.Dataset)
                    and not name.startswith("_kerasext")
                    and not node.is_scale
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
