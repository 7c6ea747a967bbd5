"""Writing and watching predictions while `model.predict` runs: joins `storage` to Keras."""

from kerasext.callbacks.hdf5_prediction_writer import SAME_STEPS as SAME_STEPS, HDF5PredictionWriter
from kerasext.callbacks.model_description import describe as describe
from kerasext.callbacks.predict_tap import SeveralSteps as SeveralSteps
from kerasext.callbacks.prediction_monitor import PredictionMonitor
from kerasext.callbacks.row_columns import (
    Ids as Ids,
    no_such_key as no_such_key,
    without_keys as without_keys,
)
from kerasext.callbacks.step_outputs import (
    by_name as by_name,
    check_probabilities as check_probabilities,
    check_rows as check_rows,
    choose as choose,
    to_numpy as to_numpy,
    to_rows as to_rows,
)
from kerasext.callbacks.step_rows import Keep as Keep

__all__ = ["HDF5PredictionWriter", "PredictionMonitor"]
