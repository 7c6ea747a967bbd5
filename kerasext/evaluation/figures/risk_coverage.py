"""How many errors are left when the model may abstain where it is least confident."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kerasext.calibration import Abstention

# The bits of a float32 without these are the exponent and 11 bits of the mantissa.
_DROPPED_BITS = 12
_LAST = int(np.float32(1).view(np.int32)) >> _DROPPED_BITS


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The share of errors among the labels that are most confident, by how many those are.

    Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks" (NeurIPS 2017). The
    thresholds are a fixed grid, so that memory does not depend on the rows: `1 - confidence` has
    2,048 steps from each power of 1/2 to the next, which tells 0.99999 from 0.999999 too. At these
    thresholds the curve is exact; labels between two of them are added at once.

    Attributes:
        coverage: Array of shape `(points,)`, float64, ascending to 1. The share of all labels that
            is at least as confident as the threshold. Thresholds that add no label are left out.
        risk: Array of shape `(points,)`, float64. The share of those that is wrong.
    """

    coverage: np.ndarray
    risk: np.ndarray

    @property
    def area(self) -> float:
        """Area under the curve, in [0, 1]: lower is better.

        The mean over all labels of the risk among those at least as confident, as in Geifman,
        Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers"
        (ICLR 2019), section 3; labels that are added at once count as equally confident.
        """
        return float(np.sum(np.diff(self.coverage, prepend=0) * self.risk))


@dataclass(frozen=True, eq=False)
class AbstentionReport:
    """What abstaining leaves of the labels in a file, and how many of those are wrong.

    Attributes:
        risk: Float. The error rate that was promised for the labels that are kept; of a multi-label
            classifier for each label.
        confidence_level: Float. With which probability it was: it may be exceeded in a share of
            `1 - confidence_level` of all fits.
        coverage: Float. Share of the labels that is kept.
        error_rate: Float. Share of those that is wrong; NaN if none is kept.
        by_label: Dict with the keys `"coverage"` and `"error_rate"`: the same for each label of a
            multi-label classifier, arrays of shape `(labels,)`, float64; else `None`.
    """

    risk: float
    confidence_level: float
    coverage: float
    error_rate: float
    by_label: dict[str, np.ndarray] | None = field(repr=False)


class AbstentionSums:
    """Counts the labels that are kept, batch for batch.

    Args:
        fitted: `Abstention`. When the model abstains.
        labels: Int. Labels of a multi-label classifier on the last axis, 0 for one label.
    """

    def __init__(self, fitted: Abstention, labels: int) -> None:
        self._fitted, self._labels = fitted, labels
        self._count = 0
        self._kept, self._wrong = np.zeros((2, max(labels, 1)), np.int64)

    def add(self, abstained: np.ndarray, is_right: np.ndarray) -> None:
        """Adds labels.

        Args:
            abstained: Boolean array of the shape of the labels.
            is_right: Boolean array of the same shape.
        """
        kept = ~abstained.reshape(-1, len(self._kept))
        self._count += len(kept)
        self._kept += kept.sum(axis=0)
        self._wrong += (kept & ~is_right.reshape(kept.shape)).sum(axis=0)

    def result(self) -> AbstentionReport:
        """What all labels that were added say; at least one."""
        kept, wrong = int(self._kept.sum()), int(self._wrong.sum())
        with np.errstate(invalid="ignore"):
            by_label = {
                "coverage": self._kept / self._count,
                "error_rate": self._wrong / self._kept,
            }
        return AbstentionReport(
            risk=self._fitted.risk,
            confidence_level=self._fitted.confidence_level,
            coverage=kept / (self._count * len(self._kept)),
            error_rate=wrong / kept if kept else float("nan"),
            by_label=by_label if self._labels else None,
        )


class RiskSums:
    """Adds up labels and errors on the grid, batch for batch."""

    def __init__(self) -> None:
        # After the last step come the labels without a confidence.
        self._counts = np.zeros(_LAST + 2, np.int64)
        self._wrong = np.zeros(_LAST + 2, np.int64)

    def add(self, confidence: np.ndarray, is_right: np.ndarray) -> None:
        """Adds labels.

        Args:
            confidence: Array of shape `(labels,)`, float64 in [0, 1], or NaN, which is less
                confident than all else.
            is_right: Boolean array of shape `(labels,)`.
        """
        places = (1 - confidence).astype(np.float32).view(np.int32) >> _DROPPED_BITS
        places[np.isnan(confidence)] = _LAST + 1
        # Not `bincount`, which takes as long as the grid even for one row.
        np.add.at(self._counts, places, 1)
        np.add.at(self._wrong, places[~is_right], 1)

    def result(self) -> RiskCoverage:
        """The curve of all labels that were added; at least one."""
        filled = self._counts > 0
        counts, wrong = np.cumsum(self._counts[filled]), np.cumsum(self._wrong[filled])
        return RiskCoverage(counts / counts[-1], wrong / counts)
