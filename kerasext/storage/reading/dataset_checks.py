"""The datasets of a file that are outputs, and can be what they claim."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from kerasext.storage.columns import fixed_point
from kerasext.storage.columns.dimension_scales import is_scale
from kerasext.storage.format import links
from kerasext.storage.format.layout import (
    GROUP,
    MOST_AXES,
    RAGGED_AXES,
    ROW_SHAPES,
    ROW_SPLITS,
    SUMS,
    VALUES,
)

_LARGEST_ROW_BYTES = 2**32 - 1  # HDF5's limit on a chunk, and a chunk holds at least one row
# A chunk of one value repeated shrinks most: 1 MiB to some 50 bytes, its place in the index too.
_MOST_EXPANSION = 2**16
_LEAST_CHUNK_BYTES = 8  # of the address that stands in the index of chunks
_LARGE_CHUNK_BYTES = 64 * 2**20
_LAYOUTS = {
    h5py.h5d.COMPACT: "a compact dataset",
    h5py.h5d.CONTIGUOUS: "a contiguous or external dataset",
    h5py.h5d.VIRTUAL: "a virtual dataset",
}


@dataclass
class CheckedDatasets:
    """The outputs of a file and what they are made of.

    Args:
        outputs: List of their names.
        datasets: Dict from path to h5py dataset: an output of rows of one shape is one, those of
            others are several.
        lengths: Dict from path to the number of entries that are committed.
        ragged: Dict from the name of each output whose rows differ in shape to its group.
        scales: Dict from path to the step between two numbers, or `None`: see `fixed_point`.
        virtual: Set of the names of outputs whose rows are in other files.
    """

    outputs: list[str] = field(default_factory=list)
    datasets: dict[str, h5py.Dataset] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    ragged: dict[str, h5py.Group] = field(default_factory=dict)
    scales: dict[str, np.float32 | None] = field(default_factory=dict)
    virtual: set[str] = field(default_factory=set)

    def add(self, path: str, dataset: h5py.Dataset, length: int, size: int) -> None:
        """Adds a dataset once it is checked."""
        _check_layout(dataset)
        _check_type(dataset)
        _check_rows(dataset, length)
        _check_size(dataset, length, size)
        self._take(path, dataset, length)

    def add_virtual(self, path: str, dataset: h5py.Dataset, length: int) -> None:
        """Adds a dataset whose rows are in other files; what it says of them is not looked at."""
        _check_type(dataset)
        _check_rows(dataset, length)
        self._take(path, dataset, length)
        self.virtual.add(path)

    def _take(self, path: str, dataset: h5py.Dataset, length: int) -> None:
        self.scales[path] = fixed_point.scale_of(dataset)
        self.datasets[path], self.lengths[path] = dataset, length

    def check_chunks(self, size: int) -> None:
        """Raises `ValueError` unless the rows lie in the first `size` bytes of the file."""
        for path, dataset in self.datasets.items():
            if path not in self.virtual and _end_of_rows(dataset, self.lengths[path]) > size:
                raise ValueError(f"it was cut short, and rows of {path!r} are missing")


def find(file: h5py.File, rows: int, size: int, *, is_index: bool = False) -> CheckedDatasets:
    """The outputs of a file.

    Nothing is read or allocated for what only claims to be large, and no link is followed.

    Args:
        file: The file.
        rows: Int. Rows that are committed.
        size: Int. Bytes of the file.
        is_index: Bool. Whether virtual datasets are outputs.

    Raises:
        ValueError: If a dataset is of a kind that no output is, or can't have the rows, or if there
            is a link to another file. For what h5py can't make out it raises other errors.
    """
    found = CheckedDatasets()
    for name, node in _outputs(file):
        found.outputs.append(name)
        if isinstance(node, h5py.Group):
            found.ragged[name] = node
            _add_ragged(found, name, node, rows, size)
        elif is_index and node.is_virtual:
            found.add_virtual(name, node, rows)
        else:
            found.add(name, node, rows, size)
    return found


def _outputs(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset | h5py.Group]]:
    """The datasets of a file other than ours, and the groups that are one output, each once."""
    seen = {file}
    groups = [("", file)]
    while groups:
        prefix, group = groups.pop()
        inner = []
        for part in group:
            # h5py has bytes for what is not UTF-8, and takes a slash for a path, through any link.
            if not isinstance(part, str) or "/" in part or part == ".":
                raise ValueError(f"{part!r} is the name of no output and no group")
            name = prefix + part
            node = _follow_hard_link(group, part, name)
            if node is None or node in seen or name == GROUP:
                continue
            seen.add(node)
            if isinstance(node, h5py.Dataset):
                # Of the scales only the numbers of the rows are an output, which has sums.
                has_sums = links.find(file, f"{SUMS}/{name}") is not None
                if not is_scale(node) or has_sums or node.is_virtual:
                    yield name, node
            elif isinstance(node, h5py.Group) and RAGGED_AXES in node.attrs:
                yield name, node
            elif isinstance(node, h5py.Group):
                inner.append((name + "/", node))
        groups += reversed(inner)


def _follow_hard_link(group: h5py.Group, part: str, name: str) -> Any:
    if isinstance(group.get(part, getlink=True), h5py.ExternalLink):
        raise ValueError(f"{name!r} is a link to another file, which is never followed")
    return links.follow(group, part)


def _add_ragged(found: CheckedDatasets, name: str, group: h5py.Group, rows: int, size: int) -> None:
    mark = group.attrs.get_id(RAGGED_AXES)
    if mark.dtype.kind not in "iu" or mark.shape != ():
        raise ValueError(f"attribute {RAGGED_AXES!r} of {name!r} must be a number of axes")
    axes = int(group.attrs[RAGGED_AXES])
    if not 1 <= axes <= MOST_AXES:
        raise ValueError(f"attribute {RAGGED_AXES!r} of {name!r} is {axes}")

    def add(part: str, row_shape: tuple[int, ...], length: int) -> h5py.Dataset:
        path = f"{name}/{part}"
        dataset = _follow_hard_link(group, part, path) if part in group else None
        if not isinstance(dataset, h5py.Dataset) or dataset.shape[1:] != row_shape:
            raise ValueError(f"{path!r} must be a dataset with rows of shape {row_shape}")
        if part != VALUES and dataset.dtype != "i8":
            raise ValueError(f"{path!r} must be of dtype int64, not {dataset.dtype}")
        found.add(path, dataset, length, size)
        return dataset

    splits = add(ROW_SPLITS, (), rows + 1)
    if axes != 1:
        add(ROW_SHAPES, (axes,), rows)
    if splits.chunks[0] * 8 > max(size, _LARGE_CHUNK_BYTES):  # it is read whole
        raise ValueError(f"a chunk of {name + '/' + ROW_SPLITS!r} can't be in {size} bytes")
    numbers = int(splits[rows]) if rows else 0
    if numbers < 0:
        raise ValueError(f"{rows} rows of {name!r} end at number {numbers}")
    add(VALUES, (), numbers)


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
            raise ValueError(
                f"{name!r} is compressed by HDF5's filter {code}, which is not there; "
                "pip install 'kerasext[compression]'"
            )


def _check_type(dataset: h5py.Dataset) -> None:
    dtype = dataset.dtype
    if dtype.kind not in "biufcS" or not dtype.itemsize:
        raise ValueError(
            f"{str(dataset.name)!r} must have numbers or text of a fixed width, not {dtype}"
        )


def _check_rows(dataset: h5py.Dataset, rows: int) -> None:
    name = str(dataset.name)
    if not 0 <= rows <= dataset.shape[0]:
        raise ValueError(f"{rows} rows committed, but {name!r} has shape {dataset.shape}")
    if _row_bytes(dataset) > _LARGEST_ROW_BYTES:
        raise ValueError(f"{name!r} has rows of {_row_bytes(dataset)} bytes")


def _row_bytes(dataset: h5py.Dataset) -> int:
    size: int = dataset.dtype.itemsize * math.prod(dataset.shape[1:])
    return size


def _check_size(dataset: h5py.Dataset, rows: int, size: int) -> None:
    name, row_bytes = str(dataset.name), _row_bytes(dataset)
    expansion = _MOST_EXPANSION if dataset.id.get_create_plist().get_nfilters() else 1
    if rows * row_bytes > size * expansion:
        raise ValueError(f"{rows} rows of {name!r} can't be in {size} bytes")
    lengths = zip(dataset.shape, dataset.chunks, strict=True)
    # HDF5 walks through every chunk that the dataset could have.
    if math.prod(-(-length // chunk) for length, chunk in lengths) * _LEAST_CHUNK_BYTES > size:
        raise ValueError(f"{name!r} of shape {dataset.shape} can't be in {size} bytes")


def _end_of_rows(dataset: h5py.Dataset, rows: int) -> int:
    """The byte of the file at which the last of the rows ends.

    Goes no further than their chunks: after a loss of power the index of others, which were not
    committed, can be half written.
    """
    ends = [0]

    def visit(chunk: Any) -> bool | None:
        if chunk.chunk_offset[0] >= rows:
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
