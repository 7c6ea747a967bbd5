"""Rows of a dataset as they stand in a file, read past HDF5.

HDF5 copies a chunk into its cache first, another one for each file, and h5py takes as long for a
selection as reading 100 kB does: too long where rows are in many files.
"""

from __future__ import annotations

import math

import h5py
import numpy as np

from kerasext.storage.reading.file_view import FileView


def is_raw(dataset: h5py.Dataset) -> bool:
    """Whether rows stand in the file as in memory: one after the other, not compressed."""
    return (
        dataset.chunks[1:] == dataset.shape[1:]
        and not dataset.id.get_create_plist().get_nfilters()
        and dataset.dtype.kind in "iufc"
        and bool(dataset.id.get_type().equal(h5py.h5t.py_create(np.dtype(dataset.dtype.str[1:]))))
        and not dataset.file.userblock_size
    )


class RawRows:
    """Reads rows of a dataset of which `is_raw` holds.

    Args:
        dataset: The h5py dataset.
        view: `FileView` of its file.
    """

    def __init__(self, dataset: h5py.Dataset, view: FileView) -> None:
        self._h5id = dataset.id
        self._view = view
        self._chunk_rows = dataset.chunks[0]
        self._row_bytes = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
        self._no_place = (0,) * (dataset.ndim - 1)
        self._starts: dict[int, int] = {}

    def read_into(self, target: np.ndarray, start: int) -> None:
        """Reads as many rows as an array of the dataset's dtype has, from one on.

        Raises:
            OSError: If they are not in the file.
        """
        content = target.reshape(-1).view(np.uint8)
        done = 0
        while done < len(content):
            chunk, row = divmod(start + done // self._row_bytes, self._chunk_rows)
            stop = done + (self._chunk_rows - row) * self._row_bytes
            place = self._start_of(chunk) + row * self._row_bytes
            self._view.fill(content[done:stop], place)
            done = stop

    def _start_of(self, chunk: int) -> int:
        if chunk not in self._starts:
            row = chunk * self._chunk_rows
            start = self._h5id.get_chunk_info_by_coord((row, *self._no_place)).byte_offset
            if start is None:
                raise OSError(f"row {row} is not in the file")
            self._starts[chunk] = start
        return self._starts[chunk]
