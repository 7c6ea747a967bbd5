"""How far predicted numbers are from what is true."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasext.evaluation.counts import MOST_ROWS, read_blocks
from kerasext.evaluation.target_column import find_targets
from kerasext.storage import Head, PredictionFile, RaggedOutput

_ERRORS = ("mean_absolute_error", "root_mean_squared_error", "r2")


@dataclass(frozen=True, eq=False)
class RegressionEvaluation:
    """How good the numbers that a regressor predicts are. `evaluate` makes it.

    Where `prediction` has an axis after the rows, each place on its last axis is one unit. The
    figures are the means over units of those of each, as scikit-learn's of arrays of shape
    `(samples, units)`.

    Attributes:
        rows: Int. Rows that were read.
        count: Int. Numbers that were compared with targets, all units together.
        missing: Int. Numbers that were not, because the prediction or its target is NaN.
        mean_absolute_error: Float. Equal to scikit-learn's `mean_absolute_error`.
        root_mean_squared_error: Float. Equal to scikit-learn's `root_mean_squared_error`.
        r2: Float. Equal to scikit-learn's `r2_score`: 1 if all predictions are right, 0 if they
            are as good as the mean of the targets. If all targets are equal, it is 1 or 0.
        by_unit: Dict with the keys `"mean_absolute_error"`, `"root_mean_squared_error"` and
            `"r2"`: arrays of shape `(units,)`, float64.

    All figures are NaN for a unit without numbers; `r2` needs two.
    """

    rows: int
    count: int
    missing: int
    mean_absolute_error: float
    root_mean_squared_error: float
    r2: float
    by_unit: dict[str, np.ndarray] = field(repr=False)


def evaluate_regression(
    predictions: PredictionFile, head: Head, targets: Any = None, *, batch_rows: int = MOST_ROWS
) -> RegressionEvaluation:
    """Compares the numbers of a head with targets, in constant memory: see `evaluate`."""
    output = head.require("prediction")
    if output.dtype.kind not in "biuf" or isinstance(output, RaggedOutput) or 0 in output.shape:
        raise ValueError(
            "Predictions must be numbers, at least one, and of one shape in all rows. "
            f"Received: {output.name!r} of dtype {output.dtype} and shape {output.shape}"
        )
    name, true = find_targets(predictions, head, targets)
    shape, dtype = tuple(true.shape), np.dtype(true.dtype)
    if dtype.kind not in "biuf":
        raise TypeError(f"Targets must be numbers. Received: targets {name} of dtype {dtype}")
    if shape not in (output.shape, (*output.shape, 1)):
        raise ValueError(
            f"Targets must have the shape of the predictions, {output.shape}, or one more axis of "
            f"length 1. Received: targets {name} of shape {shape}"
        )
    units = output.shape[-1] if output.ndim > 1 else 1
    sums = ErrorSums(units)
    for rows, predicted in read_blocks(output, most_rows=batch_rows):
        values = np.asarray(true[rows])
        if np.isinf(values).any():
            raise ValueError(
                f"Targets must be finite, or NaN where unknown. Received: targets {name} with inf"
            )
        sums.add(values.reshape(-1, units), predicted.reshape(-1, units))
    return sums.result(len(output))


class ErrorSums:
    """Adds up errors by unit, batch for batch.

    Args:
        units: Int. Numbers that are predicted for each sample.
    """

    def __init__(self, units: int) -> None:
        self._samples = 0
        self._known = np.zeros(units, np.int64)
        self._absolute, self._squared, self._mean, self._spread = np.zeros((4, units))

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Adds samples, leaving out where one of the two is NaN.

        Args:
            truth: Array of shape `(samples, units)`.
            predicted: Array of the same shape.
        """
        truth = truth.astype(np.float64)
        errors = predicted.astype(np.float64) - truth
        unknown = np.isnan(errors)
        added = len(errors) - unknown.sum(axis=0)
        total = np.maximum(self._known + added, 1)
        errors[unknown] = truth[unknown] = 0
        self._absolute += np.abs(errors).sum(axis=0)
        self._squared += np.square(errors).sum(axis=0)
        # Chan, Golub and LeVeque, "Updating Formulae" (1979): a sum of squares would lose digits.
        means = truth.sum(axis=0) / np.maximum(added, 1)
        spread = np.square(np.where(unknown, 0, truth - means)).sum(axis=0)
        shift = means - self._mean
        self._spread += spread + np.square(shift) * self._known * added / total
        self._mean += shift * added / total
        self._known += added
        self._samples += len(errors)

    def result(self, rows: int) -> RegressionEvaluation:
        """The figures of all samples that were added."""
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(self._spread > 0, 1 - self._squared / self._spread, self._squared == 0)
            figures = (
                self._absolute / self._known,
                np.sqrt(self._squared / self._known),
                np.where(self._known > 1, r2, np.nan),
            )
        count = int(self._known.sum())
        return RegressionEvaluation(
            rows=rows,
            count=count,
            missing=self._samples * len(self._known) - count,
            by_unit=dict(zip(_ERRORS, figures, strict=True)),
            **{name: float(values.mean()) for name, values in zip(_ERRORS, figures, strict=True)},
        )
