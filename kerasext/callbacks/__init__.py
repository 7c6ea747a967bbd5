"""Writing and watching predictions while `model.predict` runs: joins `storage` to Keras."""

from kerasext.callbacks.hdf5_prediction_writer import HDF5PredictionWriter
from kerasext.callbacks.prediction_monitor import PredictionMonitor

__all__ = ["HDF5PredictionWriter", "PredictionMonitor"]
