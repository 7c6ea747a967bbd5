"""How good predictions are, by the target of each row, and whether they differ from earlier ones.

Knows NumPy and `kerasext.storage`, never Keras.
"""

from kerasext.evaluation.counts import (
    MOST_ROWS as MOST_ROWS,
    TargetCounts as TargetCounts,
    read_blocks as read_blocks,
)
from kerasext.evaluation.drift.comparison import Comparison, compare
from kerasext.evaluation.drift.running_figures import (
    RunningFigures as RunningFigures,
    histogram as histogram,
)
from kerasext.evaluation.evaluate import evaluate
from kerasext.evaluation.evaluation import Evaluation
from kerasext.evaluation.figures.calibration_curve import CalibrationCurve
from kerasext.evaluation.figures.regression import RegressionEvaluation
from kerasext.evaluation.figures.risk_coverage import AbstentionReport, RiskCoverage
from kerasext.evaluation.figures.set_report import SetReport
from kerasext.evaluation.figures.uncalibrated import Uncalibrated
from kerasext.evaluation.target_column import TargetColumn as TargetColumn

__all__ = [
    "AbstentionReport",
    "CalibrationCurve",
    "Comparison",
    "Evaluation",
    "RegressionEvaluation",
    "RiskCoverage",
    "SetReport",
    "Uncalibrated",
    "compare",
    "evaluate",
]
