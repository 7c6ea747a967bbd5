"""One output of a prediction file, read lazily."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.format.damage import naming_damage
from kerasext.storage.reading.row_keys import row_index
from kerasext.storage.reading.source import DenseColumn


class DenseOutput(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in a prediction file that is read when it is indexed.

    Rows are chosen by an int, a slice, a list or array of indices in any order, or a boolean mask;
    further axes as in NumPy. `numpy.asarray` reads everything, and so do operators such as `==` and
    NumPy's functions. Strings come back as `str`. Floats that are stored as whole numbers come back
    as float32.

    Args:
        path: Path of the file, for errors.
        name: String. Name of the output.
        column: `DenseColumn` with its rows.

    Example:

    ```python
    output = PredictionFile("digits.h5")["probabilities"]
    output.shape       # (360, 10)
    output[:5]         # array of shape (5, 10)
    output[[7, 3]]     # rows 7 and 3, in this order
    output[:, 1]       # one column, of shape (360,)
    ```
    """

    def __init__(self, path: Path, name: str, column: DenseColumn) -> None:
        self.name = name
        self._path = path
        self._column = column

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, and the shape of one row."""
        return (self._column.rows, *self._column.spec.row_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arrays that indexing returns."""
        return self._column.spec.read_dtype

    @property
    def stored_dtype(self) -> np.dtype[Any]:
        """Dtype in the file: another one for text, and for floats stored as whole numbers."""
        return self._column.spec.dtype

    @property
    def ndim(self) -> int:
        """Number of axes, the rows included."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def rows_at_once(self) -> int:
        """Rows of a chunk, which are read fastest together."""
        return self._column.chunk_rows

    def __len__(self) -> int:
        return self._column.rows

    def __iter__(self) -> Iterator[Any]:
        step = self.rows_at_once
        for start in range(0, len(self), step):
            yield from self[start : start + step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Reading from a file always makes a copy. Received: copy=False")
        return np.asarray(self[:], dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if any(isinstance(x, DenseOutput) for x in kwargs.get("out", ())):
            return NotImplemented  # reading is all it does
        arrays = [np.asarray(x) if isinstance(x, DenseOutput) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        """Reads rows, and of them what the rest of the key selects.

        Raises:
            IndexError: If a row does not exist, or a mask has another length than there are rows.
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        row_key, *rest = self._split(key)
        if isinstance(row_key, slice):
            return self._read_slice(row_key, rest)
        return self._read_rows(row_index(row_key, len(self)), rest)

    def _split(self, key: Any) -> tuple[Any, ...]:
        """The key as a tuple that begins with what is meant for the rows."""
        parts = key if isinstance(key, tuple) else (key,)
        ellipses = [i for i, part in enumerate(parts) if part is Ellipsis]
        if len(ellipses) > 1:
            raise IndexError(f"A key must have one ellipsis at most. Received: {key!r}")
        if ellipses == [0]:
            return (slice(None),) * (self.ndim - len(parts) + 1) + parts[1:]
        return parts or (slice(None),)

    def _read_slice(self, rows: slice, rest: list[Any]) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        wanted = range(start, stop, step)
        ascending = wanted if step > 0 else wanted[::-1]
        h5_rows = slice(ascending.start, max(ascending.stop, ascending.start), ascending.step)
        if len(rest) < self.ndim and all(_is_plain(part) for part in rest):
            values = self._decode(self._column.read((h5_rows, *rest) if rest else h5_rows))
        else:
            values = self._decode(self._column.read(h5_rows))[(slice(None), *rest)]
        return values if step > 0 else values[::-1]

    def _read_rows(self, index: np.ndarray, rest: list[Any]) -> Any:
        wanted, places = np.unique(index.ravel(), return_inverse=True)
        values = self._decode(self._column.take(wanted))
        # The whole key is NumPy's matter, now on the rows that were read: its lists pair up.
        row_key = places.reshape(index.shape) if index.ndim else places[0]
        return values[(row_key, *rest)]

    def _decode(self, stored: np.ndarray) -> np.ndarray:
        if stored.dtype.kind != "S":
            return self._column.spec.decode(stored)
        with naming_damage(self._path, f"output {self.name!r}"):
            return self._column.spec.decode(stored)

    def __repr__(self) -> str:
        return f"<DenseOutput {self.name!r}: shape {self.shape}, {self.dtype}>"


def _is_plain(part: object) -> bool:
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    return isinstance(part, int | np.integer)
