"""What identifies rows: whole numbers or strings, one for each."""

from __future__ import annotations

import contextlib
import datetime
import os
import uuid
from typing import Any

import numpy as np

from kerasext.storage.columns.text import TEXT_KINDS, encode_text
from kerasext.storage.format.layout import IDS

_AS_TEXT = (os.PathLike, datetime.date, datetime.time, np.datetime64, uuid.UUID)


def to_ids(values: Any, *, argument: str = "ids") -> np.ndarray:
    """Ids as the array that is stored.

    Args:
        values: Array, list or tuple of integers or strings, of shape `(rows,)` or `(rows, 1)`.
            Paths, dates, times and UUIDs become text, as `os.fspath`, `isoformat` and `str` have
            it, and `numpy.datetime_as_string` for arrays of `datetime64`.
        argument: String. What they are called, for errors.

    Returns:
        Array of shape `(rows,)`: integers as they are, strings in UTF-8, of dtype `S`. Bytes of a
        file's name that are not UTF-8 are escaped.

    Raises:
        TypeError: If an id is neither an integer nor a string, or there are both.
        ValueError: If ids have another shape, or a string has a surrogate that is no such byte, or
            ends in NUL.
    """
    # NumPy would make strings of numbers among strings, and look into ids that are lists.
    is_list = isinstance(values, list | tuple)
    array = np.fromiter(values, object, len(values)) if is_list else np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"`{argument}` must be one integer or string for each row. "
            f"Received: {argument} of shape {array.shape}, dtype={array.dtype}"
        )
    if array.dtype.kind == "M":
        array = np.datetime_as_string(array)
    if array.dtype == object:
        array = _of_one_type(array, argument)
    if array.dtype.kind in TEXT_KINDS:
        return encode_text(IDS, array, escapes=True)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"`{argument}` must be integers or strings; convert them with `str`. "
            f"Received: {argument} of dtype {array.dtype}"
        )
    return array


def _as_text(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, _AS_TEXT) else value


def _of_one_type(array: np.ndarray, argument: str) -> np.ndarray:
    """What objects are, unless they are strings."""
    kinds = set(map(type, array))
    if any(issubclass(kind, _AS_TEXT) for kind in kinds):
        array = np.fromiter(map(_as_text, array), object, len(array))
        kinds = set(map(type, array))
    if all(issubclass(kind, str | bytes) for kind in kinds):
        return array
    if all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        unsigned = len(array) and array.max() >= 2**63 and array.min() >= 0
        with contextlib.suppress(OverflowError):  # they need more than 64 bits
            return array.astype(np.uint64 if unsigned else np.int64)
    received = sorted(kind.__name__ for kind in kinds)
    raise TypeError(
        f"`{argument}` must be all integers, of 64 bits at most, or all strings; convert them with "
        f"`str`. Received: {argument} of the types {received}, such as {array[0]!r}"
    )
