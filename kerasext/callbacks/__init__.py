"""Writing and watching predictions while `model.predict` runs: joins `storage` to Keras."""

from kerasext.callbacks.hdf5_prediction_writer import HDF5PredictionWriter
from kerasext.callbacks.model_description import describe as describe
from kerasext.callbacks.prediction_monitor import PredictionMonitor
from kerasext.callbacks.prediction_run import (
    SAME_STEPS as SAME_STEPS,
    PredictionRun as PredictionRun,
)
from kerasext.callbacks.row_columns import (
    Ids as Ids,
    RowColumns as RowColumns,
    no_such_key as no_such_key,
)
from kerasext.callbacks.step_outputs import (
    by_name as by_name,
    check_probabilities as check_probabilities,
    check_rows as check_rows,
    choose as choose,
    to_rows as to_rows,
)
from kerasext.callbacks.writer_options import (
    CheckedOptions as CheckedOptions,
    WriterOptions as WriterOptions,
    takes_writer_options as takes_writer_options,
)

__all__ = ["HDF5PredictionWriter", "PredictionMonitor"]
