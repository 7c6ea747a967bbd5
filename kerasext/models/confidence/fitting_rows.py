"""The rows that a calibration, prediction sets or thresholds are fitted on."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kerasext.calibration import SMALLEST_COMPLEMENT, Calibration
from kerasext.common import to_json
from kerasext.evaluation import TargetColumn
from kerasext.models.fingerprint import fingerprint
from kerasext.models.heads import graph
from kerasext.storage import (
    FINGERPRINT,
    ROW,
    ClassNames,
    Head,
    PredictionFile,
    RaggedOutput,
    opened,
    output_path,
    setting_of,
)

if TYPE_CHECKING:
    from kerasext.models.prediction_mixin import PredictionMixin


class FittingRows(NamedTuple):
    """Rows of a head, with what is true of each.

    Args:
        head: String. The head.
        task: String. Its task.
        uncalibrated: Array of shape `(rows, ..., classes)`: probabilities without calibration.
        probabilities: The same with the calibration that the model has.
        targets: Integer array of the shape of the labels.
    """

    head: str
    task: str
    uncalibrated: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray


def fitting_rows(
    model: PredictionMixin, x: Any, y: Any, *, head: str, rows: Any, batch_size: int | None
) -> FittingRows:
    """Predicts rows, or reads them from a file of the same model.

    The arguments after `model` are those of `PredictionMixin.calibrate`.

    Raises:
        TypeError: If targets are of the wrong dtype.
        ValueError: If the rows can't be fitted on.
    """
    if isinstance(x, PredictionFile | str | os.PathLike):
        with opened(x) as file:
            return _of_file(model, file, y, head, rows)
    if y is None:
        raise ValueError(
            "`y` must be the targets of the rows of `x`; a file that has targets needs none. "
            "Received: y=None"
        )
    if rows is not None:
        raise ValueError(
            f"`rows` chooses rows of a file; index `x` and `y` instead. Received: rows={rows!r}"
        )
    return _of_data(model, x, y, head, batch_size)


def _of_data(
    model: PredictionMixin, x: Any, y: Any, head: str, batch_size: int | None
) -> FittingRows:
    outputs = graph.heads(model.predict(x, batch_size=batch_size, verbose=0))
    head = _choose_head(model, head)
    probabilities = outputs.get(output_path(head, "probabilities"))
    if probabilities is None:
        raise ValueError(
            "The model must predict `probabilities`; keep them in its `postprocess`. "
            f"Received: the outputs {sorted(outputs)}"
        )
    names = model._setting("class_names", head)
    view = Head(
        head,
        outputs,
        {"task": model._task_of(head)} if not head else {"task": {head: model._task_of(head)}},
        class_names=None if names is None else ClassNames(names),
    )
    calibration = model._setting("calibration", head)
    uncalibrated = probabilities if calibration is None else calibration.undo(probabilities)
    targets = _targets({}, view, y)
    return _checked(model, head, uncalibrated, probabilities, targets)


def _of_file(
    model: PredictionMixin, file: PredictionFile, y: Any, head: str, rows: Any
) -> FittingRows:
    view = file.head(head)
    head = _choose_head(model, view.name)
    _check_file(model, file, view)
    stored = view.require("probabilities")
    if isinstance(stored, RaggedOutput):
        raise ValueError(
            "Rows must have one shape; predict with padding. "
            f"Received: output {stored.name!r} of shape {stored.shape}"
        )
    if stored.stored_dtype.kind != "f" or stored.stored_dtype.itemsize < 4:
        raise ValueError(
            "Probabilities must be stored in full precision, because rounding makes another "
            "temperature; predict without `dtypes` for them. "
            f"Received: output {stored.name!r} stored as {stored.stored_dtype}"
        )
    chosen = slice(None) if rows is None else rows
    probabilities, targets = stored[chosen], _targets(file, view, y)[chosen]
    had = view.calibration
    before = None if had is None else Calibration.from_json(had)
    has = model._setting("calibration", head)
    uncalibrated = probabilities if before is None else before.undo(probabilities)
    if has != before:
        probabilities = uncalibrated if has is None else has.apply(uncalibrated)
    return _checked(model, head, uncalibrated, probabilities, targets)


def _targets(file: Mapping[str, Any], view: Head, y: Any) -> np.ndarray:
    column = TargetColumn(file, view, y)
    return column.read(slice(0, view.require("labels").shape[0]))


def _choose_head(model: PredictionMixin, head: str) -> str:
    heads = {name: model._task_of(name) for name in model._known_heads() or ("",)}
    of_tasks = [name for name, task in heads.items() if task not in (None, "regressor")]
    if not head and len(of_tasks) == 1:
        return of_tasks[0]
    if head in of_tasks:
        return head
    near = difflib.get_close_matches(head, of_tasks, n=1)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    raise ValueError(
        f"`head` must be a head that yields probabilities, one of {of_tasks}{nearest}. "
        f"Received: head={head!r} of the task {heads.get(head)!r}"
    )


def _check_file(model: PredictionMixin, file: PredictionFile, view: Head) -> None:
    """Checks that the file has all rows of a run of this model."""
    received = f"Received: {os.fspath(file.path)!r}"
    if not file.complete:
        raise ValueError(
            "The file must be complete, because rows that came first need not be like the rest; "
            f"finish it with `mode='resume'`. {received}, incomplete"
        )
    if ROW in file.columns:
        raise ValueError(
            "The file must have all rows of its data, because rows that `keep` chose are not like "
            f"those to come; predict without `keep`. {received}, with the column {ROW!r}"
        )
    metadata = file.prediction_metadata
    if fingerprint(model, to_json(metadata, "prediction_metadata")) != file.origin.get(FINGERPRINT):
        raise ValueError(
            "The file must be of this model and these weights; predict again. "
            f"{received}, of {file.origin.get('model_name')!r}"
        )
    for name, value in (
        ("task", model._task_of(view.name)),
        ("from_logits", model._setting("from_logits", view.name)),
    ):
        stored = setting_of(metadata, name, view.name)
        if stored != value:
            raise ValueError(
                f"The file must be made with the `{name}` that the model has; predict again. "
                f"{received}, with {name}={stored!r}, and a model with {name}={value!r}"
            )


def _checked(
    model: PredictionMixin,
    head: str,
    uncalibrated: np.ndarray,
    probabilities: np.ndarray,
    targets: np.ndarray,
) -> FittingRows:
    if head in model._half_heads:
        raise ValueError(
            "The model must yield float32, because rounding makes another temperature; give its "
            "last layer `dtype='float32'`. Received: a head of half precision"
        )
    task = model._task_of(head)
    assert task is not None
    if task == "binary" and not model._setting("from_logits", head):
        # As in the compiled step: where "yes" is rounded to 1, nobody knows how small "no" is.
        least = np.array([SMALLEST_COMPLEMENT, 0], uncalibrated.dtype)
        uncalibrated = np.maximum(uncalibrated, least)
    return FittingRows(head, task, uncalibrated, probabilities, targets)
