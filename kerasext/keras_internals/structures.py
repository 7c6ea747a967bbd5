"""Nested structures of tensors, taken apart and put together, where `keras.tree` falls short.

On torch `keras.tree.pack_sequence_as` sorts the keys of dicts, where `predict` does not. And
`keras.tree.flatten_with_path` leaves what it is given in a reference cycle there, so that outputs
of any size would stay until the garbage collector comes, which counts objects and not bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras


def numbered(structure: Any) -> Any:
    """The structure, with its position among the leaves for each leaf that is not `None`."""
    leaves = [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
    positions = {id(leaf): at for at, leaf in enumerate(leaves)}
    return keras.tree.map_structure(lambda leaf: positions.get(id(leaf)), structure)


def filled(numbers: Any, leaves: Sequence[Any]) -> Any:
    """What `numbered` has returned, with other leaves for the numbers."""
    if isinstance(numbers, int):  # a single tensor: `keras.tree` takes as long as a small step
        return leaves[numbers]
    return keras.tree.map_structure(lambda at: None if at is None else leaves[at], numbers)


def leaves_with_path(
    structure: Any, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The path and the tensor of each leaf, in the order of `keras.tree.flatten_with_path`."""
    if keras.backend.backend() != "torch":
        yield from keras.tree.flatten_with_path(structure)
    elif isinstance(structure, dict):
        for key, part in structure.items():
            yield from leaves_with_path(part, (*path, key))
    elif isinstance(structure, list | tuple):
        for position, part in enumerate(structure):
            yield from leaves_with_path(part, (*path, position))
    elif keras.tree.is_nested(structure):
        for end, leaf in keras.tree.flatten_with_path(structure):
            yield (*path, *end), leaf
    else:
        yield path, structure
