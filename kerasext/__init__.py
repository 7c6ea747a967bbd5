"""kerasext: keep what a Keras model said.

`kerasext.models` makes `predict` say labels and confidence, `kerasext.callbacks` writes them to one
HDF5 file as they come, and `PredictionFile` reads that file back. `predict_to_hdf5` does a whole
job in one call, and `kerasext.evaluation` compares a file with what is true.
"""

import importlib
from typing import Any

from kerasext._version import __version__
from kerasext.storage import PredictionFile

__all__ = [
    "PredictionFile",
    "__version__",
    "callbacks",
    "compile_predict",
    "evaluation",
    "inference",
    "models",
    "predict_to_hdf5",
    "report",
    "shards",
    "storage",
    "tune_batch_size",
]


def __getattr__(name: str) -> Any:
    # Lazily, so that reading a file loads neither Keras nor its backend.
    if name in ("callbacks", "evaluation", "inference", "models", "report", "shards"):
        return importlib.import_module(f"kerasext.{name}")
    if name in __all__:
        return getattr(importlib.import_module("kerasext.inference"), name)
    raise AttributeError(f"module 'kerasext' has no attribute {name!r}")
