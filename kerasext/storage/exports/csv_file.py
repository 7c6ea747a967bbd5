"""Prediction files as CSV files."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kerasext.common import atomic_file, export_target
from kerasext.storage.exports.exported_outputs import ExportedOutputs, label_codes
from kerasext.storage.exports.table_columns import table_columns

_BLOCK_BYTES = 4 * 1024 * 1024  # text takes much more

# A spreadsheet takes a cell for a formula that begins with one of these, of the usual width or of
# that of Chinese characters: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA_SIGNS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def write_csv_file(
    path: str | os.PathLike[str], exported: ExportedOutputs, *, raw_cells: bool, source: Path
) -> None:
    """See `PredictionFile.to_csv`; `source` is the file that is read."""
    blocks = list(exported.blocks(_BLOCK_BYTES)) or [(0, 0)]
    with atomic_file(export_target(source, path)) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        for start, stop in blocks:
            columns = dict(_columns(exported, start, stop, raw_cells=raw_cells))
            if start == 0:
                text.write(_line(_texts(list(columns), raw_cells=raw_cells)))
            text.writelines(map(_line, zip(*columns.values(), strict=True)))
        text.detach()


def _columns(
    exported: ExportedOutputs, start: int, stop: int, *, raw_cells: bool
) -> Iterator[tuple[str, list[str]]]:
    """The name and the cells of each column, for some rows."""
    for name in exported.outputs:
        rows = exported.read(name, start, stop)
        for column, values in table_columns(exported, name, rows):
            yield column, _cells(values, raw_cells=raw_cells)
        if name in exported.label_names:
            assert isinstance(rows, np.ndarray)
            codes, names = label_codes(name, rows, exported.label_names[name])
            yield f"{name}/name", _texts([*names, ""], raw_cells=raw_cells, places=codes)


def _cells(values: np.ndarray, *, raw_cells: bool) -> list[str]:
    """Values as text that gives them back; NaN is empty."""
    if values.dtype.kind in "fc":
        cells = values.astype(str)
        cells[np.isnan(values)] = ""
        return list(cells.tolist())
    if values.dtype.kind in "biu":
        return list(values.astype(str).tolist())
    if len(values) and isinstance(values[0], np.ndarray):
        return [json.dumps(row.tolist()) for row in values]
    return _texts(values.tolist(), raw_cells=raw_cells)


def _texts(
    values: Sequence[str], *, raw_cells: bool, places: np.ndarray | None = None
) -> list[str]:
    """Text that no spreadsheet takes for a formula, at `places` if these are given."""
    if not raw_cells:
        values = [f"'{text}" if text.startswith(_FORMULA_SIGNS) else text for text in values]
    return list(values) if places is None else [values[place] for place in places]


def _line(cells: Sequence[str]) -> str:
    # Not by Python's csv, which before 3.13 quotes no carriage return, though readers end a row at
    # it. A single empty cell would be an empty line, which readers skip.
    return ",".join(map(_quoted, cells) if any(cells) or len(cells) > 1 else ['""']) + "\n"


def _quoted(cell: str) -> str:
    if any(sign in cell for sign in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell
