"""Finding objects by hard links only: other links may lead to other files."""

from __future__ import annotations

from typing import Any

import h5py


def find(file: h5py.File, path: str) -> Any | None:
    """The group or dataset at a path, `None` if no hard links lead to one.

    Raises:
        ValueError: If a part of the path is a link to another file.
    """
    node: Any = file
    for part in path.split("/"):
        if not isinstance(node, h5py.Group):
            return None
        name = part.encode()
        if not node.id.links.exists(name):
            return None
        link = node.id.links.get_info(name).type
        if link == h5py.h5l.TYPE_EXTERNAL:
            raise ValueError(f"{path!r} is a link to another file, which is never followed")
        if link != h5py.h5l.TYPE_HARD:
            return None
        node = node[part]
    return node
