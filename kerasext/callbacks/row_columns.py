"""What stands beside the outputs of each row: its id and its target.

Taken on the host, from what is aligned with the rows of the data or from the very batches that are
predicted, so that no shuffling and no worker can part a row from them. Never given to the model.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasext.callbacks.step_outputs import by_name, to_numpy, to_rows
from kerasext.keras_internals import predict_loop
from kerasext.storage import RaggedRows
from kerasext.storage.layout import IDS, TARGETS
from kerasext.storage.output_spec import DEFAULT_STRING_BYTES
from kerasext.storage.ragged_rows import join
from kerasext.storage.row_ids import to_ids
from kerasext.storage.utf8_text import KINDS

Ids = str | Iterable[int] | Iterable[str] | None
Columns = dict[str, np.ndarray | RaggedRows]


class RowColumns:
    """The ids and targets of rows.

    Args:
        ids: String, for the key in `x` of each batch; or an array or iterable aligned with the rows
            of the data; or `None`.
        targets: `True`, for the `y` of each batch; or an array aligned with the rows, or a nested
            structure of them; or `False`.

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
        self._ids = None if ids is None or self.id_key else _AlignedIds(ids)
        self._targets = {} if isinstance(targets, bool) else _named(targets)
        for name, array in self._targets.items():
            if not len(getattr(array, "shape", ())):
                raise TypeError(
                    "`targets` must be a bool, or arrays with a rows axis. "
                    f"Received: {name}={type(array).__name__}"
                )
        has = {IDS: ids is not None, TARGETS: self._has_y or bool(self._targets)}
        self.names = frozenset(name for name in has if has[name])

    @property
    def id_width(self) -> int | None:
        """Bytes of the longest id where all are known and are strings, else `None`."""
        return self._ids.width if self._ids else None

    def begin(self) -> None:
        """Goes back to the first row."""
        if self._ids:
            self._ids.begin()

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
        if self._ids:
            columns[IDS] = self._ids.take(first_row, rows)
        if self.id_key is not None:
            parts = [_value_of(batch, self.id_key) for batch in batches]
            columns[IDS] = _wide(to_ids(_joined(IDS, [_on_host(part) for part in parts], model)))
        for name, array in self._targets.items():
            columns[name] = to_numpy(_slice(array, first_row, rows))
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
        if self._ids:
            self._ids.check_end(rows)

    def check_lengths(self, rows: int) -> None:
        """Raises `ValueError` if a column whose length is known has another than the data."""
        if self._ids:
            self._ids.check_length(rows)
        for name, array in self._targets.items():
            if len(array) != rows:
                raise _wrong_number(name, f"{len(array)} for {rows} rows")


class _AlignedIds:
    """Ids in the order of the rows."""

    def __init__(self, ids: Any) -> None:
        self._are_checked = isinstance(ids, list | tuple | np.ndarray) or hasattr(ids, "iloc")
        if self._are_checked:
            ids = to_ids(ids)
        elif not isinstance(ids, Iterable) or isinstance(ids, bytes | Mapping):
            raise TypeError(
                "`ids` must be integers or strings in the order of the rows, or the name of a key "
                f"in the data. Received: type(ids)={type(ids).__name__}"
            )
        self._ids: Any = ids
        self._is_sized = hasattr(ids, "__getitem__") and hasattr(ids, "__len__")
        self._left: Iterator[Any] = iter(())

    @property
    def width(self) -> int | None:
        is_text = self._are_checked and self._ids.dtype.kind == "S"
        return self._ids.dtype.itemsize if is_text else None

    def begin(self) -> None:
        if not self._is_sized:
            self._left = iter(self._ids)

    def take(self, first_row: int, rows: int) -> np.ndarray:
        if not self._is_sized:
            ids = _wide(to_ids(list(itertools.islice(self._left, rows))))
        else:
            ids = self._ids[first_row : first_row + rows]
            if not self._are_checked:
                ids = _wide(to_ids(to_numpy(ids)))
        if len(ids) < rows:
            raise _wrong_number(IDS, f"{first_row + len(ids)} for at least {first_row + rows} rows")
        return ids

    def check_length(self, rows: int) -> None:
        if self._is_sized and len(self._ids) != rows:
            raise _wrong_number(IDS, f"{len(self._ids)} for {rows} rows")

    def check_end(self, rows: int) -> None:
        if next(self._left, self) is not self:
            raise _wrong_number(IDS, f"more than {rows} for {rows} rows")


def without_keys(batch: Any, keys: Collection[str]) -> Any:
    """A batch for the model, of whose `x` some keys are taken out."""
    if isinstance(batch, dict):
        return {name: value for name, value in batch.items() if name not in keys}
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], dict):
        return type(batch)([without_keys(batch[0], keys), *batch[1:]])
    return batch


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
            if _is_text(part):
                raise ValueError(
                    "The third part of a batch is its sample weights, which are numbers; yield "
                    "names as targets, (x, {'label': y, 'name': name}) with targets=True, or where "
                    "the model takes a dict, with ids='name', ({'image': x, 'name': name}, y). "
                    f"Received: sample weights that are text, {_shown(part)}"
                )


def _is_text(part: Any) -> bool:
    if isinstance(part, str | bytes):
        return True
    dtype = getattr(part, "dtype", None)
    if getattr(dtype, "name", None) == "string":  # of a tensor of TensorFlow
        return True
    kind = getattr(dtype, "kind", None)
    if kind == "O":
        return any(isinstance(value, str | bytes) for value in part.reshape(-1)[:1])
    return kind is not None and kind in KINDS


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
    return join(local)


def _named(structure: Any) -> dict[str, Any]:
    return by_name({TARGETS: structure})


def _slice(array: Any, first_row: int, rows: int) -> Any:
    return getattr(array, "iloc", array)[first_row : first_row + rows]


def _wide(ids: np.ndarray) -> np.ndarray:
    """The ids of a step, whose longest one need not be the longest of all."""
    if ids.dtype.kind == "S" and ids.dtype.itemsize < DEFAULT_STRING_BYTES:
        return ids.astype(f"S{DEFAULT_STRING_BYTES}")
    return ids


def _wrong_number(name: str, received: str) -> ValueError:
    return ValueError(
        f"`{name}` must have one for each row of the data; the rows that are in the file stay, and "
        f"mode='resume' goes on with the right ones. Received: {received}"
    )
