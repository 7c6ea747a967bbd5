"""How a prediction is kept: one HDF5 file. Knows NumPy and h5py, never Keras."""

from kerasext.storage.background_writer import BackgroundWriter
from kerasext.storage.class_names import ClassNames
from kerasext.storage.damage import DamagedFileError
from kerasext.storage.prediction_file import PredictionFile
from kerasext.storage.prediction_file_writer import PredictionFileWriter
from kerasext.storage.ragged_output import RaggedOutput
from kerasext.storage.ragged_rows import RaggedRows
from kerasext.storage.stored_output import StoredOutput

__all__ = [
    "BackgroundWriter",
    "ClassNames",
    "DamagedFileError",
    "PredictionFile",
    "PredictionFileWriter",
    "RaggedOutput",
    "RaggedRows",
    "StoredOutput",
]
