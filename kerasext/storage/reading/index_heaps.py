"""Where HDF5 has the parts of virtual datasets, in heaps without a checksum of their own.

It reads them as soon as such a dataset is opened, and dies of a damaged one. They are described in
section III.E of the HDF5 file format specification 3.0.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path

import numpy as np

from kerasext.storage.reading.file_view import FileView

_SIGNATURE = b"GCOL\x01\0\0\0"
_SIZE = struct.Struct("<Q")
_MOST_BYTES = 64 * 2**20


def find_heaps(path: Path) -> np.ndarray:
    """Looks for the heaps of a file, and may find data that look like one, which is no harm.

    Args:
        path: Path of an index, which is closed.

    Returns:
        Array of shape `(heaps, 3)`, int64: first byte, bytes, CRC-32.
    """
    found = []
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        start = content.find(_SIGNATURE)
        while start >= 0:
            place = start + len(_SIGNATURE)
            (size,) = _SIZE.unpack(content[place : place + _SIZE.size].ljust(_SIZE.size, b"\xff"))
            if size <= min(len(content) - start, _MOST_BYTES):
                found.append((start, size, zlib.crc32(content[start : start + size])))
            start = content.find(_SIGNATURE, start + 1)
    return np.array(found, np.int64).reshape(-1, 3)


def check_heaps(view: FileView, heaps: np.ndarray) -> None:
    """Raises `ValueError` if a heap is not what `find_heaps` has seen."""
    if heaps.dtype != np.int64 or heaps.shape[1:] != (3,):
        raise ValueError("it has not the shape and types of one")
    for start, size, checksum in heaps.tolist():
        is_there = start >= 0 and 0 <= size <= min(view.size - start, _MOST_BYTES)
        if not is_there or zlib.crc32(view.read_at(start, size)) != checksum:
            raise ValueError(f"byte {start} is not what was written")
