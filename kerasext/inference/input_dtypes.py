"""Arrays and data frames with the dtypes that Keras gives to models."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kerasext.storage import TEXT_KINDS


def as_text(values: np.ndarray) -> np.ndarray:
    """Text of any dtype of NumPy as the array of objects that TensorFlow takes.

    Raises:
        TypeError: On another backend, which has no strings.
    """
    if keras.backend.backend() == "tensorflow":
        return values.astype(object, copy=False)
    raise TypeError(
        "Only models on the TensorFlow backend take text or objects; make numbers of them before. "
        f"Received: dtype={values.dtype}, and the backend {keras.backend.backend()!r}"
    )


def is_other_float(dtype: Any) -> bool:
    """Whether numbers of a dtype are floats, and not `floatx`, to which Keras casts them."""
    if not keras.backend.is_float_dtype(dtype):
        return False
    return bool(keras.backend.standardize_dtype(dtype) != keras.config.floatx())


def read_frame(frame: Any) -> np.ndarray:
    """A data frame or series of pandas as one array.

    Raises:
        TypeError: If Keras does not know the dtype of a column, naming it.
    """
    if frame.ndim == 1:
        frame = frame.to_frame()
    for name, dtype in frame.dtypes.items():
        _check_column(name, dtype)
    kinds = {dtype.kind in TEXT_KINDS for dtype in frame.dtypes}
    if len(kinds) > 1:
        text = [name for name, dtype in frame.dtypes.items() if dtype.kind in TEXT_KINDS]
        raise TypeError(
            "The columns of a data frame that is one input must be all numbers or all text; drop "
            "some, or give the model an input for each column, with its name. "
            f"Received: the columns {text} with text, beside others with numbers"
        )
    if kinds == {True}:
        return as_text(frame.to_numpy())
    # By column: the array of them all may have a wider type than any. Of integers and booleans
    # pandas would make objects.
    as_floatx = any(map(is_other_float, frame.dtypes))
    dtype = keras.config.floatx() if as_floatx else np.result_type(*frame.dtypes)
    return np.asarray(frame.to_numpy(dtype))


def _check_column(name: Any, dtype: Any) -> None:
    is_numpys = isinstance(dtype, np.dtype)
    if dtype.kind in "biufc" and is_numpys:
        return
    categories = getattr(dtype, "categories", None)
    if dtype.kind in TEXT_KINDS and categories is None:
        return
    kind = dtype.kind if categories is None else categories.dtype.kind
    casts = {"f": keras.config.floatx(), "i": "int64", "u": "uint64", "b": "bool", "M": "int64"}
    cast = casts.get(kind, "str")
    raise TypeError(
        f"Column {name!r} must have a dtype that Keras knows; cast it, "
        f"`x.astype({{{name!r}: {cast!r}}})`. Received: dtype={dtype}"
    )
