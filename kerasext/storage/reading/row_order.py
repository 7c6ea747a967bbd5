"""Which rows of several files follow each other, as runs of rows that stand together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Rows of one file that are wanted.

    Args:
        shard: Int. Number of the file.
        rows: Slice of its rows.
        places: Slice of the wanted rows, where they belong.
    """

    shard: int
    rows: slice
    places: slice


class RowOrder:
    """The rows of several files in one order.

    Args:
        runs: Array of shape `(runs, 3)`, int64: number of the file, first row, rows.
    """

    def __init__(self, runs: np.ndarray) -> None:
        self.runs = runs
        self._ends = np.cumsum(runs[:, 2])

    @property
    def rows(self) -> int:
        """Number of all rows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def pieces(self, wanted: range) -> Iterator[Piece]:
        """The rows of a range with a positive step, a piece for each run that has some of them."""
        if not wanted:
            return
        first = int(np.searchsorted(self._ends, wanted[0], side="right"))
        last = int(np.searchsorted(self._ends, wanted[-1], side="right"))
        for run in range(first, last + 1):
            shard, first_row, rows = self.runs[run].tolist()
            end = int(self._ends[run])
            # How many of the wanted rows are before the run, and before its end.
            before, until = (
                len(range(wanted.start, stop, wanted.step))
                for stop in (max(end - rows, wanted.start), min(end, wanted.stop))
            )
            if before < until:
                start = first_row + wanted[before] - (end - rows)
                stop = first_row + wanted[until - 1] - (end - rows) + 1
                yield Piece(shard, slice(start, stop, wanted.step), slice(before, until))
