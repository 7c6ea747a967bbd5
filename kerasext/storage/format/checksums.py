"""Checksums of rows: one for each full chunk, and one for all rows of the file together.

Each dataset of an output has a dataset of `CHUNK_DTYPE` under `_kerasext/sums`, with the CRC-32 of
each of its full chunks. The commit record has `file_checksum`, which covers those checksums and the
rows after the last full chunks, unless there are no rows. One write of the record therefore changes
both what counts the rows and what checks them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

CHUNK_DTYPE = np.dtype("<u4")


class RowChecksums(NamedTuple):
    """The two checksums that cover the first rows of a dataset.

    Args:
        chunks: Int. CRC-32 of the stored checksums of its full chunks.
        rest: Int. CRC-32 of the rows after them.
    """

    chunks: int
    rest: int


def checksum(array: np.ndarray, before: int = 0) -> int:
    """The CRC-32 of the bytes of an array, which sees any change.

    Args:
        array: C-contiguous array.
        before: Int. Checksum of the bytes before it, which the result covers, too.
    """
    return zlib.crc32(array.reshape(-1).view(np.uint8).data, before)


def file_checksum(datasets: Mapping[str, RowChecksums]) -> int:
    """The CRC-32 of the checksums of all datasets, in the order of their paths."""
    ordered = [datasets[path] for path in sorted(datasets)]
    return checksum(np.array(ordered, CHUNK_DTYPE))
