"""What one pass over the rows finds: how often each class, how sure, which rows least."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from kerasext.storage import ExportedOutputs, PredictionFile, RaggedOutput, RaggedRows

BINS = 20

_BLOCK_BYTES = 8 * 1024 * 1024


class RowTally:
    """Reads the labels and confidences of a head once, in blocks, in constant memory.

    Args:
        predictions: The file.
        head: String. Name of the head, `""` where there is one.
        least: Int. How many of the least confident rows to find.

    Attributes:
        has_labels, has_confidence: Bools. Whether they are stored, as integers or strings, and as
            real numbers.
        is_multi_label: Bool. Whether labels are indicators, one for each class.
        counts: Dict from label to how many there are: of indicators, from class to how many are 1;
            the label -1, of what has NaN, is among them.
        labels: Int. How many labels there are in all; of indicators, rows.
        histogram: Array of shape `(BINS,)`, int64: confidences in bins of one width from 0 to 1.
        confidences, unsure: Ints. How many are in the histogram; how many are NaN or beyond it.
        mean_confidence: Float. Of those in the histogram, NaN without any.
        least_confident: Array of shape `(rows,)`, int64: the least confident rows, the least
            first, of equals the earlier one. A row with NaN is the least confident. One with
            several labels is as sure as its least sure label, one with several positions as their
            mean.
        least_confidence: Array of shape `(rows,)`, float64: how sure they are.
    """

    def __init__(self, predictions: PredictionFile, head: str, least: int) -> None:
        prefix = f"{head}/" if head else ""
        label_name, confidence_name = f"{prefix}labels", f"{prefix}confidence"
        stored = {
            name: predictions[name]
            for name, kinds in ((label_name, "biuU"), (confidence_name, "f"))
            if name in predictions and predictions[name].dtype.kind in kinds
        }
        self.has_labels, self.has_confidence = label_name in stored, confidence_name in stored
        self.is_multi_label = self.has_labels and _are_indicators(predictions, prefix)
        self.counts: Counter[Any] = Counter()
        self.labels = self.confidences = self.unsure = 0
        self.histogram = np.zeros(BINS, np.int64)
        self.least_confident = np.empty(0, np.int64)
        self._least, self._least_keys = least, np.empty(0)
        self._sum = 0.0
        if not stored:
            return
        outputs = ExportedOutputs(stored, {}, None)
        for start, stop in outputs.blocks(_BLOCK_BYTES):
            if self.has_labels:
                self._count(outputs.read(label_name, start, stop))
            if self.has_confidence:
                self._rank(outputs.read(confidence_name, start, stop), start)

    @property
    def mean_confidence(self) -> float:
        """Mean of the confidences in the histogram."""
        return self._sum / self.confidences if self.confidences else float("nan")

    @property
    def least_confidence(self) -> np.ndarray:
        """How sure the least confident rows are, NaN where that is not known."""
        return np.where(self._least_keys == -np.inf, np.nan, self._least_keys)

    def _count(self, labels: np.ndarray | RaggedRows) -> None:
        values = labels.values if isinstance(labels, RaggedRows) else labels
        if self.is_multi_label:
            positions = values.reshape(-1, values.shape[-1])
            self.labels += len(positions)
            for label, count in enumerate((positions == 1).sum(axis=0).tolist()):
                self.counts[label] += count
            values = values[values == -1]
        else:
            self.labels += values.size
        for label, count in zip(*np.unique(values, return_counts=True), strict=True):
            self.counts[label.item()] += int(count)

    def _rank(self, confidence: np.ndarray | RaggedRows, start: int) -> None:
        values = confidence.values if isinstance(confidence, RaggedRows) else confidence
        known = values[(values >= 0) & (values <= 1)].astype(np.float64)
        self.confidences += known.size
        self.unsure += values.size - known.size
        self.histogram += np.histogram(known, BINS, (0, 1))[0]
        self._sum += float(known.sum())

        keys = self._of_rows(confidence)
        keys[np.isnan(keys)] = -np.inf
        keys = np.concatenate([self._least_keys, keys])
        rows = np.concatenate([self.least_confident, np.arange(start, start + len(confidence))])
        order = np.argsort(keys, kind="stable")[: self._least]
        self._least_keys, self.least_confident = keys[order], rows[order]

    def _of_rows(self, confidence: np.ndarray | RaggedRows) -> np.ndarray:
        if isinstance(confidence, RaggedRows):
            means = (row.mean(dtype=np.float64) if row.size else np.nan for row in confidence)
            return np.fromiter(means, np.float64, len(confidence))
        flat = confidence.astype(np.float64).reshape(len(confidence), -1)
        if not flat.shape[1]:
            return np.full(len(flat), np.nan)
        keys: np.ndarray = flat.min(axis=1) if self.is_multi_label else flat.mean(axis=1)
        return keys


def _are_indicators(predictions: PredictionFile, prefix: str) -> bool:
    labels = predictions[f"{prefix}labels"]
    if isinstance(labels, RaggedOutput) or labels.ndim == 1:
        return False
    probabilities = predictions.get(f"{prefix}probabilities")
    if probabilities is None:
        return predictions.prediction_metadata.get("task") == "multilabel"
    return probabilities.shape == labels.shape
