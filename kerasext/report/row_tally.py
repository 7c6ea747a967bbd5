"""What one pass over the rows finds: how often each class, how sure, which rows least."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasext.evaluation import (
    MOST_ROWS,
    Evaluation,
    RegressionEvaluation,
    TargetCounts,
    evaluate,
    histogram,
    read_blocks,
)
from kerasext.report.markup import short
from kerasext.storage import DamagedFileError, Head, PredictionFile, RaggedRows

BINS = 20


class RowTally:
    """Reads the labels and confidences of a head once, in blocks, in constant memory.

    Args:
        predictions: The file.
        head: The head.
        least: Int. How many of the least confident rows to find.

    Attributes:
        has_labels, has_confidence: Bools. Whether they are stored, as integers or strings, and as
            real numbers.
        is_multi_label: Bool. Whether labels are indicators, one for each class.
        evaluation: What a comparison with the targets says, `None` without targets.
        refused: String. Why there is none although there are targets.
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

    def __init__(self, predictions: PredictionFile, head: Head, least: int) -> None:
        labels, confidence = (
            output if output is not None and output.dtype.kind in kinds else None
            for output, kinds in ((head.labels, "biuU"), (head.confidence, "f"))
        )
        self.has_labels, self.has_confidence = labels is not None, confidence is not None
        self.is_multi_label = self.has_labels and head.is_multilabel
        self.counts: Counter[Any] = Counter()
        self.labels = self.confidences = self.unsure = 0
        self.histogram = np.zeros(BINS, np.int64)
        self.least_confident = np.empty(0, np.int64)
        self._least, self._least_keys = least, np.empty(0)
        self._sum = 0.0
        self.evaluation: Evaluation | RegressionEvaluation | None = None
        self.refused = ""
        targets: TargetCounts | None = None
        with self._noting_refusal():
            if head.targets is not None and head.is_regression:
                self.evaluation = evaluate(predictions, head=head.name)
            elif head.targets is not None and labels is not None and 0 not in labels.shape:
                targets = TargetCounts(predictions, head)
        most_rows = targets.most_rows if targets else MOST_ROWS
        outputs = targets.outputs if targets else (labels, confidence)
        for rows, some, sure, *others in read_blocks(*outputs, most_rows=most_rows):
            if some is not None:
                self._count(some)
            if sure is not None:
                self._rank(sure, rows.start)
            if targets and not self.refused:
                with self._noting_refusal():
                    targets.take(rows, some, sure, *others)
        if targets and not self.refused:
            self.evaluation = targets.result()

    @contextlib.contextmanager
    def _noting_refusal(self) -> Iterator[None]:
        try:
            yield
        except DamagedFileError:
            raise
        except (TypeError, ValueError) as error:
            self.refused = short(error)

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
        self.histogram += histogram(known, BINS)
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
