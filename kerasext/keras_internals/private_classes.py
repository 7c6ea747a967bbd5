"""Classes of Keras that are not public, and what is read off their objects."""

from __future__ import annotations

import re
from typing import Any

import keras

try:
    from keras.src.models.functional import Functional as _Functional
except ImportError:  # then no model is known to have a graph
    _Functional = ()
try:
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter as _DataAdapter
except ImportError:
    _DataAdapter = None

Functional: Any = _Functional
# The one way into `predict` past `tf.data`; `None` where it is not.
DataAdapter: Any = _DataAdapter


def graph_of(model: keras.Sequential) -> Any | None:
    """The functional model that a sequential one is, once it knows its input."""
    return getattr(model, "_functional", None)


def made_by(tensor: Any) -> tuple[Any, int]:
    """The operation that a symbolic tensor comes from, and its place among the results."""
    operation, _, index = tensor._keras_history
    return operation, index


def has_automatic_name(operation: Any) -> bool:
    """Whether a layer has the name that Keras gives it: its class in snake case, numbered.

    The number depends on what the process has made before. A name that the user gave counts as
    automatic if Keras could have made it.
    """
    stem = re.sub(r"_\d+$", "", operation.name).replace("_", "")
    return bool(stem == re.sub(r"[\W_]", "", type(operation).__name__).lower())
