"""Appending rows of different shapes to their datasets."""

from __future__ import annotations

import h5py

from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.format.checksums import RowChecksums
from kerasext.storage.format.layout import ROW_SHAPES, ROW_SPLITS, SUMS, VALUES
from kerasext.storage.writing.chunk_writer import ChunkWriter


class RaggedWriter:
    """Appends rows of different shapes, as `ChunkWriter` appends rows of one shape.

    Args:
        h5file: h5py file that is open for writing.
        name: String. Path of the output's group.
        rows: Int. Rows that stay; what follows them is overwritten.
    """

    def __init__(self, h5file: h5py.File, name: str, rows: int) -> None:
        h5group, h5sums = h5file[name], h5file[f"{SUMS}/{name}"]
        numbers = int(h5group[ROW_SPLITS][rows])
        self._values = ChunkWriter(h5group[VALUES], numbers, h5sums[VALUES])
        self._row_splits = ChunkWriter(h5group[ROW_SPLITS], rows + 1, h5sums[ROW_SPLITS])
        self._row_shapes = (
            ChunkWriter(h5group[ROW_SHAPES], rows, h5sums[ROW_SHAPES])
            if ROW_SHAPES in h5group
            else None
        )
        # Rows and numbers, together: an interruption between two assignments would part them.
        self._end = self._end_before = (rows, numbers)

    def append(self, rows: RaggedRows) -> None:
        """Adds rows of the stored dtype and number of axes."""
        count, numbers = self._end_before = self._end
        self._values.append(rows.values)
        self._row_splits.append(rows.row_splits[1:] + numbers)
        if self._row_shapes is not None:
            self._row_shapes.append(rows.row_shapes)
        self._end = count + len(rows), numbers + len(rows.values)

    def commit(self, rows: int, *, last: bool = False) -> None:
        """Writes the partly filled chunks, so that the first `rows` rows are in the file.

        Args:
            rows: Int. Rows to be kept: all of them, or all but those of the last `append`.
            last: Bool. Whether no more rows will come, so that chunks may be compressed.
        """
        self._values.commit(self._numbers(rows), last=last)
        self._row_splits.commit(rows + 1, last=last)
        if self._row_shapes is not None:
            self._row_shapes.commit(rows, last=last)

    def checksums(self, rows: int) -> dict[str, RowChecksums]:
        """Returns the checksums of the first rows by dataset; see `ChunkWriter.checksums`."""
        shapes = self._row_shapes.checksums(rows) if self._row_shapes is not None else {}
        return {
            **self._values.checksums(self._numbers(rows)),
            **self._row_splits.checksums(rows + 1),
            **shapes,
        }

    def exceeds(self, rows: int) -> bool:
        """Whether a dataset is longer than `rows` rows need."""
        shapes = self._row_shapes
        return (
            self._values.exceeds(self._numbers(rows))
            or self._row_splits.exceeds(rows + 1)
            or (shapes is not None and shapes.exceeds(rows))
        )

    def trim(self, rows: int) -> None:
        """Makes the datasets no longer than `rows` rows need; see `ChunkWriter.trim`."""
        self._values.trim(self._numbers(rows))
        self._row_splits.trim(rows + 1)
        if self._row_shapes is not None:
            self._row_shapes.trim(rows)

    def _numbers(self, rows: int) -> int:
        count, numbers = self._end if rows == self._end[0] else self._end_before
        assert rows == count
        return numbers
