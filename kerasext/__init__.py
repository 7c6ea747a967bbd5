"""kerasext: keep what a Keras model said.

`kerasext.models` makes `predict` say labels and confidence, `kerasext.callbacks` writes them to one
HDF5 file as they come, and `PredictionFile` reads that file back.
"""

import importlib
from types import ModuleType

from kerasext._version import __version__
from kerasext.storage import PredictionFile

__all__ = ["PredictionFile", "__version__", "callbacks", "models", "storage"]


def __getattr__(name: str) -> ModuleType:
    # Lazily, so that reading a file loads neither Keras nor its backend.
    if name in ("callbacks", "models"):
        return importlib.import_module(f"kerasext.{name}")
    raise AttributeError(f"module 'kerasext' has no attribute {name!r}")
