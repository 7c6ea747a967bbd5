"""One output of a prediction file, read lazily."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

_ROWS_AT_ONCE = 65536  # where the dataset has no chunks of its own


class StoredOutput(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in a prediction file that is read when it is indexed.

    Rows are chosen by an int, a slice, a list or array of indices in any order, or a boolean mask;
    further axes as in NumPy. `numpy.asarray` reads everything, and so do operators such as `==` and
    NumPy's functions. Strings come back as `str`.

    Args:
        dataset: h5py dataset of an open file.
        rows: Int. Committed rows; later ones are not shown.

    Example:

    ```python
    output = PredictionFile("digits.h5")["probabilities"]
    output.shape       # (360, 10)
    output[:5]         # array of shape (5, 10)
    output[[7, 3]]     # rows 7 and 3, in this order
    output[:, 1]       # one column, of shape (360,)
    ```
    """

    def __init__(self, dataset: h5py.Dataset, rows: int) -> None:
        self._h5ds = dataset
        self._rows = rows
        self._is_string = h5py.check_string_dtype(dataset.dtype) is not None

    @property
    def name(self) -> str:
        """Path in the file, such as `"probabilities"` or `"head/labels"`."""
        return str(self._h5ds.name).lstrip("/")

    @property
    def shape(self) -> tuple[int, ...]:
        """`(rows, ...)`."""
        return (self._rows, *self._h5ds.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arrays that indexing returns."""
        if self._is_string:
            return np.dtype(f"U{self._h5ds.dtype.itemsize}")
        dtype: np.dtype[Any] = self._h5ds.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """Number of axes, the rows included."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[Any]:
        step = self._rows_at_once
        for start in range(0, self._rows, step):
            yield from self[start : start + step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("Reading from a file always makes a copy. Received: copy=False")
        return np.asarray(self[:], dtype=dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [np.asarray(x) if isinstance(x, StoredOutput) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        """Reads rows, and of them what the rest of the key selects.

        Raises:
            IndexError: If a row does not exist, or a mask has another length than there are rows.
        """
        key = key if isinstance(key, tuple) else (key,)
        position = next((i for i, part in enumerate(key) if part is Ellipsis), None)
        if position == 0:
            fill = (slice(None),) * (self.ndim - len(key) + 1)
            key = (*fill, *key[1:])
        row_key, *rest = key or (slice(None),)
        if isinstance(row_key, slice):
            return self._slice(row_key, rest)
        index = np.asarray(row_key)
        if index.ndim == 0 and index.dtype.kind in "iu":
            row = self._take(index.reshape(1))[0]
            return row[tuple(rest)] if rest else row
        if index.ndim != 1:
            raise IndexError(
                "Rows must be chosen by an int, a slice, or a one-dimensional list of indices or "
                f"mask. Received: {row_key!r}"
            )
        if index.dtype == bool:
            if len(index) != self._rows:
                raise IndexError(
                    f"A mask must have one entry for each of the {self._rows} rows. "
                    f"Received: {len(index)} entries"
                )
            index = np.flatnonzero(index)
        rows = self._take(index)
        return rows[(slice(None), *rest)] if rest else rows

    def _slice(self, rows: slice, rest: list[Any]) -> np.ndarray:
        start, stop, step = rows.indices(self._rows)
        wanted = range(start, stop, step)
        ascending = wanted if step > 0 else wanted[::-1]
        h5_rows = slice(ascending.start, max(ascending.stop, ascending.start), ascending.step)
        if all(_is_plain(part) for part in rest):
            values = self._decode(self._h5ds[(h5_rows, *rest)])
        else:
            values = self._decode(self._h5ds[h5_rows])[(slice(None), *rest)]
        return values if step > 0 else values[::-1]

    def _take(self, index: np.ndarray) -> np.ndarray:
        index = index.astype(np.int64, casting="unsafe" if index.size == 0 else "same_kind")
        if index.size and (index.min() < -self._rows or index.max() >= self._rows):
            raise IndexError(
                f"Rows must be from {-self._rows} to {self._rows - 1}. "
                f"Received: rows from {index.min()} to {index.max()}"
            )
        wanted, inverse = np.unique(index % max(self._rows, 1), return_inverse=True)
        values = np.empty((len(wanted), *self.shape[1:]), dtype=self._h5ds.dtype)
        # A read per chunk: h5py's own selection of many single rows is far slower.
        ends = np.flatnonzero(np.diff(wanted // self._rows_at_once)) + 1
        for part in np.split(np.arange(len(wanted)), ends):
            if part.size:
                rows = wanted[part]
                values[part] = self._h5ds[rows[0] : rows[-1] + 1][rows - rows[0]]
        return self._decode(values)[inverse]

    @property
    def _rows_at_once(self) -> int:
        return self._h5ds.chunks[0] if self._h5ds.chunks else _ROWS_AT_ONCE

    def _decode(self, values: np.ndarray) -> np.ndarray:
        if not self._is_string:
            return values
        return np.char.decode(values.astype(self._h5ds.dtype.str), "utf-8").astype(self.dtype)

    def __repr__(self) -> str:
        return f"<StoredOutput {self.name!r}: shape {self.shape}, {self.dtype}>"


def _is_plain(part: object) -> bool:
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    return isinstance(part, int | np.integer)
