"""Prediction files as CSV files."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.exports.data_frame import data_frame
from kerasext.storage.exports.exported_outputs import ExportedOutputs
from kerasext.storage.whole_file import file_made_from, renamed_when_written

_BLOCK_BYTES = 4 * 1024 * 1024  # text, and pandas's objects on the way to it, take much more


# A spreadsheet takes a cell for a formula that begins with one of these, of the usual width or of
# that of Chinese characters: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA_SIGNS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def write_csv_file(
    path: str | os.PathLike[str], exported: ExportedOutputs, *, raw_cells: bool, source: Path
) -> None:
    """See `PredictionFile.to_csv`; `source` is the file that is read."""
    blocks = list(exported.blocks(_BLOCK_BYTES)) or [(0, 0)]
    with renamed_when_written(file_made_from(source, path)) as file:
        for start, stop in blocks:
            frame = data_frame(exported, start, stop)
            texts = list(frame.columns)
            for name in frame.columns:
                if len(frame) and isinstance(frame[name].iloc[0], np.ndarray):
                    # Else NumPy's own text of them, which leaves out the middle of long ones.
                    frame[name] = [json.dumps(row.tolist()) for row in frame[name]]
                elif not _is_number(frame[name].dtype):
                    texts += [cell for cell in frame[name] if isinstance(cell, str)]
                    if not raw_cells:
                        frame[name] = list(map(_as_text, frame[name]))
            if not raw_cells:
                frame.columns = list(map(_as_text, frame.columns))
            # Python's csv quotes no carriage return, though readers end a row at it.
            quoting = csv.QUOTE_NONNUMERIC if "\r" in "".join(texts) else csv.QUOTE_MINIMAL
            frame.to_csv(file, header=start == 0, index=False, lineterminator="\n", quoting=quoting)


def _is_number(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "biufc"


def _as_text(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; what is no string stays as it is."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_SIGNS) else cell
