"""Numbers in [0, 1] as whole numbers of one or two bytes, by the conventions of CF.

A number is its whole number times the attribute `scale_factor`; `_FillValue`, the largest whole
number, is NaN. The error is half of `scale_factor` at most, besides rounding to float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py

SCALE_FACTOR = "scale_factor"
FILL_VALUE = "_FillValue"


def scale_for(dtype: np.dtype[Any]) -> np.float32 | None:
    """The step between two numbers in a dtype, 1 / 254 or 1 / 65534; `None` for all others."""
    if dtype.kind != "u" or dtype.itemsize > 2:
        return None
    return np.float32(1 / _top(dtype))


def scale_of(dataset: h5py.Dataset) -> np.float32 | None:
    """The step between two numbers in a dataset, `None` where it holds no such numbers.

    Raises:
        ValueError: If its attributes are not those that it would have. For what h5py can't make out
            it raises other errors.
    """
    attributes, name, dtype = dataset.attrs, str(dataset.name), np.dtype(dataset.dtype.str)
    if SCALE_FACTOR not in attributes:
        return None
    if scale_for(dtype) is None:
        raise ValueError(f"{name!r} of dtype {dtype} can't have {SCALE_FACTOR!r}")
    for part, kind in ((SCALE_FACTOR, "f"), (FILL_VALUE, "u")):
        attribute = attributes.get_id(part)  # other types must not be read
        if attribute.dtype.kind != kind or attribute.shape != ():
            raise ValueError(f"{part!r} of {name!r} must be one number of kind {kind!r}")
    scale, fill = attributes[SCALE_FACTOR], attributes[FILL_VALUE]
    if not 0 < scale <= 1 or fill != np.iinfo(dtype).max:
        raise ValueError(f"{name!r} can't have {SCALE_FACTOR!r} {scale} and {FILL_VALUE!r} {fill}")
    return np.float32(scale)


def attributes_for(dtype: np.dtype[Any]) -> dict[str, Any]:
    """The attributes of a dataset of such a dtype."""
    return {SCALE_FACTOR: scale_for(dtype), FILL_VALUE: np.array(np.iinfo(dtype).max, dtype)}


def encode(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The nearest whole numbers.

    Args:
        values: Array of floats of any kind, in [0, 1] but for half a step, or NaN.
        dtype: uint8 or uint16.

    Returns:
        Array of the same shape.

    Raises:
        OverflowError: If a value is outside.
    """
    # Not in the dtype of small floats, which has fewer numbers than there are whole ones.
    wide = np.result_type(values.dtype, np.float32)
    with np.errstate(over="ignore"):  # infinity is outside, too
        steps = np.multiply(values, _top(dtype), dtype=wide)
    np.rint(steps, out=steps)
    is_nan = np.isnan(steps)
    if not (is_nan | ((steps >= 0) & (steps <= _top(dtype)))).all():
        raise OverflowError(f"values must be in [0, 1] to be stored as {dtype}")
    steps[is_nan] = np.iinfo(dtype).max
    stored: np.ndarray = steps.astype(dtype)
    return stored


def decode(stored: np.ndarray, scale: np.float32) -> np.ndarray:
    """The numbers of an array of whole numbers with an axis at least, as float32."""
    values: np.ndarray = np.multiply(stored, scale, dtype=np.float32)
    values[stored == np.iinfo(stored.dtype).max] = np.nan
    return values


def _top(dtype: np.dtype[Any]) -> int:
    """The whole number that is 1."""
    return int(np.iinfo(dtype).max) - 1
