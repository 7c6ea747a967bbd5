"""Whether confidence is as often right as it says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasext.calibration import reliability_bins


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Labels in bins of confidence: what a reliability diagram shows.

    A bin has the confidences above its lower edge up to its upper edge, the first one 0 too, as in
    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 2.

    Attributes:
        bin_edges: Array of shape `(bins + 1,)`, float64, from 0 to 1 in equal steps.
        counts: Array of shape `(bins,)`, int64. Labels in each bin.
        confidence: Array of shape `(bins,)`, float64. Their mean confidence; NaN where there are
            none.
        accuracy: Array of shape `(bins,)`, float64. The share of them that is right; NaN where
            there are none.
    """

    bin_edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """Expected calibration error, in [0, 1]; NaN where all bins are empty.

        The mean over labels of the distance between confidence and accuracy of their bin: equation
        3 of Guo et al. (2017).
        """
        filled = self.counts > 0
        if not filled.any():
            return float("nan")
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.counts[filled]))


class CalibrationSums:
    """Adds up labels by confidence, batch for batch.

    Args:
        bins: Int. Number of bins.
    """

    def __init__(self, bins: int) -> None:
        self._edges = np.linspace(0, 1, bins + 1)
        self._counts = np.zeros(bins, np.int64)
        self._confidence = np.zeros(bins)
        self._right = np.zeros(bins, np.int64)

    def add(self, confidence: np.ndarray, is_right: np.ndarray) -> None:
        """Adds labels.

        Args:
            confidence: Array of shape `(labels,)`, float64 in [0, 1]; NaN for labels that do not
                count.
            is_right: Boolean array of shape `(labels,)`.
        """
        counts, confidences, right = reliability_bins(confidence, is_right, len(self._counts))
        self._counts += counts
        self._confidence += confidences
        self._right += right

    def result(self) -> CalibrationCurve:
        """The curve of all labels that were added."""
        with np.errstate(invalid="ignore"):
            confidence, accuracy = self._confidence / self._counts, self._right / self._counts
        return CalibrationCurve(self._edges, self._counts, confidence, accuracy)
