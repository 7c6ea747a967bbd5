"""The figures that the same rows have without the calibration of the model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kerasext.calibration import Calibration
from kerasext.evaluation.figures.calibration_curve import CalibrationCurve, CalibrationSums
from kerasext.evaluation.figures.probability_scores import ScoreSums
from kerasext.storage import relabelled


@dataclass(frozen=True, eq=False)
class Uncalibrated:
    """What `evaluate` would say of the same rows if the model had no calibration.

    It is computed from the stored probabilities, by undoing the calibration. Labels are those of
    the same threshold. The figures are described in `Evaluation`.

    Attributes:
        accuracy: Float. It differs only if the calibration changes labels: vector scaling, and
            Platt scaling of binary and multi-label heads.
        negative_log_likelihood: Float.
        brier_score: Float.
        calibration_curve: `CalibrationCurve`.
        expected_calibration_error: Float.
    """

    accuracy: float
    negative_log_likelihood: float
    brier_score: float
    calibration_curve: CalibrationCurve = field(repr=False)
    expected_calibration_error: float


class UncalibratedSums:
    """Undoes a calibration and adds up the figures, batch for batch.

    Args:
        calibration: `Calibration` of the head.
        bins: Int. Bins of confidence.
        threshold: Array of shape `()`, or `(labels,)`; `None` for a head whose label is the most
            probable class.
        is_multilabel: Bool. Whether each number on the last axis is a label of its own.
    """

    def __init__(
        self,
        calibration: Calibration,
        bins: int,
        threshold: np.ndarray | None,
        *,
        is_multilabel: bool,
    ) -> None:
        self._calibration, self._scores = calibration, ScoreSums()
        self._threshold, self._is_multilabel = threshold, is_multilabel
        self._curve = CalibrationSums(bins)
        self._right = self._count = 0

    def add(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        """Adds labels.

        Args:
            probabilities: Array of shape `(rows, ..., classes)`, calibrated.
            truth: Integer array of the shape of the labels.
        """
        before = self._calibration.undo(probabilities)
        self._scores.add(before, truth)
        if self._threshold is None:
            labels, confidence = before.argmax(axis=-1), before.max(axis=-1)
            labels[np.isnan(confidence)] = -1
        else:
            labels, confidence = relabelled(before, self._threshold, self._is_multilabel)
            confidence[labels < 0] = np.nan
        is_right = labels == truth
        self._right += int(np.count_nonzero(is_right))
        self._count += is_right.size
        self._curve.add(confidence.astype(np.float64).ravel(), is_right.ravel())

    def result(self) -> Uncalibrated:
        """The figures of all labels that were added; at least one."""
        curve = self._curve.result()
        return Uncalibrated(
            self._right / self._count, *self._scores.result(), curve, curve.expected_error
        )
