"""What a calibration, prediction sets and abstention do in the compiled step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasext.calibration import (
    SMALLEST,
    SMALLEST_COMPLEMENT,
    Abstention,
    Calibration,
    PredictionSets,
)

Setting = Callable[[str], Any]


def at_least_float32(y_pred: Any) -> Any:
    """The tensor, raised to at least float32: half precision ties and sums badly."""
    # Not by `keras.backend.result_type`, whose float64 is float32 on JAX and torch.
    dtype = str(keras.backend.standardize_dtype(y_pred.dtype))
    return ops.cast(y_pred, dtype if dtype == "float64" else "float32")


def class_probabilities(y_pred: Any, setting: Setting) -> Any:
    """Probabilities of classes that exclude each other.

    Args:
        y_pred: Tensor of shape `(batch, ..., classes)`: logits or probabilities.
        setting: Function from the name of a setting to its value.

    Returns:
        Tensor of the same shape, at least float32, calibrated if the head is.
    """
    y_pred, from_logits = at_least_float32(y_pred), setting("from_logits")
    calibration: Calibration | None = setting("calibration")
    if calibration is None:
        return ops.softmax(y_pred, axis=-1) if from_logits else y_pred
    if calibration.method == "vector":
        # Floored as probabilities are: the mean of a row with -inf would be -inf.
        logits = ops.log_softmax(y_pred, axis=-1) if from_logits else _log(y_pred)
        logits = _at_least(logits, float(np.log(SMALLEST)))
        # Not `mean`, which makes float32 of float64 on JAX.
        logits -= ops.sum(logits, axis=-1, keepdims=True) / np.size(calibration.scale)
    else:
        logits = y_pred if from_logits else _log(y_pred)
    return ops.softmax(_scaled(logits, calibration), axis=-1)


def binary_probabilities(y_pred: Any, setting: Setting) -> Any:
    """Probabilities of "no" and "yes", each as exact as floats are.

    Args:
        y_pred: Tensor of shape `(batch, ...)`: logits or probabilities of "yes".
        setting: Function from the name of a setting to its value.

    Returns:
        Tuple of two tensors of the same shape, at least float32, calibrated if the head is.
    """
    y_pred, from_logits = at_least_float32(y_pred), setting("from_logits")
    calibration: Calibration | None = setting("calibration")
    if calibration is not None:
        no = _at_least(1 - y_pred, SMALLEST_COMPLEMENT)
        logits = y_pred if from_logits else _log(y_pred) - ops.log(no)
        y_pred, from_logits = _scaled(logits, calibration), True
    if from_logits:
        # 1 - sigmoid(x) loses every digit where x is large, sigmoid(-x) none.
        return ops.sigmoid(-y_pred), ops.sigmoid(y_pred)
    return 1 - y_pred, y_pred


def acted_on(outputs: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """The outputs that prediction sets and abstention add.

    Args:
        outputs: Dict with `probabilities` of shape `(batch, ..., classes)` and `confidence`.
        setting: Function from the name of a setting to its value.

    Returns:
        Dict of `prediction_set`, bool of the shape of `probabilities`, and `set_size`, int32 of
        shape `(batch, ...)`, if the head has sets; and of `abstained`, bool of the shape of
        `confidence`, if it abstains. No class is in the set of a row with NaN, and it abstains.
    """
    added = {}
    sets, abstention = setting("prediction_sets"), setting("abstention")
    probabilities, confidence = outputs["probabilities"], outputs["confidence"]
    unknown = ops.isnan(confidence)
    if sets is not None:
        has_axis = len(probabilities.shape) > len(confidence.shape)
        no_class = unknown[..., None] if has_axis else unknown
        least = ops.where(no_class, float("inf"), _threshold(sets))
        chosen = ops.cast(probabilities, "float32") >= least
        added["prediction_set"] = chosen
        added["set_size"] = ops.sum(ops.cast(chosen, "int32"), axis=-1)
    if abstention is not None:
        # TensorFlow makes `<` of "not `>=`", which is another answer for NaN.
        below = confidence < _threshold(abstention)
        added["abstained"] = ops.logical_or(unknown, below)
    return added


def _log(probabilities: Any) -> Any:
    return ops.log(_at_least(probabilities, SMALLEST))


def _at_least(tensor: Any, least: float) -> Any:
    # Not `maximum`, which need not pass on NaN.
    return ops.where(tensor < least, least, tensor)


def _scaled(logits: Any, calibration: Calibration) -> Any:
    scale, bias = (
        ops.convert_to_tensor(value, logits.dtype)
        for value in (calibration.scale, calibration.bias)
    )
    return logits * scale + bias


def _threshold(fitted: PredictionSets | Abstention) -> Any:
    return ops.convert_to_tensor(fitted.threshold, "float32")
