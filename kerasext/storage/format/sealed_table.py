"""Small tables that are written once, each with a checksum of its own."""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py
import numpy as np

from kerasext.storage.format import links

CHECKSUM = "checksum"
"""The attribute of a table with the CRC-32 of its bytes. HDF5 itself checks its attributes."""


def write_table(file: h5py.File, path: str, table: np.ndarray) -> None:
    """Stores a table of int64 or of fixed-width text."""
    file.create_dataset(path, data=table).attrs[CHECKSUM] = np.uint32(_checksum(table))


def read_table(file: h5py.File, path: str, size: int) -> np.ndarray:
    """Reads a table.

    Args:
        file: The file.
        path: String. Where the table is.
        size: Int. Bytes of the file. No memory is allocated for a larger table.

    Raises:
        ValueError: If there is no such table, or it is not what was written.
    """
    node: Any = links.find(file, path)
    if not isinstance(node, h5py.Dataset):
        raise ValueError(f"there is no table {path!r}")
    layout = node.id.get_create_plist().get_layout()
    is_plain = layout == h5py.h5d.CONTIGUOUS and node.external is None
    is_plain = is_plain and node.shape is not None and node.dtype.kind in "iS"
    nbytes = node.dtype.itemsize * math.prod(node.shape or ())
    if not is_plain or nbytes > size:
        raise ValueError(f"{path!r} can't be a table of {nbytes} bytes, dtype {node.dtype}")
    if CHECKSUM not in node.attrs or node.attrs.get_id(CHECKSUM).dtype != np.uint32:
        raise ValueError(f"{path!r} has no checksum")
    table: np.ndarray = node[...]
    if _checksum(table) != node.attrs[CHECKSUM]:
        raise ValueError(f"{path!r} is not what was written")
    return table


def write_texts(file: h5py.File, path: str, texts: list[str]) -> None:
    """Stores a list of strings as a table."""
    encoded = [text.encode() for text in texts]
    width = max(map(len, encoded), default=0)
    write_table(file, path, np.array(encoded, f"S{max(width, 1)}"))


def read_texts(file: h5py.File, path: str, size: int) -> list[str]:
    """Reads a list of strings; see `read_table`."""
    table = read_table(file, path, size)
    if table.dtype.kind != "S" or table.ndim != 1:
        raise ValueError(f"{path!r} must be a list of text")
    return [text.decode() for text in table.tolist()]


def _checksum(table: np.ndarray) -> int:
    little = np.ascontiguousarray(table, table.dtype.newbyteorder("<"))
    return zlib.crc32(little.reshape(-1).view(np.uint8).data)
