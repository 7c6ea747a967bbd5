"""Ids that stand among the inputs, where Keras would stumble over them."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import keras

from kerasext.callbacks import Ids, no_such_key
from kerasext.inference.row_slices import can_slice
from kerasext.keras_internals import (
    is_frame,
    jax_state,
    own_methods,
    takes_dict,
    to_numpy,
    without_keys,
)


def take_ids(model: keras.Model, x: Any, key: str) -> tuple[Any, Ids]:
    """Takes the ids out of data that can be taken apart, and sees to it that Keras takes the rest.

    Keras takes no strings from arrays. On JAX `predict` builds a model that is not built before any
    callback sees the data.

    Args:
        model: The model.
        x: What `predict` takes.
        key: String. The name of the ids in dicts, or of a column.

    Returns:
        Tuple of the data, and of the ids in the order of its rows, or their key where they can be
        taken only from the batches.

    Raises:
        ValueError: If arrays have no such key.
    """
    if isinstance(x, dict) and key in x:
        # What a `predict` of the model's own takes can't be asked.
        has_own = bool(own_methods(model, "predict"))
        return without_keys(x, [key], lambda left: has_own or takes_dict(model, left)), x[key]
    if is_frame(x) and key in x.columns:
        return x[[name for name in x.columns if name != key]], x[key]
    if isinstance(x, dict) or can_slice(x):
        raise no_such_key(x, key)
    if keras.backend.backend() == "jax" and not model.built:
        x, batch = _first_batch(x)
        left = without_keys(batch, [key], functools.partial(takes_dict, model))
        inputs, _, _ = keras.utils.unpack_x_y_sample_weight(left)
        jax_state.build(model, keras.tree.map_structure(to_numpy, inputs))
    return x, key


def _first_batch(x: Any) -> tuple[Any, Any]:
    """The data, and its first batch."""
    if isinstance(x, keras.utils.PyDataset):
        return x, x[0]
    if not isinstance(x, types.GeneratorType):
        return x, next(iter(x))
    batch = next(x)

    def whole() -> Iterator[Any]:
        yield batch
        yield from x

    return whole(), batch
