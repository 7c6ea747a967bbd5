"""Prediction sets: classes that hold what is true as often as promised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasext.calibration.arguments import (
    check_choice,
    check_last_axis,
    check_share,
    checked_rows,
)
from kerasext.calibration.conformal import conformal_threshold, fewest_rows
from kerasext.calibration.result import (
    Numbers,
    Result,
    as_numbers,
    check_numbers,
    check_row_count,
    check_single,
    check_texts,
    shown,
)

METHODS = ("lac",)


@dataclass(frozen=True)
class PredictionSets(Result):
    """Thresholds on probabilities that make sets of classes with a promised coverage.

    The promise holds on average over new rows that are exchangeable with the fitted ones, such as
    other rows of one random split. It does not hold for each class, or each kind of row, unless
    `class_conditional` is set.

    Attributes:
        method: String. `"lac"`.
        confidence_level: Float in (0, 1). The coverage that is promised.
        class_conditional: Bool. Whether the promise holds for the rows of each class.
        threshold: Float, or tuple of floats per class if `class_conditional`. Classes at or above
            it are in the set; a float32 number.
        rows: Int. Rows that were fitted.
        coverage: Float in [0, 1]. On the fitted rows: the share of targets that are in their set.
            The mean over rows, where a row has several positions or labels.
        mean_size: Float. On the fitted rows: the mean number of classes in a set.
        fitted_on: String. What the model was at the time; set by the caller.
    """

    method: str
    confidence_level: float
    class_conditional: bool
    threshold: Numbers
    rows: int
    coverage: float
    mean_size: float
    fitted_on: str = ""

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_share("confidence_level", self.confidence_level)
        if not isinstance(self.class_conditional, bool):
            raise ValueError(
                "`class_conditional` must be True or False. "
                f"Received: class_conditional={self.class_conditional!r}"
            )
        check_numbers("threshold", self.threshold, 0, 1)
        if isinstance(self.threshold, tuple) != self.class_conditional:
            raise ValueError(
                "`threshold` must be a tuple if `class_conditional` is set, else one number. "
                f"Received: threshold={self.threshold!r}"
            )
        check_row_count(self.rows)
        for name, high in (("coverage", 1), ("mean_size", np.inf)):
            check_single(name, getattr(self, name))
            check_numbers(name, getattr(self, name), 0, high)
        check_texts(fitted_on=self.fitted_on)

    def __str__(self) -> str:
        each = " for each class" if self.class_conditional else ""
        always = self.classes_always_in if self.class_conditional else ()
        few = f"\nalways in, because of too few rows: classes {[*always]}" if always else ""
        return (
            f"prediction sets ({self.method}) of confidence level {self.confidence_level:g}{each}, "
            f"probability at least {shown(self.threshold)}, fitted on {self.rows:,} rows\n"
            f"coverage {self.coverage:.4g}, mean size {self.mean_size:.4g} on these rows{few}"
        )

    @property
    def classes_always_in(self) -> tuple[int, ...]:
        """Numbers of the classes that are in every set.

        Their threshold is 0, because the class had too few rows to promise anything else.
        """
        if not isinstance(self.threshold, tuple):
            return ()
        return tuple(number for number, value in enumerate(self.threshold) if value == 0)

    def apply(self, probabilities: Any) -> np.ndarray:
        """The set of each row.

        Args:
            probabilities: Float array of shape `(batch, ..., classes)`, as for the fit.

        Returns:
            Bool array of the same shape. A NaN is in no set. A set may be empty: no class is
            plausible.

        Raises:
            ValueError: If there is another number of classes.
        """
        values = np.asarray(probabilities)
        if isinstance(self.threshold, tuple):
            check_last_axis("probabilities", values, len(self.threshold))
        inside: np.ndarray = values.astype(np.float32) >= np.asarray(self.threshold, np.float32)
        return inside


def fit_prediction_sets(
    probabilities: Any,
    targets: Any,
    *,
    task: str,
    confidence_level: float = 0.9,
    method: str = "lac",
    class_conditional: bool = False,
    fitted_on: str = "",
) -> PredictionSets:
    """Fits prediction sets on rows that neither the model nor vector scaling was fitted on.

    A class is in the set if its probability reaches a threshold: LAC, Sadinle, Lei and Wasserman,
    "Least Ambiguous Set-Valued Classifiers With Bounded Error Levels" (2019), with the correction
    for few rows of split conformal prediction. With `class_conditional` each class has a threshold
    of its own, from its own rows: Vovk, "Conditional validity of inductive conformal predictors"
    (2012), Mondrian prediction. Classes with too few rows are in every set.

    Rows with several positions, such as pixels, and several labels have one threshold by conformal
    risk control (Angelopoulos et al., 2024), because positions of a row are not independent. The
    coverage is that of the positions, or of the true labels, of a row, averaged over rows; rows
    without a true label are left out.

    Args:
        probabilities: Float array of shape `(rows, ..., classes)`, at least float32, as the model
            yields them: calibrated, if it is. A NaN is in no set, and counts as a miss.
        targets: Integer array of shape `(rows, ...)`, class numbers; of several labels an array of
            shape `(rows, ..., labels)` of 0 and 1.
        task: String. `"classifier"`, `"binary"` or `"multilabel"`.
        confidence_level: Float in (0, 1). The coverage to promise. Defaults to 0.9.
        method: String. Defaults to `"lac"`, the only one.
        class_conditional: Bool. Whether to promise it for each class. Only for rows with one target
            each. Defaults to `False`.
        fitted_on: String. Kept in the result. Defaults to `""`.

    Returns:
        `PredictionSets`.

    Raises:
        ValueError: If an argument is not possible, or there are too few rows for the level: 0.9
            needs 9 rows, 0.95 needs 19, and each class as many if `class_conditional` is set.

    Example:

    ```python
    sets = fit_prediction_sets(probabilities, targets, task="classifier", confidence_level=0.9)
    print(sets)
    plausible = sets.apply(other_probabilities)
    ```
    """
    check_share("confidence_level", confidence_level)
    check_choice("method", method, METHODS)
    values, truth = checked_rows(probabilities, targets, task)
    if class_conditional and (task == "multilabel" or truth.ndim > 1):
        raise ValueError(
            "`class_conditional` needs one target per row; leave it out for positions and several "
            f"labels. Received: targets.shape={truth.shape}"
        )
    true, row_of, rows = _probabilities_of_truth(values.astype(np.float32, copy=False), truth)
    alpha = 1 - confidence_level
    if class_conditional:
        threshold = _by_class(true, truth, values.shape[-1], alpha)
    else:
        weights = None if len(true) == rows else 1 / np.bincount(row_of)[row_of]
        threshold = _threshold(true, alpha, weights, rows)
    limit = threshold[truth] if threshold.ndim else threshold
    shares = np.bincount(row_of, true >= limit) / np.maximum(np.bincount(row_of), 1)
    counted = np.bincount(row_of) > 0
    return PredictionSets(
        method,
        float(confidence_level),
        bool(class_conditional),
        as_numbers(threshold),
        rows,
        coverage=float(shares[counted].mean()),
        mean_size=float((values.astype(np.float32, copy=False) >= threshold).sum(axis=-1).mean()),
        fitted_on=fitted_on,
    )


def _probabilities_of_truth(
    values: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """What was given to each true class or label: -1 for NaN, the row of each, and how many rows.

    Rows without a true label do not count.
    """
    if values.shape == truth.shape:
        is_true = (truth == 1).reshape(len(truth), -1)
        row_of = np.nonzero(is_true)[0]
        true = values.reshape(len(truth), -1)[is_true]
        rows = int(is_true.any(axis=1).sum())
        if not rows:
            raise ValueError(
                "`targets` must have a true label in some rows; add such rows. Received: only 0"
            )
    else:
        index = truth[..., None].astype(np.int64)
        true = np.take_along_axis(values, index, axis=-1).ravel()
        rows = len(truth)
        row_of = np.repeat(np.arange(rows), truth.size // rows)
    return np.where(np.isnan(true), np.float32(-1), true), row_of, rows


def _threshold(true: np.ndarray, alpha: float, weights: np.ndarray | None, rows: int) -> np.ndarray:
    """The threshold that one order statistic gives, as a float32 array of shape `()`."""
    if rows < fewest_rows(alpha):
        raise ValueError(
            f"`confidence_level` {1 - alpha:g} needs at least {fewest_rows(alpha)} rows; add rows, "
            f"or take a lower level. Received: {rows} rows"
        )
    score = conformal_threshold(-true, alpha, weights, rows)
    if score > 0:
        raise ValueError(
            f"`confidence_level` {1 - alpha:g} can't be reached, because too many true classes "
            f"have the probability NaN; check the model. Received: {int((true < 0).sum())} NaN in "
            f"{len(true)} targets"
        )
    return np.asarray(-score, np.float32) + np.float32(0)  # not -0.0


def _by_class(true: np.ndarray, truth: np.ndarray, classes: int, alpha: float) -> np.ndarray:
    """A threshold per class, 0 for classes with too few rows: shape `(classes,)`."""
    counts = np.bincount(truth, minlength=classes)
    if counts.max() < fewest_rows(alpha):
        raise ValueError(
            f"`confidence_level` {1 - alpha:g} needs at least {fewest_rows(alpha)} rows of a "
            "class; add rows, take a lower level, or leave out `class_conditional`. Received: "
            f"at most {counts.max()} rows of a class"
        )
    thresholds = np.zeros(classes, np.float32)
    for number in np.flatnonzero(counts >= fewest_rows(alpha)):
        rows = int(counts[number])
        thresholds[number] = _threshold(true[truth == number], alpha, None, rows)
    return thresholds
