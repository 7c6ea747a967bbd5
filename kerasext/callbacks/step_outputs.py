"""From the structure that a predict step returns to named NumPy arrays."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasext.keras_internals import leaves_with_path, to_numpy
from kerasext.storage import RaggedRows, find_outputs, head_and_output

Task = str | Mapping[str, str | None] | None

SINGLE_OUTPUT = "predictions"
_ROWS_TO_CHECK = 1024
_TOLERANCE = 0.02  # what bfloat16 probabilities of many classes may miss of 1


def by_name(outputs: Any) -> dict[str, Any]:
    """The tensors of a structure by path in the file.

    Args:
        outputs: Tensor, or nested dicts, lists and tuples of them.

    Returns:
        Dict from name to tensor: keys and positions joined by `/`, and `"predictions"` for a single
        tensor.

    Raises:
        ValueError: If two tensors have the same name.
    """
    named: dict[str, Any] = {}
    for path, tensor in leaves_with_path(outputs):
        name = "/".join(map(str, path)) if path else SINGLE_OUTPUT
        if name in named:
            raise ValueError(
                "Two outputs must not have the same path in the file; rename one of them. "
                f"Received: name={name!r} twice"
            )
        named[name] = tensor
    return named


def number_of_rows(outputs: Any) -> int:
    """Rows of the first tensor of a structure; 0 if it has no rows axis."""
    _, first = next(iter(leaves_with_path(outputs)), ((), None))
    shape: Any = getattr(first, "shape", ())
    return int(shape[0]) if len(shape) else 0


def choose(named: Mapping[str, Any], names: Sequence[str] | None) -> dict[str, Any]:
    """The outputs to keep.

    Args:
        named: Outputs by name.
        names: Names of outputs or of groups of them; `None` for all.

    Raises:
        ValueError: If there is no output of a name.
    """
    if names is None:
        return dict(named)
    found = find_outputs(named, names, argument="outputs", where="of the model")
    return {output: tensor for output, tensor in named.items() if output in found}


def that_stay(outputs: Any, names: Sequence[str] | None) -> Any:
    """The outputs of a step, so that no later step can change them.

    Only torch has tensors that change, such as a buffer into which a model writes each of its
    results, or a view of its input; on the others they are returned as they are, not waited for.

    Args:
        outputs: Tensor, or nested dicts, lists and tuples of them.
        names: Names of the outputs to keep; `None` for all.
    """
    if keras.backend.backend() != "torch":
        return outputs
    kept = choose(by_name(outputs), names).items()
    return {name: np.array(to_numpy(tensor)) for name, tensor in kept}


def to_rows(name: str, tensor: Any) -> np.ndarray | RaggedRows:
    """The rows of an output, without a copy where the backend allows it.

    Args:
        name: String. The output.
        tensor: Tensor of shape `(rows, ...)`, or `tf.RaggedTensor` whose second axis is ragged.

    Raises:
        TypeError: If more than one axis of a `tf.RaggedTensor` is ragged.
    """
    if not _is_ragged(tensor):
        return to_numpy(tensor)
    if tensor.ragged_rank != 1:
        raise TypeError(
            f"Output {name!r} must have one ragged axis; return `to_tensor()` of it, `merge_dims` "
            "of two axes, or leave it out with `outputs`. "
            f"Received: a RaggedTensor with ragged_rank={tensor.ragged_rank}"
        )
    values = to_numpy(tensor.values)
    lengths = np.diff(to_numpy(tensor.row_splits))
    shapes = np.empty((len(lengths), values.ndim), np.int64)
    shapes[:, 0], shapes[:, 1:] = lengths, values.shape[1:]
    return RaggedRows(values.reshape(-1), shapes)


def number_of_bytes(outputs: Any) -> int:
    """Bytes of the tensors of a structure, without waiting for their values."""
    return sum(map(_bytes_of, by_name(outputs).values()))


def _bytes_of(tensor: Any) -> int:
    if _is_ragged(tensor):
        return _bytes_of(tensor.flat_values) + _bytes_of(tensor.row_splits)
    if _tensorflow() and isinstance(tensor, _tensorflow().Tensor):
        size: int = tensor.shape.num_elements() * (tensor.dtype.size or 8)  # a string has no size
        return size
    return int(getattr(tensor, "nbytes", 0))


def _is_ragged(tensor: Any) -> bool:
    return bool(_tensorflow()) and isinstance(tensor, _tensorflow().RaggedTensor)


@functools.cache
def _tensorflow() -> Any:
    # Where it is the backend it is loaded already; where not, it should not be.
    is_backend = keras.backend.backend() == "tensorflow"
    return importlib.import_module("tensorflow") if is_backend else None


def check_rows(outputs: Mapping[str, np.ndarray | RaggedRows], rows: int) -> None:
    """Checks that every output has the rows of its batch.

    Args:
        outputs: Rows of a step by name.
        rows: Rows of the data of the step.

    Raises:
        ValueError: If one has other rows, or none.
    """
    for name, array in outputs.items():
        if array.shape[:1] != (rows,) and not _is_object(array):
            raise ValueError(
                f"Output {name!r} must have one row for each row of the data, on its first axis; "
                "give it that axis in the model, or leave it out with `outputs`. "
                f"Received: shape={array.shape} for {rows} rows"
            )


def _is_object(array: np.ndarray | RaggedRows) -> bool:
    # What NumPy makes of a sparse tensor; the file refuses it by its type.
    return array.shape == () and array.dtype == object


def task_of(task: Task, head: str) -> str | None:
    """The task of one head.

    Args:
        task: What `prediction_metadata` of a model names: one for all heads, or a dict by head.
        head: String. The head, `""` for the only one.
    """
    return task.get(head) if isinstance(task, Mapping) else task


def check_probabilities(outputs: Mapping[str, np.ndarray | RaggedRows], task: Task) -> None:
    """Checks that `probabilities` are what a model with a mixin declares.

    Args:
        outputs: Rows of a step by name.
        task: The task that the model's `prediction_metadata` names, `None` if none; or a dict of
            them by head.

    Raises:
        ValueError: If a row is no probability, which logits without `from_logits=True` are not.
    """
    for name, rows in outputs.items():
        head, output = head_and_output(name)
        of_head = task_of(task, head)
        if output != "probabilities" or of_head in (None, "regressor"):
            continue
        values = _some_rows(_by_class(rows)).astype(np.float64)
        values = values[~np.isnan(values).any(axis=-1)]
        wrong = ((values < -_TOLERANCE) | (values > 1 + _TOLERANCE)).any(axis=-1)
        rule = "be in [0, 1]"
        if of_head != "multilabel":
            wrong |= np.abs(values.sum(axis=-1) - 1) > _TOLERANCE
            rule += " and sum to 1"
        if wrong.any():
            remedy = "pass `from_logits=True` to a model that yields logits, or use the mixin that "
            remedy += "fits its last layer"
            if head:
                remedy = (
                    f"pass `from_logits={{{head!r}: True}}` if this head yields logits, or, if "
                )
                remedy += f"it is no classifier, pass `tasks={{{head!r}: None}}`, or override "
                remedy += "`postprocess` and pass only the other heads to `super().postprocess`"
            raise ValueError(
                f"The rows of {name!r} must {rule}; {remedy}. "
                f"Received: a row {values[wrong][0][:8]}"
            )


def _some_rows(rows: np.ndarray) -> np.ndarray:
    """At most 1,024 rows, from the whole step: whether a model yields logits shows in any."""
    return rows[:: max(len(rows) // _ROWS_TO_CHECK, 1)]


def _by_class(rows: np.ndarray | RaggedRows) -> np.ndarray:
    """All probabilities, the classes on the last axis."""
    if not isinstance(rows, RaggedRows):
        return rows
    classes = np.unique(rows.row_shapes[:, -1])
    # Of rows with other numbers of classes each there is nothing to check together.
    return rows.values.reshape(-1, classes[0]) if len(classes) == 1 else rows.values[:0, None]
