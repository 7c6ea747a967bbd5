"""Whether rows that were predicted again are those that a file has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from kerasext.storage import fixed_point
from kerasext.storage.layout import ROW_SHAPES, ROW_SPLITS, VALUES
from kerasext.storage.ragged_rows import RaggedRows

# Generous enough for other kernels and another cut into batches, also in float16.
_TOLERANCE = {"rtol": 1e-2, "atol": 1e-4}


def check_known(file: h5py.File, step: Mapping[str, np.ndarray | RaggedRows], rows: int) -> None:
    """Compares rows with the last ones that are committed.

    Args:
        file: The file, open for writing.
        step: Mapping from output name to rows as they would be stored.
        rows: Int. Rows that are committed.

    Raises:
        ValueError: If they differ, naming the output.
    """
    for name, given in step.items():
        known = slice(rows - len(given), rows)
        if isinstance(given, RaggedRows):
            same = _same_ragged(file[name], known, given)
        else:
            same = _same_values(file[name], known, given)
        if not same:
            raise ValueError(
                "`mode='resume'` goes on with the same model, and with the same data in the same "
                "order; pass mode='w' to predict again. Received: other values of output "
                f"{name!r} in the rows before row {rows}"
            )


def _same_values(dataset: h5py.Dataset, known: slice, given: np.ndarray) -> bool:
    stored: Any = dataset[known].astype(given.dtype)
    if stored.shape != given.shape:
        return False
    scale = fixed_point.scale_of(dataset)
    if scale is not None:
        stored, given = (fixed_point.decode(values, scale) for values in (stored, given))
    if given.dtype.kind in "fc":
        # The least difference may be a whole step, where it falls on both sides of its middle.
        tolerance = {**_TOLERANCE, "atol": _TOLERANCE["atol"] + float(scale or 0)}
        return np.allclose(stored, given, **tolerance, equal_nan=True)
    return np.array_equal(stored, given)


def _same_ragged(group: h5py.Group, known: slice, given: RaggedRows) -> bool:
    splits = group[ROW_SPLITS][known.start : known.stop + 1]
    if not np.array_equal(splits - splits[0], given.row_splits):
        return False
    if ROW_SHAPES in group and not np.array_equal(group[ROW_SHAPES][known], given.row_shapes):
        return False
    return _same_values(group[VALUES], slice(splits[0], splits[-1]), given.values)
