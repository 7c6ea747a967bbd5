"""Platt scaling: a factor and a bias for the logit of a yes or no."""

from __future__ import annotations

import numpy as np

from kerasext.calibration.logits import sigmoid

_MOST_STEPS = 100
_PRECISION = 1e-10  # of the last step, in logits


def fit_platt(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """The factor and bias of least negative log likelihood of a binary logit.

    Platt, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized
    Likelihood Methods" (1999): the probability of class 1 is `sigmoid(scale * logit + bias)`. The
    targets are 0 and 1 as they are, without Platt's smoothing, because the rows are not those of
    the training, and two parameters need no prior.

    Args:
        logits: Float array of shape `(rows,)`.
        targets: Integer array of shape `(rows,)`. 0 or 1.

    Returns:
        Tuple of two floats: scale, which is positive, and bias.

    Raises:
        ValueError: If there is no optimum, because only one class occurs or one threshold separates
            the classes; or if the model is no better than chance.
    """
    values, positive = np.asarray(logits, np.float64), targets == 1
    ones, zeros = values[positive], values[~positive]
    _check_optimum_exists(ones, zeros)
    middle, spread = values.mean(), values.std()
    standard = (values - middle) / spread
    share = len(ones) / len(values)
    # From the share of class 1 on, which is the optimum without a factor.
    point = np.array([0.0, np.log(share / (1 - share))])
    loss = _loss(standard, positive, point)
    for _ in range(_MOST_STEPS):
        p = sigmoid(point[0] * standard + point[1])
        rest, weights = p - positive, p * (1 - p)
        gradient = np.array([(rest * standard).mean(), rest.mean()])
        cross = (weights * standard).mean()
        hessian = np.array([[(weights * standard**2).mean(), cross], [cross, weights.mean()]])
        step = np.linalg.solve(hessian, -gradient)
        length, slope = 1.0, float(gradient @ step)
        while length > _PRECISION:
            new = _loss(standard, positive, point + length * step)
            # Rounding of the loss itself must not stop the last steps.
            if new <= loss + 1e-4 * length * slope + 1e-14 * abs(loss):
                break
            length /= 2
        point, loss = point + length * step, new
        if np.abs(step).max() < _PRECISION * (1 + np.abs(point).max()):
            break
    scale = float(point[0] / spread)
    return scale, float(point[1] - scale * middle)


def _check_optimum_exists(ones: np.ndarray, zeros: np.ndarray) -> None:
    """Raises `ValueError` if scale or bias would be infinite, or the scale not positive."""
    if not len(ones) or not len(zeros):
        raise ValueError(
            "Platt scaling needs rows of both classes; add rows of the other one. "
            f"Received: {len(zeros)} rows of class 0 and {len(ones)} of class 1"
        )
    if ones.min() >= zeros.max() or zeros.min() >= ones.max():
        raise ValueError(
            "Platt scaling needs classes that overlap; take rows that the model was not trained "
            "on, or more of them. Received: rows whose classes one threshold separates"
        )
    # The sign of this is that of the factor: the slope of the loss without a factor.
    if ones.mean() <= zeros.mean():
        raise ValueError(
            "Platt scaling needs a model that is better than chance; check that targets and rows "
            "are in the same order, and which class is 1. Received: a mean logit of "
            f"{ones.mean():.4g} for class 1 and {zeros.mean():.4g} for class 0"
        )


def _loss(values: np.ndarray, positive: np.ndarray, point: np.ndarray) -> float:
    """The mean negative log likelihood."""
    scaled = point[0] * values + point[1]
    return float((np.logaddexp(0, scaled) - positive * scaled).mean())
