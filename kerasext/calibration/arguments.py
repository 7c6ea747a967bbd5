"""Checks of the arguments of the fitting functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

TASKS = ("classifier", "binary", "multilabel")

_BLOCK_NUMBERS = 2**20  # 8 MiB of float64; the fits hold a few such arrays at a time
_ROUNDING = 1e-3  # by which sums of probabilities may differ from 1


def row_blocks(rows: int, numbers_per_row: int) -> Iterator[slice]:
    """Slices from the first row to the last, each of about a million numbers at most."""
    size = max(_BLOCK_NUMBERS // max(numbers_per_row, 1), 1)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def listed(numbers: Sequence[int] | np.ndarray) -> str:
    """Numbers of classes or labels for a message, ten of them at most."""
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    return ", ".join(map(str, numbers[:10])) + more


def check_share(name: str, value: Any) -> None:
    """Raises `ValueError` if a level or risk is not between 0 and 1."""
    is_number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 < value < 1:
        raise ValueError(
            f"`{name}` must be a number between 0 and 1, both excluded, such as 0.9 or 0.05. "
            f"Received: {name}={value!r}"
        )


def check_task(task: Any) -> None:
    """Raises `ValueError` if a task has no classes."""
    if task not in TASKS:
        raise ValueError(
            f"`task` must be one of {list(TASKS)}; other heads have no probabilities. "
            f"Received: task={task!r}"
        )


def check_choice(name: str, value: Any, choices: tuple[str, ...], of: str = "") -> None:
    """Raises `ValueError` if a method or metric is none of those there are."""
    if value not in choices:
        raise ValueError(f"`{name}`{of} must be one of {list(choices)}. Received: {name}={value!r}")


def checked_rows(probabilities: Any, targets: Any, task: str) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities and targets of a head as arrays that fit each other.

    Args:
        probabilities: Array of shape `(rows, ..., classes)`, or `(rows, ..., labels)`.
        targets: Integer array of shape `(rows, ...)`, or `(rows, ..., labels)`.
        task: String. One of `TASKS`.

    Raises:
        ValueError: If they are not.
    """
    check_task(task)
    values = checked_probabilities(probabilities)
    fewest = {"classifier": 2, "binary": 2, "multilabel": 1}[task]
    units = values.shape[-1] if values.ndim > 1 else 0
    if units < fewest or (task == "binary" and units != 2):
        wanted = {
            "classifier": "(rows, ..., classes), with two classes or more",
            "binary": "(rows, ..., 2), with the column of class 0 first",
            "multilabel": "(rows, ..., labels)",
        }[task]
        raise ValueError(
            f"`probabilities` of the task {task!r} must have the shape {wanted}. "
            f"Received: probabilities.shape={values.shape}"
        )
    is_multilabel = task == "multilabel"
    shape = values.shape if is_multilabel else values.shape[:-1]
    truth = checked_targets(targets, shape, classes=2 if is_multilabel else units)
    if not is_multilabel:
        total = values.sum(axis=-1, dtype=np.float64)
        off = np.fmax.reduce(np.abs(total - 1), axis=None)
        if off > _ROUNDING:
            raise ValueError(
                "`probabilities` must sum to 1 on the last axis; apply a softmax to logits first. "
                f"Received: a sum that is {off:.3g} off"
            )
    return values, truth


def checked_probabilities(probabilities: Any, name: str = "probabilities") -> np.ndarray:
    """Probabilities or confidences as an array in [0, 1], NaN allowed.

    Raises:
        ValueError: If they are no floats of at least single precision, none, or out of range.
    """
    values = np.asarray(probabilities)
    if values.dtype.kind != "f" or values.dtype.itemsize < 4:
        raise ValueError(
            f"`{name}` must be float32 or float64, because lower precision rounds what is near 0 "
            "and 1 and distorts the fit; predict again without reduced precision. "
            f"Received: {name}.dtype={values.dtype}"
        )
    if not values.size:
        raise ValueError(
            f"`{name}` must have at least one row; predict some. Received: "
            f"{name}.shape={values.shape}"
        )
    least, most = np.fmin.reduce(values, axis=None), np.fmax.reduce(values, axis=None)
    if np.isnan(least):
        raise ValueError(f"`{name}` must not all be NaN; check the model. Received: only NaN")
    if least < 0 or most > 1 + _ROUNDING:
        raise ValueError(
            f"`{name}` must be in [0, 1]; apply a softmax or sigmoid to logits first. "
            f"Received: values from {least:.6g} to {most:.6g}"
        )
    return values


def checked_targets(targets: Any, shape: tuple[int, ...], classes: int) -> np.ndarray:
    """Targets as an array of class numbers.

    Raises:
        ValueError: If they are no integers, of another shape, or none of the classes.
    """
    truth = np.asarray(targets)
    if truth.dtype.kind not in "biu":
        raise ValueError(
            "`targets` must be class numbers of an integer dtype; convert names and one-hot rows "
            f"first. Received: targets.dtype={truth.dtype}"
        )
    if truth.shape != shape:
        raise ValueError(
            f"`targets` must have the shape {shape}, one for each label that is predicted. "
            f"Received: targets.shape={truth.shape}"
        )
    least, most = int(truth.min()), int(truth.max())
    if least < 0 or most >= classes:
        raise ValueError(
            f"`targets` must be class numbers from 0 to {classes - 1}; leave out rows of other "
            f"classes. Received: numbers from {least} to {most}"
        )
    # Bools would be a mask as an index, and NumPy counts no uint64.
    return truth.astype(np.int64) if truth.dtype in (np.bool_, np.uint64) else truth


def check_several_classes(targets: np.ndarray) -> None:
    """Raises `ValueError` if all rows have the same target."""
    if targets.min() == targets.max():
        raise ValueError(
            "`targets` must have at least two classes; take rows of more classes. "
            f"Received: only class {int(targets.min())}"
        )


def check_last_axis(name: str, array: np.ndarray, number: int) -> None:
    """Raises `ValueError` if the last axis has another length than the fitted one."""
    if not array.ndim or array.shape[-1] != number:
        raise ValueError(
            f"`{name}` must have {number} values on the last axis, as the rows that were fitted. "
            f"Received: {name}.shape={array.shape}"
        )
