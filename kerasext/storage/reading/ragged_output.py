"""One output of a prediction file whose rows differ in shape, read lazily."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.reading.row_keys import row_index
from kerasext.storage.reading.source import RaggedColumn


class RaggedOutput:
    """Rows of different shapes in a prediction file that are read when they are indexed.

    An int gives the array of one row; a slice, a list or array of indices in any order, or a
    boolean mask the list of the arrays of those rows. Strings come back as `str`.

    Args:
        path: Path of the file, for errors.
        name: String. Name of the output.
        column: `RaggedColumn` with its rows.

    Example:

    ```python
    output = PredictionFile("tagged.h5")["tokens"]
    output.shape          # (360, None)
    output[0]             # array of shape (17,)
    output[:3]            # list of arrays of shapes (17,), (0,) and (4,)
    output.padded([0, 2]) # array of shape (2, 17)
    ```
    """

    def __init__(self, path: Path, name: str, column: RaggedColumn) -> None:
        self.name = name
        self._path = path
        self._column = column

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arrays that indexing returns."""
        return self._column.spec.values.read_dtype

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Dtype in the file: another one for text, and for floats stored as whole numbers."""
        return self._column.spec.values.dtype

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Number of rows, and `None` for each axis of a row."""
        return (len(self), *[None] * self._column.spec.axes)

    @property
    def ndim(self) -> int:
        """Number of axes, the rows included."""
        return 1 + self._column.spec.axes

    def __len__(self) -> int:
        return self._column.rows

    def __iter__(self) -> Iterator[np.ndarray]:
        step = self._column.chunk_rows
        for start in range(0, len(self), step):
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
            start, stop, step = key.indices(len(self))
            if step == 1:
                return list(self.flat(start, max(start, stop)))
            key = range(start, stop, step)
        if isinstance(key, tuple):
            raise IndexError(
                "Only rows can be chosen, because further axes differ; index the arrays that come "
                f"back. Received: {key!r}"
            )
        index = row_index(key, len(self))
        if not index.ndim:
            return next(iter(self.flat(int(index), int(index) + 1)))
        return [self._decode(row) for row in self._column.take(index)]

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
        """Reads rows that follow each other, all their values in one array.

        Args:
            start: Int. The first row.
            stop: Int. The row after the last, from `start` to the number of rows.

        Raises:
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        rows = self._column.read_rows(start, stop)
        return RaggedRows(self._decode(rows.values), rows.row_shapes)

    def row_sizes(self, start: int, stop: int) -> np.ndarray:
        """The number of values in each of some rows, without reading the values.

        Args:
            start: Int. The first row.
            stop: Int. The row after the last.

        Returns:
            Array of shape `(stop - start,)`, int64.

        Raises:
            ValueError: As of `flat`.
        """
        return self._column.sizes(start, stop)

    def _filler(self, value: Any) -> np.ndarray:
        with np.errstate(all="ignore"):
            filler = np.asarray(value).astype(self.dtype)
        # Floats are rounded; integers would wrap around, and text be cut.
        if filler.ndim or (self.dtype.kind in "biuU" and not np.array_equal(filler, value)):
            raise ValueError
        return filler

    def _decode(self, values: np.ndarray) -> np.ndarray:
        with naming_damage(self._path, f"output {self.name!r}"):
            return self._column.spec.values.decode(values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(
            "Rows of different shapes are no array; use `padded`, or a list of arrays, `output[:]`."
            f" Received: output {self.name!r}"
        )

    def __repr__(self) -> str:
        return f"<RaggedOutput {self.name!r}: shape {self.shape}, {self.dtype}>"
