"""How often prediction sets hold what is true, and how large they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from kerasext.calibration import PredictionSets

_BLOCK = 2**16  # numbers of rows whose chances are computed at once
_TAILS = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class SetReport:
    """How good the prediction sets in a file are.

    A label is covered if its target is in its set; a label of NaN is not. A multi-label classifier
    covers a row by the share of its true labels that is in the set; rows without one are left out.

    Attributes:
        confidence_level: Float. The coverage that was promised.
        coverage: Float. The share of labels that is covered: the mean over rows of their share. NaN
            if no row has a true label.
        expected_interval: Tuple of two floats. The central 95 % range of `coverage` that chance
            allows if the promise holds, because both the rows here and those that the sets were
            fitted on are samples: a Beta-Binomial distribution, as in Angelopoulos and Bates, "A
            Gentle Introduction to Conformal Prediction" (2021), section 3.2. It assumes that no two
            rows have equal probabilities; with many equal ones `coverage` may be higher. `None` for
            sets that promise something else: by class, or on average over rows of several labels,
            tokens or pixels.
        mean_size: Float. Mean number of classes, or labels, in a set.
        size_counts: Array of shape `(classes + 1,)`, int64. Number of sets of each size.
        empty_share: Float. Share of sets without any class: no class is plausible.
        class_counts: Array of shape `(classes,)`, int64. Number of targets of each class.
        coverage_by_class: Array of shape `(classes,)`, float64. Share of these that is covered; NaN
            for classes without targets.
        coverage_by_size: Array of shape `(classes + 1,)`, float64. Share of the labels with a set
            of each size that is covered; NaN for sizes that do not occur. Of sets of labels the
            mean of their shares.
    """

    confidence_level: float
    coverage: float
    expected_interval: tuple[float, float] | None
    mean_size: float
    size_counts: np.ndarray = field(repr=False)
    empty_share: float
    class_counts: np.ndarray = field(repr=False)
    coverage_by_class: np.ndarray = field(repr=False)
    coverage_by_size: np.ndarray = field(repr=False)


class SetSums:
    """Counts prediction sets by what is true, batch for batch.

    Args:
        fitted: `PredictionSets`. How the sets are made.
        classes: Int. Classes, or labels.
        is_multilabel: Bool. Whether each of them is there or not on its own.
    """

    def __init__(self, fitted: PredictionSets, classes: int, *, is_multilabel: bool) -> None:
        self._fitted, self._is_multilabel = fitted, is_multilabel
        self._has_one_target = not is_multilabel
        self._rows, self._covered = 0, 0.0
        self._size_counts, self._of_size = np.zeros((2, classes + 1), np.int64)
        self._covered_of_size = np.zeros(classes + 1)
        self._of_class, self._covered_of_class = np.zeros((2, classes), np.int64)

    def add(self, sets: np.ndarray, truth: np.ndarray) -> None:
        """Adds sets.

        Args:
            sets: Boolean array of shape `(rows, ..., classes)`.
            truth: Integer array of shape `(rows, ...)`, or of that of `sets` if it is 0 or 1 for
                each label.
        """
        rows, classes = len(sets), sets.shape[-1]
        if self._is_multilabel:
            is_true = truth == 1
            is_in = is_true & sets
            true, found = is_true.sum(axis=-1), is_in.sum(axis=-1)
            self._of_class += is_true.reshape(-1, classes).sum(axis=0)
            self._covered_of_class += is_in.reshape(-1, classes).sum(axis=0)
        else:
            found = np.take_along_axis(sets, truth[..., None], axis=-1)[..., 0]
            true = np.ones_like(truth)
            self._has_one_target = truth.ndim == 1
            self._of_class += np.bincount(truth.ravel(), minlength=classes)
            self._covered_of_class += np.bincount(truth[found], minlength=classes)
        of_rows = true.reshape(rows, -1).sum(axis=1)
        counted = of_rows > 0
        self._rows += int(np.count_nonzero(counted))
        self._covered += float(
            (found.reshape(rows, -1).sum(axis=1)[counted] / of_rows[counted]).sum()
        )
        sizes, shares = sets.sum(axis=-1), found / np.maximum(true, 1)
        self._size_counts += np.bincount(sizes.ravel(), minlength=classes + 1)
        self._of_size += np.bincount(sizes[true > 0], minlength=classes + 1)
        self._covered_of_size += np.bincount(sizes[true > 0], shares[true > 0], classes + 1)

    def result(self) -> SetReport:
        """What all sets that were added say; at least one."""
        count = int(self._size_counts.sum())
        interval = None
        if self._has_one_target and not self._fitted.class_conditional:
            level, fitted_rows = self._fitted.confidence_level, self._fitted.rows
            interval = expected_interval(level, fitted_rows, self._rows)
        with np.errstate(invalid="ignore"):
            by_class = self._covered_of_class / self._of_class
            by_size = self._covered_of_size / self._of_size
        return SetReport(
            confidence_level=self._fitted.confidence_level,
            coverage=self._covered / self._rows if self._rows else float("nan"),
            expected_interval=interval,
            mean_size=float(self._size_counts @ np.arange(len(self._size_counts))) / count,
            size_counts=self._size_counts,
            empty_share=int(self._size_counts[0]) / count,
            class_counts=self._of_class,
            coverage_by_class=by_class,
            coverage_by_size=by_size,
        )


def expected_interval(confidence_level: float, fitted_rows: int, rows: int) -> tuple[float, float]:
    """The central 95 % range of the coverage of rows, of sets that were fitted on others.

    The number of covered rows is Beta-Binomial: Vovk, "Conditional Validity of Inductive Conformal
    Predictors" (2012), for the coverage of very many rows.

    Args:
        confidence_level: Float. The coverage that is promised.
        fitted_rows: Int. Rows that the sets were fitted on.
        rows: Int. Rows whose sets are looked at, at least 1.

    Returns:
        Tuple of the lower and the upper end, in [0, 1].
    """
    # Rounded, because 0.07 * 100 is a little more than 7.
    a = min(math.ceil(round((fitted_rows + 1) * confidence_level, 9)), fitted_rows)
    b = fitted_rows + 1 - a

    def log_chance(covered: int) -> float:
        missed = rows - covered
        ways = math.lgamma(rows + 1) - math.lgamma(covered + 1) - math.lgamma(missed + 1)
        return ways + _log_beta(covered + a, missed + b) - _log_beta(a, b)

    ends: list[float] = []
    below = 0.0
    for start in range(0, rows + 1, _BLOCK):  # the memory does not grow with the rows
        covered = np.arange(start, min(start + _BLOCK, rows + 1), dtype=np.float64)
        before = covered[:-1]
        steps = np.log((rows - before) * (before + a))
        steps -= np.log((before + 1) * (rows - before - 1 + b))
        chances = np.exp(log_chance(start) + np.cumsum(np.concatenate([[0.0], steps])))
        up_to = below + np.cumsum(chances)
        below = float(up_to[-1])
        while len(ends) < len(_TAILS) and below >= _TAILS[len(ends)]:
            ends.append(float(covered[np.searchsorted(up_to, _TAILS[len(ends)])]) / rows)
    return ends[0], ends[1]


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
