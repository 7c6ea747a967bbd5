"""Comparing a prediction file with targets, in constant memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kerasext.evaluation import head_outputs
from kerasext.evaluation.calibration import CalibrationSums
from kerasext.evaluation.class_report import class_report
from kerasext.evaluation.evaluation import Evaluation
from kerasext.evaluation.label_counts import ClassCounts, IndicatorCounts
from kerasext.evaluation.risk_coverage import RiskSums
from kerasext.evaluation.target_column import MOST_LABEL, TargetColumn
from kerasext.storage import DenseOutput, PredictionFile, RaggedOutput

_MOST_NUMBERS = 2**18  # that are read of an output at once: 2 MiB in each of some ten arrays
_ROUNDING = 1e-3  # by which half precision, or a sum, may exceed 1


def evaluate(
    predictions: PredictionFile | str | os.PathLike[str],
    *,
    head: str = "",
    targets: Any = None,
    bins: int = 15,
    batch_rows: int = 65536,
) -> Evaluation:
    """Compares the labels in a file with what is true, in memory that rows don't add to.

    The figures are of the committed rows: of a file that is incomplete those there are, and of one
    that was written with `keep` those that were kept. Classes are told from several labels a row by
    the shape of `labels`, which is that of `probabilities` in the second case, or where these were
    not stored, by the task in `prediction_metadata`. Outputs that were stored as `uint8` or
    `uint16` are read as the floats they stand for.

    Args:
        predictions: `PredictionFile`, or string or path-like, the path of one. Has `labels` and
            `confidence`, as models with a mixin predict them.
        head: String. The head, of a file with several. Defaults to `""`, for a file with one.
        targets: What is true: an array in the order of the rows, or the name of a column of the
            file. Whole numbers of the shape of `labels`, or with one more axis: of length 1, or
            one-hot. Several labels a row are 0 and 1 in the shape of `labels`. Text is names of
            classes, if the file has them. Defaults to `None`, for `targets/<head>` or `targets`.
        bins: Int. Bins of confidence in `calibration`. Defaults to 15, as in Guo et al. (2017).
        batch_rows: Int. Rows that are read at once, fewer where a row has many numbers. Defaults to
            65,536.

    Returns:
        `Evaluation`.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If targets or labels are of the wrong dtype.
        ValueError: If the file has no rows, no `labels`, `confidence` or targets; if these are not
            whole numbers, none of the classes, or of another shape; if rows differ in shape; if
            `bins` or `batch_rows` is not positive; if the file was closed, or is damaged.

    Example:

    ```python
    predict_to_hdf5(model, images, "digits.h5", targets=y_test)
    result = evaluate("digits.h5")
    result.accuracy, result.expected_calibration_error
    result.class_report["7"]["recall"]
    ```
    """
    for name, value in (("bins", bins), ("batch_rows", batch_rows)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    if not isinstance(predictions, PredictionFile):
        with PredictionFile(predictions) as opened:
            return evaluate(opened, head=head, targets=targets, bins=bins, batch_rows=batch_rows)
    labels, confidence = _labels_and_confidence(predictions, head)
    is_multilabel = _is_multilabel(predictions, head, labels)
    names = head_outputs.class_names(predictions, head)
    truth = TargetColumn(
        predictions,
        head,
        targets,
        labels_shape=labels.shape,
        is_multilabel=is_multilabel,
        classes=head_outputs.number_of_classes(predictions, head, names, labels),
        names=names,
    )
    counts = IndicatorCounts(labels.shape[-1]) if is_multilabel else ClassCounts(truth.classes)
    calibration, risk = CalibrationSums(bins), RiskSums()
    unlabelled = right = exact = 0
    row_size = max(truth.row_size, int(np.prod(labels.shape[1:], dtype=np.int64)), 1)
    step = max(min(batch_rows, _MOST_NUMBERS // row_size), 1)
    for start in range(0, len(labels), step):
        rows = slice(start, start + step)
        true, given, sure = truth.read(rows), _labels(labels, rows), _confidence(confidence, rows)
        counts.add(true, given)
        is_right, is_unlabelled = true == given, given < 0
        sure[is_unlabelled] = np.nan
        calibration.add(sure.ravel(), is_right.ravel())
        risk.add(sure.ravel(), is_right.ravel())
        right += int(is_right.sum())
        unlabelled += int(is_unlabelled.sum())
        exact += int(is_right.all(axis=-1).sum()) if is_multilabel else 0
    count = int(np.prod(labels.shape, dtype=np.int64))
    if names is None or len(names) != len(counts.matrix):
        names = [str(number) for number in range(len(counts.matrix))]
    calibrated, curve = calibration.result(), risk.result()
    return Evaluation(
        rows=len(labels),
        count=count,
        unlabelled=unlabelled,
        accuracy=right / count,
        exact_match_ratio=exact / (count // labels.shape[-1]) if is_multilabel else None,
        class_names=names,
        confusion_matrix=counts.matrix,
        class_report=class_report(names, counts.matrix),
        calibration=calibrated,
        expected_calibration_error=calibrated.expected_error,
        risk_coverage=curve,
        area_under_risk_coverage=curve.area,
    )


def _labels_and_confidence(
    predictions: PredictionFile, head: str
) -> tuple[DenseOutput, DenseOutput]:
    labels, confidence = head_outputs.labels_and_confidence(predictions, head)
    if isinstance(labels, RaggedOutput) or isinstance(confidence, RaggedOutput):
        raise ValueError(
            "Rows of different shapes can't be evaluated; predict with padding. "
            f"Received: output {labels.name!r} of shape {labels.shape}"
        )
    return labels, confidence


def _is_multilabel(predictions: PredictionFile, head: str, labels: DenseOutput) -> bool:
    probabilities = predictions.get(head_outputs.path_of(head, "probabilities"))
    if probabilities is None:
        is_multilabel = predictions.prediction_metadata.get("task") == "multilabel"
    else:
        is_multilabel = probabilities.shape == labels.shape
    return is_multilabel and labels.ndim > 1


def _labels(labels: DenseOutput, rows: slice) -> np.ndarray:
    values: np.ndarray = labels[rows]
    if values.min() < -1 or values.max() > MOST_LABEL:
        raise ValueError(
            "Labels must be -1 (no label) or numbers of classes. "
            f"Received: {labels.name!r} from {values.min()} to {values.max()}"
        )
    return values.astype(np.int64)


def _confidence(confidence: DenseOutput, rows: slice) -> np.ndarray:
    values: np.ndarray = confidence[rows].astype(np.float64)
    least, most = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    if least < -_ROUNDING or most > 1 + _ROUNDING:
        raise ValueError(
            "Confidence must be in [0, 1], as the mixins predict it. "
            f"Received: {confidence.name!r} from {least} to {most}"
        )
    values.clip(0, 1, out=values)
    return values
