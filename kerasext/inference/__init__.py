"""Whole jobs at full speed: knows the callbacks, the storage and Keras."""

from kerasext.inference.predict_to_hdf5 import predict_to_hdf5
from kerasext.inference.tune_batch_size import TunedBatchSize, tune_batch_size

__all__ = ["TunedBatchSize", "predict_to_hdf5", "tune_batch_size"]
