"""Whole jobs, and single rows, at full speed: knows the callbacks, the storage and Keras."""

from kerasext.inference.compile_predict import compile_predict
from kerasext.inference.image_folder import ImageFolder
from kerasext.inference.image_pixels import UnreadableImageError
from kerasext.inference.own_predict import own_predict as own_predict
from kerasext.inference.predict_to_hdf5 import predict_to_hdf5
from kerasext.inference.row_slices import count_rows as count_rows
from kerasext.inference.tune_batch_size import TunedBatchSize, tune_batch_size

__all__ = [
    "ImageFolder",
    "TunedBatchSize",
    "UnreadableImageError",
    "compile_predict",
    "predict_to_hdf5",
    "tune_batch_size",
]
