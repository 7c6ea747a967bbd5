"""Labels and confidence from stored probabilities, by another threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.reading.dense_output import DenseOutput


@dataclass(frozen=True)
class RelabelledColumn:
    """A `DenseColumn` that is computed from probabilities whenever its rows are read.

    Args:
        spec: `DenseSpec` of what is computed, which is called `labels` or `confidence`.
        probabilities: `DenseOutput` of shape `(rows, ..., 2)`, or `(rows, ..., labels)`.
        threshold: Array of shape `()`, or `(labels,)`.
        is_multilabel: Bool. Whether each number on the last axis is a label of its own.
    """

    spec: DenseSpec
    probabilities: DenseOutput
    threshold: np.ndarray
    is_multilabel: bool

    @property
    def rows(self) -> int:
        """See `DenseColumn`."""
        return len(self.probabilities)

    @property
    def chunk_rows(self) -> int:
        """See `DenseColumn`."""
        return self.probabilities.rows_at_once

    def read(self, key: Any) -> np.ndarray:
        """See `DenseColumn`."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        values: np.ndarray = self._computed(self.probabilities[rows])[(slice(None), *rest)]
        return values

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """See `DenseColumn`."""
        return self.read(slice(start, stop))

    def take(self, index: np.ndarray) -> np.ndarray:
        """See `DenseColumn`."""
        return self._computed(self.probabilities[index])

    def _computed(self, probabilities: np.ndarray) -> np.ndarray:
        labels, confidence = relabelled(probabilities, self.threshold, self.is_multilabel)
        return confidence if self.spec.dtype.kind == "f" else labels


def relabelled(
    probabilities: np.ndarray, threshold: np.ndarray, is_multilabel: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence of a binary or multi-label head.

    Args:
        probabilities: Array of shape `(rows, ..., 2)`, or `(rows, ..., labels)`.
        threshold: Array of shape `()`, or `(labels,)`.
        is_multilabel: Bool. Whether each number on the last axis is a label of its own.

    Returns:
        Tuple of int32 labels, -1 for NaN, and of float32 confidences.
    """
    # At least float32, as the mixins do before they compare.
    values = probabilities.astype(np.result_type(probabilities.dtype, np.float32), copy=False)
    positive = values if is_multilabel else values[..., 1]
    negative = 1 - values if is_multilabel else values[..., 0]
    above = positive > threshold.astype(values.dtype)
    labels = np.where(np.isnan(positive), -1, above).astype(np.int32)
    return labels, np.where(above, positive, negative).astype(np.float32)


def checked_threshold(threshold: Any, labels: int, name: str) -> np.ndarray:
    """The threshold as an array of shape `()`, or `(labels,)` where there is one for each label.

    Args:
        threshold: What the user gave.
        labels: Int. Labels of a multi-label head, 0 for a binary head, which has one threshold.
        name: String. The head, for messages.

    Raises:
        ValueError: If it has another shape, or is not in [0, 1].
    """
    try:
        values = np.asarray(threshold)
    except ValueError:  # a ragged sequence
        values = np.asarray(None)
    shapes = [(), (labels,)] if labels else [()]
    is_number = values.dtype.kind in "fiu" and values.shape in shapes
    if not is_number or not ((values >= 0) & (values <= 1)).all():
        each = f", or one for each of its {labels} labels" if labels else ""
        of_head = f" of head {name!r}" if name else ""
        raise ValueError(
            f"`threshold`{of_head} must be one number in [0, 1]{each}. "
            f"Received: threshold={threshold!r}"
        )
    return values.astype(np.float64)
