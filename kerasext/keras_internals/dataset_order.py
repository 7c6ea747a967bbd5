"""Whether a data set shuffles, and which files it was made of.

`image_dataset_from_directory`, which shuffles by default, sets `file_paths` on the data set: in the
order in which the files were found, not that of the rows (keras-team/keras,
`src/utils/image_dataset_utils.py`). A data set of `tf.data` knows what it was made from by
`_inputs()`, one of Grain by `_parents` (both as in TensorFlow 2.21 and Grain 0.2); neither has a
public way to ask. Without these attributes nothing is known, and nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def shuffles_its_file_paths(dataset: Any, ids: Any) -> bool:
    """Whether `ids` are the `file_paths` of a data set that yields its rows in another order."""
    if not isinstance(ids, list | tuple | np.ndarray):
        return False
    chain = list(_chain(dataset))
    paths = [found for part in chain if (found := getattr(part, "file_paths", None)) is not None]
    has_paths = any(found is ids or list(found) == list(ids) for found in paths)
    return has_paths and any("shuffle" in type(part).__name__.lower() for part in chain)


def _chain(dataset: Any) -> Iterator[Any]:
    """A data set, and all that it was made from."""
    yield dataset
    inputs = getattr(dataset, "_inputs", None)
    parents = inputs() if callable(inputs) else getattr(dataset, "_parents", ())
    if isinstance(parents, list | tuple):
        for parent in parents:
            yield from _chain(parent)
