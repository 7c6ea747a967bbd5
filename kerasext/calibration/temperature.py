"""Temperature scaling: one number for all logits."""

from __future__ import annotations

import math

import numpy as np

from kerasext.calibration.arguments import row_blocks
from kerasext.calibration.logits import Logits

_WIDEST = 10.0  # of log(1/T): temperatures from 0.00005 to 22,000
_PRECISION = 1e-12  # of log(1/T)
_MOST_STEPS = 100  # bisection alone takes 45


def fit_temperature(logits: Logits, targets: np.ndarray) -> float:
    """The temperature of least negative log likelihood.

    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2: the
    probabilities are `softmax(logits / temperature)`. The loss is convex in `1 / temperature`.
    Newton's method runs on its logarithm, within a bracket that each step narrows. A step reads the
    logits in blocks, so that memory does not depend on the rows.

    Args:
        logits: Float array of shape `(rows, classes)`; each row may be off by a constant, so that
            log probabilities will do.
        targets: Integer array of shape `(rows,)`. Class numbers.

    Returns:
        Float. Above 1 if the model is too confident.

    Raises:
        ValueError: If a logit is not finite; or if there is no optimum, because all rows are right
            or the model is no better than chance.

    Example:

    ```python
    temperature = fit_temperature(logits, targets)
    probabilities = softmax(logits / temperature)
    ```
    """
    _check_optimum_exists(logits, targets)
    low, high, point = -_WIDEST, _WIDEST, 0.0
    for end, remedy in ((low, _NO_BETTER_THAN_CHANCE), (high, _ALL_RIGHT)):
        slope, _ = _slopes(logits, targets, math.exp(end))
        if slope >= 0 if end == low else slope <= 0:
            raise ValueError(remedy.format(temperature=f"{math.exp(-end):.6g}"))
    for _ in range(_MOST_STEPS):
        inverse = math.exp(point)
        slope, curvature = _slopes(logits, targets, inverse)
        if slope > 0:
            high = point
        else:
            low = point
        # The derivatives by log(1/T).
        first, second = inverse * slope, inverse * inverse * curvature + inverse * slope
        new = point - first / second if second > 0 else math.nan
        if not low < new < high:
            new = (low + high) / 2
        step, point = abs(new - point), new
        if step < _PRECISION:
            break
    return math.exp(-point)


_ALL_RIGHT = (
    "A temperature can be fitted only if some rows are wrong; take rows that the model was not "
    "trained on, or more of them. Received: a likelihood that still grows at the temperature "
    "{temperature}"
)
_NO_BETTER_THAN_CHANCE = (
    "A temperature can be fitted only if the model is better than chance; check that targets and "
    "rows are in the same order, and the numbers of the classes. Received: a likelihood that still "
    "grows at the temperature {temperature}"
)


def _check_optimum_exists(logits: Logits, targets: np.ndarray) -> None:
    """Raises `ValueError` if the best temperature is 0 or infinite, or a logit not finite."""
    slope, all_right = 0.0, True
    for rows in row_blocks(*logits.shape):
        some = np.asarray(logits[rows], np.float64)
        if not np.isfinite(some).all():
            raise ValueError(
                "`logits` must be finite; leave out rows with NaN, and mask classes with a finite "
                "number. Received: NaN or infinity"
            )
        true = np.take_along_axis(some, targets[rows, None].astype(np.int64), axis=-1)[:, 0]
        slope += float((some.mean(axis=-1) - true).sum())
        all_right = all_right and bool((true == some.max(axis=-1)).all())
    if all_right:
        raise ValueError(_ALL_RIGHT.format(temperature="0"))
    if slope >= 0:
        raise ValueError(_NO_BETTER_THAN_CHANCE.format(temperature="infinity"))


def _slopes(logits: Logits, targets: np.ndarray, inverse: float) -> tuple[float, float]:
    """The first two derivatives of the mean loss by `inverse`, which is 1 / temperature.

    They are the mean and variance of the logits under the probabilities, the mean less the logit of
    the target.
    """
    slope = curvature = 0.0
    for rows in row_blocks(*logits.shape):
        some = np.asarray(logits[rows], np.float64)
        some = some - some.max(axis=-1, keepdims=True)
        true = np.take_along_axis(some, targets[rows, None].astype(np.int64), axis=-1)[:, 0]
        weights = np.exp(inverse * some)
        total = weights.sum(axis=-1)
        weights *= some
        mean = weights.sum(axis=-1) / total
        square = np.einsum("ij,ij->i", weights, some) / total
        slope += float((mean - true).sum())
        curvature += float((square - mean**2).sum())
    return slope / logits.shape[0], curvature / logits.shape[0]
