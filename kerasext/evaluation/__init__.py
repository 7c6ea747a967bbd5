"""How good predictions were, from the file that holds them and the target of each row.

Knows NumPy and `kerasext.storage`, never Keras.
"""

from kerasext.evaluation.calibration import Calibration
from kerasext.evaluation.evaluate import evaluate
from kerasext.evaluation.evaluation import Evaluation
from kerasext.evaluation.risk_coverage import RiskCoverage

__all__ = ["Calibration", "Evaluation", "RiskCoverage", "evaluate"]
