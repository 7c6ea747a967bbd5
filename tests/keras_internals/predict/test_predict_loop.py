import importlib
import types

import keras
import numpy as np
import pytest

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.keras_internals import predict_loop

of_jax = pytest.mark.backends("jax", reason="the others have no such state")


@pytest.fixture
def model():
    """A model that draws a random number in each step, which is state, too."""
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])


@pytest.mark.parametrize(
    "name", ["predict_function", "make_predict_function", "steps_per_execution"]
)
def test_a_keras_without_a_needed_attribute_is_refused(name, model, rows, path, monkeypatch):
    """A future Keras whose loop works otherwise: an error at begin names what is missing."""
    plain = model.predict(rows, verbose=0)
    for owner in (model, *type(model).__mro__):
        if name in vars(owner) and isinstance(owner, type):
            monkeypatch.delattr(owner, name)
        elif name in vars(owner):
            monkeypatch.delitem(vars(owner), name)
    with pytest.raises(RuntimeError, match=rf"use Keras 3\.12 to 3\.15.*'{name}'"):
        predict_loop.check_predict_loop(model)
    monkeypatch.undo()
    np.testing.assert_array_equal(model.predict(rows, verbose=0), plain)
    assert not path.exists()


def test_a_keras_whose_loop_calls_something_else_is_refused(model, rows, path, monkeypatch):
    """Where no step comes by, `predict` ends in an error, and no wrong file is left."""
    monkeypatch.setattr(
        type(model), "make_predict_function", lambda self, **_: self.predict_function
    )
    with pytest.raises((RuntimeError, TypeError)):
        model.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    assert not path.exists()


@of_jax
def test_variables_without_a_value_are_refused(model, monkeypatch):
    """On JAX the weights could not be given back without the variables' `_value`."""
    model.make_predict_function()
    other = types.SimpleNamespace()
    monkeypatch.setattr(type(model), "variables", [other])
    with pytest.raises(RuntimeError, match=r"without \['SimpleNamespace\._value'\]"):
        predict_loop.check_predict_loop(model)


@of_jax
def test_several_processes_are_refused_on_jax(model, monkeypatch):
    """A distribution over the processes of a cluster: an error at begin."""
    model.make_predict_function()
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        predict_loop.check_predict_loop(model)
        monkeypatch.setattr(importlib.import_module("jax"), "process_count", lambda: 3)
        with pytest.raises(ValueError, match="Received: 3 processes"):
            predict_loop.check_predict_loop(model)
    finally:
        keras.distribution.set_distribution(None)


def test_number_of_rows(model, rows):
    """The rows of a batch are those that all its tensors have, in any structure."""
    tensor = keras.ops.convert_to_tensor(rows)
    one = keras.ops.convert_to_tensor(1.0)
    for batch in (
        tensor,
        (tensor,),
        ({"a": tensor, "b": tensor},),
        (tensor, rows, None),
        [one, rows],
    ):
        assert predict_loop.number_of_rows(batch, model) == 70
    # Such as a table that each row looks something up in: any of them may be the rows.
    assert predict_loop.number_of_rows({"table": tensor, "x": tensor[:5]}, model) is None
    assert predict_loop.number_of_rows((one,), model) is None
    assert predict_loop.number_of_rows((), model) is None


@pytest.mark.backends("tensorflow", reason="no other has such tensors")
def test_number_of_rows_of_ragged_and_sparse_tensors(model):
    """Ragged and sparse batches have rows, too."""
    tf = importlib.import_module("tensorflow")
    ragged = tf.RaggedTensor.from_row_lengths([1.0, 2.0, 3.0], [2, 0, 1])
    assert predict_loop.number_of_rows((ragged,), model) == 3
    assert predict_loop.number_of_rows((tf.sparse.from_dense(tf.eye(4)),), model) == 4


@pytest.mark.backends("torch", reason="only its models have two modes")
def test_training_is_left(model):
    """A model that `fit` has left in training mode predicts as in `predict`."""
    model.train()
    predict_loop.leave_training(model)
    assert not model.training
