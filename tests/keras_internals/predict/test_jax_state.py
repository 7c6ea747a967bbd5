import keras
import numpy as np
import pytest

from kerasext.keras_internals import jax_state

of_jax = pytest.mark.backends("jax", reason="the others have no such state")


@pytest.fixture
def model():
    """A model that draws a random number in each step, which is state, too."""
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])


@of_jax
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": False}])
def test_a_sparing_function_has_the_same_results_and_leaves_the_state(options, steps, model, rows):
    """It returns what Keras's function does, bit for bit, and what it was given can be used on."""
    model.compile(steps_per_execution=steps, **options)
    model.make_predict_function()
    function = jax_state.sparing_function(model, model.predict_function)
    assert function is not model.predict_function
    assert function is jax_state.sparing_function(model, model.predict_function)

    def batches():
        return iter([(rows[:20],), (rows[20:40],), (rows[40:60],)])

    given = model._get_jax_state(trainable_variables=True, non_trainable_variables=True)
    outputs, after = function(given, batches())
    for before, value in zip(keras.tree.flatten(given), keras.tree.flatten(after), strict=True):
        np.testing.assert_array_equal(before, value)
    expected, _ = model.predict_function(given, batches())
    np.testing.assert_array_equal(outputs, expected)
    if not options:
        gone = [array.is_deleted() for array in keras.tree.flatten(given)]
        assert any(gone), "Keras does not give the state away any more"


@of_jax
def test_a_sparing_function_ends_with_the_data(model):
    """Without another batch it raises `StopIteration`, as Keras's own."""
    model.make_predict_function()
    function = jax_state.sparing_function(model, model.predict_function)
    state = model._get_jax_state(trainable_variables=True, non_trainable_variables=True)
    with pytest.raises(StopIteration):
        function(state, iter(()))


@of_jax
def test_functions_of_others_are_left_alone(model):
    """What Keras has not made is used as it is."""
    assert jax_state.sparing_function(model, print) is print
