"""Structures of arrays, taken apart and put together with their keys in order.

`keras.tree.pack_sequence_as` sorts the keys of dicts on torch, where `predict` does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


def numbered(structure: Any) -> Any:
    """The structure, with the position of each leaf in `keras.tree.flatten` for the leaf."""
    positions = {id(leaf): at for at, leaf in enumerate(keras.tree.flatten(structure))}
    return keras.tree.map_structure(lambda leaf: positions[id(leaf)], structure)


def filled(numbers: Any, leaves: Sequence[Any]) -> Any:
    """What `numbered` has returned, with other leaves for the numbers."""
    return keras.tree.map_structure(leaves.__getitem__, numbers)
