"""Predicting on JAX without putting the weights at risk.

What Keras 3.12 to 3.15 do in `predict` on JAX:

- The weights leave the model before the first step and come back after the last one, so that after
  any error in between they are gone (`fit` was mended, keras-team/keras#21019).
- Each step is given their memory (`donate_argnums`) and makes them anew. JAX computes while Python
  goes on, so that a step that has failed, by lack of memory most of all, may have returned before:
  with it all that came out of it is lost, and the weights are among that.

Here each step only reads them, and yields what it has changed: most often nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras

State = tuple[list[Any], list[Any]]  # values of the trainable variables, and of the others
_FUNCTION = "_kerasext_jax_function"


def changes_of_step(model: keras.Model) -> Callable[[Any, Any], tuple[Any, dict[int, Any]]]:
    """`model.predict_step` as a function that does not return what it leaves alone.

    Returns:
        Function from state and data to the outputs, and the new values of those variables that are
        not trainable and were changed, by index.
    """

    def predict_step(state: State, data: Any) -> tuple[Any, dict[int, Any]]:
        outputs, after = model.predict_step(state, data)
        # What the step leaves alone comes back as the very same object.
        pairs = enumerate(zip(state[1], after, strict=True))
        return outputs, {index: new for index, (old, new) in pairs if new is not old}

    return predict_step


@contextlib.contextmanager
def weights_kept(model: keras.Model) -> Iterator[None]:
    """Within it `model.predict` leaves the model its weights, however it ends.

    On other backends it always does, and nothing is done.
    """
    # A model that makes its function itself goes its own way, and one of NNX has no such state.
    is_stock = type(model).make_predict_function is keras.Model.make_predict_function
    if keras.backend.backend() != "jax" or not is_stock or keras.config.is_nnx_enabled():
        yield
        return
    model.make_predict_function()  # what `compile` makes anew, and only `compile`
    before = model.predict_function
    of, function = model.__dict__.get(_FUNCTION, (None, None))
    if of is not before:
        function = _make_predict_function(model)
        # Past Keras's `__setattr__`, which tracks what it is given.
        model.__dict__[_FUNCTION] = before, function
    model.predict_function = function
    variables = model.variables if model.built else []
    values = [(variable, variable.value) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in values:
            if not _is_sound(variable._value):
                variable._value = value
        model._jax_state = None
        raise
    finally:
        model.predict_function = before


def _is_sound(value: Any) -> bool:
    if value is None or value.is_deleted():
        return False
    try:
        value.block_until_ready()
    except Exception:  # noqa: BLE001 - that of the step it would have come from
        return False
    return True


def _make_predict_function(model: keras.Model) -> Callable[[State, Iterator[Any]], Any]:
    """What `model.make_predict_function` makes, of steps that only read the weights."""
    jax: Any = importlib.import_module("jax")
    step, concatenate = changes_of_step(model), _concatenate
    if model.jit_compile and not model.run_eagerly:
        step, concatenate = jax.jit(step), jax.jit(_concatenate)

    def predict_function(state: State, batches: Iterator[Any]) -> tuple[Any, State]:
        trainable, other = state
        parts = []
        for data in itertools.islice(batches, model.steps_per_execution):
            outputs, changed = step((trainable, other), data)
            other = [changed.get(index, value) for index, value in enumerate(other)]
            parts.append(outputs)
        if not parts:
            raise StopIteration  # so Keras's loop sees that the data has come to its end
        return parts[0] if len(parts) == 1 else concatenate(parts), (trainable, other)

    return predict_function


def _concatenate(parts: list[Any]) -> Any:
    numpy: Any = importlib.import_module("jax.numpy")
    return keras.tree.map_structure(lambda *arrays: numpy.concatenate(arrays), *parts)
