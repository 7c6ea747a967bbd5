"""Prediction files as CSV files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from kerasext.storage.exports.data_frame import data_frame
from kerasext.storage.exports.exported_outputs import ExportedOutputs
from kerasext.storage.whole_file import file_made_from, renamed_when_written

_BLOCK_BYTES = 4 * 1024 * 1024  # text, and pandas's objects on the way to it, take much more


def write_csv_file(
    path: str | os.PathLike[str], exported: ExportedOutputs, *, source: Path
) -> None:
    """See `PredictionFile.to_csv`; `source` is the file that is read."""
    blocks = list(exported.blocks(_BLOCK_BYTES)) or [(0, 0)]
    with renamed_when_written(file_made_from(source, path)) as file:
        for start, stop in blocks:
            frame = data_frame(exported, start, stop)
            for name in frame.columns:
                if len(frame) and isinstance(frame[name].iloc[0], np.ndarray):
                    # Else NumPy's own text of them, which leaves out the middle of long ones.
                    frame[name] = [json.dumps(row.tolist()) for row in frame[name]]
            frame.to_csv(file, header=start == 0, index=False, lineterminator="\n")
