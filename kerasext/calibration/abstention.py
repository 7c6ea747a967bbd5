"""Abstention: below which confidence a label is not given, so that few of the others are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasext.calibration.arguments import (
    check_last_axis,
    check_share,
    check_task,
    checked_probabilities,
    listed,
)
from kerasext.calibration.binomial import binomial_tail, fewest_rows
from kerasext.calibration.result import (
    Numbers,
    Result,
    as_numbers,
    check_numbers,
    check_row_count,
    check_same_length,
    check_texts,
    shown,
)

_STEPS_PER_OCTAVE = 8
_OCTAVES = 20  # of 1 - confidence: up to 0.999999
_FIRST_ERRORS, _FIRST_SHARE = 8, 0.15  # errors that the first threshold may have, of these rows

THRESHOLDS = (
    1 - 2.0 ** (-np.arange(_OCTAVES * _STEPS_PER_OCTAVE, -1, -1) / _STEPS_PER_OCTAVE)
).astype(np.float32)
"""The thresholds that are tested, from the strictest on. They must not depend on the data."""


@dataclass(frozen=True)
class Abstention(Result):
    """A threshold on confidence. Below it the model abstains.

    The promise: with a probability of `confidence_level` over the fitted rows, at most a share
    `risk` of the labels at or above the threshold is wrong, on new rows that are exchangeable with
    the fitted ones. Each label of several has a promise of its own.

    Attributes:
        threshold: Float, or tuple of floats per label. Float32 numbers.
        risk: Float in (0, 1). The share of errors that is promised.
        confidence_level: Float in (0, 1). How certain the promise is.
        rows: Int. Rows that were fitted.
        coverage: Float, or tuple per label. The share of the fitted rows that keeps its label.
        error_rate_before: Float, or tuple. The share of errors among all fitted rows; a row without
            a label is an error.
        error_rate_after: Float, or tuple. The share of errors among the rows that keep their label.
        fitted_on: String. What the model was at the time; set by the caller.
    """

    threshold: Numbers
    risk: float
    confidence_level: float
    rows: int
    coverage: Numbers
    error_rate_before: Numbers
    error_rate_after: Numbers
    fitted_on: str = ""

    def __post_init__(self) -> None:
        check_share("risk", self.risk)
        check_share("confidence_level", self.confidence_level)
        check_row_count(self.rows)
        for name in ("threshold", "coverage", "error_rate_before", "error_rate_after"):
            value = getattr(self, name)
            check_numbers(name, value, 0, 1)
            check_same_length("threshold", self.threshold, name, value)
        check_texts(fitted_on=self.fitted_on)

    def __str__(self) -> str:
        return (
            f"abstains below confidence {shown(self.threshold)}: risk {self.risk:g} at confidence "
            f"level {self.confidence_level:g}, fitted on {self.rows:,} rows\n"
            f"keeps {shown(self.coverage)} of these rows, error rate "
            f"{shown(self.error_rate_before)} -> {shown(self.error_rate_after)}"
        )

    def apply(self, confidence: Any) -> np.ndarray:
        """Where the model abstains.

        Args:
            confidence: Float array of shape `(batch, ...)`, or `(batch, ..., labels)`.

        Returns:
            Bool array of the same shape. True where confidence is below the threshold, or NaN.

        Raises:
            ValueError: If there is another number of labels.
        """
        values = np.asarray(confidence)
        if isinstance(self.threshold, tuple):
            check_last_axis("confidence", values, len(self.threshold))
        return np.logical_not(values.astype(np.float32) >= np.asarray(self.threshold, np.float32))


def fit_abstention(
    labels: Any,
    confidence: Any,
    targets: Any,
    *,
    task: str,
    risk: float = 0.05,
    confidence_level: float = 0.95,
    fitted_on: str = "",
) -> Abstention:
    """Finds the lowest threshold on confidence above which at most a share of labels is wrong.

    Selective classification with a guarantee: Geifman and El-Yaniv, "Selective Classification for
    Deep Neural Networks" (2017). Instead of their search it tests thresholds that are fixed
    beforehand, from the strictest on, until one fails: fixed-sequence testing, Angelopoulos, Bates,
    Candes, Jordan and Lei, "Learn then Test" (2021), which keeps more rows. Each test is the exact
    bound of Clopper and Pearson (1934), see `binomial_upper_bound`. The first threshold is the
    strictest one that enough rows reach for up to eight errors to pass, if 15 % of all rows are
    that many: an unlucky row does not end the search then. Which it is depends on the confidences
    alone, not on which rows are wrong, so that the promise holds.

    Args:
        labels: Integer array of shape `(rows,)`; of several labels `(rows, labels)` of 0 and 1. -1
            stands for no label.
        confidence: Float array of the same shape, at least float32. NaN abstains.
        targets: Integer array of the same shape.
        task: String. `"classifier"`, `"binary"` or `"multilabel"`.
        risk: Float in (0, 1). The share of errors to promise. Defaults to 0.05.
        confidence_level: Float in (0, 1). How certain it is to be. Defaults to 0.95.
        fitted_on: String. Kept in the result. Defaults to `""`.

    Returns:
        `Abstention`.

    Raises:
        ValueError: If an argument is not possible; if there are too few rows (risk 0.05 at level
            0.95 needs 59); if no threshold shows the risk; or if a row has several positions, which
            are not independent of each other.

    Example:

    ```python
    abstention = fit_abstention(labels, confidence, targets, task="classifier", risk=0.05)
    print(abstention)
    abstained = abstention.apply(other_confidence)
    ```
    """
    check_task(task)
    check_share("risk", risk)
    check_share("confidence_level", confidence_level)
    sure = checked_probabilities(confidence, "confidence").astype(np.float32)
    several = task == "multilabel"
    if sure.ndim != 1 + several:
        raise ValueError(
            "Abstention needs one label per row, or one of each kind, because positions of a row "
            "are not independent; predict one label per row. Received: confidence.shape="
            f"{sure.shape}"
        )
    wrong = _numbers("labels", labels, sure.shape) != _numbers("targets", targets, sure.shape)
    delta = 1 - confidence_level
    fewest = fewest_rows(risk, delta)
    if len(sure) < fewest:
        raise ValueError(
            f"Risk {risk:g} at confidence level {confidence_level:g} needs at least {fewest} rows; "
            f"add rows, or promise less. Received: {len(sure)} rows"
        )
    columns = [(sure[:, k], wrong[:, k]) for k in range(sure.shape[1])] if several else []
    found = [_lowest_threshold(*column, risk, delta) for column in columns or [(sure, wrong)]]
    failed = [number for number, threshold in enumerate(found) if threshold is None]
    if failed:
        of = f" of label {listed(failed)}" if several else ""
        raise ValueError(
            f"No threshold shows risk {risk:g} at confidence level {confidence_level:g}; add rows, "
            f"or promise less. Received: an error rate{of} of "
            f"{shown(as_numbers(wrong[:, failed].mean(axis=0) if several else wrong.mean()))} in "
            f"{len(sure)} rows"
        )
    threshold = np.array(found if several else found[0], np.float32)
    kept = sure >= threshold
    return Abstention(
        as_numbers(threshold),
        float(risk),
        float(confidence_level),
        len(sure),
        coverage=as_numbers(kept.mean(axis=0)),
        error_rate_before=as_numbers(wrong.mean(axis=0)),
        error_rate_after=as_numbers((wrong & kept).sum(axis=0) / kept.sum(axis=0)),
        fitted_on=fitted_on,
    )


def _numbers(name: str, values: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Labels or targets as an array.

    Raises:
        ValueError: If they are no integers, or of another shape.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise ValueError(
            f"`{name}` must be class numbers of an integer dtype; convert names first. "
            f"Received: {name}.dtype={array.dtype}"
        )
    if array.shape != shape:
        raise ValueError(
            f"`{name}` must have the shape of `confidence`, {shape}. "
            f"Received: {name}.shape={array.shape}"
        )
    return array


def _lowest_threshold(
    confidence: np.ndarray, wrong: np.ndarray, risk: float, delta: float
) -> np.float32 | None:
    """The last threshold before the first that fails its test; `None` if none passes.

    A threshold passes if the bound of its error rate is at most the risk, which is the case if so
    few errors have at most the probability `delta` under the risk.
    """
    order = np.argsort(confidence)  # NaN at the end
    known = confidence[order][: np.count_nonzero(~np.isnan(confidence))]
    errors_from = np.append(np.cumsum(wrong[order][: len(known)][::-1])[::-1], 0)
    fewest, found = _first_rows(len(confidence), risk, delta), None
    for threshold, start in zip(THRESHOLDS, np.searchsorted(known, THRESHOLDS), strict=True):
        kept = len(known) - int(start)
        if kept < fewest:
            continue
        if binomial_tail(int(errors_from[start]), kept, risk) > delta:
            break
        found = threshold
    return found


def _first_rows(rows: int, risk: float, delta: float) -> int:
    """How many rows the first threshold keeps at least."""
    allowed = [fewest_rows(risk, delta, errors) for errors in range(_FIRST_ERRORS + 1)]
    return max([first for first in allowed if first <= rows * _FIRST_SHARE], default=allowed[0])
