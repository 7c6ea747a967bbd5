"""Reading attributes of numbers and of text, and no others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import Any

import h5py


class AttributeTypeError(ValueError):
    """An attribute has neither numbers nor text of a fixed width, or is longer than the file."""


def read_attribute(node: h5py.HLObject, name: str, size: int) -> Any:
    """An attribute, `None` if there is none.

    Args:
        node: The file, group or dataset that has it.
        name: String. Its name.
        size: Int. Bytes of the file. No memory is allocated for more.

    Raises:
        AttributeTypeError: If it is of another type, or longer than the file.
    """
    attributes = node.attrs
    if name not in attributes:
        return None
    attribute = attributes.get_id(name)
    dtype, shape = attribute.dtype, attribute.shape  # None for one that has no value
    is_plain = dtype.kind in "biufcS" and shape is not None
    if not is_plain or dtype.itemsize * math.prod(shape) > size:
        raise AttributeTypeError(
            f"attribute {name!r} must have numbers or text of a fixed width, and is of type {dtype}"
        )
    value = attributes[name]
    return value.decode() if isinstance(value, bytes) else value


def read_attributes(node: h5py.HLObject, names: Iterable[str], size: int) -> dict[str, Any]:
    """Some attributes; those that are missing or of another type are left out."""
    found = {}
    for name in names:
        with contextlib.suppress(AttributeTypeError):
            value = read_attribute(node, name, size)
            if value is not None:
                found[name] = value
    return found
