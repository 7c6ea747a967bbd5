"""One pass over the rows of a head, and what it counts against targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kerasext.evaluation.evaluation import Evaluation
from kerasext.evaluation.figures.calibration_curve import CalibrationSums
from kerasext.evaluation.figures.class_report import class_report
from kerasext.evaluation.figures.label_counts import ClassCounts, IndicatorCounts
from kerasext.evaluation.figures.probability_counts import ProbabilityCounts
from kerasext.evaluation.figures.risk_coverage import RiskSums
from kerasext.evaluation.target_column import MOST_LABEL, TargetColumn
from kerasext.storage import (
    DenseOutput,
    Head,
    PredictionFile,
    RaggedOutput,
    read_rows,
    row_blocks,
)

MOST_ROWS = 65536
"""Rows that are read at once."""

_BLOCK_BYTES = 2**21  # of all outputs together; counting takes some times as much
_MOST_NUMBERS = 2**18  # of targets, which one-hot ones have for each class
_ROUNDING = 1e-3  # by which half precision, or a sum, may exceed 1

Output = DenseOutput | RaggedOutput


def read_blocks(*outputs: Output | None, most_rows: int = MOST_ROWS) -> Iterator[tuple[Any, ...]]:
    """Reads outputs of a head from the first row to the last, in constant memory.

    Args:
        *outputs: Outputs such as `labels`; `None` for those that are not stored.
        most_rows: Int. Rows that are read at once at most.

    Yields:
        Tuple of the rows, as a slice, and these rows of each output, `None` if not stored.
    """
    stored = [output for output in outputs if output is not None]
    for start, stop in row_blocks(stored, _BLOCK_BYTES, most_rows=most_rows) if stored else ():
        of_rows = (None if some is None else read_rows(some, start, stop) for some in outputs)
        yield slice(start, stop), *of_rows


def labels_and_confidence(head: Head) -> tuple[Output, Output]:
    """The two outputs that figures are made from.

    Raises:
        TypeError: If labels are not integers or confidences not floats.
        ValueError: If the file has no such outputs, or no rows, or the two differ in shape.
    """
    labels, confidence = head.require("labels"), head.require("confidence")
    if labels.dtype.kind not in "biu" or confidence.dtype.kind != "f":
        raise TypeError(
            "Labels must be integers, and confidence floats, as the mixins predict them. "
            f"Received: {labels.name!r} of dtype {labels.dtype}, {confidence.name!r} of dtype "
            f"{confidence.dtype}"
        )
    if labels.shape != confidence.shape:
        raise ValueError(
            "Labels and confidence must have the same shape. "
            f"Received: {labels.shape} and {confidence.shape}"
        )
    if 0 in labels.shape:
        raise ValueError(
            "The file must have at least one label; predict some rows. "
            f"Received: {labels.name!r} of shape {labels.shape}"
        )
    return labels, confidence


class TargetCounts:
    """Counts the outputs of a head by what is true of them.

    Args:
        predictions: The file.
        head: The head.
        targets: As `evaluate` takes them.
        bins: Int. Bins of confidence.

    Attributes:
        outputs: Tuple of the outputs to read, `None` for those that are not stored.
        most_rows: Int. Rows that should be read at once.

    Raises:
        TypeError: If targets, labels or confidence are of the wrong dtype.
        ValueError: If one of them is missing, or of another shape than the others.
    """

    def __init__(
        self, predictions: PredictionFile, head: Head, targets: Any = None, *, bins: int = 15
    ) -> None:
        labels, confidence = labels_and_confidence(head)
        if isinstance(labels, RaggedOutput) or isinstance(confidence, RaggedOutput):
            raise ValueError(
                "Rows of different shapes can't be evaluated; predict with padding. "
                f"Received: output {labels.name!r} of shape {labels.shape}"
            )
        self._is_multilabel = head.is_multilabel
        self._shape = labels.shape
        self._names = None if head.class_names is None else [*map(str, head.class_names)]
        self._truth = TargetColumn(predictions, head, targets)
        self._counts: ClassCounts | IndicatorCounts = (
            IndicatorCounts(self._shape[-1])
            if self._is_multilabel
            else ClassCounts(self._truth.classes)
        )
        self._curve, self._risk = CalibrationSums(bins), RiskSums()
        self._exact = 0
        self._more = ProbabilityCounts(head, self._shape, self._truth.classes, bins=bins)
        self.outputs = (labels, confidence, *self._more.outputs)
        self.most_rows = max(min(MOST_ROWS, _MOST_NUMBERS // max(self._truth.row_size, 1)), 1)

    def take(self, rows: slice, labels: Any, confidence: Any, *others: Any) -> None:
        """Counts rows.

        Args:
            rows: Slice. Which they are.
            labels: Integer array of shape `(rows, ...)`.
            confidence: Array of floats of the same shape.
            *others: The rows of the other `outputs`.

        Raises:
            ValueError: If targets or labels are none of the classes, or confidence not in [0, 1].
        """
        if labels.min() < -1 or labels.max() > MOST_LABEL:
            raise ValueError(
                "Labels must be -1 (no label) or numbers of classes. "
                f"Received: {self.outputs[0].name!r} from {labels.min()} to {labels.max()}"
            )
        sure = confidence.astype(np.float64)
        least, most = np.nanmin(sure, initial=0), np.nanmax(sure, initial=0)
        if least < -_ROUNDING or most > 1 + _ROUNDING:
            raise ValueError(
                "Confidence must be in [0, 1], as the mixins predict it. "
                f"Received: {self.outputs[1].name!r} from {least} to {most}"
            )
        true, given = self._truth.read(rows), labels.astype(np.int64)
        self._counts.add(true, given)
        is_right = true == given
        sure.clip(0, 1, out=sure)
        sure[given < 0] = np.nan
        self._curve.add(sure.ravel(), is_right.ravel())
        self._risk.add(sure.ravel(), is_right.ravel())
        self._more.add(true, is_right, confidence, others)
        self._exact += int(is_right.all(axis=-1).sum()) if self._is_multilabel else 0

    def result(self) -> Evaluation:
        """What all rows that were counted say."""
        matrix, names = self._counts.matrix, self._names
        if names is None or len(names) != len(matrix):
            names = [str(number) for number in range(len(matrix))]
        count = int(np.prod(self._shape, dtype=np.int64))
        bins, risk = self._curve.result(), self._risk.result()
        return Evaluation(
            rows=self._shape[0],
            count=count,
            unlabelled=count - int(matrix.sum()),
            accuracy=int(np.trace(matrix, axis1=-2, axis2=-1).sum()) / count,
            exact_match_ratio=(
                self._exact / (count // self._shape[-1]) if self._is_multilabel else None
            ),
            class_names=names,
            confusion_matrix=matrix,
            class_report=class_report(names, matrix),
            calibration_curve=bins,
            expected_calibration_error=bins.expected_error,
            risk_coverage=risk,
            area_under_risk_coverage=risk.area,
            **self._more.result(),
        )
