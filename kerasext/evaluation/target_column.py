"""The target of each row, in whatever form it was stored."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasext.storage import (
    TARGETS,
    TEXT_KINDS,
    Head,
    RaggedOutput,
    output_path,
)

MOST_LABEL = 2**31 - 1
"""The largest number that may be meant for a class, before it is looked at whether it is one."""


class TargetColumn:
    """Targets in the shape of the labels that they are compared with, read some rows at a time.

    Args:
        predictions: Mapping from name to column or output: the file.
        head: The head that is evaluated.
        targets: As `evaluate` takes them.

    Attributes:
        classes: Int. Number of classes, `None` if one-hot targets don't show it either.
        row_size: Int. Numbers that are read for each row.

    Raises:
        TypeError: If the targets are neither numbers nor the name of a column.
        ValueError: If there are none, or of another shape than those of the labels.
    """

    def __init__(
        self,
        predictions: Mapping[str, Any],
        head: Head,
        targets: Any,
    ) -> None:
        labels_shape, classes = head.require("labels").shape, head.classes
        is_multilabel = head.is_multilabel
        self._name, self._values = find_targets(predictions, head, targets)
        shape, dtype = tuple(self._values.shape), np.dtype(self._values.dtype)
        self._numbers = self._numbers_of_names(head) if dtype.kind in TEXT_KINDS else None
        if dtype.kind not in "biuf" and self._numbers is None:
            raise TypeError(
                "Targets must be the numbers of the classes, or 0 and 1 for each. "
                f"Received: targets {self._name} of dtype {dtype}"
            )
        self._shape = labels_shape[1:]
        has_axis = len(shape) == len(labels_shape) + 1 and not is_multilabel
        self._is_one_hot = has_axis and shape[-1] > 1
        self.classes = classes or (shape[-1] if self._is_one_hot else None)
        if (shape[:-1] if has_axis else shape) != labels_shape or (
            self._is_one_hot and shape[-1] != self.classes
        ):
            axis = f"1 or {classes}" if classes else "1, or of the classes"
            more = "" if is_multilabel else f", or one more axis, of length {axis}"
            raise ValueError(
                f"Targets must have the shape of the labels, {labels_shape}{more}. "
                f"Received: targets {self._name} of shape {shape}"
            )
        self.row_size = int(np.prod(shape[1:], dtype=np.int64))

    def read(self, rows: slice) -> np.ndarray:
        """Targets of some rows.

        Args:
            rows: Slice.

        Returns:
            Array of the shape of the labels of these rows, int64, of numbers that are not negative.

        Raises:
            ValueError: If a number is not whole, or negative, or not exactly one of an axis of
                classes is 1.
        """
        values = np.asarray(self._values[rows])
        if self._numbers is not None:
            values = self._translated(values)
        if (
            values.dtype.kind == "f"
            and not (np.isfinite(values) & (values == np.rint(values))).all()
        ):
            self._refuse("whole numbers, not probabilities or measurements", values)
        if values.min() < 0 or int(values.max()) > MOST_LABEL:
            self._refuse("numbers of classes; rows without one can be left out by `keep`", values)
        if self._is_one_hot:
            if values.max() > 1 or (values.sum(axis=-1) != 1).any():
                self._refuse("one 1 and otherwise 0 on the axis of the classes", values)
            values = values.argmax(axis=-1)
        truth: np.ndarray = values.astype(np.int64).reshape(-1, *self._shape)
        return truth

    def _numbers_of_names(self, head: Head) -> dict[str, int]:
        names = head.class_names
        if names is None or head.is_multilabel:
            rule, received = "the file has `class_names`", "a file without `class_names`"
            if head.is_multilabel:
                rule, received = "each row has one label", "several labels a row"
            raise TypeError(
                f"Targets can be names of classes only if {rule}; pass their numbers, "
                f"`evaluate(..., targets=numbers)`. Received: {received}, and targets {self._name} "
                "that are text"
            )
        numbers = {name: number for number, name in enumerate(names)}
        if len(numbers) < len(names):
            raise ValueError(
                "Targets can be names of classes if no two have the same; pass their numbers. "
                f"Received: class_names={list(names)}"
            )
        return numbers

    def _translated(self, values: np.ndarray) -> np.ndarray:
        """The numbers of the classes of these names."""
        assert self._numbers is not None
        if values.dtype.kind == "S":
            values = np.char.decode(values, "utf-8")
        found, inverse = np.unique(values.astype(np.str_), return_inverse=True)
        for name in found.tolist():
            if name not in self._numbers:
                near = difflib.get_close_matches(name, self._numbers, n=1)
                remedy = f"; the nearest is {near[0]!r}" if near else ""
                raise ValueError(
                    f"Targets must be names in `class_names`{remedy}. "
                    f"Received: targets {self._name} with {name!r}"
                )
        numbers = np.array([self._numbers[name] for name in found.tolist()], np.int64)
        return numbers[inverse].reshape(values.shape)

    def _refuse(self, rule: str, values: np.ndarray) -> None:
        raise ValueError(
            f"Targets must be {rule}. Received: targets {self._name} from {values.min()} to "
            f"{values.max()}"
        )


def find_targets(predictions: Mapping[str, Any], head: Head, targets: Any) -> tuple[str, Any]:
    """The targets that `evaluate` was given, or those of the head.

    Returns:
        Tuple of their name, for messages, and of an array or what reads one.

    Raises:
        ValueError: If the file has no such column, or its rows differ in shape.
    """
    if targets is not None and not isinstance(targets, str):
        is_array = hasattr(targets, "shape") and hasattr(targets, "dtype")
        return "in `targets`", targets if is_array else np.asarray(targets)
    found = predictions.get(targets) if targets else head.targets
    if isinstance(found, RaggedOutput):
        raise ValueError(
            "Rows of different shapes can't be evaluated; predict with padding. "
            f"Received: targets {found.name!r} of shape {found.shape}"
        )
    if found is not None:
        return repr(found.name), found
    wanted = targets or (output_path(TARGETS, head.name) if head.name else TARGETS)
    nested = [name for name in predictions if name.startswith(f"{TARGETS}/")]
    raise ValueError(
        f"The file must have the column {wanted!r}; predict with `targets=True`, or an array, "
        "of `HDF5PredictionWriter` or `predict_to_hdf5` to store it, or pass `targets`, the name "
        "of another column or an array. "
        f"Received: a file with {nested if nested and not targets else sorted(predictions)}"
    )
