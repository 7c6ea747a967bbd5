"""Whether the files in a folder have the rows that they must have, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from kerasext.shards.shard_folder import ShardFolder
from kerasext.storage import to_ids

_MOST_SHOWN = 5


def check_expected_ids(shards: ShardFolder, expected_ids: Iterable[Any]) -> None:
    """Compares the ids of all rows with those that there must be.

    Args:
        shards: `ShardFolder`, in which no id stands in two rows.
        expected_ids: Iterable of integers or strings, in any order.

    Raises:
        TypeError: If they are something else.
        ValueError: If the files have no ids, one of them is missing, is too many or is expected
            twice.
    """
    expected = _to_array(expected_ids)
    received = f"Received: folder={str(shards.path)!r}"
    if not shards.ids:
        raise ValueError(
            "`expected_ids` are compared with those in the files; store them with `ids` of the "
            f"writer. {received} of files without ids"
        )
    found, expected = map(np.sort, _comparable(np.concatenate(shards.ids), expected))
    twice = expected[1:][expected[1:] == expected[:-1]]
    if len(twice):
        raise ValueError(
            "`expected_ids` must have each id once, for it stands in one row. "
            f"Received: {_shown(twice)} more than once"
        )
    problems = [
        f"{_shown(ids)} {problem}"
        for ids, problem in (
            (np.setdiff1d(expected, found, assume_unique=True), "missing"),
            (np.setdiff1d(found, expected, assume_unique=True), "not expected"),
        )
        if len(ids)
    ]
    if problems:
        raise ValueError(
            "The files must have the rows of `expected_ids` and no others; predict those that are "
            f"missing, and keep each run in a folder of its own. {received} with "
            + "; and ".join(problems)
        )


def _to_array(values: Any) -> np.ndarray:
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(
            "`expected_ids` must be an array, or an iterable of integers or strings. "
            f"Received: expected_ids={values!r}"
        )
    if isinstance(values, range):  # a list of it would need nine times the memory
        values = np.arange(values.start, values.stop, values.step)
    return to_ids(
        np.asarray(values) if hasattr(values, "__array__") else list(values),
        argument="expected_ids",
    )


def _comparable(found: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same ids, of one dtype where NumPy would compare floats, or numbers with their text."""
    if not len(expected) or not len(found):
        return found, expected.astype(found.dtype) if not len(expected) else expected
    kinds = {found.dtype.kind, expected.dtype.kind}
    if len(kinds) == 1:
        return found, expected
    if "S" in kinds:
        raise ValueError(
            "`expected_ids` must be integers or strings as the ids of the files are. "
            f"Received: {_shown(expected)}; and the files have {_shown(found)}"
        )
    is_large = max(int(found.max()), int(expected.max())) >= 2**63
    dtype = "S21" if is_large else "i8"
    return found.astype(dtype), expected.astype(dtype)


def _shown(ids: np.ndarray) -> str:
    values: list[Any] = ids[:_MOST_SHOWN].tolist()
    texts = [
        repr(value.decode(errors="replace") if isinstance(value, bytes) else value)
        for value in values
    ]
    more = f" and {len(ids) - len(texts)} others" if len(ids) > len(texts) else ""
    return ", ".join(texts) + more
