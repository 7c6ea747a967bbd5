"""What the rows of a head say of its probabilities, its prediction sets and its abstention."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasext.calibration import Abstention, Calibration, PredictionSets
from kerasext.evaluation.figures.probability_scores import ScoreSums
from kerasext.evaluation.figures.risk_coverage import AbstentionSums
from kerasext.evaluation.figures.set_report import SetSums
from kerasext.evaluation.figures.uncalibrated import UncalibratedSums
from kerasext.storage import DenseOutput, Head

_EXACT = 4  # bytes of float32: the zeros of smaller floats have no logarithm


class ProbabilityCounts:
    """Counts what depends on outputs that a file need not have.

    Args:
        head: The head.
        shape: Tuple of ints. The shape of its labels.
        classes: Int. Classes, or labels; `None` if unknown.
        bins: Int. Bins of confidence.

    Attributes:
        outputs: Tuple of `probabilities`, `prediction_set` and `abstained`: the outputs to read,
            `None` for those that are not needed, not stored, or of another shape than the labels.

    Raises:
        ValueError: If the metadata of the file has a calibration, sets or an abstention that are
            none.
    """

    def __init__(
        self, head: Head, shape: tuple[int, ...], classes: int | None, *, bins: int
    ) -> None:
        is_multilabel, is_binary = head.is_multilabel, head.task == "binary"
        by_class = shape if is_multilabel else (*shape, classes or 0)
        probabilities = _fitting(head.probabilities, "f", by_class)
        sets = _fitting(head.prediction_set, "b", by_class)
        abstained = _fitting(head.abstained, "b", shape)
        is_exact = probabilities is not None and (
            min(probabilities.dtype.itemsize, probabilities.stored_dtype.itemsize) >= _EXACT
        )
        self._has_logarithms = is_exact
        self._before = self._sets = self._abstention = None
        self._scores = None if probabilities is None else ScoreSums()
        if head.calibration is not None and is_exact:
            threshold = None
            if is_multilabel or is_binary:
                threshold = np.asarray(0.5 if head.threshold is None else head.threshold)
            self._before = UncalibratedSums(
                Calibration.from_json(head.calibration),
                bins,
                threshold,
                is_multilabel=is_multilabel,
            )
        if head.prediction_sets is not None and (sets is not None or is_exact):
            self._fitted_sets = PredictionSets.from_json(head.prediction_sets)
            self._sets = SetSums(self._fitted_sets, by_class[-1], is_multilabel=is_multilabel)
        if head.abstention is not None:
            self._fitted_abstention = Abstention.from_json(head.abstention)
            labels = shape[-1] if is_multilabel else 0
            self._abstention = AbstentionSums(self._fitted_abstention, labels)
        self.outputs = (
            probabilities,
            sets if self._sets else None,
            abstained if self._abstention else None,
        )

    def add(
        self, truth: np.ndarray, is_right: np.ndarray, confidence: np.ndarray, of_outputs: Any
    ) -> None:
        """Adds labels.

        Args:
            truth: Integer array of the shape of the labels.
            is_right: Boolean array of the same shape.
            confidence: Array of the same shape, floats.
            of_outputs: Sequence of the rows of each of `outputs`, `None` as there.
        """
        probabilities, sets, abstained = of_outputs
        if self._scores:
            self._scores.add(probabilities, truth)
        if self._before:
            self._before.add(probabilities, truth)
        if self._sets:
            self._sets.add(self._fitted_sets.apply(probabilities) if sets is None else sets, truth)
        if self._abstention:
            if abstained is None:
                abstained = self._fitted_abstention.apply(confidence)
            self._abstention.add(abstained, is_right)

    def result(self) -> dict[str, Any]:
        """Those attributes of `Evaluation` that say this."""
        scores = self._scores.result() if self._scores else None
        return {
            "negative_log_likelihood": (
                scores.negative_log_likelihood if scores and self._has_logarithms else None
            ),
            "brier_score": scores.brier_score if scores else None,
            "uncalibrated": self._before.result() if self._before else None,
            "prediction_sets": self._sets.result() if self._sets else None,
            "abstention": self._abstention.result() if self._abstention else None,
        }


def _fitting(output: Any, kind: str, shape: tuple[int, ...]) -> DenseOutput | None:
    """An output, if it is of a kind of dtype and has the shape."""
    is_one = isinstance(output, DenseOutput) and output.dtype.kind == kind
    return output if is_one and output.shape == shape else None
