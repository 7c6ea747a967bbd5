"""Outputs whose rows are in several files."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.columns.step_specs import Spec, can_hold
from kerasext.storage.reading.file_columns import FileColumn, FileRaggedColumn, gather
from kerasext.storage.reading.row_order import Piece, RowOrder
from kerasext.storage.reading.shards import Shards


class ShardedRows:
    """The rows of several files in one order, from which columns are read.

    Args:
        path: Path of the index, or of the folder, for errors.
        shards: `Shards`, the files.
        order: `RowOrder` of their rows.
    """

    def __init__(self, path: Path, shards: Shards, order: RowOrder) -> None:
        self.path, self.shards, self.order = path, shards, order
        self.lock = threading.RLock()
        self.is_open = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles what the files must be: another process opens them for itself."""
        return ShardedRows, (self.path, self.shards, self.order)

    def check_open(self) -> None:
        """Raises `ValueError` if it was closed."""
        if not self.is_open:
            raise ValueError(
                f"The file was closed; open it again. Received: path={str(self.path)!r}"
            )

    def close(self) -> None:
        """Closes the files; safe to call again."""
        with self.lock:
            self.is_open = False
            self.shards.close()

    def column(self, spec: Spec) -> ShardedColumn | ShardedRaggedColumn:
        """An output, whose text is as wide in `spec` as in the widest file."""
        if isinstance(spec, RaggedSpec):
            return ShardedRaggedColumn(self, spec)
        return ShardedColumn(self, spec)

    def shard_column(self, number: int, spec: Spec) -> Any:
        """An output of one of the files.

        Raises:
            ValueError: If the file has no such output, or is damaged.
        """
        self.check_open()
        column = self.shards[number].column(spec.name)
        check_fits(spec, column)
        return column


def check_fits(spec: Spec, column: FileColumn | FileRaggedColumn) -> None:
    """Raises `ValueError` unless rows of a file can be rows of an output."""
    found = column.spec
    if not can_hold(spec, found):
        raise ValueError(f"output {spec.name!r} has {found.description}, not {spec.description}")


@dataclass(frozen=True)
class ShardedColumn:
    """A `DenseColumn` of several files.

    Args:
        of: `ShardedRows` that it belongs to.
        spec: `DenseSpec`.
    """

    of: ShardedRows
    spec: DenseSpec

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return self.of.order.rows

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk of the first file."""
        with self.of.lock:
            rows: int = self.of.shard_column(0, self.spec).chunk_rows
        return rows

    def read(self, key: Any) -> np.ndarray:
        """See `DenseColumn`."""
        with self.of.lock:
            return self._read(*(key if isinstance(key, tuple) else (key,)))

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """See `DenseColumn`."""
        return self.read(slice(start, stop))

    def _read(self, rows: slice, *rest: Any) -> np.ndarray:
        start, stop, step = rows.indices(self.rows)
        pieces = list(self.of.order.pieces(start, stop))
        row_shape = np.empty((0, *self.spec.row_shape))[(slice(None), *rest)].shape[1:]
        if (stop - start) * self.spec.row_bytes > sum(
            facts.bytes for facts in self.of.shards.facts
        ):
            # More than the files have: compressed; or a claim, for which no memory is asked before
            # each file makes it, too.
            for piece in pieces:
                self.of.shard_column(piece.shard, self.spec)
        values = np.empty((max(stop - start, 0), *row_shape), self.spec.dtype)
        for piece in pieces:
            values[piece.places] = self._read_piece(piece, rest)
        return values[::step]

    def _read_piece(self, piece: Piece, rest: tuple[Any, ...]) -> np.ndarray:
        column = self.of.shard_column(piece.shard, self.spec)
        if isinstance(piece.rows, slice):
            found: np.ndarray = column.read((piece.rows, *rest))
            return found
        wanted, places = np.unique(piece.rows, return_inverse=True)
        rows: np.ndarray = gather(column, wanted)
        some: np.ndarray = rows[(places, *rest)]
        return some


@dataclass(frozen=True)
class ShardedRaggedColumn:
    """A `RaggedColumn` of several files.

    Args:
        of: `ShardedRows` that it belongs to.
        spec: `RaggedSpec`.
    """

    of: ShardedRows
    spec: RaggedSpec

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return self.of.order.rows

    @property
    def chunk_rows(self) -> int:
        """Rows of about a chunk of the first file."""
        with self.of.lock:
            rows: int = self.of.shard_column(0, self.spec).chunk_rows
        return rows

    def read_rows(self, start: int, stop: int) -> RaggedRows:
        """See `RaggedColumn`."""
        with self.of.lock:
            found = self._rows(self.of.order.pieces(start, stop), max(stop - start, 0))
        values = [np.empty(0, self.spec.values.dtype), *(row.reshape(-1) for row in found)]
        shapes = np.array([row.shape for row in found], np.int64).reshape(-1, self.spec.axes)
        return RaggedRows(np.concatenate(values, dtype=self.spec.values.dtype), shapes)

    def take(self, index: np.ndarray) -> list[np.ndarray]:
        """See `RaggedColumn`."""
        with self.of.lock:
            return self._rows(self.of.order.pieces_of(index), len(index))

    def sizes(self, start: int, stop: int) -> np.ndarray:
        """See `RaggedColumn`."""
        with self.of.lock:
            return self._sizes(start, stop)

    def _sizes(self, start: int, stop: int) -> np.ndarray:
        sizes = np.empty(stop - start, np.int64)
        for shard, rows, places in self.of.order.pieces(start, stop):
            column = self.of.shard_column(shard, self.spec)
            if isinstance(rows, slice):
                sizes[places] = column.sizes(rows.start, rows.stop)
            else:
                first, last = int(rows.min()), int(rows.max()) + 1
                sizes[places] = column.sizes(first, last)[rows - first]
        return sizes

    def _rows(self, pieces: Any, count: int) -> list[np.ndarray]:
        found: list[np.ndarray] = [np.empty(0)] * count
        for shard, rows, places in pieces:
            column = self.of.shard_column(shard, self.spec)
            if isinstance(rows, slice):
                arrays = list(column.read_rows(rows.start, rows.stop))
            else:
                arrays = column.take(rows)
            for place, row in zip(np.arange(count)[places].tolist(), arrays, strict=True):
                found[place] = row.astype(self.spec.values.dtype, copy=False)
        return found
