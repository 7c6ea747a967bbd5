"""On resume: compares rows that are predicted again with the same rows in the file.

Under `mode="resume"` the batch with the last committed rows is predicted again, to find out whether
model and data are the same. The ids of rows that are skipped are compared in `skipped_ids`.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.format.layout import ROW
from kerasext.storage.reading.file_source import FileSource

# Generous enough for other kernels and another cut into batches, also in float16.
_TOLERANCE = {"rtol": 1e-2, "atol": 1e-4}


def check_repeated_rows(
    file: FileSource,
    step: Mapping[str, np.ndarray | RaggedRows],
    stop: int,
    why_values_differ: str = "",
) -> None:
    """Compares rows with those of a file that end before row `stop`.

    Args:
        file: The file.
        step: Mapping from output name to rows as they would be stored.
        stop: Int. The row after the rows to compare.
        why_values_differ: String. Why the same model may predict other values, if that is known.

    Raises:
        ValueError: If they differ, naming the output.
    """
    for name, given in step.items():
        column = file.column(name)
        stored = column.read_rows(stop - len(given), stop)
        if not _is_same(column.spec, stored, given):
            rule = "needs the same model, and the same data in the same order"
            unless = "if the model is random or has a state"
            if why_values_differ:
                rule, unless = f"compares values, and {why_values_differ}", "not to compare them"
            raise ValueError(
                f"`mode='resume'` {rule}; pass mode='w' to start over, or resume_check=False "
                f"{unless}. "
                f"Received: other values of output {name!r} in the rows before row {stop}"
            )


class CompleteFileCheck:
    """Compares steps with a file that is complete: the first one of the call, and later ones.

    The first step that is given is compared with the first rows of the call that wrote the file,
    any other one with the last rows.

    Args:
        path: Path of the file.
        state: `CallState` of the call that wrote it.
    """

    def __init__(self, path: Path, state: CallState) -> None:
        self._path, self._state = path, state
        self._is_first = True

    def check(
        self,
        step: Mapping[str, np.ndarray | RaggedRows],
        data_rows: int,
        why_values_differ: str,
    ) -> None:
        """Compares the rows of a step.

        Args:
            step: Mapping from output name to rows as they would be stored.
            data_rows: Int. Rows of the data that these were kept of.
            why_values_differ: As for `check_repeated_rows`.

        Raises:
            ValueError: If they differ, or another number of the data rows was kept.
        """
        rows = len(next(iter(step.values())))
        is_first, self._is_first = self._is_first, False
        stop = self._state.first_row + rows if is_first else self._state.rows
        with contextlib.closing(FileSource(self._path)) as file:
            if ROW in file.side_columns:  # not all rows of the data are kept
                first = self._state.first_data_row
                start = first if is_first else self._state.data_rows - data_rows
                self._check_kept(file, rows, range(start, start + data_rows))
            check_repeated_rows(file, step, stop, why_values_differ)

    def _check_kept(self, file: FileSource, rows: int, of_data: range) -> None:
        """Checks that the file has `rows` of the rows `of_data`."""
        # Rows of the call are in the order of the data, and few of them are read to find a place.
        column = file.dense_column(ROW)
        first, stop = (
            bisect.bisect_left(
                range(self._state.first_row, self._state.rows),
                data_row,
                key=lambda row: int(column.read_rows(row, row + 1)[0]),
            )
            for data_row in (of_data.start, of_data.stop)
        )
        if stop - first != rows:
            raise ValueError(
                "`mode='resume'` needs the same `keep` as the first run; pass mode='w' to start "
                "over. "
                f"Stored: {stop - first} of {len(of_data)} rows from row {of_data.start} of the "
                f"data on. Received: {rows} of them"
            )


def _is_same(spec: Spec, stored: np.ndarray | RaggedRows, given: np.ndarray | RaggedRows) -> bool:
    if isinstance(spec, DenseSpec):
        return _has_same_values(spec, np.asarray(stored), np.asarray(given))
    stored, given = RaggedRows.of(stored), RaggedRows.of(given)
    has_same_shapes = np.array_equal(stored.row_shapes, given.row_shapes)
    return has_same_shapes and _has_same_values(spec.values, stored.values, given.values)


def _has_same_values(spec: DenseSpec, stored: np.ndarray, given: np.ndarray) -> bool:
    stored = stored.astype(given.dtype)
    if stored.shape != given.shape:
        return False
    scale = spec.scale
    if scale is not None:
        stored, given = spec.decode(stored), spec.decode(given)
    if given.dtype.kind in "fc":
        # Rounding can put nearly equal values one fixed-point step apart.
        tolerance = {**_TOLERANCE, "atol": _TOLERANCE["atol"] + float(scale or 0)}
        return np.allclose(stored, given, **tolerance, equal_nan=True)
    return np.array_equal(stored, given)
