"""The datasets of a file that are outputs, and can be what they claim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import h5py

from kerasext.storage.layout import RESERVED

_LARGEST_ROW_BYTES = 2**32 - 1  # HDF5's limit on a chunk, and a chunk holds at least one row
# A chunk of one value repeated shrinks most: 1 MiB to some 50 bytes, its place in the index too.
_MOST_EXPANSION = 2**16
_LEAST_CHUNK_BYTES = 8  # of the address that stands in the index of chunks
_LAYOUTS = {
    h5py.h5d.COMPACT: "a compact dataset",
    h5py.h5d.CONTIGUOUS: "a contiguous or external dataset",
    h5py.h5d.VIRTUAL: "a virtual dataset",
}


def find(file: h5py.File, rows: int, size: int) -> dict[str, h5py.Dataset]:
    """The outputs of a file.

    Nothing is read or allocated for what only claims to be large, and no link is followed.

    Args:
        file: The file.
        rows: Int. Rows that are committed.
        size: Int. Bytes of the file.

    Raises:
        ValueError: If a dataset is of a kind that no output is, or can't have the rows, or if there
            is a link to another file. For what h5py can't make out it raises other errors.
    """
    datasets = dict(_datasets(file))
    for dataset in datasets.values():
        _check_kind(dataset)
        _check_size(dataset, rows, size)
    return datasets


def check_chunks(datasets: Mapping[str, h5py.Dataset], rows: int, size: int) -> None:
    """Raises `ValueError` unless the rows lie in the first `size` bytes of the file."""
    for name, dataset in datasets.items():
        if _end_of_rows(dataset, rows) > size:
            raise ValueError(f"it was cut short, and rows of {name!r} are missing")


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets of a file other than ours, each once."""
    seen = {file}
    groups = [("", file)]
    while groups:
        prefix, group = groups.pop()
        inner = []
        for part in group:
            # h5py has bytes for what is not UTF-8, and takes a slash for a path, through any link.
            if not isinstance(part, str) or "/" in part or part == ".":
                raise ValueError(f"{part!r} is the name of no output and no group")
            name, link = prefix + part, group.get(part, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ValueError(f"{name!r} is a link to another file, which is never followed")
            if not isinstance(link, h5py.HardLink):
                continue
            node = group[part]
            if node in seen or name in RESERVED:
                continue
            seen.add(node)
            if isinstance(node, h5py.Dataset):
                yield name, node
            elif isinstance(node, h5py.Group):
                inner.append((name + "/", node))
        groups += reversed(inner)


def _check_kind(dataset: h5py.Dataset) -> None:
    name, dtype = str(dataset.name), dataset.dtype
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout != h5py.h5d.CHUNKED:
        kind = _LAYOUTS.get(layout, "something else")
        raise ValueError(f"{name!r} must be stored in chunks, and is {kind}")
    if dtype.kind not in "biufcS" or not dtype.itemsize:
        raise ValueError(f"{name!r} must have numbers or text of a fixed width, not {dtype}")
    for number in range(properties.get_nfilters()):
        code, *_ = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f"{name!r} is compressed by HDF5's filter {code}, which is not there; "
                "hdf5plugin may have it"
            )


def _check_size(dataset: h5py.Dataset, rows: int, size: int) -> None:
    name, row_shape = str(dataset.name), dataset.shape[1:]
    if not 0 <= rows <= dataset.shape[0]:
        raise ValueError(f"{rows} rows committed, but {name!r} has shape {dataset.shape}")
    row_bytes = dataset.dtype.itemsize * math.prod(row_shape)
    if row_bytes > _LARGEST_ROW_BYTES:
        raise ValueError(f"{name!r} has rows of {row_bytes} bytes")
    expansion = _MOST_EXPANSION if dataset.id.get_create_plist().get_nfilters() else 1
    if rows * row_bytes > size * expansion:
        raise ValueError(f"{rows} rows of {name!r} can't be in {size} bytes")
    lengths = zip(dataset.shape, dataset.chunks, strict=True)
    # HDF5 walks through every chunk that the dataset could have.
    if math.prod(-(-length // chunk) for length, chunk in lengths) * _LEAST_CHUNK_BYTES > size:
        raise ValueError(f"{name!r} of shape {dataset.shape} can't be in {size} bytes")


def _end_of_rows(dataset: h5py.Dataset, rows: int) -> int:
    """The byte of the file at which the last of the rows ends."""
    ends = [0]

    def visit(chunk: Any) -> None:
        if chunk.chunk_offset[0] < rows:
            ends.append(chunk.byte_offset + chunk.size)

    dataset.id.chunk_iter(visit)
    return max(ends)
