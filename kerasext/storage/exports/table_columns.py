"""The columns of tables that have one value for each row: data frames and CSV files."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.exports.exported_outputs import ExportedOutputs


def table_columns(
    exported: ExportedOutputs, name: str, rows: np.ndarray | RaggedRows
) -> Iterator[tuple[str, np.ndarray]]:
    """The columns of an output.

    Args:
        exported: The outputs.
        name: String. The output.
        rows: Some of its rows.

    Yields:
        Tuple of the name of a column and its values, of shape `(rows,)`. An output of shape
        `(rows, n)` has a column for each class or number, one of more axes a column of arrays.
    """
    if isinstance(rows, RaggedRows) or rows.ndim > 2:
        yield name, _column_of_arrays(rows)
    elif rows.ndim == 1:
        yield name, rows
    else:
        # No two columns have one name: no output stands where another one needs a group, so only
        # the classes of one output could be called the same.
        ends = np.asarray(exported.class_names.get(name, ())).tolist()
        if len(set(ends)) < rows.shape[1]:
            ends = range(rows.shape[1])
        for end, column in zip(ends, rows.T, strict=True):
            yield f"{name}/{end}", column


def _column_of_arrays(rows: np.ndarray | RaggedRows) -> np.ndarray:
    column = np.empty(len(rows), object)
    for place, row in enumerate(rows):  # NumPy would look into rows that are assigned at once
        column[place] = row
    return column
