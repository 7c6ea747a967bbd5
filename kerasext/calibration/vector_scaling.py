"""Vector scaling: a factor and a bias for each class."""

from __future__ import annotations

import numpy as np

from kerasext.calibration.arguments import listed, row_blocks
from kerasext.calibration.logits import Logits, centred, softmax
from kerasext.calibration.temperature import fit_temperature

_MOST_STEPS = 100  # 5 to 15 are usual
_PRECISION = 1e-7  # of the last step, in logits: the next one would be about its square
_DAMPING = 1e-9  # of the mean curvature: two classes have one factor too many
_FLAT = 1e-4  # gain in log likelihood of all rows, of a step that moves logits by _FAR
_FAR = 0.1


def fit_vector_scaling(logits: Logits, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The factor and bias of each class of least negative log likelihood.

    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2: the
    probabilities are `softmax(scale * z + bias)`. Here `z` are the logits minus the mean of their
    row, and the biases sum to 0, because otherwise the result would depend on the constant up to
    which logits are known. Full Newton steps with a line search, from temperature scaling on.

    A step takes time in proportion to `rows * classes**2`. With 50,000 rows of 1,000 classes the
    fit takes about a minute on two cores.

    Args:
        logits: Float array of shape `(rows, classes)`; each row may be off by a constant.
        targets: Integer array of shape `(rows,)`. Class numbers.

    Returns:
        Tuple of two float64 arrays of shape `(classes,)`: scale and bias.

    Raises:
        ValueError: If there is no optimum: a class never occurs, classes are separable, all rows
            are right, or the model is no better than chance; or if the factor of a class is not
            positive.
    """
    rows, classes = logits.shape
    missing = np.flatnonzero(np.bincount(targets, minlength=classes) == 0)
    if len(missing):
        raise ValueError(
            "Vector scaling needs rows of every class; add some, or use method='temperature'. "
            f"Received: none of class {listed(missing)}"
        )
    scale = np.full(classes, 1 / fit_temperature(logits, targets))
    _check_overlap(logits, targets)
    bias = np.zeros(classes)
    loss = _loss(logits, targets, scale, bias)
    spread = _root_mean_square(logits)
    for _ in range(_MOST_STEPS):
        gradient, hessian = _derivatives(logits, targets, scale, bias)
        step = np.linalg.solve(hessian, -gradient)
        by_scale, by_bias = step[:classes], step[classes:]
        by_bias = by_bias - by_bias.mean()
        gain = -float(gradient @ step)
        size = float(max(np.abs(by_scale * spread).max(), np.abs(by_bias).max()))
        if size < _PRECISION:
            scale, bias = scale + by_scale, bias + by_bias
            break
        if size > _FAR and gain * rows < _FLAT:
            raise _no_optimum(np.maximum(np.abs(by_scale * spread), np.abs(by_bias)))
        length = 1.0
        while length > _PRECISION:
            # Rounding of the loss itself must not stop the last steps.
            most = loss - 1e-4 * length * gain + 1e-14 * abs(loss)
            new = _loss(logits, targets, scale + length * by_scale, bias + length * by_bias)
            if new <= most:
                break
            length /= 2
        scale, bias, loss = scale + length * by_scale, bias + length * by_bias, new
    else:
        raise _no_optimum(np.maximum(np.abs(by_scale * spread), np.abs(by_bias)))
    if (scale <= 0).any():
        worst = int(np.argmin(scale))
        raise ValueError(
            "Vector scaling needs logits that speak for their class; add rows, or use "
            f"method='temperature'. Received: a factor of {scale[worst]:.4g} for class {worst}"
        )
    return scale, bias


def _check_overlap(logits: Logits, targets: np.ndarray) -> None:
    """Raises `ValueError` if the logit of a class tells its rows from all others.

    Its factor would be infinite. What several classes do together shows in Newton's steps.
    """
    classes = np.arange(logits.shape[1])
    least, most = np.full(len(classes), np.inf), np.full(len(classes), -np.inf)
    for rows in row_blocks(*logits.shape):
        some = centred(np.asarray(logits[rows], np.float64))
        is_own = targets[rows, None] == classes
        least = np.minimum(least, np.where(is_own, some, np.inf).min(axis=0))
        most = np.maximum(most, np.where(is_own, -np.inf, some).max(axis=0))
    if (least >= most).any():
        raise _no_optimum(least - most)


def _no_optimum(growth: np.ndarray) -> ValueError:
    """The error for factors or biases that grow without end, the most those of the worst class."""
    worst = int(np.argmax(growth))
    return ValueError(
        "Vector scaling needs classes that overlap; add rows, or use method='temperature'. "
        "Received: rows on which the likelihood grows without end with the factor or bias of "
        f"class {worst}"
    )


def _root_mean_square(logits: Logits) -> np.ndarray:
    """How far the centred logits of each class are from 0."""
    total = np.zeros(logits.shape[1])
    for rows in row_blocks(*logits.shape):
        total += (centred(np.asarray(logits[rows], np.float64)) ** 2).sum(axis=0)
    spread: np.ndarray = np.sqrt(total / logits.shape[0])
    return spread


def _loss(logits: Logits, targets: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> float:
    """The mean negative log likelihood."""
    total = 0.0
    for rows in row_blocks(*logits.shape):
        scaled = scale * centred(np.asarray(logits[rows], np.float64)) + bias
        scaled -= scaled.max(axis=-1, keepdims=True)
        true = np.take_along_axis(scaled, targets[rows, None].astype(np.int64), axis=-1)[:, 0]
        total += float((np.log(np.exp(scaled).sum(axis=-1)) - true).sum())
    return float(total / logits.shape[0])


def _derivatives(
    logits: Logits, targets: np.ndarray, scale: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of the mean loss by scale and bias.

    With p the probabilities of a row, the Hessian is the mean of `diag(p) - p p^T`, multiplied with
    the logits of the classes on the side of the scales.
    """
    rows_count, classes = logits.shape
    gradient = np.zeros(2 * classes)
    hessian = np.zeros((2 * classes, 2 * classes))
    sums = np.zeros((3, classes))
    for rows in row_blocks(*logits.shape):
        some = centred(np.asarray(logits[rows], np.float64))
        p = softmax(scale * some + bias)
        features = np.concatenate([p * some, p], axis=1)
        hessian -= features.T @ features
        sums[0] += np.einsum("ij,ij->j", features[:, :classes], some)
        sums[1:] += features.sum(axis=0).reshape(2, classes)
        p[np.arange(len(p)), targets[rows]] -= 1
        gradient[:classes] += np.einsum("ij,ij->j", p, some)
        gradient[classes:] += p.sum(axis=0)
    each = np.arange(classes)
    hessian[each, each] += sums[0]
    hessian[each, classes + each] += sums[1]
    hessian[classes + each, each] += sums[1]
    hessian[classes + each, classes + each] += sums[2]
    gradient /= rows_count
    hessian /= rows_count
    damping = _DAMPING * hessian.trace() / (2 * classes)
    # A constant that is added to all biases changes nothing.
    hessian[classes:, classes:] += 1 / classes**2
    hessian[np.diag_indices_from(hessian)] += damping
    return gradient, hessian
