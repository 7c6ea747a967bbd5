"""JSON text of the metadata that users give a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(value: Mapping[str, Any], name: str) -> str:
    """Converts a dict to JSON, with values of NumPy as those of Python.

    Args:
        value: The dict.
        name: String. Name of the argument, for errors.

    Raises:
        TypeError: If JSON has no type for a value.
        ValueError: If JSON has no such number.
    """
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"`{name}` must be a dict of JSON-serializable values. Received: {error}"
        ) from error


def _plain(value: object) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"an object of type {type(value).__name__}")
