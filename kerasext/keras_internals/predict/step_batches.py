"""The batches of a step: what of them the model is given, and what is text."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import keras

_TEXT_KINDS = "SUT"  # of NumPy's dtypes; objects may be text


def without_keys(
    batch: Any, keys: Collection[str], takes_dict: Callable[[dict[str, Any]], bool]
) -> Any:
    """A batch for the model, of whose `x` some keys are taken out.

    Args:
        batch: The batch, or its `x`.
        keys: Collection of the keys.
        takes_dict: Callable that says whether the model takes a dict of the one entry that is left,
            rather than the entry itself.
    """
    if isinstance(batch, dict):
        left = {name: value for name, value in batch.items() if name not in keys}
        is_one = len(left) == 1 and len(batch) > 1
        return next(iter(left.values())) if is_one and not takes_dict(left) else left
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], dict):
        return type(batch)([without_keys(batch[0], keys, takes_dict), *batch[1:]])
    return batch


def without_text(batch: Any) -> Any:
    """A batch for a model on JAX, whose functions take no text, not even in targets.

    Text that `predict` would not look at is left out: the targets, if there is any in them.
    """
    x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
    if y is None or not any(map(is_text, keras.tree.flatten(y))):
        return batch
    return keras.utils.pack_x_y_sample_weight(x, None, weights)


def is_text(part: Any) -> bool:
    """Whether a part of a batch is text: a string, or an array or tensor of strings."""
    if isinstance(part, str | bytes):
        return True
    dtype = getattr(part, "dtype", None)
    if getattr(dtype, "name", None) == "string":  # of a tensor of TensorFlow
        return True
    kind = getattr(dtype, "kind", None)
    if kind == "O":
        return any(isinstance(value, str | bytes) for value in part.reshape(-1)[:1])
    return kind is not None and kind in _TEXT_KINDS
