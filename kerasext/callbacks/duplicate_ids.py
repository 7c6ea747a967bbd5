"""Ids that stand in more than one row."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kerasext.storage import IDS, FileSource

_BLOCK_ROWS = 65536
_MOST_HASHES = 2**23  # in memory at once: 64 MiB
_MOST_EXAMPLES = 100


class DuplicateIds(NamedTuple):
    """How many ids stand in more than one row, and one of them.

    Args:
        ids: Int. Number of such ids.
        example: String or int.
        rows: Tuple of two rows that it stands in.
    """

    ids: int
    example: str | int
    rows: tuple[int, int]


def find_duplicate_ids(path: Path) -> DuplicateIds | None:
    """Looks for ids of a file that stand in more than one row, in constant memory.

    Args:
        path: Path of the file, which has ids.

    Returns:
        `None` if there are none.

    Raises:
        ValueError: If it is no prediction file, or damaged.
    """
    with contextlib.closing(FileSource(path)) as file:
        parts = max(math.ceil(file.state.rows / _MOST_HASHES), 1)
        found = [_find_in_part(file, part, parts) for part in range(parts)]
        duplicates = [some for some in found if some is not None]
    if not duplicates:
        return None
    return duplicates[0]._replace(ids=sum(some.ids for some in duplicates))


def _find_in_part(file: FileSource, part: int, parts: int) -> DuplicateIds | None:
    """Looks at the ids whose hashes are of one part of all: equal ids are in the same one."""
    hashes = np.concatenate(
        [some[some % parts == part] for _, _, some in _blocks(file)] or [np.empty(0, np.uint64)]
    )
    hashes.sort()
    twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(twice):
        return None
    first_rows: dict[str | int, int] = {}
    for start, ids, some in _blocks(file):
        # Other ids than these few may have one hash by chance; what is reported has not.
        places = np.flatnonzero(np.isin(some, twice[:_MOST_EXAMPLES]))
        for place, value in zip(places.tolist(), ids[places].tolist(), strict=True):
            row = start + place
            if value in first_rows:
                text = value.decode(errors="replace") if isinstance(value, bytes) else value
                return DuplicateIds(len(twice), text, (first_rows[value], row))
            first_rows[value] = row
    return None


def _blocks(file: FileSource) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """The first row, the ids and their hashes, some rows at a time."""
    rows = file.state.rows
    column = file.dense_column(IDS)
    for start in range(0, rows, _BLOCK_ROWS):
        ids = column.read_rows(start, min(start + _BLOCK_ROWS, rows))
        yield start, ids, _hashes(ids)


def _hashes(ids: np.ndarray) -> np.ndarray:
    """Array of shape `(rows,)`, uint64."""
    if ids.dtype.kind != "S":
        return _mix(ids.astype(np.uint64))
    width = math.ceil(ids.dtype.itemsize / 8) * 8
    words = ids.astype(f"S{width}").view(np.uint64).reshape(len(ids), -1)
    hashes = np.zeros(len(ids), np.uint64)
    for word in words.T:
        hashes = _mix(hashes ^ word)
    return hashes


def _mix(numbers: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea and Flood 2014), which no two numbers share."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed
