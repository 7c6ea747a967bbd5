"""The threshold above which a probability becomes a yes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasext.calibration.arguments import (
    check_choice,
    checked_probabilities,
    checked_targets,
)
from kerasext.calibration.result import (
    Numbers,
    Result,
    check_numbers,
    check_row_count,
    check_same_length,
    shown,
)

METRICS = ("f1", "youden")


@dataclass(frozen=True)
class ThresholdChoice(Result):
    """The threshold with the largest metric on some rows.

    Attributes:
        threshold: Float, or tuple of floats per label. A label is 1 if its probability is above it.
        metric: String. `"f1"` or `"youden"`.
        rows: Int. Rows that were fitted, without those that have NaN.
        value_before: Float, or tuple. The metric at the threshold before, on the fitted rows; NaN
            of labels that could not be fitted.
        value_after: Float, or tuple. The metric at `threshold`, on the fitted rows.
    """

    threshold: Numbers
    metric: str
    rows: int
    value_before: Numbers
    value_after: Numbers

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        check_numbers("threshold", self.threshold, 0, 1)
        check_row_count(self.rows)
        for name in ("value_before", "value_after"):
            value = getattr(self, name)
            check_numbers(name, value, -1, 1, may_be_nan=True)
            check_same_length("threshold", self.threshold, name, value)

    def __str__(self) -> str:
        kept = self.labels_without_fit
        same = f"\nkept, because only one class occurs: labels {[*kept]}" if kept else ""
        return (
            f"threshold {shown(self.threshold)}, fitted on {self.rows:,} rows\n"
            f"{self.metric} {shown(self.value_before)} -> {shown(self.value_after)}{same}"
        )

    @property
    def labels_without_fit(self) -> tuple[int, ...]:
        """Numbers of the labels that keep their threshold, because all targets are the same."""
        if not isinstance(self.value_after, tuple):
            return ()
        return tuple(k for k, value in enumerate(self.value_after) if math.isnan(value))


def fit_threshold(
    probabilities: Any,
    targets: Any,
    *,
    metric: str = "f1",
    before: Numbers = 0.5,
    several_labels: bool,
) -> ThresholdChoice:
    """Finds the threshold with the largest metric, out of all that change a label.

    A label is 1 if its probability is above the threshold, compared as float32. The threshold lies
    halfway between two probabilities that occur. Of equally good ones it is the nearest to the
    threshold before, which stays if it is as good as any.

    Args:
        probabilities: Float array of shape `(rows, ...)`, at least float32: the probability of
            class 1; of several labels of shape `(rows, ..., labels)`. Positions with NaN are left
            out.
        targets: Integer array of the same shape. 0 or 1.
        metric: String. `"f1"`, scikit-learn's `f1_score` of class 1; or `"youden"`, recall plus
            specificity minus 1: Youden, "Index for rating diagnostic tests" (1950). Defaults to
            `"f1"`.
        before: Float, or tuple of floats per label. The threshold so far. Defaults to 0.5.
        several_labels: Bool. Whether the last axis is of labels, which have a threshold each.
            Labels whose targets are all the same keep their threshold.

    Returns:
        `ThresholdChoice`.

    Raises:
        ValueError: If an argument is not possible, or all targets are the same.

    Example:

    ```python
    choice = fit_threshold(probabilities[:, 1], targets, metric="f1", several_labels=False)
    labels = probabilities[:, 1] > choice.threshold
    ```
    """
    check_choice("metric", metric, METRICS)
    values = np.minimum(checked_probabilities(probabilities).astype(np.float32), np.float32(1))
    if values.ndim < 1 + several_labels:
        raise ValueError(
            "`probabilities` must have the labels on the last axis. "
            f"Received: probabilities.shape={values.shape}"
        )
    truth = checked_targets(targets, values.shape, classes=2) == 1
    labels = values.shape[-1] if several_labels else 1
    _check_before(before, labels if several_labels else 0)
    unknown = np.isnan(values.reshape(len(values), -1, labels))
    known = ~unknown.any(axis=-1)
    rows = int(np.any(known, axis=1).sum())
    values, truth = (array.reshape(-1, labels)[known.ravel()] for array in (values, truth))
    if (truth == truth[0]).all():
        raise ValueError(
            "`targets` must have 0 and 1, of one label at least; add rows of the other class. "
            f"Received: only {truth[0].astype(int).tolist()}"
        )
    found = [
        _best_threshold(values[:, k], truth[:, k], metric, float(start))
        for k, start in enumerate(np.broadcast_to(before, labels))
    ]
    threshold, value_before, value_after = (tuple(column) for column in zip(*found, strict=True))
    if not several_labels:
        return ThresholdChoice(threshold[0], metric, rows, value_before[0], value_after[0])
    return ThresholdChoice(threshold, metric, rows, value_before, value_after)


def _check_before(before: Any, labels: int) -> None:
    """Raises `ValueError` if the threshold before is none."""
    shapes = [(), (labels,)] if labels else [()]
    check_numbers("before", tuple(before) if isinstance(before, list) else before, 0, 1)
    if np.shape(before) not in shapes:
        raise ValueError(
            "`before` must be one number, or one for each of several labels. "
            f"Received: before={before!r}"
        )


def _best_threshold(
    values: np.ndarray, truth: np.ndarray, metric: str, before: float
) -> tuple[float, float, float]:
    """The threshold of one label, and the metric before and after.

    Args:
        values: Float32 array of shape `(positions,)`.
        truth: Bool array of the same shape.
        metric: String.
        before: Float. The threshold so far.
    """
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return before, math.nan, math.nan
    order = np.argsort(values)
    ordered = values[order]
    # The first of each group of equal probabilities; a threshold lies before one, or at the end.
    starts = np.append(np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])), len(values))
    missed = np.append(0, np.cumsum(truth[order]))[starts]
    lower = np.append(np.float32(0), ordered[starts[1:] - 1])
    upper = np.append(ordered[starts[:-1]], np.float32(1))
    middle = (lower.astype(np.float64) + upper) / 2
    halfway = middle.astype(np.float32)
    # The half of two neighbours may round up to the upper one, which must be above it.
    halfway = np.where(halfway < upper, halfway, lower)
    scores = _metric(metric, missed, starts, positives, negatives)
    scores[~(halfway < upper) & (starts < len(values))] = -np.inf  # no threshold is below 0
    place = int(np.searchsorted(ordered, np.float32(before), side="right"))
    value_before = float(scores[np.searchsorted(starts, place)])
    best = float(scores.max())
    if value_before == best:
        return before, value_before, best
    candidates = halfway[scores == best].astype(float)
    return float(candidates[np.argmin(np.abs(candidates - before))]), value_before, best


def _metric(
    metric: str, missed: np.ndarray, below: np.ndarray, positives: int, negatives: int
) -> np.ndarray:
    """The metric of several thresholds, from the positives and all values that are not above."""
    hits, correct = positives - missed, below - missed
    false_alarms = negatives - correct
    if metric == "youden":
        scores: np.ndarray = hits / positives - false_alarms / negatives
    else:
        scores = 2 * hits / (2 * hits + false_alarms + missed)
    return scores
