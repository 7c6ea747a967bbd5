"""A few rows through a model, without what `predict` does before its first step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kerasext.inference.input_dtypes import as_text, is_other_float
from kerasext.inference.own_predict import own_predict
from kerasext.keras_internals import (
    check_model,
    filled,
    job_step,
    numbered,
    own_methods,
    step_of_arrays,
)
from kerasext.models import PredictionMixin, warn_if_stale
from kerasext.storage import TEXT_KINDS

Array = np.ndarray[Any, Any]
Step = Callable[[list[Array]], Any]
_Path = tuple[Any, ...]  # of keys and positions that lead to an array in a structure


def compile_predict(model: keras.Model) -> Callable[[Any], Any]:
    """Makes a fast function that returns what `model.predict` returns, for up to one batch of rows.

    The function compiles `model.predict_step` at its first call, for any number of rows. XLA needs
    fixed shapes (on JAX, and with `jit_compile=True`): there it compiles for powers of two, pads
    with copies of the last row and drops the padding, so the outputs of a row must not depend on
    other rows. On torch nothing is compiled.

    Each call uses the current weights and the current settings of a mixin, such as `threshold`; a
    changed setting compiles again. `jit_compile` and `run_eagerly` of the model apply. The function
    does not notice other changes, and `model.compile` does not renew it. Call `compile_predict`
    again after you add or remove layers of a `Sequential`; after `quantize`, `enable_lora`, `adapt`
    or a new `dtype_policy` of a layer; and after you change a Python value of your own that `call`,
    `predict_step` or `postprocess` reads.

    Of a model with a `predict` of its own, such as those of KerasHub, or a `make_predict_function`,
    the function calls the model's `predict` with whatever `x` that takes, and is no faster.

    Threads may share the function. On JAX, do not call it while another thread is in `fit`,
    `evaluate` or `predict` of the same model, which take the weights out of it. On TensorFlow, if a
    model is random in `predict`, two threads may draw the same numbers, as in `predict` itself.

    Args:
        model: A `keras.Model`, built or not, compiled or not.

    Returns:
        Function from `x`, an array or the dict, list or tuple of arrays that the model takes, with
        `None` for optional inputs that are not given, to what `model.predict` would return if the
        rows of `x` were one batch: the same structure and dtypes, in NumPy arrays. The first `x`
        settles the structure and the shape of a row.

    Raises:
        TypeError: If `model` is not a `keras.Model`, or has a `predict` of its own that does not
            take `verbose`. By the function, if an input is not an array, or text on another backend
            than TensorFlow.
        ValueError: By the function, if arrays have no rows, not equally many, or other shapes than
            the first ones; if an output has no rows where they had to be filled up.

    Example:

    ```python
    predict = compile_predict(keras.saving.load_model("digits.keras"))
    predict(image[None])  # one row is a batch of one
    ```
    """
    check_model(model)
    warn_if_stale(model)
    if own_methods(model, "predict", "make_predict_function"):
        return own_predict(model)
    return _CompiledPredict(model)


class _CompiledPredict:
    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._first_shapes = ""
        self._has_settings = isinstance(model, PredictionMixin)
        self._steps: dict[tuple[Any, ...], Step] = {}
        self._lock = threading.RLock()  # a step may take it again

    def __call__(self, x: Any) -> Any:
        leaves = [((), x)] if isinstance(x, np.ndarray) else keras.tree.flatten_with_path(x)
        # Optional inputs may be `None`.
        arrays = {path: _as_array(path, leaf) for path, leaf in leaves if leaf is not None}
        rows = _count_rows(arrays)
        size = 1 << (rows - 1).bit_length() if _needs_fixed_shapes(self._model) else None
        # Dtypes too: JSON makes integers of one request and floats of the next.
        kind = (
            self._model.settings_version if self._has_settings else 0,
            self._model.run_eagerly,
            size,
            *[(path, array.shape[1:], array.dtype) for path, array in arrays.items()],
        )
        inputs = list(arrays.values())
        if size not in (None, rows):  # by what the model can take: zeros may be outside its domain
            inputs = [array.take(range(size), axis=0, mode="clip") for array in inputs]
        step = self._steps.get(kind)
        outputs = step(inputs) if step else self._run_first(kind, x, arrays, inputs)
        if size in (None, rows):
            return outputs
        return keras.tree.map_structure(lambda output: _cut(output, size, rows), outputs)

    def _run_first(
        self, kind: tuple[Any, ...], x: Any, arrays: Mapping[_Path, Array], inputs: list[Array]
    ) -> Any:
        """Runs a step that is made for inputs of this kind, and keeps it if it works."""
        shapes = _shown(arrays, rows=False)
        with self._lock:  # threads that come together compile once
            if self._first_shapes not in ("", shapes):
                raise ValueError(
                    "`x` must have the structure and the shapes of the first one, "
                    f"{self._first_shapes}; call `compile_predict` again for others. "
                    f"Received: {_shown(arrays)}"
                )
            try:
                step = self._steps.get(kind) or self._make_step(x, inputs)
                outputs = step(inputs)
            except Exception as error:
                error.add_note(
                    "`x` must be what the model takes, with rows first; one row is `x[None]`. "
                    f"Received: {_shown(arrays)}"
                )
                raise
            version = kind[0]
            kept = {other: kept for other, kept in self._steps.items() if other[0] == version}
            self._steps, self._first_shapes = {**kept, kind: step}, shapes
        return outputs

    def _make_step(self, x: Any, inputs: list[Array]) -> Step:
        """Compiles `predict_step`, for inputs in the structure of `x`."""
        model, numbers = self._model, numbered(x)  # with the arrays it would keep the rows
        is_tensorflow = keras.backend.backend() == "tensorflow"

        def batch_of(inputs: list[Array]) -> Any:
            tensors = [keras.ops.convert_to_tensor(array) for array in inputs]
            batch = keras.utils.pack_x_y_sample_weight(filled(numbers, tensors))
            return keras.tree.lists_to_tuples(batch) if is_tensorflow else batch  # as `tf.data`

        step = job_step(model, jit_compile=_needs_fixed_shapes(model))
        step.prepare(batch_of(inputs))
        if is_tensorflow:
            return step_of_arrays(step, batch_of)
        if keras.backend.backend() == "torch":
            return lambda inputs: _to_numpy(step(batch_of(inputs)))

        def step_alone(inputs: list[Array]) -> Any:
            with self._lock:  # or two threads would draw the same random numbers
                model.jax_state_sync()  # in a callback of `fit` the variables are empty without it
                outputs = step(batch_of(inputs))
            return keras.tree.map_structure(np.array, outputs)

        return step_alone


def _needs_fixed_shapes(model: keras.Model) -> bool:
    """Whether XLA compiles the step, which it does for each number of rows."""
    return bool(model.jit_compile and not model.run_eagerly and keras.backend.backend() != "torch")


def _to_numpy(outputs: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _as_array(path: _Path, leaf: Any) -> Array:
    if isinstance(leaf, np.ndarray):
        array: Array = leaf
    elif keras.ops.is_tensor(leaf) and None not in tuple(leaf.shape):  # a ragged tensor has None
        array = keras.ops.convert_to_numpy(leaf)
    else:
        raise TypeError(
            "`x` must be a dense array, or a dict, list or tuple of them; make one with "
            "`np.asarray`. "
            f"Received: {_name(path)}={leaf!r}"
        )
    if array.dtype.kind in TEXT_KINDS:
        return as_text(array)
    if is_other_float(array.dtype):
        # As `predict` does, which leaves integers as they are.
        return array.astype(keras.config.floatx())
    return array


def _count_rows(arrays: Mapping[_Path, Array]) -> int:
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "`x` must have rows on the first axis, at least one, and equally many in each array; "
            f"one row is `x[None]`. Received: {_shown(arrays) or 'no arrays'}"
        )
    return counts.pop()


def _cut(output: Array, size: int, rows: int) -> Array:
    if output.shape[:1] != (size,):
        raise ValueError(
            "Outputs must have rows on the first axis where XLA needs fixed shapes; compile the "
            "model with `jit_compile=False`. "
            f"Received: an output of shape {output.shape} for {size} rows"
        )
    return output[:rows]


def _shown(arrays: Mapping[_Path, Array], *, rows: bool = True) -> str:
    return ", ".join(
        f"{_name(path)}.shape={array.shape if rows else (None, *array.shape[1:])}"
        for path, array in arrays.items()
    )


def _name(path: _Path) -> str:
    return "x" + "".join(f"[{key!r}]" for key in path)
