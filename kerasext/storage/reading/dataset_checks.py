"""Whether a dataset can be what it claims, before anything is read or allocated for it."""

from __future__ import annotations

import contextlib
import importlib
import math
from typing import Any

import h5py

_LARGEST_ROW_BYTES = 2**32 - 1  # HDF5's limit on a chunk, and a chunk holds at least one row
# A chunk of one value repeated shrinks most: 1 MiB to some 50 bytes, its place in the index too.
_MOST_EXPANSION = 2**16
_LEAST_CHUNK_BYTES = 8  # of the address that stands in the index of chunks
_LAYOUTS = {
    h5py.h5d.COMPACT: "a compact dataset",
    h5py.h5d.CONTIGUOUS: "a contiguous or external dataset",
    h5py.h5d.VIRTUAL: "a virtual dataset",
}


def check_dataset(dataset: h5py.Dataset, length: int, size: int) -> None:
    """Checks that a file of so many bytes can have the entries of a dataset.

    Args:
        dataset: The h5py dataset.
        length: Int. Committed entries.
        size: Int. Bytes of the file.

    Raises:
        ImportError: If a filter that compressed it is not installed.
        ValueError: If the file can't have it.
    """
    # Before its shape: for that, HDF5 opens the sources of a virtual dataset, and crashes if the
    # file is a Python object (h5py#1623).
    _check_layout(dataset)
    _check_type(dataset)
    _check_length(dataset, length)
    _check_size(dataset, length, size)


def end_of_entries(dataset: h5py.Dataset, length: int) -> int:
    """The byte of the file at which the chunks of the first entries end.

    After a loss of power the index of later chunks, which were not committed, can be half written.
    """
    ends = [0]

    def visit(chunk: Any) -> bool | None:
        if chunk.chunk_offset[0] >= length:
            return True  # which ends it
        ends.append(chunk.byte_offset + chunk.size)
        return None

    dataset.id.chunk_iter(visit)
    return max(ends)


def end_of_chunks(dataset: h5py.Dataset) -> int:
    """Reads the whole index of chunks; returns the byte of the file at which the last ends."""
    ends = [0]
    dataset.id.chunk_iter(lambda chunk: ends.append(chunk.byte_offset + chunk.size))
    return max(ends)


def _check_layout(dataset: h5py.Dataset) -> None:
    name = str(dataset.name)
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout != h5py.h5d.CHUNKED:
        kind = _LAYOUTS.get(layout, "something else")
        raise ValueError(f"{name!r} must be stored in chunks, and is {kind}")
    for number in range(properties.get_nfilters()):
        code, *_ = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            with contextlib.suppress(ImportError):
                importlib.import_module("hdf5plugin")  # which registers its filters
        if not h5py.h5z.filter_avail(code):
            # No `ValueError`, which would say that the file is damaged.
            raise ImportError(
                f"Reading {name!r} needs HDF5's filter {code}, which is not installed; "
                f"pip install hdf5plugin. Received: path={dataset.file.filename!r}"
            )


def _check_type(dataset: h5py.Dataset) -> None:
    dtype = dataset.dtype
    if dtype.kind not in "biufcS" or not dtype.itemsize:
        raise ValueError(
            f"{str(dataset.name)!r} must have numbers or text of a fixed width, not {dtype}"
        )


def _check_length(dataset: h5py.Dataset, length: int) -> None:
    name, shape = str(dataset.name), dataset.shape
    if not shape or not 0 <= length <= shape[0]:
        raise ValueError(f"{length} rows committed, but {name!r} has shape {shape}")
    if _row_bytes(dataset) > _LARGEST_ROW_BYTES:
        raise ValueError(f"{name!r} has rows of {_row_bytes(dataset)} bytes")


def _check_size(dataset: h5py.Dataset, length: int, size: int) -> None:
    name = str(dataset.name)
    expansion = _MOST_EXPANSION if dataset.id.get_create_plist().get_nfilters() else 1
    if length * _row_bytes(dataset) > size * expansion:
        raise ValueError(f"{length} rows of {name!r} can't be in {size} bytes")
    lengths = zip(dataset.shape, dataset.chunks, strict=True)
    # HDF5 1.14 walks through every chunk that the dataset could have.
    if math.prod(-(-total // chunk) for total, chunk in lengths) * _LEAST_CHUNK_BYTES > size:
        raise ValueError(f"{name!r} of shape {dataset.shape} can't be in {size} bytes")


def _row_bytes(dataset: h5py.Dataset) -> int:
    size: int = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    return size
