"""Figures that judge probabilities against what is true."""

from __future__ import annotations

import numpy as np

from kerasext.calibration.logits import SMALLEST


def log_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The negative log likelihood of each target, in nats; its mean is the usual log loss.

    A proper score: the true probabilities have the least mean (Good, "Rational Decisions", 1952).

    Args:
        probabilities: Float array of shape `(..., classes)`; or `(..., labels)`, of several labels.
        targets: Integer array of shape `(...)`, class numbers; or of the shape of `probabilities`,
            0 or 1 for each label.

    Returns:
        Float64 array of the shape of `targets`; NaN where the probability is. A probability of 0
        counts as 1.2e-38.
    """
    found = probability_of_target(probabilities, targets)
    losses: np.ndarray = -np.log(np.maximum(found, SMALLEST))
    return losses


def squared_errors(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The Brier score of each target, in [0, 2]; of two classes or labels in [0, 1].

    Brier, "Verification of forecasts expressed in terms of probability" (1950). Of two classes it
    is half of Brier's sum, the squared error of the probability of class 1, as in scikit-learn's
    `brier_score_loss`.

    Args:
        probabilities: Float array, see `log_losses`.
        targets: Integer array, see `log_losses`.

    Returns:
        Float64 array of the shape of `targets`; NaN where a probability is.
    """
    found = probability_of_target(probabilities, targets)
    if probabilities.shape == targets.shape:
        return (1 - found) ** 2
    values = np.asarray(probabilities, np.float64)
    errors: np.ndarray = np.einsum("...k,...k->...", values, values) - found**2 + (1 - found) ** 2
    return errors / 2 if values.shape[-1] == 2 else errors


def probability_of_target(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The probability that was given to what is true, in float64 and the shape of `targets`."""
    if probabilities.shape == targets.shape:
        values = np.asarray(probabilities, np.float64)
        return np.where(targets == 1, values, 1 - values)
    index = targets[..., None].astype(np.int64)
    return np.take_along_axis(probabilities, index, axis=-1)[..., 0].astype(np.float64)


def reliability_bins(
    confidence: np.ndarray, is_right: np.ndarray, bins: int = 15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of labels in equal bins of confidence; those of several blocks can be added up.

    A bin has the confidences above its lower edge up to its upper edge, the first one 0 too, as in
    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 2.

    Args:
        confidence: Float array of shape `(labels,)`, in [0, 1]. Labels with NaN are left out.
        is_right: Boolean array of shape `(labels,)`.
        bins: Int. Number of bins. Defaults to 15, as in the paper.

    Returns:
        Tuple of arrays of shape `(bins,)`: the labels in each bin, the sum of their confidences,
        and how many of them are right.
    """
    known = ~np.isnan(confidence)
    sure, right = np.asarray(confidence[known], np.float64), is_right[known]
    places = np.searchsorted(np.linspace(0, 1, bins + 1), sure, "left") - 1
    places = places.clip(0, bins - 1)
    return (
        np.bincount(places, minlength=bins),
        np.bincount(places, sure, bins),
        np.bincount(places[right], minlength=bins),
    )


def expected_calibration_error(
    confidence: np.ndarray, is_right: np.ndarray, bins: int = 15
) -> float:
    """The mean distance of confidence and accuracy in bins of confidence, in [0, 1].

    Guo et al. (2017), equation 3. It is no proper score: a model that always gives the class
    frequencies has an error of 0. Read it together with `log_losses`.

    Args:
        confidence: Float array of shape `(labels,)`, in [0, 1]. Labels with NaN are left out.
        is_right: Boolean array of shape `(labels,)`.
        bins: Int. Number of bins. Defaults to 15, as in the paper.

    Returns:
        Float; NaN if no label has a confidence.
    """
    counts, confidences, right = reliability_bins(confidence, is_right, bins)
    total = counts.sum()
    return float(np.abs(right - confidences).sum() / total) if total else float("nan")
