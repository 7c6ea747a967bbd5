"""A calibration: what it is, how it is fitted, and how it is applied."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasext.calibration.arguments import (
    check_choice,
    check_last_axis,
    check_several_classes,
    check_task,
    checked_rows,
    row_blocks,
)
from kerasext.calibration.figures import log_losses, reliability_bins
from kerasext.calibration.logits import (
    LogProbabilities,
    by_blocks,
    centred,
    log_odds,
    log_odds_of_columns,
    log_probabilities,
    sigmoid,
    softmax,
)
from kerasext.calibration.platt import fit_platt
from kerasext.calibration.result import (
    Numbers,
    Result,
    as_numbers,
    check_numbers,
    check_row_count,
    check_same_length,
    check_single,
    check_texts,
    shown,
)
from kerasext.calibration.temperature import fit_temperature
from kerasext.calibration.vector_scaling import fit_vector_scaling

METHODS = {"classifier": ("temperature", "vector"), "binary": ("platt",), "multilabel": ("platt",)}
"""The methods of each task, the default first."""

_BINS = 15


@dataclass(frozen=True)
class Calibration(Result):
    """A map from the probabilities of a model to calibrated ones.

    The calibrated logits are `scale * z + bias`. `z` depends on the method:

    - `"temperature"`, for a softmax: the logarithm of the probabilities. One scale, bias 0.
    - `"vector"`, for a softmax: the same, minus the mean of each row. A scale and a bias per class.
    - `"platt"`: the logit of class 1. A binary head has the columns of class 0 and 1, and one scale
      and bias; a head of several labels has one column, scale and bias per label.

    Probabilities below 1.2e-38 count as 1.2e-38; of a head of several labels, `1 - p` below 3e-8
    counts as 3e-8.

    Attributes:
        method: String. `"temperature"`, `"vector"` or `"platt"`.
        scale: Float, or tuple of floats per class or label. Positive.
        bias: Float, or tuple of floats.
        rows: Int. Rows that were fitted, without those that have NaN.
        negative_log_likelihood_before, negative_log_likelihood_after: Float. The mean over the
            fitted targets, in nats.
        expected_calibration_error_before, expected_calibration_error_after: Float. In 15 bins of
            the confidence of the most likely class, over the fitted targets.
        fitted_on: String. What the model was at the time; set by the caller.
        rows_digest: String. See `rows_digest`.
    """

    method: str
    scale: Numbers
    bias: Numbers
    rows: int
    negative_log_likelihood_before: float
    negative_log_likelihood_after: float
    expected_calibration_error_before: float
    expected_calibration_error_after: float
    fitted_on: str = ""
    rows_digest: str = ""

    def __post_init__(self) -> None:
        check_choice("method", self.method, ("temperature", "vector", "platt"))
        check_numbers("scale", self.scale, positive=True)
        check_numbers("bias", self.bias)
        check_same_length("scale", self.scale, "bias", self.bias)
        if self.method == "temperature":
            check_single("scale", self.scale)
            if self.bias != 0:
                raise ValueError(f"A temperature has the bias 0. Received: bias={self.bias!r}")
        if self.method == "vector" and not isinstance(self.scale, tuple):
            raise ValueError(
                f"Vector scaling has a scale per class. Received: scale={self.scale!r}"
            )
        check_row_count(self.rows)
        for name in ("negative_log_likelihood", "expected_calibration_error"):
            high = 1 if name.endswith("error") else np.inf
            for when in ("before", "after"):
                check_single(f"{name}_{when}", getattr(self, f"{name}_{when}"))
                check_numbers(f"{name}_{when}", getattr(self, f"{name}_{when}"), 0, high)
        check_texts(fitted_on=self.fitted_on, rows_digest=self.rows_digest)

    def __str__(self) -> str:
        if self.method == "temperature":
            fitted = f"temperature {self.temperature:.4g}"
        else:
            several = isinstance(self.scale, tuple)
            of = "classes" if self.method == "vector" else "labels"
            number = f" of {np.size(self.scale)} {of}" if several else ""
            name = {"vector": "vector", "platt": "Platt"}[self.method]
            fitted = f"{name} scaling{number}, scale {shown(self.scale)}, bias {shown(self.bias)}"
        return (
            f"{fitted}, fitted on {self.rows:,} rows\n"
            f"negative log likelihood {self.negative_log_likelihood_before:.4g} -> "
            f"{self.negative_log_likelihood_after:.4g}, expected calibration error "
            f"{self.expected_calibration_error_before:.4g} -> "
            f"{self.expected_calibration_error_after:.4g}"
        )

    @property
    def temperature(self) -> float:
        """The temperature, `1 / scale`: above 1 if the model is too confident.

        Raises:
            ValueError: If the method is another one.
        """
        if self.method != "temperature" or isinstance(self.scale, tuple):
            raise ValueError(
                "Only method='temperature' has a temperature; read `scale` and `bias`. "
                f"Received: method={self.method!r}"
            )
        return 1 / self.scale

    def apply(self, probabilities: Any) -> np.ndarray:
        """Calibrates probabilities.

        Args:
            probabilities: Float array of shape `(batch, ..., classes)`, as the model yields them
                without calibration: two columns of a binary head, one per label of several.

        Returns:
            Array of the same shape and dtype, at least float32. A row with NaN is all NaN; of
            several labels, only the labels with NaN are.

        Raises:
            ValueError: If it is not of floats, or has another number of classes.
        """
        return by_blocks(self._apply, self._checked(probabilities))

    def undo(self, probabilities: Any) -> np.ndarray:
        """The probabilities without calibration: the inverse of `apply`, but for rounding.

        Args:
            probabilities: Float array of shape `(batch, ..., classes)`, as `apply` returns it.

        Returns:
            Array of the same shape and dtype, at least float32.

        Raises:
            ValueError: If it is not of floats, or has another number of classes.
        """
        return by_blocks(self._undo, self._checked(probabilities))

    def _checked(self, probabilities: Any) -> np.ndarray:
        values = np.asarray(probabilities)
        if isinstance(self.scale, tuple):
            check_last_axis("probabilities", values, len(self.scale))
        elif self.method == "platt":
            check_last_axis("probabilities", values, 2)
        elif not values.ndim:
            raise ValueError(
                "`probabilities` must have the classes on the last axis. "
                f"Received: probabilities.shape={values.shape}"
            )
        return values

    def _apply(self, p: np.ndarray) -> np.ndarray:
        scale, bias = np.asarray(self.scale), np.asarray(self.bias)
        if self.method == "temperature":
            return softmax(scale * log_probabilities(p))
        if self.method == "vector":
            return softmax(scale * centred(log_probabilities(p)) + bias)
        return self._from_log_odds(p, lambda z: scale * z + bias)

    def _undo(self, p: np.ndarray) -> np.ndarray:
        scale, bias = np.asarray(self.scale), np.asarray(self.bias)
        if self.method == "temperature":
            return softmax(log_probabilities(p) / scale)
        if self.method == "vector":
            # log p is known up to a constant, which the centred logits leave no choice of.
            shifted = (log_probabilities(p) - bias) / scale
            constant = shifted.sum(axis=-1, keepdims=True) / (1 / scale).sum()
            return softmax(shifted - constant / scale)
        return self._from_log_odds(p, lambda z: (z - bias) / scale)

    def _from_log_odds(
        self, p: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        if isinstance(self.scale, tuple):
            return sigmoid(change(log_odds(p)))
        logit = change(log_odds_of_columns(p))
        return np.stack([sigmoid(-logit), sigmoid(logit)], axis=-1)


def fit_calibration(
    probabilities: Any, targets: Any, *, task: str, method: str | None = None, fitted_on: str = ""
) -> Calibration:
    """Fits a calibration on rows that the model was not trained on.

    Positions of a row, such as tokens and pixels, count like rows. Positions with NaN are left out.

    Args:
        probabilities: Float array of shape `(rows, ..., classes)`, at least float32, as the model
            yields them without calibration. A binary head has two columns, several labels one each.
        targets: Integer array of shape `(rows, ...)`, class numbers; of several labels an array of
            shape `(rows, ..., labels)` of 0 and 1.
        task: String. `"classifier"`, `"binary"` or `"multilabel"`.
        method: String. For a classifier `"temperature"`, see `fit_temperature`, or `"vector"`, see
            `fit_vector_scaling`; for the other tasks `"platt"`, see `fit_platt`. Defaults to
            `None`, for the first of them.
        fitted_on: String. Kept in the result. Defaults to `""`.

    Returns:
        `Calibration`.

    Raises:
        ValueError: If an argument is not possible, or there is no optimum: all rows are right, the
            model is no better than chance, only one class occurs, or classes do not overlap.

    Example:

    ```python
    calibration = fit_calibration(probabilities, targets, task="classifier")
    print(calibration)
    calibrated = calibration.apply(other_probabilities)
    ```
    """
    check_task(task)
    method = METHODS[task][0] if method is None else method
    check_choice("method", method, METHODS[task], of=f" of the task {task!r}")
    values, truth = checked_rows(probabilities, targets, task)
    digest = rows_digest(values, truth)
    several = task == "multilabel"
    known = ~np.isnan(values).any(axis=-1)
    rows = int(known.reshape(len(known), -1).any(axis=1).sum())
    values = values.reshape(-1, values.shape[-1])
    truth = truth.reshape(-1, *truth.shape[known.ndim :])
    if not known.all():
        values, truth = values[known.ravel()], truth[known.ravel()]
    if several:
        scale, bias = _fit_labels(values, truth)
    else:
        check_several_classes(truth)
        scale, bias = _fit_classes(method, values, truth)
    fitted = Calibration(method, scale, bias, rows, 0.0, 0.0, 0.0, 0.0)
    loss_before, error_before = _figures(values, truth, None)
    loss_after, error_after = _figures(values, truth, fitted)
    return Calibration(
        method,
        *(scale, bias, rows),
        *(loss_before, loss_after),
        *(error_before, error_after),
        fitted_on=fitted_on,
        rows_digest=digest,
    )


def rows_digest(probabilities: Any, targets: Any) -> str:
    """A checksum that tells whether two fits used the same rows in the same order.

    Prediction sets on the rows that fitted vector scaling have less coverage than they say: many
    parameters fit these rows better than new ones. Compare `Calibration.rows_digest` with that of
    `PredictionSets` on the same, uncalibrated probabilities; `dataclasses.replace` sets it.

    Args:
        probabilities: Float array of shape `(rows, ..., classes)`, uncalibrated.
        targets: Integer array of shape `(rows, ...)`, or of the shape of `probabilities`.

    Returns:
        String. The CRC-32 of the number of rows, the targets and the most likely classes, as 8
        hexadecimal digits.
    """
    values, truth = np.asarray(probabilities), np.asarray(targets)
    if values.shape == truth.shape:
        likely = np.where(np.isnan(values), -1, values > 0.5)
    else:
        likely = np.where(np.isnan(values).any(axis=-1), -1, values.argmax(axis=-1))
    crc = zlib.crc32(str(len(truth)).encode())
    for numbers in (truth, likely):
        crc = zlib.crc32(np.ascontiguousarray(numbers, "<i8").tobytes(), crc)
    return f"{crc:08x}"


def _fit_classes(method: str, values: np.ndarray, truth: np.ndarray) -> tuple[Numbers, Numbers]:
    """Scale and bias of a softmax, or of a binary head."""
    if method == "platt":
        return fit_platt(log_odds_of_columns(values), truth)
    logits = LogProbabilities(values)
    if method == "temperature":
        return 1 / fit_temperature(logits, truth), 0.0
    scale, bias = fit_vector_scaling(logits, truth)
    return as_numbers(scale), as_numbers(bias)


def _fit_labels(values: np.ndarray, truth: np.ndarray) -> tuple[Numbers, Numbers]:
    """Scale and bias of each label."""
    found = []
    for label in range(values.shape[-1]):
        try:
            found.append(fit_platt(log_odds(values[:, label]), truth[:, label]))
        except ValueError as error:
            raise ValueError(f"{error}, for label {label}") from None
    scale, bias = zip(*found, strict=True)
    return scale, bias


def _figures(
    values: np.ndarray, truth: np.ndarray, calibration: Calibration | None
) -> tuple[float, float]:
    """Negative log likelihood and expected calibration error."""
    loss, bins = 0.0, np.zeros((3, _BINS))
    for rows in row_blocks(*values.shape):
        p, true = values[rows].astype(np.float64), truth[rows]
        if calibration is not None:
            p = calibration.apply(p)
        loss += float(log_losses(p, true).sum())
        if p.shape == true.shape:
            labels, confidence = p > 0.5, np.maximum(p, 1 - p)
        else:
            labels, confidence = p.argmax(axis=-1), p.max(axis=-1)
        bins += reliability_bins(confidence.ravel(), (labels == true).ravel(), _BINS)
    counts, confidences, right = bins
    return loss / truth.size, float(np.abs(right - confidences).sum() / counts.sum())
