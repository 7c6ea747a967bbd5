"""Finding objects by hard links only: others may lead to other files."""

from __future__ import annotations

from typing import Any

import h5py

from kerasext.storage.format.layout import MOST_RUNS


def find(file: h5py.File, path: str) -> Any | None:
    """The group or dataset at a path, `None` if no hard links lead to one.

    Raises:
        ValueError: As of `follow`.
    """
    node: Any = file
    for part in path.split("/"):
        node = follow(node, part) if isinstance(node, h5py.Group) and part in node else None
    return node


def follow(group: h5py.Group, part: str) -> Any | None:
    """The object that a link of a group leads to, `None` if it is not a hard link.

    Raises:
        ValueError: If it is a virtual dataset that grows with files that HDF5 looks for.
    """
    if not isinstance(group.get(part, getlink=True), h5py.HardLink):
        return None
    node = group[part]
    if isinstance(node, h5py.Dataset):
        _check_mappings(node)
    return node


def _check_mappings(dataset: h5py.Dataset) -> None:
    # Asked for the shape of others, HDF5 takes the Python object that it reads for each of those
    # files, and goes on for ever.
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.VIRTUAL:
        return
    name, count = str(dataset.name), properties.get_virtual_count()
    if count > MOST_RUNS:
        raise ValueError(f"{name!r} is made of {count} parts of other files")
    for number in range(count):
        space = properties.get_virtual_vspace(number)
        if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
            continue
        *_, counts, blocks = space.get_regular_hyperslab()
        if h5py.h5s.UNLIMITED in counts + blocks:
            raise ValueError(f"{name!r} is made of other files without end")
