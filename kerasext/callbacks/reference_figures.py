"""The figures of a prediction file, to compare others with."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np

from kerasext.callbacks.running_figures import RunningFigures
from kerasext.storage import PredictionFile

_ROWS_AT_ONCE = 65536


def read_figures(
    reference: PredictionFile | str | os.PathLike[str],
    *,
    head: str,
    bins: int,
    threshold: float,
    task: str | None,
) -> RunningFigures:
    """Counts the labels and confidences of a file, some rows at a time.

    Args:
        reference: `PredictionFile`, or the path of one.
        head: String. Group of `labels` and `confidence`; `""` for the root.
        bins: As for `RunningFigures`.
        threshold: As for `RunningFigures`.
        task: String. What the model says of itself, which the file must say, too; `None` if
            nothing.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no prediction file, is closed, has no rows or not the outputs, or is of
            another task.
    """
    with contextlib.ExitStack() as stack:
        if not isinstance(reference, PredictionFile):
            reference = stack.enter_context(PredictionFile(reference))
        names = [f"{head}/{name}".lstrip("/") for name in ("labels", "confidence")]
        missing = [name for name in names if name not in reference]
        of_file = reference.prediction_metadata.get("task")
        if missing or not reference.rows or of_file != task:
            raise ValueError(
                f"`reference` must have rows of {names}, of a model of the same task ({task}); "
                "pass the file of an earlier `predict` of this model. "
                f"Received: {str(reference.path)!r} with {reference.rows} rows of "
                f"{sorted(reference)}, of the task {of_file}"
            )
        labels, confidence = (reference[name] for name in names)
        multi_label = task == "multilabel"
        figures = RunningFigures(bins=bins, threshold=threshold, multi_label=multi_label)
        for start in range(0, reference.rows, _ROWS_AT_ONCE):
            part = slice(start, min(start + _ROWS_AT_ONCE, reference.rows))
            figures.take(
                _joined(labels[part], multi_label),
                _joined(confidence[part], multi_label),
                part.stop - part.start,
            )
        return figures


def _joined(rows: Any, multi_label: bool) -> np.ndarray:
    """One array of rows, be it that they are a list of them, which differ in shape."""
    if isinstance(rows, np.ndarray):
        return rows
    return np.concatenate(
        [row.reshape(-1, row.shape[-1]) if multi_label else row.ravel() for row in rows]
    )
