"""Tensors of each backend as NumPy arrays."""

from __future__ import annotations

import importlib
from typing import Any

import keras
import ml_dtypes
import numpy as np


def to_numpy(tensor: Any) -> np.ndarray:
    """The values of a tensor, without a copy where the backend allows it."""
    # `convert_to_numpy` copies, and makes dense what is ragged or sparse.
    if keras.backend.backend() != "torch" or not hasattr(tensor, "detach"):
        if hasattr(tensor, "numpy") and tensor.shape == ():
            tensor = tensor.numpy()  # TensorFlow's `__array__` makes no array of one bfloat16
        return np.asarray(tensor)
    # Nor does `np.asarray` know a tensor that has a gradient, is on a GPU or of bfloat16.
    torch: Any = importlib.import_module("torch")  # by name: it need not be installed
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_nested:
        array = np.empty((), dtype=object)  # as NumPy makes of others' sparse tensors
        array[()] = tensor
        return array
    if tensor.is_floating_point() and tensor.element_size() < 4 and tensor.dtype != torch.float16:
        bits = {1: torch.uint8, 2: torch.uint16}[tensor.element_size()]
        dtype = getattr(ml_dtypes, str(tensor.dtype).removeprefix("torch."))
        return np.asarray(tensor.view(bits).numpy(force=True).view(dtype))
    return np.asarray(tensor.numpy(force=True))
