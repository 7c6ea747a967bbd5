"""Labels and confidences, counted as they come."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np

from kerasext.evaluation.figures.class_report import distinct_names
from kerasext.storage import Head, RaggedRows

_MOST_CLASSES = 2**24  # a label beyond it is no class, and would need an endless array of counts


def histogram(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Counts of confidences in bins of equal width on [0, 1]; the last one includes 1.

    Args:
        confidence: Array of floats in [0, 1], of any shape.
        bins: Int. Number of bins.
    """
    # In float64: in float32 the product may be rounded over the edge of a bin.
    places = (confidence.reshape(-1).astype(np.float64) * bins).astype(np.intp)
    return np.bincount(np.minimum(places, bins - 1), minlength=bins)


class RunningFigures:
    """Counts of labels and a histogram of confidence, in memory that rows don't add to.

    Args:
        bins: Int. Bins of the histogram, of equal width on [0, 1].
        task: String. The task that `prediction_metadata` names, `None` if none. With
            `"multilabel"`, `labels` are an indicator for each class, otherwise numbers of classes.
        class_names: Sequence of strings, one per class. Defaults to `None`, for unknown names.
        classes: Int. Number of classes, 0 if unknown. Ignored with `class_names`. Defaults to 0.
        threshold: Float. Confidences below it are counted. Defaults to 0.5.

    Attributes:
        rows: Int. Rows that were counted.
        label_counts: Array of shape `(groups, values)`, int64. Counts of each value of a label, -1
            first. Numbers of classes are one group, of -1 and each class. Indicators are one group
            per class, of -1, 0 and 1.
        confidence_counts: Array of shape `(bins,)`, int64. The histogram, without NaN.
    """

    def __init__(
        self,
        *,
        bins: int,
        task: str | None = None,
        class_names: Sequence[str] | None = None,
        classes: int = 0,
        threshold: float = 0.5,
    ) -> None:
        self.task = task
        self.class_names = None if class_names is None else distinct_names(class_names)
        self.known_classes = classes if class_names is None else len(class_names)
        self.rows = 0
        self.label_counts: np.ndarray = np.zeros((0, 3) if self.is_multilabel else (1, 1), np.int64)
        self.label_counts = self._room_for(self.known_classes)
        self.confidence_counts = np.zeros(bins, np.int64)
        self._threshold = threshold
        self._below_threshold = 0

    @classmethod
    def of_head(cls, head: Head, *, bins: int, threshold: float = 0.5) -> Self:
        """Counts for a head of a file, or of a model that predicts."""
        return cls(
            bins=bins,
            task="multilabel" if head.is_multilabel else head.task,
            class_names=head.class_names,
            classes=head.classes or 0,
            threshold=threshold,
        )

    @property
    def is_multilabel(self) -> bool:
        """Whether labels are indicators."""
        return self.task == "multilabel"

    @property
    def classes(self) -> int:
        """Number of classes that are known or were found in labels."""
        return len(self.label_counts) if self.is_multilabel else self.label_counts.shape[1] - 1

    def with_classes_of(self, other: RunningFigures) -> RunningFigures:
        """A copy that also has the classes of other figures of the same task, and their names."""
        figures = copy.copy(self)
        figures.label_counts = self._room_for(other.classes)
        figures.class_names = self.class_names or other.class_names
        return figures

    def _room_for(self, classes: int) -> np.ndarray:
        """A copy of `label_counts` of at least so many classes."""
        if classes <= self.classes:  # `np.pad` takes as long as all else that a step needs
            return self.label_counts.copy()
        added = (0, classes - self.classes)
        return np.pad(self.label_counts, (added, (0, 0)) if self.is_multilabel else ((0, 0), added))

    def take(self, labels: np.ndarray | RaggedRows, confidence: np.ndarray | RaggedRows) -> None:
        """Counts rows.

        Args:
            labels: Integers. Numbers of classes of shape `(rows, ...)`, -1 for none; or indicators
                of shape `(rows, ..., classes)`.
            confidence: Floats in [0, 1] or NaN, of any shape.

        Raises:
            ValueError: If labels are not integers from -1 on, or indicators not -1, 0 or 1. No row
                is counted.
        """
        label_counts = self._count(labels)
        values = confidence.values if isinstance(confidence, RaggedRows) else confidence
        known = values[~np.isnan(values)]
        # Not in place: those who asked for the counts keep what they got.
        self.confidence_counts = self.confidence_counts + histogram(
            np.clip(known, 0, 1), len(self.confidence_counts)
        )
        self._below_threshold += int(np.count_nonzero(known < self._threshold))
        self.label_counts = label_counts
        self.rows += len(labels)

    @property
    def unlabelled(self) -> int:
        """Labels that are -1."""
        return int(self.label_counts[:, 0].sum())

    @property
    def class_shares(self) -> dict[str, float] | np.ndarray:
        """Share of each class among the labels that are not -1; NaN if there are none.

        A dict from name to share if there are `class_names`, else a float64 array of shape
        `(classes,)`. Of indicators, for each class the share that is 1.
        """
        if self.is_multilabel:
            counts, of = self.label_counts[:, 2], self.label_counts[:, 1:].sum(axis=1)
        else:
            counts = self.label_counts[0, 1:]
            of = counts.sum()
        with np.errstate(invalid="ignore"):
            shares: np.ndarray = counts / of
        if self.class_names is None:
            return shares
        return dict(zip(self.class_names, shares.tolist(), strict=False))

    @property
    def share_below_threshold(self) -> float:
        """Share of the confidences below the threshold, without NaN; NaN if there are none."""
        known = int(self.confidence_counts.sum())
        return self._below_threshold / known if known else float("nan")

    def _count(self, labels: np.ndarray | RaggedRows) -> np.ndarray:
        """The counts with those of more labels."""
        values = labels.values if isinstance(labels, RaggedRows) else labels
        highest = 1 if self.is_multilabel else _MOST_CLASSES - 1
        is_integer = values.dtype.kind in "biu"
        if not is_integer or (values.size and not -1 <= values.min() <= values.max() <= highest):
            raise ValueError(
                "`labels` must be integers, "
                + ("1, 0 or -1 (unknown)" if self.is_multilabel else "classes from 0, or -1 (none)")
                + "; return them from a mixin of `kerasext.models`. Received: "
                + (
                    f"labels from {values.min()} to {values.max()}"
                    if is_integer
                    else f"dtype={values.dtype}"
                )
            )
        if not values.size:
            return self.label_counts
        if self.is_multilabel:
            classes: int = (
                labels.row_shapes[:, -1].max()
                if isinstance(labels, RaggedRows)
                else labels.shape[-1]
            )
            indicators = values.reshape(-1, classes)
            found = [np.count_nonzero(indicators == value, axis=0) for value in (-1, 0, 1)]
            counts: np.ndarray = self._room_for(classes) + np.stack(found, axis=1)
            return counts
        # Wider than the labels may be: the largest of them plus one must fit.
        of_classes = np.bincount(values.reshape(-1).astype(np.intp) + 1)
        counts = self._room_for(len(of_classes) - 1)
        counts[0, : len(of_classes)] += of_classes
        return counts
