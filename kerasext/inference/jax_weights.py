"""Predicting on JAX without a writer, and without putting the weights at risk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from kerasext import keras_internals


@contextlib.contextmanager
def weights_kept(model: keras.Model) -> Iterator[None]:
    """Within it `model.predict` leaves the model its weights, however it ends.

    On other backends than JAX it always does, and nothing is done.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    model.make_predict_function()  # what `compile` makes anew, and only `compile`
    before = model.predict_function
    model.predict_function = keras_internals.sparing_function(model, before)
    variables = model.variables if model.built else []
    values = [(variable, variable.value) for variable in variables]
    try:
        yield
    except BaseException:
        for variable, value in values:
            if not _is_sound(variable._value):
                variable._value = value
        keras_internals.forget_state(model)
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
