"""One output of a prediction file whose rows differ in shape, read lazily."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from kerasext.storage.columns.ragged_rows import RaggedRows, cut
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.format.layout import ROW_SHAPES, ROW_SPLITS, VALUES
from kerasext.storage.reading.dense_output import DenseOutput
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.row_index import row_index

_LONGEST_AXIS = 2**32 - 1  # longer ones only a damaged file has


class RaggedOutput:
    """Rows of different shapes in a prediction file that are read when they are indexed.

    An int gives the array of one row; a slice, a list or array of indices in any order, or a
    boolean mask the list of the arrays of those rows. Strings come back as `str`.

    Args:
        file: The file.
        name: String. Name of the output.

    Attributes:
        values: `DenseOutput` of shape `(numbers,)`: all numbers of all rows, each row in C order.
        row_splits: `DenseOutput` of shape `(rows + 1,)`, int64: where each row begins in `values`,
            and where the last one ends.
        row_shapes: `DenseOutput` of shape `(rows, axes)`, int64: the shape of each row. `None`
            where rows have one axis.

    Example:

    ```python
    output = PredictionFile("tagged.h5")["tokens"]
    output.shape          # (360, None)
    output[0]             # array of shape (17,)
    output[:3]            # list of arrays of shapes (17,), (0,) and (4,)
    output.padded([0, 2]) # array of shape (2, 17)
    ```
    """

    def __init__(self, file: FileSource, name: str) -> None:
        self.name = name
        self._file = file
        self.values = DenseOutput(file, f"{name}/{VALUES}")
        self.row_splits = DenseOutput(file, f"{name}/{ROW_SPLITS}")
        has_shapes = f"{name}/{ROW_SHAPES}" in file.datasets
        self.row_shapes = DenseOutput(file, f"{name}/{ROW_SHAPES}") if has_shapes else None
        self._rows = len(self.row_splits) - 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arrays that indexing returns."""
        return self.values.dtype

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Number of rows, and `None` for each axis of a row."""
        return (self._rows, *[None] * (1 if self.row_shapes is None else self.row_shapes.shape[1]))

    @property
    def ndim(self) -> int:
        """Number of axes, the rows included."""
        return len(self.shape)

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[np.ndarray]:
        # Some chunks at a time, if rows are about as long everywhere.
        step = self._rows * self.values.rows_at_once // max(len(self.values), 1)
        step = min(max(step, 1), self.row_splits.rows_at_once)
        for start in range(0, self._rows, step):
            yield from self[start : start + step]

    def __getitem__(self, key: Any) -> Any:
        """Reads rows.

        Returns:
            Array for an int, else list of arrays.

        Raises:
            IndexError: If a row does not exist, a mask has another length than there are rows, or
                more than rows is chosen.
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        if isinstance(key, slice):
            start, stop, step = key.indices(self._rows)
            if step == 1:
                return self._read_run(start, max(start, stop))
            key = range(start, stop, step)
        if isinstance(key, tuple):
            raise IndexError(
                "Only rows can be chosen, for further axes differ; index the arrays that come "
                f"back. Received: {key!r}"
            )
        index = row_index(key, self._rows)
        if not index.ndim:
            return self._read_run(int(index), int(index) + 1)[0]
        return self._take(index)

    def padded(self, rows: Any = slice(None), *, value: Any = None) -> np.ndarray:
        """Reads rows into one array, filled up at the end of each axis.

        Args:
            rows: Slice, list or array of indices, or boolean mask. Defaults to all rows.
            value: What to fill up with. Defaults to `None`, for 0, `False` or the empty string.

        Returns:
            Array of shape `(chosen, longest, ...)`: each axis as long as the longest of the rows
            that were chosen, 0 where none were.

        Raises:
            IndexError: If a row does not exist, or one is chosen by an int.
            ValueError: If `value` is none of the dtype of the output, there is no memory for the
                array, or the file was closed, or is damaged where the rows are.
        """
        arrays = self[rows]
        if isinstance(arrays, np.ndarray):
            raise IndexError(
                "Rows to be padded must be chosen by a slice, or a list of indices or mask; one "
                f"row is `output[{rows!r}]`. Received: rows={rows!r}"
            )
        shapes = np.array([array.shape for array in arrays], np.int64).reshape(-1, self.ndim - 1)
        shape = (len(arrays), *shapes.max(axis=0, initial=0).tolist())
        try:
            padded = np.zeros(shape, self.dtype)
            if value is not None:
                padded[...] = self._filler(value)
        except (MemoryError, ValueError) as error:
            raise ValueError(
                f"Padded rows of output {self.name!r} must fit into memory, and `value` into their "
                f"dtype; choose fewer rows. Received: shape={shape}, dtype={self.dtype}, "
                f"value={value!r}"
            ) from error
        for place, array in enumerate(arrays):
            padded[place][tuple(map(slice, array.shape))] = array
        return padded

    def flat(self, start: int, stop: int) -> RaggedRows:
        """Reads rows that follow each other as they are stored.

        Args:
            start: Int. The first row.
            stop: Int. The row after the last, from `start` to the number of rows.

        Raises:
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        if start == stop:  # also of a file without rows, where no split may be readable
            return RaggedRows(self.values[:0], np.empty((0, self.ndim - 1), np.int64))
        splits = self.row_splits[start : stop + 1]
        starts, ends = splits[:-1], splits[1:]
        self._check_splits(range(start, stop), starts, ends)
        shapes = self._shapes(slice(start, stop), starts, ends)
        return RaggedRows(self.values[int(splits[0]) : int(splits[-1])], shapes)

    def _filler(self, value: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            filler = np.asarray(value).astype(self.dtype)
        # Floats are rounded; integers would wrap around, and text be cut.
        if filler.ndim or (self.dtype.kind in "biuU" and not np.array_equal(filler, value)):
            raise ValueError
        return filler

    def _take(self, index: np.ndarray) -> list[np.ndarray]:
        wanted, places = np.unique(index, return_inverse=True)
        # Both ends of each row: all but the neighbours are elsewhere in the file.
        starts, ends = self.row_splits[wanted], self.row_splits[wanted + 1]
        self._check_splits(wanted, starts, ends)
        # A read per chunk, as in `DenseOutput`.
        cuts = np.flatnonzero(np.diff(starts // self.values.rows_at_once)) + 1
        found: list[np.ndarray] = []
        for part in np.split(np.arange(len(wanted)), cuts):
            if part.size:
                first, last = int(starts[part[0]]), int(ends[part].max())
                values = self.values[first:last]
                shapes = self._shapes(wanted[part], starts[part], ends[part])
                found += cut(values, starts[part] - first, ends[part] - first, shapes)
        # Copies, for a row must not keep the rest of what was read, nor be there twice.
        return [found[place].copy() for place in places]

    def _read_run(self, start: int, stop: int) -> list[np.ndarray]:
        """Rows that follow each other."""
        return list(self.flat(start, stop))

    def _check_splits(self, rows: Any, starts: np.ndarray, ends: np.ndarray) -> None:
        if starts.size and not (
            (starts[0] == 0 if rows[0] == 0 else starts[0] >= 0)
            and (starts <= ends).all()
            and (ends[:-1] <= starts[1:]).all()
            and ends[-1] <= len(self.values)
        ):
            self._refuse(f"rows must follow each other in {len(self.values)} values")

    def _shapes(self, rows: Any, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The shapes of rows, array of shape `(rows, axes)`."""
        sizes: np.ndarray = ends - starts
        if self.row_shapes is None:
            return sizes[:, None]
        shapes: np.ndarray = self.row_shapes[rows]
        # In floats too, for products of integers wrap around; and without zeros, for NumPy has no
        # shapes of any size beside them either.
        if (
            (shapes < 0).any()
            or (shapes > _LONGEST_AXIS).any()
            or (np.prod(shapes, axis=1) != sizes).any()
            or (np.prod(np.maximum(shapes, 1), axis=1, dtype=np.float64) >= 2.0**59).any()
        ):
            self._refuse("shapes must be those of so many values as rows have")
        return shapes

    def _refuse(self, reason: str) -> NoReturn:
        with naming_damage(self._file.path, f"output {self.name!r}"):
            raise ValueError(reason)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            "Rows of different shapes are no array; use `padded`, or a list of arrays, `output[:]`."
            f" Received: output {self.name!r}"
        )

    def __repr__(self) -> str:
        return f"<RaggedOutput {self.name!r}: shape {self.shape}, {self.dtype}>"
