import importlib
import types

import keras
import numpy as np
import pytest

from kerasext import keras_internals
from kerasext.callbacks import HDF5PredictionWriter

on_tensorflow = keras.backend.backend() == "tensorflow"
on_jax = keras.backend.backend() == "jax"


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
        keras_internals.check_predict_loop(model)
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


@pytest.mark.skipif(not on_jax, reason="of JAX")
def test_variables_without_a_value_are_refused(model, monkeypatch):
    """On JAX the weights could not be given back without the variables' `_value`."""
    model.make_predict_function()
    other = types.SimpleNamespace()
    monkeypatch.setattr(type(model), "variables", [other])
    with pytest.raises(RuntimeError, match=r"without \['SimpleNamespace\._value'\]"):
        keras_internals.check_predict_loop(model)


@pytest.mark.skipif(not on_jax, reason="of JAX")
def test_several_processes_are_refused_on_jax(model, monkeypatch):
    """A distribution over the processes of a cluster: an error at begin."""
    model.make_predict_function()
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        keras_internals.check_predict_loop(model)
        monkeypatch.setattr(importlib.import_module("jax"), "process_count", lambda: 3)
        with pytest.raises(ValueError, match="Received: 3 processes"):
            keras_internals.check_predict_loop(model)
    finally:
        keras.distribution.set_distribution(None)


def test_number_of_rows(model, rows):
    """The rows of a batch are those of its first tensor, in any structure."""
    tensor = keras.ops.convert_to_tensor(rows)
    for batch in (tensor, (tensor,), ({"a": tensor, "b": tensor},), (tensor, rows, None)):
        assert keras_internals.number_of_rows(batch, model) == 70
    assert keras_internals.number_of_rows((keras.ops.convert_to_tensor(1.0),), model) is None
    assert keras_internals.number_of_rows((), model) is None


@pytest.mark.skipif(not on_tensorflow, reason="of TensorFlow")
def test_number_of_rows_of_ragged_and_sparse_tensors(model):
    """Ragged and sparse batches have rows, too."""
    tf = importlib.import_module("tensorflow")
    ragged = tf.RaggedTensor.from_row_lengths([1.0, 2.0, 3.0], [2, 0, 1])
    assert keras_internals.number_of_rows((ragged,), model) == 3
    assert keras_internals.number_of_rows((tf.sparse.from_dense(tf.eye(4)),), model) == 4


@pytest.mark.skipif(not on_jax, reason="of JAX")
@pytest.mark.parametrize("options", [{}, {"steps_per_execution": 3}])
def test_undonated_has_the_same_results_and_leaves_the_state(options, model, rows):
    """It returns what Keras's function does, bit for bit, and what it was given can be used on."""
    model.compile(**options)
    model.make_predict_function()
    function = keras_internals.undonated(model, model.predict_function)
    assert function is not model.predict_function
    assert function is keras_internals.undonated(model, model.predict_function)

    def batches():
        return iter([(rows[:20],), (rows[20:40],), (rows[40:60],)])

    def state():
        return model._get_jax_state(trainable_variables=True, non_trainable_variables=True)

    given = state()
    outputs, after = function(given, batches())
    for before, value in zip(keras.tree.flatten(given), keras.tree.flatten(after), strict=True):
        np.testing.assert_array_equal(before, value)
    expected, _ = model.predict_function(given, batches())
    np.testing.assert_array_equal(outputs, expected)
    assert any(array.is_deleted() for array in keras.tree.flatten(given)), (
        "nothing to guard against"
    )


@pytest.mark.skipif(not on_jax, reason="of JAX")
def test_undonated_leaves_alone_what_gives_nothing_away(model):
    """Eager functions, those without XLA and those of others are used as they are."""
    for options in ({"run_eagerly": True}, {"jit_compile": False}):
        model.compile(**options)
        model.make_predict_function()
        assert keras_internals.undonated(model, model.predict_function) is model.predict_function
    model.compile()
    assert keras_internals.undonated(model, print) is print
