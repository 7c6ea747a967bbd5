"""Data frames reach the model as arrays, and a column that can't is named."""

import keras
import numpy as np
import pytest

from kerasext import predict_to_hdf5, tune_batch_size

pandas = pytest.importorskip("pandas")
ROWS = 200
on_tensorflow = pytest.mark.backends("tensorflow", reason="no other backend has strings")


@pytest.fixture
def frame():
    """Two columns of numbers, one of text."""
    numbers = np.arange(ROWS)
    return pandas.DataFrame({"b": numbers * 2.0, "a": numbers, "name": numbers.astype(str)})


@pytest.fixture
def summing():
    """A model of one array with two columns."""
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.ops.sum(inputs, axis=-1))


def of_inputs(structure):
    """A model with the inputs `a` and `b`."""
    a, b = keras.Input((1,), name="a"), keras.Input((), name="b")
    inputs = {"a": a, "b": b} if structure is dict else structure([a, b])
    return keras.Model(inputs, a[:, 0] - 10 * b)


@pytest.mark.parametrize("structure", [dict, list, tuple])
def test_a_column_for_each_input(structure, frame, path):
    """A model with several inputs takes columns by their names, and others may be there."""
    model = of_inputs(structure)
    with predict_to_hdf5(model, frame, path, ids="name", verbose=0) as predictions:
        expected = frame["a"] - 10 * frame["b"]
        np.testing.assert_allclose(predictions["predictions"][:], expected)
        assert predictions["ids"][3] == "3"
    assert tune_batch_size(model, frame, max_seconds=0.01).batch_size == 32


def test_one_input_of_a_dict(frame, path):
    """So does a model of a dict of one input."""
    a = keras.Input((1,), name="a")
    model = keras.Model({"a": a}, a[:, 0])
    with predict_to_hdf5(model, frame, path, verbose=0) as predictions:
        np.testing.assert_allclose(predictions["predictions"][:], frame["a"])


def test_an_input_without_a_column(frame, path):
    """An input that has no column is named."""
    with pytest.raises(ValueError, match=r"a column for each input.*without \['b'\]"):
        predict_to_hdf5(of_inputs(dict), frame[["a"]], path, verbose=0)


@on_tensorflow
@pytest.mark.parametrize("dtype", [object, "str", "category"])
def test_columns_of_text(dtype, frame, path):
    """Text of an input of its own may be objects or pandas's text; categories are to be cast."""
    words = keras.Input((1,), dtype="string", name="name")
    numbers = keras.Input((1,), name="a")
    looked_up = keras.layers.StringLookup(vocabulary=["0", "2"])(words)
    model = keras.Model([words, numbers], looked_up[:, 0])
    x = frame.astype({"name": dtype})
    if dtype == "category":
        with pytest.raises(TypeError, match=r"Column 'name'.*`x\.astype\(\{'name': 'str'\}\)`"):
            predict_to_hdf5(model, x, path, verbose=0)
        x = x.astype({"name": "str"})
    with predict_to_hdf5(model, x, path, verbose=0) as predictions:
        assert predictions["predictions"][:4].tolist() == [1, 0, 2, 0]


CASTS = {
    "Float64": "float32",
    "Int64": "int64",
    "UInt8": "uint64",
    "boolean": "bool",
    "category": "float32",
    "datetime64[s]": "int64",
}


@pytest.mark.parametrize("dtype", CASTS)
def test_a_dtype_that_keras_does_not_know(dtype, frame, summing, path):
    """The column is named with a cast, after which the model takes it."""
    x = frame[["a", "b"]].astype({"b": "int64" if dtype[0] == "d" else "float64"})
    if dtype in ("UInt8", "boolean"):
        x["b"] = 1.0
    x = x.astype({"b": dtype})
    with pytest.raises(
        TypeError, match=r"Column 'b' must.*`x\.astype\(\{'b': '(\w+)'\}\)`"
    ) as error:
        predict_to_hdf5(summing, x, path, verbose=0)
    assert f"'{CASTS[dtype]}'" in str(error.value)
    assert not path.exists()
    cast = x.astype({"b": CASTS[dtype]})
    with predict_to_hdf5(summing, cast, path, verbose=0) as predictions:
        expected = cast["a"].astype(float) + cast["b"].astype(float)
        np.testing.assert_allclose(predictions["predictions"][:], expected, rtol=1e-6)


def test_text_among_numbers(frame, summing, path):
    """A frame that is one input can't have text in some columns, which are named."""
    with pytest.raises(TypeError, match=r"all numbers or all text; drop.*\['name'\] with text"):
        predict_to_hdf5(summing, frame[["a", "name"]], path, verbose=0)
