"""Counting predicted labels by what is true."""

from __future__ import annotations

import numpy as np

_MOST_CLASSES = 2**15  # whose matrix is 8 GiB


class ClassCounts:
    """Counts labels that are one class each.

    Args:
        classes: Int. Number of classes, `None` for as many as labels and targets show.

    Attributes:
        matrix: Array of shape `(classes, classes)`, int64: how often each class (first axis) was
            predicted as each (second).

    Raises:
        ValueError: If there are more classes than there may be.
    """

    def __init__(self, classes: int | None) -> None:
        self._classes = classes
        self.matrix = _square(classes or 0)

    def add(self, truth: np.ndarray, labels: np.ndarray) -> None:
        """Adds labels, leaving out those that are -1.

        Args:
            truth: Integer array, int64, not negative.
            labels: Integer array of the same shape, int64, at least -1.

        Raises:
            ValueError: If a label or target is none of the classes.
        """
        for name, values in (("labels", labels), ("targets", truth)):
            if self._classes is not None and values.max() >= self._classes:
                raise ValueError(
                    f"The {name} must be less than {self._classes}, the number of classes; "
                    f"evaluate against targets of the same classes. Received: {values.max()}"
                )
        classes = max(int(truth.max()), int(labels.max())) + 1
        if classes > len(self.matrix):
            grown = _square(classes)
            grown[: len(self.matrix), : len(self.matrix)] = self.matrix
            self.matrix = grown
        known = labels >= 0
        places = truth[known] * len(self.matrix) + labels[known]
        np.add.at(self.matrix.reshape(-1), places, 1)


class IndicatorCounts:
    """Counts labels that are each there or not.

    Args:
        labels: Int. How many there are, on the last axis.

    Attributes:
        matrix: Array of shape `(labels, 2, 2)`, int64: for each label how often what was not there
            or there (second axis) was predicted as not there or there (third).
    """

    def __init__(self, labels: int) -> None:
        self.matrix = np.zeros((labels, 2, 2), np.int64)

    def add(self, truth: np.ndarray, labels: np.ndarray) -> None:
        """Adds indicators, leaving out those that are -1.

        Args:
            truth: Integer array of shape `(..., labels)`, int64, of 0 and 1.
            labels: Integer array of the same shape, int64, of -1, 0 and 1.

        Raises:
            ValueError: If an indicator is neither 0 nor 1.
        """
        for name, values in (("labels", labels), ("targets", truth)):
            if values.max() > 1:
                raise ValueError(
                    f"Several labels a row must be 0 or 1 each, the {name} too; see "
                    f"`MultiLabelClassifierMixin`. Received: {values.max()}"
                )
        places = 4 * np.arange(len(self.matrix)) + 2 * truth + labels
        np.add.at(self.matrix.reshape(-1), places[labels >= 0], 1)


def _square(classes: int) -> np.ndarray:
    if classes > _MOST_CLASSES:
        raise ValueError(
            f"There must be at most {_MOST_CLASSES} classes to count each pair of them. "
            f"Received: {classes} classes"
        )
    # Zeros take no memory until they are written.
    return np.zeros((classes, classes), np.int64)
