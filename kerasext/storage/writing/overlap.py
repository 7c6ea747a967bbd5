"""Whether rows that were predicted again are those that a file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from kerasext.storage.columns import fixed_point
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.format.layout import ROW, ROW_SHAPES, ROW_SPLITS, VALUES
from kerasext.storage.reading.file_source import FileSource

# Generous enough for other kernels and another cut into batches, also in float16.
_TOLERANCE = {"rtol": 1e-2, "atol": 1e-4}


def check_overlap(
    file: Mapping[str, Any],
    step: Mapping[str, np.ndarray | RaggedRows],
    rows: int,
    why_others: str = "",
) -> None:
    """Compares rows with the last ones before a row of a file.

    Args:
        file: The file, or another mapping from output name to dataset, or group of a ragged output.
        step: Mapping from output name to rows as they would be stored.
        rows: Int. The row that follows them.
        why_others: String. Why the same model may predict other values, if that is known.

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
            rule = "goes on with the same model, and with the same data in the same order"
            unless = "if the model is random or has a state"
            if why_others:
                rule, unless = f"compares values, and {why_others}", "not to compare them"
            raise ValueError(
                f"`mode='resume'` {rule}; pass mode='w' to predict again, or resume_check=False "
                f"{unless}. "
                f"Received: other values of output {name!r} in the rows before row {rows}"
            )


class SortedRows(Sequence[int]):
    """The numbers of rows in the data, read one by one, to be searched by `bisect`.

    Args:
        file: A file that has them.
        start: Int. The first of its rows to look at.
        stop: Int. The row after the last one.
    """

    def __init__(self, file: FileSource, start: int, stop: int) -> None:
        self._column = file.dense_column(ROW)
        self._rows = range(start, stop)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = self._rows[index]
        return int(self._column.read_rows(row, row + 1)[0])


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
