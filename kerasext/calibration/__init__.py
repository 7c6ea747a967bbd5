"""Confidence that means what it says: calibration, prediction sets, abstention and thresholds.

Arrays in, small frozen results out, which convert to JSON and back. Knows NumPy alone.
"""

from kerasext.calibration.abstention import Abstention, fit_abstention
from kerasext.calibration.binomial import binomial_upper_bound
from kerasext.calibration.calibration import Calibration, fit_calibration, rows_digest
from kerasext.calibration.conformal import conformal_threshold
from kerasext.calibration.figures import (
    expected_calibration_error,
    log_losses,
    reliability_bins as reliability_bins,
    squared_errors,
)
from kerasext.calibration.logits import (
    SMALLEST as SMALLEST,
    SMALLEST_COMPLEMENT as SMALLEST_COMPLEMENT,
)
from kerasext.calibration.platt import fit_platt
from kerasext.calibration.prediction_sets import PredictionSets, fit_prediction_sets
from kerasext.calibration.temperature import fit_temperature
from kerasext.calibration.thresholds import ThresholdChoice, fit_threshold
from kerasext.calibration.vector_scaling import fit_vector_scaling

__all__ = [
    "Abstention",
    "Calibration",
    "PredictionSets",
    "ThresholdChoice",
    "binomial_upper_bound",
    "conformal_threshold",
    "expected_calibration_error",
    "fit_abstention",
    "fit_calibration",
    "fit_platt",
    "fit_prediction_sets",
    "fit_temperature",
    "fit_threshold",
    "fit_vector_scaling",
    "log_losses",
    "rows_digest",
    "squared_errors",
]
