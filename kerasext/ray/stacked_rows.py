"""Rows that Ray gives as objects, as one array."""

from __future__ import annotations

import numpy as np


def stacked(name: str, rows: np.ndarray) -> np.ndarray:
    """A column as one array.

    Lists in Parquet files, which pandas and Spark make of vectors, become arrays of arrays.

    Args:
        name: String. The column, for errors.
        rows: Array of shape `(rows, ...)`, or `(rows,)` of arrays, which may be nested again.

    Raises:
        ValueError: If rows differ in shape.
    """
    if rows.dtype != object or not len(rows) or not isinstance(rows[0], np.ndarray | list):
        return rows
    parts = [stacked(name, _as_array(row)) for row in rows]
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"Rows of column {name!r} must have one shape; pad or crop them in a function before. "
            f"Received: rows of the shapes {sorted(shapes)[:5]}"
        )
    return np.stack(parts)


def _as_array(row: object) -> np.ndarray:
    array = np.asarray(row)
    # NumPy's own strings lose a NUL at the end, instead of being refused for it.
    return np.array(row, dtype=object) if array.dtype.kind in "SU" else array
