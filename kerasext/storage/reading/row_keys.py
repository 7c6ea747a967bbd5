"""Which rows a key means."""

from __future__ import annotations

from typing import Any

import numpy as np


def row_index(key: Any, rows: int) -> np.ndarray:
    """The rows that are chosen by an int, a list or array of indices, or a boolean mask.

    Args:
        key: The key.
        rows: Int. Number of rows that there are.

    Returns:
        Array of shape `()` for an int, else `(chosen,)`, int64, from 0 on.

    Raises:
        IndexError: If a row does not exist, a mask has another length than there are rows, or the
            key is something else.
    """
    index = np.asarray(key)
    if index.dtype == bool and index.ndim == 1:
        if len(index) != rows:
            raise IndexError(
                f"A mask must have one entry for each of the {rows} rows. "
                f"Received: {len(index)} entries"
            )
        index = np.flatnonzero(index)
    if index.ndim > 1 or (index.size and index.dtype.kind not in "iu"):
        raise IndexError(
            "Rows must be chosen by an int, a slice, or a list of indices or mask. "
            f"Received: {key!r}"
        )
    index = index.astype(np.int64)
    if index.size and (index.min() < -rows or index.max() >= rows):
        raise IndexError(
            f"Rows must be from {-rows} to {rows - 1}. "
            f"Received: rows from {index.min()} to {index.max()}"
        )
    return np.asarray(index % max(rows, 1))
