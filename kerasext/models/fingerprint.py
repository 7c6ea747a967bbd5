"""Telling whether a model is the one that a file was begun with."""

from __future__ import annotations

import hashlib

import keras
import numpy as np

from kerasext.keras_internals import to_numpy


def fingerprint(model: keras.Model, settings: str) -> str:
    """A digest of the weights of a model, in order, and of its settings.

    Without any name: Keras numbers what it names itself, so that running a notebook's cell again
    makes other names for the same model.

    Args:
        model: The model, built.
        settings: What else its predictions depend on.
    """
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for variable in model.weights:
        value = np.ascontiguousarray(to_numpy(keras.ops.convert_to_tensor(variable)))
        digest.update(f"{value.shape} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
