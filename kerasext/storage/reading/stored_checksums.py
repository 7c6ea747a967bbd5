"""The checksums of chunks that a file has, trusted no further than they were checked."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from kerasext.storage.format import links
from kerasext.storage.format.checksums import CHUNK_DTYPE
from kerasext.storage.format.layout import SUMS
from kerasext.storage.reading.dataset_checks import CheckedDatasets


class StoredChecksums:
    """The datasets under `_kerasext/sums`. Links other than hard ones are not followed.

    Args:
        file: The file.
        size: Int. Bytes of the file.
    """

    def __init__(self, file: h5py.File, size: int) -> None:
        self._file, self._size = file, size

    def names(self) -> set[str]:
        """Paths of the datasets of outputs that have checksums.

        Raises:
            ValueError: If something else stands among them.
        """
        found = set()
        top: Any = links.find(self._file, SUMS)
        groups = [("", top)] if isinstance(top, h5py.Group) else []
        seen = {top}
        while groups:
            prefix, group = groups.pop()
            for part in group:
                if not isinstance(part, str) or "/" in part or part == ".":
                    raise ValueError(f"{part!r} is the name of no checksums")
                node = links.follow(group, part)
                if node in seen:
                    raise ValueError(f"{prefix + part!r} has its checksums in two places")
                seen.add(node)
                if isinstance(node, h5py.Group):
                    groups.append((f"{prefix}{part}/", node))
                else:
                    found.add(prefix + part)
        return found

    def of(self, name: str, chunks: int) -> np.ndarray:
        """The checksums of the first chunks of a dataset, or fewer if no more are stored.

        Raises:
            ValueError: If they are not of the kind that is written.
        """
        path = f"{SUMS}/{name}"
        node = links.find(self._file, path)
        if not isinstance(node, h5py.Dataset):
            return np.empty(0, CHUNK_DTYPE)
        count = min(chunks, len(node)) if node.shape else 0
        CheckedDatasets().add(path, node, count, self._size)
        if node.dtype != CHUNK_DTYPE or node.ndim != 1:
            raise ValueError(f"{path!r} must be of dtype {CHUNK_DTYPE} and have one axis")
        stored: np.ndarray = node[:count]
        return stored
