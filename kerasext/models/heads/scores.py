"""How sure a model is, in one number for all its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

_TINY = float(np.finfo(np.float32).tiny)


def scores_of(names: Sequence[str], probabilities: Any) -> dict[str, Any]:
    """The scores of distributions over classes, for a compiled predict step.

    Args:
        names: Keys of `SCORES`.
        probabilities: Tensor of shape `(batch, ..., classes)`, at least float32.

    Returns:
        Dict from name to a float32 tensor of shape `(batch, ...)`, NaN where any probability is.
    """
    if not names:
        return {}
    unknown = ops.any(ops.isnan(probabilities), axis=-1)
    found = {name: ops.cast(SCORES[name](probabilities), "float32") for name in names}
    return {name: ops.where(unknown, float("nan"), score) for name, score in found.items()}


def _entropy(probabilities: Any) -> Any:
    """The entropy in nats."""
    # So small a p adds nothing; and where backends take it for zero, its logarithm is infinite.
    counted = ops.where(probabilities > _TINY, probabilities, 1.0)
    entropy = -ops.sum(probabilities * ops.log(counted), axis=-1)
    return ops.maximum(entropy, 0.0)  # a softmax may round to more than 1


def _margin(probabilities: Any) -> Any:
    """The difference of the two largest."""
    if probabilities.shape[-1] == 2:  # several times as fast as `top_k`
        return ops.abs(probabilities[..., 0] - probabilities[..., 1])
    largest, _ = ops.top_k(probabilities, k=2)
    # Not by index: of a `top_k` that is sliced XLA makes a sort of all classes on CPUs.
    return ops.max(largest, axis=-1) - ops.min(largest, axis=-1)


SCORES = {"entropy": _entropy, "margin": _margin}
