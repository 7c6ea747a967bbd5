"""One output of a prediction file, read lazily."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from kerasext.storage.chunk_sums import chunk_sums

_ROWS_AT_ONCE = 65536  # where the dataset has no chunks of its own
_LARGEST_ROW_BYTES = 2**32 - 1  # HDF5's limit on a chunk, and a chunk holds at least one row
# A chunk of one value repeated shrinks most: 1 MiB to some 50 bytes, its place in the index too.
_MOST_EXPANSION = 2**16
_LEAST_CHUNK_BYTES = 8  # of the address that stands in the index of chunks
_LAYOUTS = {
    h5py.h5d.COMPACT: "a compact dataset",
    h5py.h5d.CONTIGUOUS: "a contiguous or external dataset",
    h5py.h5d.VIRTUAL: "a virtual dataset",
}
# What h5py raises for damage: the errors of HDF5, and what comes of senseless types and sizes.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


@contextlib.contextmanager
def naming_damage(path: object, part: str = "") -> Iterator[None]:
    """Turns what h5py raises for a damaged file into a `ValueError` that names the file.

    Args:
        path: The file.
        part: String. What is read of it, if that is to be named too.
    """
    try:
        yield
    except _DAMAGE as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ValueError(
            f"The file is damaged: {part and part + ': '}{reason}. Received: path={str(path)!r}"
        ) from error


def check_stored(dataset: h5py.Dataset, rows: int, size: int) -> None:
    """Checks that a dataset is of a kind that outputs are, and can have this many rows.

    Nothing is read or allocated for a dataset that only claims to be large, and no other file is
    touched.

    Args:
        dataset: h5py dataset.
        rows: Int. Committed rows.
        size: Int. Bytes of the file.

    Raises:
        ValueError: If not. h5py raises other errors for types and shapes that it can't make out.
    """
    _check_kind(dataset)
    name, row_shape = str(dataset.name), dataset.shape[1:]
    if not 0 <= rows <= dataset.shape[0]:
        raise ValueError(f"{rows} rows committed, but {name!r} has shape {dataset.shape}")
    row_bytes = dataset.dtype.itemsize * math.prod(row_shape)
    if row_bytes > _LARGEST_ROW_BYTES:
        raise ValueError(f"{name!r} has rows of {row_bytes} bytes")
    expansion = _MOST_EXPANSION if dataset.id.get_create_plist().get_nfilters() else 1
    if rows * row_bytes > size * expansion:
        raise ValueError(f"{rows} rows of {name!r} can't be in {size} bytes")
    lengths = zip(dataset.shape, dataset.chunks, strict=True)
    # HDF5 walks through every chunk that the dataset could have.
    if math.prod(-(-length // chunk) for length, chunk in lengths) * _LEAST_CHUNK_BYTES > size:
        raise ValueError(f"{name!r} of shape {dataset.shape} can't be in {size} bytes")


def _check_kind(dataset: h5py.Dataset) -> None:
    name, dtype = str(dataset.name), dataset.dtype
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout != h5py.h5d.CHUNKED:
        kind = _LAYOUTS.get(layout, "something else")
        raise ValueError(f"{name!r} must be stored in chunks, and is {kind}")
    if dtype.kind not in "biufcS" or not dtype.itemsize:
        raise ValueError(f"{name!r} must have numbers or text of a fixed width, not {dtype}")
    for number in range(properties.get_nfilters()):
        code, *_ = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f"{name!r} is compressed by HDF5's filter {code}, which is not there; "
                "hdf5plugin may have it"
            )


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
        self.name = str(dataset.name).lstrip("/")
        self.shape: tuple[int, ...] = (rows, *dataset.shape[1:])
        self._path = dataset.file.filename
        self._h5ds = dataset
        self._rows = rows
        self._stored_dtype: np.dtype[Any] = dataset.dtype
        self._is_string = h5py.check_string_dtype(dataset.dtype) is not None
        self._rows_at_once = dataset.chunks[0] if dataset.chunks else _ROWS_AT_ONCE

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the arrays that indexing returns."""
        if self._is_string:
            return np.dtype(f"U{self._stored_dtype.itemsize}")
        return self._stored_dtype

    @property
    def ndim(self) -> int:
        """Number of axes, the rows included."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def refresh(self, rows: int) -> None:
        """Lets HDF5 look again at a dataset that should have so many rows."""
        if self._h5ds.id.get_space().shape[0] < rows:
            self._h5ds.refresh()

    def is_stored_within(self, size: int) -> bool:
        """Whether the rows lie in the first `size` bytes of the file."""
        ends: list[int] = []

        def visit(chunk: Any) -> None:
            if chunk.chunk_offset[0] < self._rows:
                ends.append(chunk.byte_offset + chunk.size)

        self._h5ds.id.chunk_iter(visit)
        return max(ends, default=0) <= size

    def matches(self, sums: h5py.Dataset, *, last: bool) -> bool:
        """Whether the chunks have these sums, also the last one if it is partly filled and `last`.

        Raises:
            ValueError: If a chunk can't be read.
        """
        length = self._rows_at_once
        chunks = math.ceil(self._rows / length) if last else self._rows // length
        for number in range(chunks):
            rows = slice(number * length, min((number + 1) * length, self._rows))
            if not np.array_equal(chunk_sums(self._read(rows)), sums[number : number + 1]):
                return False
        return True

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
        if any(isinstance(x, StoredOutput) for x in kwargs.get("out", ())):
            return NotImplemented  # reading is all it does
        arrays = [np.asarray(x) if isinstance(x, StoredOutput) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        """Reads rows, and of them what the rest of the key selects.

        Raises:
            IndexError: If a row does not exist, or a mask has another length than there are rows.
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        if not self._h5ds:
            raise ValueError(f"The file was closed; open it again. Received: output {self.name!r}")
        row_key, *rest = self._split(key)
        if isinstance(row_key, slice):
            return self._slice(row_key, rest)
        index = np.asarray(row_key)
        if index.dtype == bool and index.ndim == 1:
            if len(index) != self._rows:
                raise IndexError(
                    f"A mask must have one entry for each of the {self._rows} rows. "
                    f"Received: {len(index)} entries"
                )
            index = np.flatnonzero(index)
        if index.ndim > 1 or (index.size and index.dtype.kind not in "iu"):
            raise IndexError(
                "Rows must be chosen by an int, a slice, or a list of indices or mask. "
                f"Received: {row_key!r}"
            )
        return self._take(index.astype(np.int64), rest)

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
        if index.size and (index.min() < -self._rows or index.max() >= self._rows):
            raise IndexError(
                f"Rows must be from {-self._rows} to {self._rows - 1}. "
                f"Received: rows from {index.min()} to {index.max()}"
            )
        wanted, places = np.unique(index.ravel() % max(self._rows, 1), return_inverse=True)
        values = np.empty((len(wanted), *self.shape[1:]), dtype=self._stored_dtype)
        # A read per chunk: h5py's own selection of many single rows is far slower.
        ends = np.flatnonzero(np.diff(wanted // self._rows_at_once)) + 1
        for part in np.split(np.arange(len(wanted)), ends):
            if part.size:
                rows = wanted[part]
                values[part] = self._read(slice(rows[0], rows[-1] + 1))[rows - rows[0]]
        # The whole key is NumPy's matter, now on the rows that were read: its lists pair up.
        row_key = places.reshape(index.shape) if index.ndim else places[0]
        return self._decode(values)[(row_key, *rest)]

    def _read(self, key: Any) -> np.ndarray:
        # Other errors than these two are about the key.
        try:
            values: np.ndarray = self._h5ds[key]
        except (OSError, RuntimeError):
            with naming_damage(self._path, f"output {self.name!r}"):
                raise
        return values

    def _decode(self, values: np.ndarray) -> np.ndarray:
        if not self._is_string:
            return values
        with naming_damage(self._path, f"output {self.name!r}"):
            text = np.char.decode(values.astype(self._stored_dtype.str), "utf-8")
        return text.astype(self.dtype)

    def __repr__(self) -> str:
        return f"<StoredOutput {self.name!r}: shape {self.shape}, {self.dtype}>"


def _is_plain(part: object) -> bool:
    if isinstance(part, slice):
        return part.step is None or part.step > 0
    return isinstance(part, int | np.integer)
