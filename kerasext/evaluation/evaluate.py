"""Comparing a prediction file with targets, in constant memory."""

from __future__ import annotations

import os
import warnings
from typing import Any

from kerasext.evaluation.counts import MOST_ROWS, TargetCounts, read_blocks
from kerasext.evaluation.evaluation import Evaluation
from kerasext.evaluation.figures.regression import RegressionEvaluation, evaluate_regression
from kerasext.storage import PredictionFile, opened


def evaluate(
    predictions: PredictionFile | str | os.PathLike[str],
    *,
    head: str = "",
    targets: Any = None,
    threshold: Any = None,
    bins: int = 15,
    batch_rows: int = MOST_ROWS,
) -> Evaluation | RegressionEvaluation:
    """Compares the labels in a file with what is true, in memory that rows don't add to.

    The figures are of the committed rows: of a file that is incomplete those there are, and of one
    that was written with `keep` those that were kept. Classes are told from several labels a row by
    the shape of `labels`, which is that of `probabilities` in the second case, or where these were
    not stored, by the task in `prediction_metadata`. Outputs that were stored as `uint8` or
    `uint16` are read as the floats they stand for.

    Args:
        predictions: `PredictionFile`, or string or path-like, the path of one. Has `labels` and
            `confidence`, as models with a mixin predict them.
        head: String. The head, of a file with several. Defaults to `""`, for the only one.
        targets: What is true: an array in the order of the rows, or the name of a column of the
            file. Whole numbers of the shape of `labels`, or with one more axis: of length 1, or
            one-hot. Several labels a row are 0 and 1 in the shape of `labels`. Text is names of
            classes, if the file has them. Defaults to `None`, for `targets/<head>` or `targets`.
        threshold: Float in [0, 1], or, of a multi-label head, an array of one per label. Evaluates
            the labels that this threshold gives, from the stored `probabilities` of a binary or
            multi-label head: see `Head.labels_at`. Defaults to `None`, for the labels as stored.
        bins: Int. Bins of confidence in `calibration_curve`. Defaults to 15, as in Guo et al.
            (2017).
        batch_rows: Int. Rows that are read at once, fewer where a row has many numbers. Defaults to
            65,536.

    Returns:
        `Evaluation`.

    Warns:
        UserWarning: If the file says that its calibration, sets or abstention are stale: the model
            had other weights or settings when they were fitted.

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
    with opened(predictions) as file:
        view = file.head(head)
        if threshold is not None:
            view = view.at_threshold(threshold)
        if view.is_regression:
            return evaluate_regression(file, view, targets, batch_rows=batch_rows)
        counts = TargetCounts(file, view, targets, bins=bins)
        most_rows = min(batch_rows, counts.most_rows)
        if view.stale:
            of_head = f" of head {view.name!r}" if view.name else ""
            warnings.warn(
                f"{' and '.join(view.stale)}{of_head} must be fitted on the weights and settings "
                "that predict; fit again, and predict again. "
                f"Received: a file with stale={view.stale}",
                stacklevel=2,
            )
        for block in read_blocks(*counts.outputs, most_rows=most_rows):
            counts.take(*block)
        return counts.result()
