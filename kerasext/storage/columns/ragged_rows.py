"""Rows that differ in shape, as they pass between the layers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class RaggedRows:
    """Rows of different shapes, and of one dtype and number of axes; not to be changed.

    Args:
        values: Array of shape `(numbers,)`. All numbers of all rows, each row in C order.
        row_shapes: Array of shape `(rows, axes)`, int64. The shape of each row.

    Raises:
        ValueError: If the shapes are not those of so many numbers.
    """

    def __init__(self, values: np.ndarray, row_shapes: np.ndarray) -> None:
        self.values, self.row_shapes = values, row_shapes
        if (
            values.ndim != 1
            or row_shapes.ndim != 2
            or row_shapes.dtype != np.int64
            or (row_shapes.size and row_shapes.min() < 0)
            or self.row_splits[-1] != len(values)
        ):
            raise ValueError(
                "`row_shapes` must be int64 of shape (rows, axes), and shapes of all numbers in "
                f"`values` of shape (numbers,). Received: values.shape={values.shape}, "
                f"row_shapes of shape {row_shapes.shape}, dtype={row_shapes.dtype}"
            )

    @classmethod
    def of(cls, rows: np.ndarray | RaggedRows) -> RaggedRows:
        """The rows of a dense array of shape `(rows, ...)`, which has one axis more at least."""
        if isinstance(rows, RaggedRows):
            return rows
        shapes = np.empty((len(rows), rows.ndim - 1), np.int64)
        shapes[:] = rows.shape[1:]
        return cls(rows.reshape(-1), shapes)

    @classmethod
    def concatenate(cls, parts: Sequence[np.ndarray | RaggedRows]) -> RaggedRows:
        """The rows of several, one after the other.

        Raises:
            TypeError: If they differ in dtype.
            ValueError: If they differ in the number of axes.
        """
        ragged = [cls.of(part) for part in parts]
        values = [part.values for part in ragged]
        return cls(
            np.concatenate(values, dtype=values[0].dtype, casting="no"),
            np.concatenate([part.row_shapes for part in ragged]),
        )

    @functools.cached_property
    def row_splits(self) -> np.ndarray:
        """Array of shape `(rows + 1,)`, int64: where each row begins, and where the last ends."""
        splits = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.prod(self.row_shapes, axis=1), out=splits[1:])
        return splits

    def axis_splits(self) -> list[np.ndarray]:
        """Of each axis, int64: where the lists along it begin in those of the next, or the values.

        So Arrow and ragged tensors of TensorFlow have rows as lists of lists.
        """
        counts = np.ones(len(self), np.int64)
        found = []
        for axis in range(self.axes):
            lengths = np.repeat(self.row_shapes[:, axis], counts)
            found.append(np.concatenate([[0], np.cumsum(lengths)]))
            counts *= self.row_shapes[:, axis]
        return found

    @property
    def axes(self) -> int:
        """Number of axes of a row."""
        return int(self.row_shapes.shape[1])

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Number of rows, and `None` for each axis of a row."""
        return (len(self), *[None] * self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take in a file, before compression."""
        shapes = self.row_shapes.nbytes if self.axes > 1 else 0
        return self.values.nbytes + 8 * len(self) + shapes

    def astype(self, dtype: np.dtype[Any]) -> RaggedRows:
        """The same rows in another dtype."""
        return RaggedRows(self.values.astype(dtype, copy=False), self.row_shapes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError("Rows of different shapes are no array. Received: RaggedRows")

    def __len__(self) -> int:
        return len(self.row_shapes)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The array of each row."""
        splits = self.row_splits
        return iter(cut(self.values, splits[:-1], splits[1:], self.row_shapes))

    def __getitem__(self, rows: slice | np.ndarray) -> RaggedRows:
        """Some of the rows, by a slice without a step or a boolean mask."""
        if isinstance(rows, np.ndarray):
            lengths = np.diff(self.row_splits)
            return RaggedRows(self.values[np.repeat(rows, lengths)], self.row_shapes[rows])
        start, stop, _ = rows.indices(len(self))
        stop = max(start, stop)
        splits = self.row_splits
        return RaggedRows(self.values[splits[start] : splits[stop]], self.row_shapes[start:stop])


def join_ragged(parts: Sequence[np.ndarray | RaggedRows]) -> np.ndarray | RaggedRows:
    """The rows of several, one after the other: an array if all of them are, of one shape.

    Raises:
        TypeError: If they differ in dtype.
        ValueError: If they differ in the number of axes.
    """
    dense = [part for part in parts if not isinstance(part, RaggedRows)]
    if len(dense) == len(parts) and len({part.shape[1:] for part in dense}) == 1:
        return np.concatenate(dense, dtype=dense[0].dtype, casting="no")
    return RaggedRows.concatenate(parts)


def cut(
    values: np.ndarray, starts: np.ndarray, ends: np.ndarray, shapes: np.ndarray
) -> list[np.ndarray]:
    """The rows that begin and end at such places of `values`, in their shapes."""
    places = zip(starts.tolist(), ends.tolist(), shapes.tolist(), strict=True)
    return [values[start:end].reshape(shape) for start, end, shape in places]
