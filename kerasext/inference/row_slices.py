"""Batches cut straight from arrays, without Keras's input pipeline.

Of arrays, `predict` on TensorFlow makes a copy, whose rows it gathers again in a `tf.data` pipeline
that takes longer than a small model.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from kerasext.inference.input_dtypes import as_text, is_other_float, read_frame
from kerasext.inference.read_ahead import read_ahead
from kerasext.keras_internals import filled, numbered, to_numpy
from kerasext.storage import TEXT_KINDS

# Cut at once from arrays in memory: less makes the calls for it count, more leaves the cache.
_BLOCK_BYTES = 1024 * 1024


def can_slice(x: Any) -> bool:
    """Whether `RowSlices` takes `x`.

    Args:
        x: Anything that `predict` takes.

    Returns:
        `True` for NumPy arrays and memory maps, pandas, dense tensors of any framework, and what
        else has `shape`, `__array__` and slices of rows, such as datasets of h5py and
        `DenseOutput`; and for nested dicts, lists and tuples of them.
    """
    leaves = keras.tree.flatten(x)
    return bool(leaves) and all(map(_is_array, leaves))


def count_rows(x: Any) -> int:
    """The number of rows that all arrays in `x` have.

    Args:
        x: What `can_slice` accepts.

    Raises:
        ValueError: If `can_slice` does not accept it, or if the numbers differ.
    """
    if not can_slice(x):
        raise ValueError(
            "`x` must be an array with a rows axis, or dicts, lists and tuples of such arrays; "
            f"give `predict` anything else as it is. Received: type(x)={type(x)}"
        )
    lengths: dict[str, int] = {
        "x" + "".join(f"[{key!r}]" for key in path): array.shape[0]
        for path, array in keras.tree.flatten_with_path(x)
    }
    rows = min(lengths.values())
    if rows != max(lengths.values()):
        received = ", ".join(f"len({name})={length}" for name, length in lengths.items())
        raise ValueError(
            "All arrays must have the same number of rows; cut the longer ones. "
            f"Received: {received}"
        )
    return rows


class RowSlices:
    """Rows of arrays in batches, each iteration from the first one.

    The model is given the batches of `model.predict(x, batch_size)`: floats as `floatx`, the
    structure of `x`, at the end a batch of the rows that are left. `x` is never copied as a whole.
    A thread reads ahead of the model.

    Not for a model under a `tf.distribute` strategy, which distributes `tf.data` only.

    Args:
        x: What `can_slice` accepts.
        batch_size: Int. Rows of a batch.
        first_row: Int. Row to begin at. Defaults to 0.
        rows: Int. Number of rows to give. Defaults to `None`, which gives all that follow.
        fill: Bool. Whether the last batch is filled up with copies of its last row, as devices need
            that share each batch. Defaults to `False`.
        read_ahead_bytes: Int. About how much of `x` may be in memory if it is on disk; the batch in
            use and the next one always are. Defaults to 32 MiB.
        reader: Executor with the thread that reads. Defaults to `None`, for one of its own.

    Attributes:
        first_row: As given.
        batch_size: As given.
        rows: Int. Number of rows that are given.

    Raises:
        ValueError: See `count_rows`, and if an argument is out of range.

    Example:

    ```python
    with h5py.File("images.h5") as file:
        slices = RowSlices(file["images"], batch_size=256, first_row=10_000)
        with contextlib.closing(slices):
            for batch in slices:
                model.predict_on_batch(batch)
    ```
    """

    def __init__(
        self,
        x: Any,
        batch_size: int,
        *,
        first_row: int = 0,
        rows: int | None = None,
        fill: bool = False,
        read_ahead_bytes: int = 32 * 1024 * 1024,
        reader: ThreadPoolExecutor | None = None,
    ) -> None:
        total = count_rows(x)
        self.first_row = first_row
        self.rows = total - first_row if rows is None else rows
        if first_row < 0 or self.rows < 1 or first_row + self.rows > total:
            raise ValueError(
                f"`first_row` and `rows` must choose at least one of the {total} rows, and no "
                f"others. Received: first_row={first_row}, rows={rows}"
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be positive. Received: batch_size={batch_size}")
        self.batch_size = batch_size
        self._fill = fill
        self._reader = reader
        self._readers: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()
        self._arrays = keras.tree.flatten(x)
        self._numbers = keras.utils.pack_x_y_sample_weight(numbered(x))
        if keras.backend.backend() == "tensorflow":  # `tf.data` would make tuples of lists
            self._numbers = keras.tree.lists_to_tuples(self._numbers)
        self._is_on_disk = any(map(_is_on_disk, self._arrays))
        # An eighth: one is read, cast and made a tensor while one is in use and one about to go.
        block_bytes = read_ahead_bytes // 8 if self._is_on_disk else _BLOCK_BYTES
        row_bytes = sum(
            read_rows(array, range(first_row, first_row + 1)).nbytes for array in self._arrays
        )
        self._block_rows = batch_size * max(block_bytes // max(batch_size * row_bytes, 1), 1)

    @property
    def num_batches(self) -> int:
        """Number of batches."""
        return math.ceil(self.rows / self.batch_size)

    def rows_of_batches(self) -> Iterator[int]:
        """The number of rows of each batch, without those that fill it up."""
        return (len(part) for part in _cut(range(self.rows), self.batch_size))

    def __iter__(self) -> Iterator[Any]:
        parts = _cut(range(self.first_row, self.first_row + self.rows), self._block_rows)
        blocks = read_ahead(self._read_block, parts, self._reader)
        self._readers.add(blocks)
        return itertools.chain.from_iterable(blocks)

    def close(self) -> None:
        """Ends every iteration, and its thread.

        Needed only after a `predict` that was interrupted: Keras's loop refers to itself, so that
        what it holds would stay until Python's next garbage collection.
        """
        for blocks in self._readers:
            blocks.close()

    def _read_block(self, rows: range) -> Iterable[Any]:
        try:
            return self._read_batches(rows)
        except Exception:  # noqa: BLE001 - raised again, at the batch that it is about
            parts = _cut(rows, self.batch_size)
            return (batch for part in parts for batch in self._read_batches(part))

    def _read_batches(self, rows: range) -> Iterable[Any]:
        missing = -len(rows) % self.batch_size if self._fill else 0
        columns = [
            self._split(_filled_up(read_rows(array, rows), missing)) for array in self._arrays
        ]
        batches = zip(*columns, strict=True)
        return [filled(self._numbers, batch) for batch in batches]

    def _split(self, array: Any) -> Sequence[Any]:
        split = np.split
        if keras.backend.backend() in ("tensorflow", "torch"):
            # Parts share the memory of one tensor; a tensor of each takes ten times as long.
            array, split = keras.ops.convert_to_tensor(array), keras.ops.split
        rows, size = len(array), self.batch_size
        if rows <= size:
            return [array]
        cuts = list(range(size, rows, size)) if rows % size else rows // size
        parts: Sequence[Any] = split(array, cuts)
        return parts


def _filled_up(array: np.ndarray, missing: int) -> np.ndarray:
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _cut(rows: range, size: int) -> Iterator[range]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _is_array(leaf: Any) -> bool:
    # Sparse and ragged tensors have no `__array__`, symbolic ones no number of rows.
    is_sliced = hasattr(leaf, "__array__") and hasattr(leaf, "__getitem__")
    shape: Any = (getattr(leaf, "shape", None) or ()) if is_sliced else ()
    return len(shape) > 0 and isinstance(shape[0], int)


def _is_on_disk(array: Any) -> bool:
    # Every framework's arrays have `__dlpack__`, those of pandas `iloc`.
    is_in_memory = hasattr(array, "__dlpack__") or hasattr(array, "iloc")
    return not is_in_memory or isinstance(array, np.memmap)


def read_rows(array: Any, rows: range) -> np.ndarray:
    """Rows as an array, with the type that Keras gives to models."""
    key = slice(rows.start, rows.stop)
    if hasattr(array, "iloc"):
        return read_frame(array.iloc[key])
    values = to_numpy(array[key])
    if values.dtype.kind in TEXT_KINDS:
        return as_text(values)
    if is_other_float(values.dtype):
        return values.astype(keras.config.floatx())
    # Nothing is read of a memory map before it is copied.
    return values.copy() if isinstance(array, np.memmap) else values
