"""From probabilities to logits and back, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kerasext.calibration.arguments import row_blocks

SMALLEST = float(np.finfo(np.float32).tiny)
"""The least probability that has a logarithm of its own: smaller ones count as this one."""

SMALLEST_COMPLEMENT = 2.0**-25
"""The least `1 - p` of a label: half of the distance from 1 to the next smaller float32.

A sigmoid in float32 is 1.0 from a logit of 17 on. With `SMALLEST` these labels would get the logit
87, and a single wrong one among them would decide the fit.
"""


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Logits of a softmax, up to a constant in each row."""
    logs: np.ndarray = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))
    return logs


def log_odds_of_columns(probabilities: np.ndarray) -> np.ndarray:
    """Logits of a binary head, from its two columns `(..., 2)`: shape `(...)`."""
    logs = log_probabilities(probabilities)
    odds: np.ndarray = logs[..., 1] - logs[..., 0]
    return odds


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Logits of labels that are decided one by one."""
    complement = 1 - np.asarray(probabilities, np.float64)
    logs = np.log(np.maximum(complement, SMALLEST_COMPLEMENT))
    odds: np.ndarray = log_probabilities(probabilities) - logs
    return odds


def centred(logits: np.ndarray) -> np.ndarray:
    """Logits minus their mean in each row.

    Vector scaling is defined on these: its result would otherwise depend on the constant up to
    which logits are known from probabilities.
    """
    mean = logits.mean(axis=-1, keepdims=True)
    difference: np.ndarray = logits - mean
    return difference


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities on the last axis."""
    powers: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    powers /= powers.sum(axis=-1, keepdims=True)
    return powers


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of class 1, with all digits of the small ones."""
    power = np.exp(-np.abs(logits))
    probability: np.ndarray = np.where(logits >= 0, 1, power) / (1 + power)
    return probability


class LogProbabilities:
    """Log probabilities of rows, computed when a block of rows is read.

    So the fits need no second array of the size of the data.

    Args:
        probabilities: Float array of shape `(rows, classes)`.
    """

    def __init__(self, probabilities: np.ndarray) -> None:
        self._probabilities = probabilities
        self.shape = probabilities.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return log_probabilities(self._probabilities[rows])


Logits = np.ndarray | LogProbabilities


def by_blocks(
    function: Callable[[np.ndarray], np.ndarray], probabilities: Any, name: str = "probabilities"
) -> np.ndarray:
    """Applies a function of rows `(rows, classes)` to an array, a block of rows at a time.

    Returns:
        Array of the shape and dtype given, at least float32.

    Raises:
        ValueError: If the array has no floats.
    """
    values = np.asarray(probabilities)
    if values.dtype.kind in "biu" or values.dtype.kind not in "fV":
        raise ValueError(
            f"`{name}` must be floats; integers are no probabilities. "
            f"Received: {name}.dtype={values.dtype}"
        )
    flat = values.reshape(-1, values.shape[-1])
    result = np.empty(flat.shape, np.result_type(values.dtype, np.float32))
    for rows in row_blocks(*flat.shape):
        result[rows] = function(flat[rows])
    return result.reshape(values.shape)
