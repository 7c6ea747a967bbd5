"""Fitting what makes the confidence of a model mean something."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasext.calibration import (
    Abstention,
    Calibration,
    PredictionSets,
    ThresholdChoice,
    fit_abstention,
    fit_calibration,
    fit_prediction_sets,
    fit_threshold,
    rows_digest,
)
from kerasext.models.confidence.fitting_rows import FittingRows
from kerasext.models.confidence.stale import METHODS, fitted_on, weights_digest
from kerasext.storage import relabelled

if TYPE_CHECKING:
    from kerasext.models.prediction_mixin import PredictionMixin


def calibrate(model: PredictionMixin, rows: FittingRows, method: str | None) -> Calibration:
    """See `PredictionMixin.calibrate`."""
    weights = weights_digest(model)
    calibration = fit_calibration(
        rows.uncalibrated,
        rows.targets,
        task=rows.task,
        method=method,
        fitted_on=fitted_on(model, rows.head, "calibration", weights),
    )
    _set(model, "calibration", rows.head, calibration)
    for name in ("prediction_sets", "abstention"):
        if model._setting(name, rows.head) is not None:
            _set(model, name, rows.head, None)
            warnings.warn(
                f"`{name}` is dropped, because it was fitted on other probabilities; call "
                f"`model.{METHODS[name]}` again. Received: a new calibration"
                + (f" of head {rows.head!r}" if rows.head else ""),
                stacklevel=3,
            )
    return calibration


def conformalize(
    model: PredictionMixin,
    rows: FittingRows,
    *,
    confidence_level: float,
    method: str,
    class_conditional: bool,
) -> PredictionSets:
    """See `PredictionMixin.conformalize`."""
    calibration = model._setting("calibration", rows.head)
    if (
        calibration is not None
        and calibration.method == "vector"
        and calibration.rows_digest == rows_digest(rows.uncalibrated, rows.targets)
    ):
        raise ValueError(
            "Prediction sets must be fitted on other rows than vector scaling, or they hold the "
            "target less often than they promise; split the rows in two. "
            f"Received: the {calibration.rows} rows that the calibration was fitted on"
        )
    weights = weights_digest(model)
    sets = fit_prediction_sets(
        rows.probabilities,
        rows.targets,
        task=rows.task,
        confidence_level=confidence_level,
        method=method,
        class_conditional=class_conditional,
        fitted_on=fitted_on(model, rows.head, "prediction_sets", weights),
    )
    _set(model, "prediction_sets", rows.head, sets)
    return sets


def abstain(
    model: PredictionMixin, rows: FittingRows, *, risk: float, confidence_level: float
) -> Abstention:
    """See `PredictionMixin.abstain`."""
    labels, confidence = _labelled(rows, model._setting("threshold", rows.head))
    abstention = fit_abstention(
        labels,
        confidence,
        rows.targets,
        task=rows.task,
        risk=risk,
        confidence_level=confidence_level,
        fitted_on=fitted_on(model, rows.head, "abstention", weights_digest(model)),
    )
    _set(model, "abstention", rows.head, abstention)
    return abstention


def tune_threshold(model: PredictionMixin, rows: FittingRows, metric: str) -> ThresholdChoice:
    """See `PredictionMixin.tune_threshold`."""
    if rows.task not in ("binary", "multilabel"):
        raise ValueError(
            "A threshold is for binary and multi-label heads; a classifier labels the class of the "
            f"largest probability. Received: a head of the task {rows.task!r}"
        )
    is_multilabel = rows.task == "multilabel"
    choice = fit_threshold(
        rows.probabilities if is_multilabel else rows.probabilities[..., 1],
        rows.targets,
        metric=metric,
        before=model._setting("threshold", rows.head),
        several_labels=is_multilabel,
    )
    _set(model, "threshold", rows.head, choice.threshold)
    return choice


def _labelled(rows: FittingRows, threshold: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels and confidence as the compiled step makes them."""
    p = rows.probabilities
    if rows.task != "classifier":
        return relabelled(p, np.asarray(threshold), rows.task == "multilabel")
    unknown = np.isnan(p).any(axis=-1)
    labels = np.where(unknown, -1, p.argmax(axis=-1))
    return labels, np.where(unknown, np.nan, p.max(axis=-1)).astype(np.float32)


def _set(model: PredictionMixin, name: str, head: str, value: Any) -> None:
    if name not in model._settings:
        raise ValueError(
            f"The model must have the setting `{name}`; `PredictionMixin` and `PredictionModel` "
            f"have those of all tasks. Received: a {type(model).__name__}"
        )
    if head:
        given = getattr(model, name)
        by_head = dict(given) if isinstance(given, Mapping) else {}
        if name == "threshold" and not isinstance(given, Mapping):
            heads = [other for other in model._known_heads() if model._head(other).has(name)]
            by_head = dict.fromkeys(heads, given)
        by_head[head] = value
        value = {other: entry for other, entry in by_head.items() if entry is not None} or None
    setattr(model, name, value)
