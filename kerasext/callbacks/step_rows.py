"""From a predict step to the rows that are stored of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kerasext.callbacks.row_columns import Columns
from kerasext.callbacks.step_outputs import (
    Task,
    by_name,
    check_probabilities,
    check_rows,
    choose,
    number_of_bytes,
    to_rows,
)
from kerasext.storage import RESERVED, ROW, TEXT_KINDS, RaggedRows, check_not_reserved, encode_text

Keep = Callable[[dict[str, Any]], Any]


class Step(NamedTuple):
    """A step on its way to the thread that writes.

    Args:
        outputs: What the model returned, in its structure and tensors.
        columns: Ids and targets of its rows by name.
        first_row: Int. Number of its first row in the data, those of earlier calls included.
        rows: Int. Its rows.
        task: As for `check_probabilities`, which its rows go through. Defaults to `None`.
    """

    outputs: Any
    columns: Columns
    first_row: int
    rows: int
    task: Task = None

    @property
    def nbytes(self) -> int:
        """Its bytes, without waiting for the values of its tensors."""
        return number_of_bytes(self.outputs) + sum(c.nbytes for c in self.columns.values())


def rows_of(step: Step, names: Sequence[str] | None, keep: Keep | None) -> Columns:
    """The rows to store, by name.

    Args:
        step: The step.
        names: Names of the outputs to store; `None` for all.
        keep: As for `HDF5PredictionWriter`.

    Returns:
        Dict from name to rows: the outputs, the columns, and `"row"` if not all rows are kept.

    Raises:
        ValueError: If there is no output of a name, one is called as a column, does not have the
            rows of the step, `keep` returns no boolean for each row, or probabilities are none.
        TypeError: If an output has two ragged axes.
    """
    named = by_name(step.outputs)
    chosen = choose(named, names)
    columns = {name.partition("/")[0] for name in step.columns} | ({ROW} if keep else set())
    check_not_reserved(chosen, RESERVED | columns)
    read = named if keep else chosen
    arrays = {name: to_rows(name, tensor) for name, tensor in read.items()}
    check_rows({name: arrays[name] for name in chosen}, step.rows)
    rows = {**{name: arrays[name] for name in chosen}, **step.columns}
    if keep is not None:
        shown = {**arrays, **step.columns}
        kept = _kept(keep, {name: _as_read(name, shown[name]) for name in shown}, step.rows)
        rows = {name: array[kept] for name, array in rows.items()}
        rows[ROW] = step.first_row + np.flatnonzero(kept)
    check_probabilities({name: rows[name] for name in chosen}, step.task)
    return rows


def rows_before(rows: Columns, row: int) -> int:
    """How many of the rows that `keep` left come before a row of the data."""
    return int(np.count_nonzero(np.asarray(rows[ROW]) < row))


def _as_read(name: str, array: np.ndarray | RaggedRows) -> np.ndarray | RaggedRows:
    """Text as `PredictionFile` returns it, as `str`: `"a" == b"a"` is false, without an error."""
    if isinstance(array, RaggedRows) or array.dtype.kind not in TEXT_KINDS:
        return array
    try:
        return np.char.decode(encode_text(name, array), "utf-8")
    except (TypeError, ValueError):  # not text; an error follows if it is to be stored
        return array


class _Arrays(dict[str, Any]):
    """The dict that `keep` gets. A missing name raises an error that lists the names."""

    def __missing__(self, name: object) -> Any:
        near = difflib.get_close_matches(str(name), self, n=1)
        remedy = f"; the nearest is {near[0]!r}" if near else ""
        raise KeyError(f"`keep` gets the arrays {sorted(self)}{remedy}. Received: step[{name!r}]")


def _kept(keep: Keep, arrays: Mapping[str, Any], rows: int) -> np.ndarray:
    kept = np.asarray(keep(_Arrays(arrays)))
    if kept.dtype != bool or kept.shape != (rows,):
        raise ValueError(
            "`keep` must return one boolean for each row of the step, such as "
            "`~(step['confidence'] >= 0.6)`, which keeps rows whose confidence is NaN. "
            f"Received: shape={kept.shape}, dtype={kept.dtype} for {rows} rows"
        )
    return kept
