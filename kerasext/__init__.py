"""Stores the outputs of Keras's `predict` in HDF5 files.

The mixins of `kerasext.models` make `predict` return labels and confidence.
`HDF5PredictionWriter` is a callback that writes them to one file while `predict` runs, and
`PredictionFile` reads the file. `predict_to_hdf5` runs a complete job in one call.
`kerasext.evaluation` compares a file with its targets.
"""

import importlib
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from kerasext._version import __version__
from kerasext.storage import PredictionFile

__all__ = [
    "HDF5PredictionWriter",
    "PredictionFile",
    "__version__",
    "calibration",
    "callbacks",
    "compile_predict",
    "evaluation",
    "inference",
    "load_model",
    "models",
    "predict_to_hdf5",
    "report",
    "shards",
    "storage",
    "tune_batch_size",
]

if TYPE_CHECKING:
    from kerasext import (
        calibration,
        callbacks,
        evaluation,
        inference,
        models,
        ray as ray,
        report,
        shards,
        storage,
    )
    from kerasext.callbacks import HDF5PredictionWriter
    from kerasext.inference import compile_predict, predict_to_hdf5, tune_batch_size
    from kerasext.models import load_model
else:
    _PACKAGE_OF = {
        "HDF5PredictionWriter": "callbacks",
        "compile_predict": "inference",
        "load_model": "models",
        "predict_to_hdf5": "inference",
        "tune_batch_size": "inference",
    }

    def __getattr__(name):
        # On demand, so that reading a file loads neither Keras nor its backend.
        if name in _PACKAGE_OF:
            return getattr(importlib.import_module(f"kerasext.{_PACKAGE_OF[name]}"), name)
        if name in __all__ or name == "ray":
            return importlib.import_module(f"kerasext.{name}")
        raise AttributeError(f"module 'kerasext' has no attribute {name!r}")

    def __dir__():
        # `ray` is not in `__all__`: without Ray, `from kerasext import *` and `help` would fail.
        return sorted([*__all__, *(["ray"] if find_spec("ray") else [])])


if "keras" in sys.modules:
    # Keras loads saved models only of classes that are registered, which this import does.
    importlib.import_module("kerasext.models")
