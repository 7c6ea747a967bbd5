"""Outputs whose rows are in several files."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.columns.step_specs import Spec, can_hold
from kerasext.storage.index.row_order import Piece, RowOrder
from kerasext.storage.index.shards import Shards
from kerasext.storage.reading.file_columns import FileColumn, FileRaggedColumn, by_chunk


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
        self.nbytes = sum(facts.bytes for facts in shards.facts)
        # Small files have small chunks, and empty ones say nothing of theirs.
        self._largest = max(range(len(shards.facts)), key=lambda number: shards.facts[number].rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles what the files must be: another process opens them for itself."""
        self.check_open()
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

    def chunk_rows(self, spec: Spec) -> int:
        """Rows of a chunk of an output in the largest file."""
        with self.lock:
            rows: int = self.shard_column(self._largest, spec).chunk_rows
        return rows

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
        """Rows of a chunk of the largest file."""
        return self.of.chunk_rows(self.spec)

    def read(self, key: Any) -> np.ndarray:
        """See `DenseColumn`."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        start, stop, step = rows.indices(self.rows)
        if step > 1:
            return self._collect(*self._chosen(np.arange(start, stop, step)), rest)
        return self._collect(self.of.order.pieces(start, stop), max(stop - start, 0), rest)

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """See `DenseColumn`."""
        return self.read(slice(start, stop))

    def take(self, index: np.ndarray) -> np.ndarray:
        """See `DenseColumn`."""
        return self._collect(*self._chosen(index), [])

    def _chosen(self, index: np.ndarray) -> tuple[Iterable[Piece], int]:
        return self.of.order.pieces_of(index), len(index)

    def _collect(self, pieces: Iterable[Piece], count: int, rest: Sequence[Any]) -> np.ndarray:
        """Reads so many rows, and of each what the rest of a key selects."""
        row_shape = np.empty((0, *self.spec.row_shape))[(slice(None), *rest)].shape[1:]
        pieces = list(pieces)
        with self.of.lock:
            self.of.check_open()
            if count * self.spec.row_bytes > self.of.nbytes:
                # More than the files have: compressed; or a claim, for which no memory is asked
                # before each file makes it, too.
                for piece in pieces:
                    self.of.shard_column(piece.shard, self.spec)
            values = np.empty((count, *row_shape), self.spec.dtype)
            for piece in pieces:
                self._fill(values, piece, rest)
        return values

    def _fill(self, values: np.ndarray, piece: Piece, rest: Sequence[Any]) -> None:
        """Reads the rows of one file into their places."""
        column = self.of.shard_column(piece.shard, self.spec)
        if isinstance(piece.rows, slice):
            if rest or not values.nbytes:
                values[piece.places] = column.read((piece.rows, *rest))
            else:  # without a copy, which would take as long as reading
                out = values[piece.places].view(self.spec.h5_dtype)
                column.source.read(column, piece.rows, out)
            return
        order = np.argsort(piece.rows, kind="stable")
        rows, places = np.asarray(piece.rows)[order], np.asarray(piece.places)[order]
        for part in by_chunk(rows, column.chunk_rows):
            some = rows[part]
            block = column.read((slice(int(some[0]), int(some[-1]) + 1), *rest))
            values[places[part]] = block if len(block) == len(some) else block[some - some[0]]


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
        """Rows of about a chunk of the largest file."""
        return self.of.chunk_rows(self.spec)

    def read_rows(self, start: int, stop: int) -> RaggedRows:
        """See `RaggedColumn`."""
        pieces: list[Any] = list(self.of.order.pieces(start, stop))
        with self.of.lock:
            if pieces and all(isinstance(piece.rows, slice) for piece in pieces):
                return self._joined(pieces)
            found = self._rows(pieces, max(stop - start, 0))
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

    def _joined(self, pieces: list[Any]) -> RaggedRows:
        """The rows of pieces that follow each other, without an array for each row."""
        parts = []
        for shard, rows, _ in sorted(pieces, key=lambda piece: piece.places.start):
            part = self.of.shard_column(shard, self.spec).read_rows(rows.start, rows.stop)
            parts.append(part.astype(self.spec.values.dtype))
        return RaggedRows.concatenate(parts) if len(parts) > 1 else parts[0]

    def _sizes(self, start: int, stop: int) -> np.ndarray:
        self.of.check_open()
        sizes = np.empty(stop - start, np.int64)
        for shard, rows, places in self.of.order.pieces(start, stop):
            column = self.of.shard_column(shard, self.spec)
            if isinstance(rows, slice):
                sizes[places] = column.sizes(rows.start, rows.stop)
            else:
                first, last = int(rows.min()), int(rows.max()) + 1
                sizes[places] = column.sizes(first, last)[rows - first]
        return sizes

    def _rows(self, pieces: Iterable[Any], count: int) -> list[np.ndarray]:
        """The array of each of so many rows."""
        self.of.check_open()
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
