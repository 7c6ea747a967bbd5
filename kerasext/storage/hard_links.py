"""Finding objects by hard links only: others may lead to other files."""

from __future__ import annotations

from typing import Any

import h5py


def find(file: h5py.File, path: str) -> Any | None:
    """The group or dataset at a path, `None` if no hard links lead to one."""
    node: Any = file
    for part in path.split("/"):
        found = isinstance(node, h5py.Group) and part in node
        link = node.get(part, getlink=True) if found else None
        node = node[part] if isinstance(link, h5py.HardLink) else None
    return node
