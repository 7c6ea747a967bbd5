"""`predict_step` as a function from arrays to arrays. Knows how Keras's backends run it.

What Keras 3.12 to 3.15 do in `predict`, and this does too, so that the outputs are the same:

- `predict_step` gets `x`, or `(x,)` if `x` is a list or tuple; on TensorFlow, whose data comes out
  of `tf.data`, lists have become tuples;
- TensorFlow compiles it by `tf.function` without AutoGraph; on JAX it is a pure function
  `(state, data) -> (outputs, state)`, compiled if `jit_compile` is on, as it is by default; torch
  runs it as it is, in evaluation mode.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerasext.keras_internals import jax_state, predict_loop
from kerasext.keras_internals.structures import filled, numbered

Array = np.ndarray[Any, Any]
Step = Callable[[list[Array]], Any]
_Data = Callable[[Any], Any]


def needs_fixed_shapes(model: keras.Model) -> bool:
    """Whether XLA compiles the step: it knows no open dimension, and compiles for each size."""
    return bool(model.jit_compile and not model.run_eagerly and keras.backend.backend() != "torch")


def make_step(model: keras.Model, x: Any, inputs: list[Array], lock: threading.RLock) -> Step:
    """Compiles `model.predict_step`.

    Args:
        model: A `keras.Model`.
        x: The structure of the inputs.
        inputs: List of NumPy arrays, the inputs in that structure. The step takes others of their
            dtypes and shapes; of any number of rows, unless it needs fixed shapes.
        lock: What steps of the same model hold while they change its state.

    Returns:
        Function from the list of inputs to the outputs, in new NumPy arrays.
    """
    numbers = numbered(x)  # with the arrays the step would keep the rows

    def data(inputs: Any) -> Any:
        tensors = [keras.ops.convert_to_tensor(value) for value in inputs]
        return keras.utils.pack_x_y_sample_weight(filled(numbers, tensors))

    # By name: only the backend in use may be loaded, or installed.
    backend: Any = importlib.import_module(keras.backend.backend())
    if backend.__name__ == "tensorflow":
        return _tensorflow_step(backend, model, data, inputs)
    if backend.__name__ == "jax":
        return _jax_step(backend, model, data, inputs, lock)
    return _torch_step(backend, model, data)


def _tensorflow_step(tf: Any, model: keras.Model, data: _Data, inputs: list[Array]) -> Step:
    fixed = needs_fixed_shapes(model)

    def predict_step(*tensors: Any) -> Any:
        return model.predict_step(keras.tree.lists_to_tuples(data(tensors)))

    function = predict_step
    if not model.run_eagerly:
        specs = [
            tf.TensorSpec(array.shape if fixed else (None, *array.shape[1:]), array.dtype)
            for array in inputs
        ]
        function = tf.function(predict_step, autograph=False, jit_compile=fixed or None)
        # Once and for all, where a call of the `tf.function` would look for the right one.
        function = function.get_concrete_function(*specs)

    def to_numpy(outputs: Any) -> Any:
        if isinstance(outputs, tf.Tensor):
            return outputs.numpy()
        if type(outputs) is dict:  # as the mixins return; `keras.tree` would take a tenth of a call
            return {name: to_numpy(output) for name, output in outputs.items()}
        if keras.tree.is_nested(outputs):
            return keras.tree.map_structure(to_numpy, outputs)
        return keras.ops.convert_to_numpy(outputs)  # ragged or sparse

    return lambda arrays: to_numpy(function(*map(tf.constant, arrays)))


def _jax_step(
    jax: Any, model: keras.Model, data: _Data, inputs: list[Array], lock: threading.RLock
) -> Step:
    jax_state.build(model, keras.utils.unpack_x_y_sample_weight(data(inputs))[0])
    trainable, other = model.trainable_variables, model.non_trainable_variables

    changes = jax_state.changes_of_step(model)

    def predict_step(state: Any, arrays: list[Array]) -> Any:
        return changes(state, data(arrays))

    function = jax.jit(predict_step) if needs_fixed_shapes(model) else predict_step

    def step(arrays: list[Array]) -> Any:
        with lock:  # or two threads would draw the same random numbers
            model.jax_state_sync()  # in a callback of `fit` the variables are empty without it
            state = [v.value for v in trainable], [v.value for v in other]
            outputs, changed = function(state, arrays)
            for index, value in changed.items():
                other[index].assign(value)
        return keras.tree.map_structure(np.array, outputs)

    return step


def _torch_step(torch: Any, model: keras.Model, data: _Data) -> Step:
    def step(arrays: list[Array]) -> Any:
        predict_loop.leave_training(model)  # in which `fit` leaves it
        with torch.inference_mode():
            outputs = model.predict_step(data(arrays))
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return step
