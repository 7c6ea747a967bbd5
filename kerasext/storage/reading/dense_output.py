"""One output of a prediction file, read lazily."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasext.storage.columns import fixed_point
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.row_index import row_index


class DenseOutput(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in a prediction file that is read when it is indexed.

    Rows are chosen by an int, a slice, a list or array of indices in any order, or a boolean mask;
    further axes as in NumPy. `numpy.asarray` reads everything, and so do operators such as `==` and
    NumPy's functions. Strings come back as `str`, and as float32 what is stored as whole numbers in
    place of floats.

    Args:
        file: The file.
        name: String. Name of the output, or of a dataset of one whose rows differ in shape.

    Example:

    ```python
    output = PredictionFile("digits.h5")["probabilities"]
    output.shape       # (360, 10)
    output[:5]         # array of shape (5, 10)
    output[[7, 3]]     # rows 7 and 3, in this order
    output[:, 1]       # one column, of shape (360,)
    ```
    """

    def __init__(self, file: FileSource, name: str) -> None:
        dataset = file.datasets[name]
        self.name = name
        self._file = file
        self._rows = file.lengths[name]
        self.shape: tuple[int, ...] = (self._rows, *dataset.shape[1:])
        self._stored_dtype: np.dtype[Any] = np.dtype(
            dataset.dtype.str
        )  # without h5py's notes on it
        self._scale = file.scales[name]
        self.rows_at_once: int = dataset.chunks[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arrays that indexing returns."""
        if self._stored_dtype.kind == "S":
            return np.dtype(f"U{self._stored_dtype.itemsize}")
        return self._stored_dtype if self._scale is None else np.dtype(np.float32)

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
        step = self.rows_at_once
        for start in range(0, self._rows, step):
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
            return self._slice(row_key, rest)
        return self._take(row_index(row_key, self._rows), rest)

    def _split(self, key: Any) -> tuple[Any, ...]:
        """The key as a tuple that begins with what is meant for the rows."""
        parts = key if isinstance(key, tuple) else (key,)
        ellipses = [i for i, part in enumerate(parts) if part is Ellipsis]
        if len(ellipses) > 1:
            raise IndexError(f"A key must have one ellipsis at most. Received: {key!r}")
        if ellipses == [0]:
            return (slice(None),) * (len(self.shape) - len(parts) + 1) + parts[1:]
        return parts or (slice(None),)

    def _slice(self, rows: slice, rest: list[Any]) -> np.ndarray:
        start, stop, step = rows.indices(self._rows)
        wanted = range(start, stop, step)
        ascending = wanted if step > 0 else wanted[::-1]
        h5_rows = slice(ascending.start, max(ascending.stop, ascending.start), ascending.step)
        if len(rest) < self.ndim and all(_is_plain(part) for part in rest):
            values = self._decode(self._read((h5_rows, *rest)))
        else:
            values = self._decode(self._read(h5_rows))[(slice(None), *rest)]
        return values if step > 0 else values[::-1]

    def _take(self, index: np.ndarray, rest: list[Any]) -> Any:
        wanted, places = np.unique(index.ravel(), return_inverse=True)
        values = np.empty((len(wanted), *self.shape[1:]), dtype=self._stored_dtype)
        # A read per chunk: h5py's own selection of many single rows is far slower.
        ends = np.flatnonzero(np.diff(wanted // self.rows_at_once)) + 1
        for part in np.split(np.arange(len(wanted)), ends):
            if part.size:
                rows = wanted[part]
                values[part] = self._read(slice(rows[0], rows[-1] + 1))[rows - rows[0]]
        # The whole key is NumPy's matter, now on the rows that were read: its lists pair up.
        row_key = places.reshape(index.shape) if index.ndim else places[0]
        return self._decode(values)[(row_key, *rest)]

    def _read(self, key: Any) -> np.ndarray:
        return self._file.read(self.name, key)

    def _decode(self, values: np.ndarray) -> np.ndarray:
        if self._scale is not None:
            return fixed_point.decode(values, self._scale)
        if self._stored_dtype.kind != "S":
            return values
        with naming_damage(self._file.path, f"output {self.name!r}"):
            text = np.char.decode(values.astype(self._stored_dtype), "utf-8")
        return text.astype(self.dtype)

    def __repr__(self) -> str:
        return f"<DenseOutput {self.name!r}: shape {self.shape}, {self.dtype}>"


def _is_plain(part: object) -> bool:
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    return isinstance(part, int | np.integer)
