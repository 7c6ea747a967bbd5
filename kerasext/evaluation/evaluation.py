"""What an evaluation says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kerasext.evaluation.calibration_curve import CalibrationCurve
from kerasext.evaluation.class_report import ClassReport
from kerasext.evaluation.risk_coverage import RiskCoverage


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
