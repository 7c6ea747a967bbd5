"""The outputs of one file, as they are stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_rows import RaggedRows, cut
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.format import links
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.format.layout import MOST_AXES, RAGGED_AXES, ROW_SHAPES, ROW_SPLITS, VALUES

if TYPE_CHECKING:
    from kerasext.storage.reading.file_source import FileSource

_LONGEST_AXIS = 2**32 - 1  # longer ones only a damaged file has
_LARGE_CHUNK_BYTES = 64 * 2**20


@dataclass
class FileColumn:
    """One checked dataset of a file.

    Args:
        source: `FileSource` of the file, which may open the dataset anew.
        spec: `DenseSpec`, with the path of the dataset.
        h5ds: The h5py dataset.
        rows: Int. Committed entries.
    """

    source: FileSource
    spec: DenseSpec
    h5ds: h5py.Dataset
    rows: int

    def __post_init__(self) -> None:
        self.chunk_rows: int = self.h5ds.chunks[0]

    def read(self, key: Any) -> np.ndarray:
        """See `DenseColumn`."""
        values = self.source.read(self, key)
        if self.source.watch is not None:
            self.source.watch.look(self, key[0] if isinstance(key, tuple) else key)
        return values

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """See `DenseColumn`."""
        return self.read(slice(start, stop))

    def take(self, index: np.ndarray) -> np.ndarray:
        """See `DenseColumn`."""
        # h5py's own selection of many single rows is far slower than a read for each chunk.
        values = np.empty((len(index), *self.spec.row_shape), self.spec.dtype)
        for part in by_chunk(index, self.chunk_rows):
            some = index[part]
            block = self.read(slice(int(some[0]), int(some[-1]) + 1))
            values[part] = block[some - some[0]]
        return values

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.source, self.spec.name, self.rows)


def _reopened(source: FileSource, path: str, rows: int) -> FileColumn:
    return FileColumn(source, *source.open_dataset(path, rows), rows)


@dataclass
class FileRaggedColumn:
    """The datasets of an output whose rows differ in shape.

    Args:
        spec: `RaggedSpec`.
        values: `FileColumn` of all values of all rows, each row in C order.
        row_splits: `FileColumn` of where each row begins in them, and where the last one ends.
        row_shapes: `FileColumn` of the shape of each row; `None` if rows have one axis.
    """

    spec: RaggedSpec
    values: FileColumn
    row_splits: FileColumn
    row_shapes: FileColumn | None

    @property
    def rows(self) -> int:
        """Committed rows."""
        return self.row_splits.rows - 1

    @property
    def chunk_rows(self) -> int:
        """Rows whose values fill about a chunk, if rows are about as long everywhere."""
        rows = self.rows * self.values.chunk_rows // max(self.values.rows, 1)
        return min(max(rows, 1), self.row_splits.chunk_rows)

    def read_rows(self, start: int, stop: int) -> RaggedRows:
        """See `RaggedColumn`."""
        if start == stop:  # also of a file without rows, where no split may be readable
            nothing = np.empty((0, self.spec.axes), np.int64)
            return RaggedRows(self.values.read_rows(0, 0), nothing)
        splits = self.row_splits.read_rows(start, stop + 1)
        self._check_splits(range(start, stop), splits[:-1], splits[1:])
        shapes = self._shapes(slice(start, stop), splits[1:] - splits[:-1])
        return RaggedRows(self.values.read_rows(int(splits[0]), int(splits[-1])), shapes)

    def take(self, index: np.ndarray) -> list[np.ndarray]:
        """See `RaggedColumn`."""
        wanted, places = np.unique(index, return_inverse=True)
        # Both ends of each row: all but the neighbours are elsewhere in the file.
        starts, ends = self.row_splits.take(wanted), self.row_splits.take(wanted + 1)
        self._check_splits(wanted, starts, ends)
        found: list[np.ndarray] = []
        for part in by_chunk(starts, self.values.chunk_rows):
            first, last = int(starts[part[0]]), int(ends[part].max())
            values = self.values.read_rows(first, last)
            shapes = self._shapes(wanted[part], ends[part] - starts[part])
            found += cut(values, starts[part] - first, ends[part] - first, shapes)
        # Copies, because a row must not keep the rest of the block, nor share memory with another.
        return [found[place].copy() for place in places]

    def sizes(self, start: int, stop: int) -> np.ndarray:
        """See `RaggedColumn`."""
        return np.diff(self.row_splits.read_rows(start, stop + 1))

    def _check_splits(self, rows: Any, starts: np.ndarray, ends: np.ndarray) -> None:
        if starts.size and not (
            (starts[0] == 0 if rows[0] == 0 else starts[0] >= 0)
            and (starts <= ends).all()
            and (ends[:-1] <= starts[1:]).all()
            and ends[-1] <= self.values.rows
        ):
            self._refuse(f"rows must follow each other in {self.values.rows} values")

    def _shapes(self, rows: Any, sizes: np.ndarray) -> np.ndarray:
        """The shapes of rows of such sizes, array of shape `(rows, axes)`."""
        if self.row_shapes is None:
            return sizes[:, None]
        is_slice = isinstance(rows, slice)
        shapes = self.row_shapes.read(rows) if is_slice else self.row_shapes.take(rows)
        # In float64 too, because int64 overflows; and with zeros as ones, because NumPy refuses
        # huge axes even beside one of length 0.
        if (
            (shapes < 0).any()
            or (shapes > _LONGEST_AXIS).any()
            or (np.prod(shapes, axis=1) != sizes).any()
            or (np.prod(np.maximum(shapes, 1), axis=1, dtype=np.float64) >= 2.0**59).any()
        ):
            self._refuse("shapes must be those of so many values as rows have")
        return shapes

    def _refuse(self, reason: str) -> NoReturn:
        with naming_damage(self.values.source.path, f"output {self.spec.name!r}"):
            raise ValueError(reason)


def open_column(source: FileSource, name: str) -> FileColumn | FileRaggedColumn:
    """Opens an output of a file once it is checked.

    Raises:
        ValueError: If it is gone, or can't be what it claims.
    """
    rows = source.state.rows
    with naming_damage(source.path, f"output {name!r}"):
        found = links.find(source.h5file, name)
        if not isinstance(found, h5py.Group):
            return FileColumn(source, *source.open_dataset(name, rows, found), rows)
        axes = _ragged_axes(source, name)
        splits = _open_part(source, f"{name}/{ROW_SPLITS}", rows + 1)
        if splits.chunk_rows * 8 > max(source.size, _LARGE_CHUNK_BYTES):  # it is read whole
            raise ValueError(f"a chunk of {splits.spec.name!r} can't be in {source.size} bytes")
        shapes = None
        if axes > 1:
            shapes = _open_part(source, f"{name}/{ROW_SHAPES}", rows, (axes,))
        length = int(splits.h5ds[rows]) if rows else 0
        values = FileColumn(source, *source.open_dataset(f"{name}/{VALUES}", length), length)
        if values.spec.row_shape:
            raise ValueError(f"{VALUES!r} must have one axis, not rows of {values.spec.row_shape}")
    spec = RaggedSpec(name, axes, replace(values.spec, name=name))
    return FileRaggedColumn(spec, values, splits, shapes)


def _ragged_axes(source: FileSource, name: str) -> int:
    axes = source.attribute(RAGGED_AXES, of=name)
    if np.ndim(axes) or np.asarray(axes).dtype.kind not in "iu" or not 1 <= axes <= MOST_AXES:
        raise ValueError(f"attribute {RAGGED_AXES!r} must be a number of axes, and is {axes}")
    return int(axes)


def _open_part(
    source: FileSource, path: str, length: int, row_shape: tuple[int, ...] = ()
) -> FileColumn:
    """The dataset of the splits or shapes of rows."""
    spec, dataset = source.open_dataset(path, length)
    if (spec.row_shape, spec.dtype) != (row_shape, np.dtype(np.int64)):
        raise ValueError(
            f"{path!r} must have int64 rows of shape {row_shape}, not {spec.dtype} rows of shape "
            f"{spec.row_shape}"
        )
    return FileColumn(source, spec, dataset, length)


def by_chunk(ascending: np.ndarray, chunk_rows: int) -> list[np.ndarray]:
    """Places of numbers in an array, those of one chunk together."""
    ends = np.flatnonzero(np.diff(ascending // chunk_rows)) + 1
    return [part for part in np.split(np.arange(len(ascending)), ends) if part.size]
