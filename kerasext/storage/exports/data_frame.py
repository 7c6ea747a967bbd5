"""Prediction files as pandas data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.common import optional_package
from kerasext.storage.exports.exported_outputs import ExportedOutputs, label_codes
from kerasext.storage.exports.table_columns import table_columns

if TYPE_CHECKING:
    import pandas as pd


def data_frame(exported: ExportedOutputs, start: int = 0, stop: int | None = None) -> pd.DataFrame:
    """See `PredictionFile.to_pandas`; of the rows from one to before another."""
    stop = exported.rows if stop is None else stop
    pandas = optional_package("pandas", needed_by="to_pandas")
    columns: dict[str, Any] = {}
    for name in exported.outputs:
        rows = exported.read(name, start, stop)
        columns.update(table_columns(exported, name, rows))
        if name in exported.label_names:
            assert isinstance(rows, np.ndarray)
            codes, categories = label_codes(name, rows, exported.label_names[name])
            columns[f"{name}/name"] = pandas.Categorical.from_codes(codes, categories)
    return pandas.DataFrame(columns, index=pandas.RangeIndex(start, stop))
