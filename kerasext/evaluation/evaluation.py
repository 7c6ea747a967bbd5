"""What an evaluation says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kerasext.evaluation.figures.calibration_curve import CalibrationCurve
from kerasext.evaluation.figures.class_report import ClassReport
from kerasext.evaluation.figures.risk_coverage import AbstentionReport, RiskCoverage
from kerasext.evaluation.figures.set_report import SetReport
from kerasext.evaluation.figures.uncalibrated import Uncalibrated


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good the predictions in a file are. `evaluate` makes it.

    Attributes:
        rows: Int. Rows that were read.
        count: Int. Labels that were compared with targets: one per row, or as many as a row has of
            them (tokens, pixels, the labels of a multi-label classifier).
        unlabelled: Int. How many of those are -1, because the model yielded NaN. They count as
            wrong in `accuracy`, `exact_match_ratio` and `risk_coverage`, where they are the least
            confident, and are left out of `confusion_matrix`, `class_report` and
            `calibration_curve`.
        class_names: List of strings, one per class; their numbers where the file has no names.
        accuracy: Float. Share of the labels that is right; of a multi-label classifier, of all
            indicators.
        exact_match_ratio: Float. Of a multi-label classifier the share of rows (or tokens, ...)
            that have all their indicators right, which scikit-learn's `accuracy_score` is; else
            `None`.
        confusion_matrix: Array of shape `(classes, classes)`, int64: how often each class (rows)
            was predicted as each (columns). Of a multi-label classifier `(labels, 2, 2)`, one for
            each label, as scikit-learn's `multilabel_confusion_matrix`.
        class_report: Dict from class name, `"macro avg"` and `"weighted avg"` to a dict of
            `"precision"`, `"recall"`, `"f1-score"` and `"support"`, computed from
            `confusion_matrix`: equal to scikit-learn's `classification_report` with
            `output_dict=True, labels=range(classes), zero_division=0`, so that classes that never
            occur count as 0 in `"macro avg"`. A name that several classes have is followed by the
            number of the class, as `"cat (3)"`.
        calibration_curve: `CalibrationCurve`. Confidence and accuracy in bins of confidence.
        expected_calibration_error: Float in [0, 1]: see `CalibrationCurve.expected_error`.
        risk_coverage: `RiskCoverage`. Share of errors among the most confident labels.
        area_under_risk_coverage: Float in [0, 1]: see `RiskCoverage.area`.
        negative_log_likelihood: Float. Mean of `-log(p)` of the probability p of the target, in
            nats; 0 counts as the least float32. Of a multi-label classifier over all labels. `None`
            if `probabilities` are not stored, or in less than float32.
        brier_score: Float in [0, 2]. Brier, "Verification of Forecasts Expressed in Terms of
            Probability" (1950): mean over the labels of the sum over classes of the squared
            difference between probability and target, which is 1 for one class and 0 for others. Of
            two classes, and of each label of a multi-label classifier, it is half of that, in
            [0, 1]: the square for the positive class alone. Both are what scikit-learn's
            `brier_score_loss` gives. `None` if `probabilities` are not stored. Labels that are -1
            count in neither score.
        uncalibrated: `Uncalibrated`. The same figures without the calibration of the model. `None`
            if it has none, or `probabilities` are not stored in at least float32.
        prediction_sets: `SetReport`. Coverage and size of the prediction sets; `None` if the model
            has none. If `prediction_set` is not stored they are made of `probabilities`.
        abstention: `AbstentionReport`. What is left where the model does not abstain; `None` if it
            never does. If `abstained` is not stored it is made of `confidence`.
    """

    rows: int
    count: int
    unlabelled: int
    accuracy: float
    exact_match_ratio: float | None
    class_names: list[str] = field(repr=False)
    confusion_matrix: np.ndarray = field(repr=False)
    class_report: ClassReport = field(repr=False)
    calibration_curve: CalibrationCurve = field(repr=False)
    expected_calibration_error: float
    risk_coverage: RiskCoverage = field(repr=False)
    area_under_risk_coverage: float
    negative_log_likelihood: float | None
    brier_score: float | None
    uncalibrated: Uncalibrated | None
    prediction_sets: SetReport | None
    abstention: AbstentionReport | None
