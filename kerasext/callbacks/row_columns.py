"""What stands beside the outputs of each row: its id and its target.

Taken on the host, from what is aligned with the rows of the data or from the very batches that are
predicted, so that no shuffling and no worker can part a row from them. Never given to the model.
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasext.callbacks.step_outputs import by_name, to_rows
from kerasext.keras_internals import is_text, predict_loop, to_numpy
from kerasext.storage import (
    DEFAULT_STRING_BYTES,
    IDS,
    TARGETS,
    TEXT_KINDS,
    RaggedRows,
    encode_text,
    join_ragged,
    to_ids,
)

Ids = str | Iterable[Any] | None
Columns = dict[str, np.ndarray | RaggedRows]


class RowColumns:
    """The ids and targets of rows.

    Args:
        ids: String, for the key in `x` of each batch; or an array or iterable aligned with the rows
            of the data; or `None`.
        targets: `True`, for the `y` of each batch; or an array, list or iterable aligned with the
            rows, or a nested structure of them; or `False`.

    Attributes:
        id_key: String or `None`. The key.
        names: Frozenset of the columns that there are, of `"ids"` and `"targets"`.

    Raises:
        TypeError: If an argument is something else, or ids are neither integers nor strings.
        ValueError: If ids have another shape than `(rows,)`, or are not UTF-8.
    """

    def __init__(self, ids: Any, targets: Any) -> None:
        self.id_key = ids if isinstance(ids, str) else None
        self._has_y = targets is True
        self._aligned = {} if isinstance(targets, bool) else _aligned_targets(targets)
        has = {IDS: ids is not None, TARGETS: self._has_y or bool(self._aligned)}
        if ids is not None and self.id_key is None:
            self._aligned[IDS] = _aligned_ids(ids)
        self.names = frozenset(name for name in has if has[name])

    @property
    def id_width(self) -> int | None:
        """Bytes of the longest id where all are known and are strings, else `None`."""
        return self._aligned[IDS].width if IDS in self._aligned else None

    def begin(self) -> None:
        """Goes back to the first row."""
        for column in self._aligned.values():
            column.begin()

    def skip(self, rows: int) -> None:
        """Passes over the columns of the next rows."""
        for column in self._aligned.values():
            column.skip(rows)

    def of_step(self, batches: Sequence[Any], first_row: int, rows: int, model: Any) -> Columns:
        """The columns of the rows of a step.

        Args:
            batches: Its batches, as they come from the data. Not needed if nothing is taken of
                them.
            first_row: Int. Rows of the data before it.
            rows: Int. Rows of it.
            model: The model that predicts.

        Returns:
            Dict from name to rows: `"ids"`, and `"targets"` or one `"targets/..."` for each of the
            targets.

        Raises:
            TypeError: If ids are neither integers nor strings.
            ValueError: If there are fewer or more than rows, or the batches don't have them.
        """
        columns: Columns = {}
        for name, aligned in self._aligned.items():
            columns[name] = aligned.take(first_row, rows)
        if self.id_key is not None:
            parts = [_value_of(batch, self.id_key) for batch in batches]
            columns[IDS] = _wide(to_ids(_joined(IDS, [_on_host(part) for part in parts], model)))
        if self._has_y:
            steps = [_named(_target_of(batch)) for batch in batches]
            for name in steps[0]:
                columns[name] = _joined(name, [step.get(name) for step in steps], model)
        for name, column in columns.items():
            if len(column) != rows:
                raise _wrong_number(name, f"{len(column)} for the {rows} rows of a step")
        return columns

    def check_end(self, rows: int) -> None:
        """Raises `ValueError` unless the aligned columns have as many rows as the data had."""
        self.check_lengths(rows)
        for column in self._aligned.values():
            column.check_end(rows)

    def check_lengths(self, rows: int) -> None:
        """Raises `ValueError` if a column whose length is known has another than the data."""
        for column in self._aligned.values():
            column.check_length(rows)


class _AlignedRows:
    """A column in the order of the rows of the data.

    Args:
        name: String. What it is called, for errors.
        values: Array, list, tuple, any other sequence, or an iterable.
        to_column: Callable that makes the array that is stored of values.
    """

    def __init__(self, name: str, values: Any, to_column: Callable[[Any], np.ndarray]) -> None:
        self._name = name
        self._to_column = to_column
        self._is_known = isinstance(values, list | tuple | np.ndarray) or hasattr(values, "iloc")
        self._values: Any = to_column(values) if self._is_known else values
        self._is_sized = hasattr(values, "__getitem__") and hasattr(values, "__len__")
        self._left: Iterator[Any] = iter(())

    @property
    def width(self) -> int | None:
        """Bytes of the longest value where all are known and are text, else `None`."""
        is_text = self._is_known and self._values.dtype.kind == "S"
        return self._values.dtype.itemsize if is_text else None

    def begin(self) -> None:
        if not self._is_sized:
            self._left = iter(self._values)

    def take(self, first_row: int, rows: int) -> np.ndarray:
        if self._is_known:
            column: np.ndarray = self._values[first_row : first_row + rows]
        else:
            if self._is_sized:
                values = self._values[first_row : first_row + rows]
            else:
                values = list(itertools.islice(self._left, rows))
            column = _wide(self._to_column(values))
        if len(column) < rows:
            raise _wrong_number(
                self._name, f"{first_row + len(column)} for at least {first_row + rows} rows"
            )
        return column

    def skip(self, rows: int) -> None:
        """Passes over the next rows, which are needed of an iterable only."""
        if not self._is_sized:
            next(itertools.islice(self._left, rows, rows), None)

    def check_length(self, rows: int) -> None:
        if self._is_sized and len(self._values) != rows:
            raise _wrong_number(self._name, f"{len(self._values)} for {rows} rows")

    def check_end(self, rows: int) -> None:
        if next(self._left, self) is not self:
            raise _wrong_number(self._name, f"more than {rows} for {rows} rows")


def _aligned_ids(ids: Any) -> _AlignedRows:
    if not isinstance(ids, Iterable) or isinstance(ids, bytes | Mapping):
        raise TypeError(
            "`ids` must be integers or strings in the order of the rows, or the name of a key "
            f"in the data. Received: type(ids)={type(ids).__name__}"
        )
    return _AlignedRows(IDS, ids, lambda ids: to_ids(ids if _is_list(ids) else to_numpy(ids)))


def _aligned_targets(targets: Any) -> dict[str, _AlignedRows]:
    columns = list(_columns_of(TARGETS, targets))
    if len({name for name, _ in columns}) < len(columns):
        raise ValueError(
            "Two targets must not have the same path in the file; rename one of them. "
            f"Received: {[name for name, _ in columns]}"
        )
    return dict(columns)


def _columns_of(name: str, targets: Any) -> Iterator[tuple[str, _AlignedRows]]:
    """The columns of nested targets. A list or tuple of values is one, of columns it is not."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(targets, dict):
        parts = targets.items()
    elif _is_list(targets) and any(map(_has_rows, targets)):
        parts = enumerate(targets)
    else:
        is_scalar = not len(getattr(targets, "shape", (1,)))
        if is_scalar or isinstance(targets, str | bytes) or not isinstance(targets, Iterable):
            raise TypeError(
                "`targets` must be a bool, or arrays, lists or iterables in the order of the rows. "
                f"Received: {name}={type(targets).__name__}"
            )
        yield name, _AlignedRows(name, targets, functools.partial(_to_targets, name))
    for key, part in parts:
        yield from _columns_of(f"{name}/{key}", part)


def _has_rows(part: Any) -> bool:
    """Whether a part of a list is a column, or has some."""
    if _is_list(part):
        return any(map(_has_rows, part))
    if isinstance(part, str | bytes):
        return False
    return len(getattr(part, "shape", ())) > 0 or (
        not hasattr(part, "shape") and isinstance(part, Iterable)
    )


def _is_list(values: Any) -> bool:
    return isinstance(values, list | tuple)


def _to_targets(name: str, values: Any) -> np.ndarray:
    """Targets as the array that is stored, text in UTF-8 at least as wide as the longest."""
    try:
        array = np.asarray(values) if _is_list(values) else to_numpy(values)
    except ValueError as error:  # lists of other lengths
        raise ValueError(
            f"`{name}` must have the same shape in each row; fill the shorter ones up. "
            f"Received: {error}"
        ) from error
    return _wide(encode_text(name, array)) if array.dtype.kind in TEXT_KINDS else array


def _value_of(batch: Any, key: str) -> Any:
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if isinstance(x, dict) and key in x:
        return x[key]
    raise no_such_key(x, key)


def no_such_key(x: Any, key: str) -> ValueError:
    """The error for inputs that have no ids under a key."""
    received = f"keys {sorted(x)}" if isinstance(x, dict) else f"x of type {type(x).__name__}"
    near = difflib.get_close_matches(key, x, n=1) if isinstance(x, dict) else []
    remedy = f"the nearest is {near[0]!r}" if near else "or ids in the order of the rows"
    return ValueError(
        f"`ids` must be the name of a key in data whose `x` is a dict; {remedy}. "
        f"Received: ids={key!r}, {received}"
    )


def _target_of(batch: Any) -> Any:
    _, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
    if y is None:
        raise ValueError(
            "`targets=True` takes the y of data that yields (x, y); pass an array in the order of "
            "the rows, targets=y. Received: data without y"
        )
    return y


def check_weights(batches: Sequence[Any], model: Any) -> None:
    """Checks that nobody takes the third part of a batch for names.

    `predict` does not look at sample weights, so that names would be lost without a word.

    Raises:
        ValueError: If the sample weights of the first batch are text.
    """
    _, _, weights = keras.utils.unpack_x_y_sample_weight(batches[0]) if batches else (None,) * 3
    for leaf in keras.tree.flatten(weights):
        for part in predict_loop.parts_of(leaf, model):
            if is_text(part):
                raise ValueError(
                    "The third part of a batch is its sample weights, which are numbers; yield "
                    "names as targets, (x, {'label': y, 'name': name}) with targets=True, or where "
                    "the model takes a dict, with ids='name', ({'image': x, 'name': name}, y). "
                    f"Received: sample weights that are text, {_shown(part)}"
                )


def _shown(part: Any) -> str:
    return repr(part) if isinstance(part, str | bytes) else f"dtype={part.dtype}"


def _on_host(ids: Any) -> Any:
    # `keras.ops` knows no strings, and NumPy's arrays are tensors of no backend.
    is_on_device = keras.backend.backend() == "jax" and keras.ops.is_tensor(ids)
    if is_on_device and ids.dtype.itemsize < 8:
        raise ValueError(
            "Keras has put the ids of the batch on the device, where JAX has 32 bits and larger "
            "ones are others; pass `ids` in the order of the rows, or use `predict_to_hdf5` with "
            f"arrays. Received: ids of dtype {ids.dtype}"
        )
    return ids


def _joined(name: str, parts: Sequence[Any], model: Any) -> Any:
    """The rows of the batches of a step, copied: whoever made them may use the memory again."""
    local = [to_rows(name, own) for part in parts for own in predict_loop.parts_of(part, model)]
    return join_ragged(local)


def _named(structure: Any) -> dict[str, Any]:
    return by_name({TARGETS: structure})


def _wide(column: np.ndarray) -> np.ndarray:
    """Values of a step, of which the longest text need not be the longest of all."""
    if column.dtype.kind == "S" and column.dtype.itemsize < DEFAULT_STRING_BYTES:
        return column.astype(f"S{DEFAULT_STRING_BYTES}")
    return column


def _wrong_number(name: str, received: str) -> ValueError:
    return ValueError(
        f"`{name}` must have one for each row of the data; committed rows stay in the file, and "
        f"mode='resume' continues with the right ones. Received: {received}"
    )
