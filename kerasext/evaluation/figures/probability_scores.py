"""Sums of the two scores that only the true probabilities minimize."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kerasext.calibration import log_losses, squared_errors


class ProbabilityScores(NamedTuple):
    """What `ScoreSums` adds up; both are NaN without a single label.

    Args:
        negative_log_likelihood: Float. See `Evaluation`.
        brier_score: Float. See `Evaluation`.
    """

    negative_log_likelihood: float
    brier_score: float


class ScoreSums:
    """Adds up the scores of probabilities, batch for batch."""

    def __init__(self) -> None:
        self._count = 0
        self._losses = self._squares = 0.0

    def add(self, probabilities: np.ndarray, truth: np.ndarray) -> None:
        """Adds labels, leaving out those whose probabilities have NaN.

        Args:
            probabilities: Array of shape `(rows, ..., classes)`, floats.
            truth: Integer array of shape `(rows, ...)`, or of that of `probabilities` if it is 0 or
                1 for each label.
        """
        squares = squared_errors(probabilities, truth)
        known = ~np.isnan(squares)
        self._count += int(np.count_nonzero(known))
        self._squares += float(squares[known].sum())
        self._losses += float(log_losses(probabilities, truth)[known].sum())

    def result(self) -> ProbabilityScores:
        """The scores of all labels that were added."""
        if not self._count:
            return ProbabilityScores(float("nan"), float("nan"))
        return ProbabilityScores(self._losses / self._count, self._squares / self._count)
