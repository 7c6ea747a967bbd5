"""In which order the rows of several files follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Rows of one file that are wanted.

    Args:
        shard: Int. Number of the file.
        rows: Slice of its rows, or array of their numbers.
        places: Slice or array of the same length: where they belong among the wanted rows.
    """

    shard: int
    rows: slice | np.ndarray
    places: slice | np.ndarray


class RowOrder:
    """The rows of several files in one order.

    Args:
        runs: Array of shape `(runs, 3)`, int64. Rows that follow each other in one file: number of
            the file, its first row, rows.
    """

    def __init__(self, runs: np.ndarray) -> None:
        self.runs = runs
        self._ends = np.cumsum(runs[:, 2])

    @property
    def rows(self) -> int:
        """Number of all rows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """The rows from one to before another, at most one piece for each file."""
        if start >= stop:
            return
        first = int(np.searchsorted(self._ends, start, side="right"))
        # Of the first and the last run only a part may be wanted.
        before = start - int(self._ends[first] - self.runs[first, 2])
        if stop <= self._ends[first]:  # what follows would take longer than reading one row
            number, begin, _ = self.runs[first].tolist()
            begin += before
            yield Piece(number, slice(begin, begin + stop - start), slice(0, stop - start))
            return
        last = int(np.searchsorted(self._ends, stop - 1, side="right"))
        shard, row, rows = self.runs[first : last + 1].T.copy()
        row[0] += before
        rows[0] -= before
        rows[-1] -= int(self._ends[last]) - stop
        place = np.cumsum(rows) - rows
        order = np.argsort(shard, kind="stable")
        for runs in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
            number = int(shard[runs[0]])
            if len(runs) == 1:
                at, begin, count = (int(some[runs[0]]) for some in (place, row, rows))
                yield Piece(number, slice(begin, begin + count), slice(at, at + count))
            else:
                yield Piece(number, *(_ranges(some[runs], rows[runs]) for some in (row, place)))

    def pieces_of(self, index: np.ndarray) -> Iterator[Piece]:
        """Rows in any order, one piece for each file that has some.

        Args:
            index: Array of shape `(chosen,)`, int64.
        """
        run = np.searchsorted(self._ends, index, side="right")
        shard, row, rows = self.runs[run].T
        row = row + index - (self._ends[run] - rows)
        order = np.argsort(shard, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(shard[order])) + 1):
            if len(places):
                yield Piece(int(shard[places[0]]), row[places], places)


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The numbers of several ranges, one range after the other."""
    begins = np.cumsum(counts) - counts
    numbers: np.ndarray = np.arange(counts.sum()) + np.repeat(starts - begins, counts)
    return numbers
