"""Counts of labels and confidences that go on while rows come: NumPy, constant memory."""

from __future__ import annotations

import numpy as np

_MOST_CLASSES = 2**24  # labels beyond are no indices of classes, and would be counted for ever


class RunningFigures:
    """What rows of predictions have in common, counted as they come.

    Args:
        bins: Int. Number of bins of the histogram of confidence, of equal width on [0, 1].
        threshold: Float. Confidences below it are counted.
        multi_label: Bool. Whether `labels` are indicators, one for each class, and not indices.

    Attributes:
        rows: Int. Rows that were counted.
        label_counts: Array of shape `(groups, values)`, int64. How often each value of a label was
            there, -1 first. Indices are one group, of -1 and each class; indicators are a group for
            each class, of -1, 0 and 1.
        confidence_counts: Array of shape `(bins,)`, int64. The histogram; NaN is not in it.
        below: Int. Confidences below the threshold.
    """

    def __init__(self, *, bins: int, threshold: float, multi_label: bool) -> None:
        self.rows = 0
        self.label_counts: np.ndarray = np.zeros((0, 3) if multi_label else (1, 1), np.int64)
        self.confidence_counts = np.zeros(bins, np.int64)
        self.below = 0
        self._threshold = threshold
        self.multi_label = multi_label

    @property
    def classes(self) -> int:
        """Classes that are counted: so many as were expected or found."""
        if self.multi_label:
            return len(self.label_counts)
        return len(self.label_counts[0]) - 1

    def expect_classes(self, classes: int) -> None:
        """Makes room for so many classes, whether or not rows of them come."""
        added = (0, max(classes - self.classes, 0))
        pads = (added, (0, 0)) if self.multi_label else ((0, 0), added)
        self.label_counts = np.pad(self.label_counts, pads)

    def take(self, labels: np.ndarray, confidence: np.ndarray, rows: int) -> None:
        """Counts rows.

        Args:
            labels: Integer array. Indices of shape `(rows, ...)`, -1 for none; or indicators of
                shape `(rows, ..., classes)`.
            confidence: Float array in [0, 1] or NaN, of any shape.
            rows: Int. How many rows they are.

        Raises:
            ValueError: If labels are no integers from -1 on, or indicators other than -1, 0 and 1.
        """
        counted = self._count(labels)
        known = confidence[~np.isnan(confidence)]
        bins = len(self.confidence_counts)
        # In float64: in float32 the product may be rounded over the edge of a bin.
        places = (np.clip(known, 0, 1).astype(np.float64) * bins).astype(np.intp)
        self.confidence_counts += np.bincount(np.minimum(places, bins - 1), minlength=bins)
        self.below += int(np.count_nonzero(known < self._threshold))
        self.label_counts = counted
        self.rows += rows

    @property
    def unlabelled(self) -> int:
        """Labels that are -1."""
        return int(self.label_counts[:, 0].sum())

    @property
    def class_shares(self) -> np.ndarray:
        """Float64 of shape `(classes,)`: of the labels that are not -1, those of each class.

        Of indicators, for each class the share that is 1. NaN where there are none.
        """
        if self.multi_label:
            counts, of = self.label_counts[:, 2], self.label_counts[:, 1:].sum(axis=1)
        else:
            counts = self.label_counts[0, 1:]
            of = counts.sum()
        with np.errstate(invalid="ignore"):
            shares: np.ndarray = counts / of
        return shares

    @property
    def share_below_threshold(self) -> float:
        """Of the confidences that are not NaN, those below the threshold; NaN where none are."""
        known = int(self.confidence_counts.sum())
        return self.below / known if known else float("nan")

    def _count(self, labels: np.ndarray) -> np.ndarray:
        """The counts of labels with those of more."""
        highest = 1 if self.multi_label else _MOST_CLASSES - 1
        is_integer = labels.dtype.kind in "iu"
        if not is_integer or (labels.size and not -1 <= labels.min() <= labels.max() <= highest):
            raise ValueError(
                "`labels` must be integers, "
                + ("1, 0 or -1 (unknown)" if self.multi_label else "classes from 0, or -1 (none)")
                + ". Received: "
                + (
                    f"labels from {labels.min()} to {labels.max()}"
                    if is_integer
                    else f"dtype={labels.dtype}"
                )
            )
        if self.multi_label:
            indicators = labels.reshape(-1, labels.shape[-1])
            self.expect_classes(indicators.shape[1])
            found = [np.count_nonzero(indicators == value, axis=0) for value in (-1, 0, 1)]
            counts: np.ndarray = self.label_counts + np.stack(found, axis=1)
            return counts
        # Wider than the labels may be: the largest of them plus one must fit.
        values = labels.reshape(-1).astype(np.intp) + 1
        found_values = np.bincount(values, minlength=1)
        self.expect_classes(len(found_values) - 1)
        counts = self.label_counts.copy()
        counts[0, : len(found_values)] += found_values
        return counts
