"""On resume: compares the ids of rows that are skipped with the ids in the file.

Under `mode="resume"` rows that were committed are not predicted again, but their ids tell whether
the data are the same. The values of rows that are predicted again are compared in `repeated_rows`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kerasext.storage.format.layout import IDS, ROW
from kerasext.storage.reading.file_source import FileSource

_BLOCK_ROWS = 65536


class SkippedIds:
    """Compares the ids of the last predict call in a file with given ones, in order.

    Args:
        path: Path of the file, which has ids.
        rows: Int. Rows of the file that count. Defaults to `None`: all committed rows.

    Raises:
        ValueError: If it is no prediction file, or damaged.
    """

    def __init__(self, path: Path, rows: int | None = None) -> None:
        self._file = FileSource(path)
        state = self._file.state
        self._row = state.first_row
        self._rows = state.rows if rows is None else rows
        self._data_row = state.first_data_row
        self._has_rows = ROW in self._file.side_columns
        self._blocks: dict[str, tuple[int, np.ndarray]] = {}

    def check(self, ids: np.ndarray) -> None:
        """Compares the ids of the next rows of the data.

        Args:
            ids: Array of shape `(rows,)` as `to_ids` returns it. Rows of the data that were not
                kept are among them.

        Raises:
            ValueError: If an id differs, naming the first; or if the file is damaged.
        """
        for start in range(0, len(ids), _BLOCK_ROWS):
            given = ids[start : start + _BLOCK_ROWS]
            after = self._data_row + len(given)
            stored = self._read(IDS, len(given))
            if self._has_rows:
                kept = self._read(ROW, len(given))
                kept = kept[kept < after]
                stored, given = stored[: len(kept)], given[kept - self._data_row]
            # NumPy compares no string with a number.
            same = stored == given if _is_text(stored) == _is_text(given) else np.zeros(1, bool)
            if not np.all(same):
                at = int(np.argmin(same))
                raise ValueError(
                    "`mode='resume'` needs the same data in the same order; shuffle them with a "
                    "fixed seed and without reshuffling, or pass mode='w' to start over. "
                    f"Stored: the id {_as_text(stored[at])} in row "
                    f"{self._row + at}. Received: the id {_as_text(given[at])}"
                )
            self._row += len(stored)
            self._data_row = after

    def close(self) -> None:
        """Closes the file; safe to call again."""
        self._file.close()

    def _read(self, name: str, rows: int) -> np.ndarray:
        """Returns the next rows of a column; reads whole blocks."""
        stop = min(self._row + rows, self._rows)
        first, block = self._blocks.get(name, (-1, np.empty(0)))
        if not (first <= self._row and stop <= first + len(block)):
            first = self._row
            column = self._file.dense_column(name)
            block = column.read_rows(first, min(first + _BLOCK_ROWS, self._rows))
            self._blocks[name] = first, block
        return block[self._row - first : stop - first]


def _is_text(ids: np.ndarray) -> bool:
    return ids.dtype.kind == "S"


def _as_text(value: np.generic) -> str:
    text: object = value.item()
    return repr(text.decode(errors="replace") if isinstance(text, bytes) else text)
