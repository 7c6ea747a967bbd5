"""Strings as the fixed-width UTF-8 that a file has."""

from __future__ import annotations

from typing import Any

import numpy as np

TEXT_KINDS = "OSUT"
"""The kinds of NumPy's dtypes that can be arrays of strings."""


def encode_text(name: str, array: np.ndarray, *, escapes: bool = False) -> np.ndarray:
    r"""Strings as bytes, as wide as the longest one.

    Args:
        name: String. What the strings are, for errors.
        array: Array of `str` or `bytes`, of one of `TEXT_KINDS`.
        escapes: Bool. Whether names of files that are not UTF-8, also as Python has them in `str`,
            are stored with the bytes escaped: `caf\xe9.jpg` with a backslash. Defaults to `False`:
            they raise an error.

    Returns:
        Array of the same shape, of dtype `S`.

    Raises:
        TypeError: If a value is no string.
        ValueError: If one is not UTF-8, or ends in NUL, which HDF5 pads with.
    """
    return array if _is_ascii_bytes(array) else _encode_objects(name, array, escapes=escapes)


def _is_ascii_bytes(array: np.ndarray) -> bool:
    if array.dtype.kind != "S":
        return False
    # Of width 0 there is nothing to look at.
    return not array.size or bool((np.ascontiguousarray(array).view(np.uint8) < 128).all())


def _encode_objects(name: str, array: np.ndarray, *, escapes: bool) -> np.ndarray:
    values: list[Any] = array.ravel().tolist()
    kinds = set(map(type, values))
    # Joined and looked at once: a call of Python for each value would take ten times as long.
    content = b"\0"
    if kinds == {str}:
        content = "".join(values).encode(errors="surrogatepass")
    elif kinds == {bytes}:
        content = b"".join(values)
    is_plain = content.isascii() and b"\0" not in content
    encoded = values if is_plain else [_encode_one(name, value, escapes) for value in values]
    return np.array(encoded, dtype=np.bytes_).reshape(array.shape)


def _encode_one(name: str, value: object, escapes: bool) -> bytes:
    if not isinstance(value, str | bytes):
        raise no_type(name, value)
    try:
        if escapes:
            # Python has a byte of a file's name that is not UTF-8 as a surrogate.
            content = value if isinstance(value, bytes) else value.encode(errors="surrogateescape")
            encoded = content.decode(errors="backslashreplace").encode()
        else:
            encoded = (value if isinstance(value, str) else value.decode()).encode()
    except UnicodeError as error:
        raise ValueError(
            f"Strings of output {name!r} must be UTF-8; decode them in the model or leave the "
            f"output out with `outputs`. Received: {value!r}"
        ) from error
    if encoded.endswith(b"\0"):
        raise ValueError(
            f"Strings of output {name!r} must not end in NUL, which HDF5 pads with. "
            f"Received: {value!r}"
        )
    return encoded


def no_type(name: str, value: object) -> TypeError:
    """The error for a value that HDF5 has no type for."""
    return TypeError(
        f"HDF5 has no type for output {name!r}; return a dense array of numbers or strings, or "
        f"leave the output out with `outputs`. Received: a value of type {type(value).__name__}"
    )
