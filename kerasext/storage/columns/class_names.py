"""From labels to names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self, overload

import numpy as np


class ClassNames(Sequence[str]):
    """Names of the classes, indexed by labels.

    Unlike a plain array it never wraps around: the label -1, which a row with NaN has, is the empty
    string.

    Args:
        names: Iterable of strings, one per class.

    Example:

    ```python
    names = ClassNames(["cat", "dog"])
    names[1]           # "dog"
    names[[1, 0, -1]]  # array(["dog", "cat", ""])
    ```
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = np.array([*map(str, names), ""])

    @classmethod
    def of_attribute(cls, value: Any) -> Self:
        """The names that an attribute of a file has.

        Args:
            value: What h5py reads: an array of shape `(classes,)` of bytes.

        Raises:
            ValueError: If it is something else, or no UTF-8.
        """
        if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind != "S":
            raise ValueError("must be a list of text of a fixed width")
        return cls(name.decode() for name in value)

    @overload
    def __getitem__(self, labels: int) -> str: ...
    @overload
    def __getitem__(self, labels: Any) -> Any: ...
    def __getitem__(self, labels: Any) -> Any:
        """Names of labels.

        Args:
            labels: Int, or integer array of any shape; or a boolean array of shape `(classes,)`,
                such as one row of multi-label indicators compared with 1; or a slice.

        Returns:
            String for an int, else array of strings of the shape of `labels`.

        Raises:
            IndexError: If a label is smaller than -1 or not smaller than the number of classes.
        """
        if isinstance(labels, slice):
            return self._names[:-1][labels]
        index = np.asarray(labels)
        if index.dtype == bool or index.size == 0:
            return self._names[:-1][
                index.astype(bool) if index.dtype == bool else index.astype(int)
            ]
        if index.min() < -1 or index.max() >= len(self):
            raise IndexError(
                f"Labels must be -1 (no label) or from 0 to {len(self) - 1}. "
                f"Received: labels from {index.min()} to {index.max()}"
            )
        names = self._names[index]
        return str(names) if names.ndim == 0 else names

    def __len__(self) -> int:
        return len(self._names) - 1

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Iterable):
            return False
        return list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._names[:-1], dtype=dtype, copy=True if copy is None else copy)

    def __repr__(self) -> str:
        return f"ClassNames({self._names[:-1].tolist()})"
