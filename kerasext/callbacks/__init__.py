"""Writing predictions while `model.predict` runs: joins `storage` to Keras."""

from kerasext.callbacks.hdf5_prediction_writer import HDF5PredictionWriter

__all__ = ["HDF5PredictionWriter"]
