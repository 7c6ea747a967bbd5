"""Prediction files as pandas data frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.storage.exports.exported_outputs import ExportedOutputs, label_codes
from kerasext.storage.exports.optional_package import optional_package
from kerasext.storage.ragged_rows import RaggedRows

if TYPE_CHECKING:
    import pandas as pd


def data_frame(exported: ExportedOutputs, start: int = 0, stop: int | None = None) -> pd.DataFrame:
    """See `PredictionFile.to_pandas`; of the rows from one to before another."""
    stop = exported.rows if stop is None else stop
    pandas = optional_package("pandas", needed_by="to_pandas")
    columns: dict[str, Any] = {}
    for name in exported.outputs:
        rows = exported.read(name, start, stop)
        columns.update(_columns(exported, name, rows))
        if name in exported.label_names:
            assert isinstance(rows, np.ndarray)
            codes, categories = label_codes(name, rows, exported.label_names[name])
            columns[f"{name}/name"] = pandas.Categorical.from_codes(codes, categories)
    return pandas.DataFrame(columns, index=pandas.RangeIndex(start, stop))


def _columns(
    exported: ExportedOutputs, name: str, rows: np.ndarray | RaggedRows
) -> Iterator[tuple[str, np.ndarray]]:
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
