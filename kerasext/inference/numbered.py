"""Structures of arrays, taken apart and put together with their keys in order.

`keras.tree.pack_sequence_as` sorts the keys of dicts on torch, where `predict` does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def numbered(structure: Any) -> Any:
    """The structure, with its position among the leaves for each leaf that is not `None`."""
    leaves = [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
    positions = {id(leaf): at for at, leaf in enumerate(leaves)}
    return keras.tree.map_structure(lambda leaf: positions.get(id(leaf)), structure)


def filled(numbers: Any, leaves: Sequence[Any]) -> Any:
    """What `numbered` has returned, with other leaves for the numbers."""
    return keras.tree.map_structure(lambda at: None if at is None else leaves[at], numbers)
