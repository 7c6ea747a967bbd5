"""Ray Data: predicting on many machines, and a prediction file from each block of rows."""

from kerasext.ray.hdf5_datasink import HDF5Datasink
from kerasext.ray.keras_predictor import KerasPredictor

__all__ = ["HDF5Datasink", "KerasPredictor"]
