"""What predicts batches of a Ray dataset."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from ray.data.block import BlockAccessor

from kerasext.ray.model_column import MODEL, model_column
from kerasext.ray.stacked_rows import stacked
from kerasext.storage import TEXT_KINDS, DenseSpec, RaggedRows, check_name_list

if TYPE_CHECKING:
    import keras


class KerasPredictor:
    """Predicts batches of a Ray dataset with a Keras model: a callable class for `map_batches`.

    Each actor loads the model once. A batch goes through the model's own `predict` if it has one,
    which may prepare it as those of KerasHub do, else through `predict_on_batch`; and so through
    the `predict_step` of the model and of its mixin. Each output becomes
    a column of the dataset, under the name that its place in the structure gives it, `head/labels`
    in a nested one, and `predictions` for a single tensor; bfloat16 as float32. One more column,
    `_kerasext`, says which model it was, a byte per row as long as functions after it take batches
    of pyarrow or pandas; `HDF5Datasink` makes attributes and class names of it.

    Args:
        model: String or path-like, a `.keras` file that every node can read; or a callable without
            arguments that returns a model. No model itself: Ray's copies lose custom classes.
        x: String, the column that the model takes; or a list of columns for a list of inputs, or a
            dict from the names of inputs to columns. Defaults to `"x"`.
        keep_columns: Sequence of strings. Columns that stay beside the outputs. Defaults to
            `("id",)`, for Ray does not keep the order of rows.
        outputs: Sequence of strings. Names of the outputs to keep, or of groups of them. Defaults
            to `None`, which keeps all.
        custom_objects: Dict from name to class or function that the file needs, as in
            `keras.saving.load_model`. Those of `kerasext.models` are known.

    Raises:
        TypeError: If `model` is neither path nor callable, or it returns no model, or one with a
            `predict` of its own that does not take `verbose`. At the first batch: if Arrow or HDF5
            has no type for an output, or its rows differ in shape.
        ValueError: If the file can't be loaded. At the first batch: if a column is missing, an
            output has the name of a kept column, or does not have a row for each row of the batch,
            or a model with a mixin yields no probabilities.

    Example:

    ```python
    predictions = ray.data.read_parquet("images").map_batches(
        KerasPredictor,
        fn_constructor_args=("digits.keras",),
        fn_constructor_kwargs={"x": "image", "keep_columns": ["id", "label"]},
        batch_size=256,
        compute=ray.data.ActorPoolStrategy(size=4),
        num_gpus=1,
    )
    predictions.write_datasink(HDF5Datasink("predictions", targets="label"))
    ```
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Callable[[], keras.Model],
        *,
        x: str | Sequence[str] | Mapping[str, str] = "x",
        keep_columns: Sequence[str] = ("id",),
        outputs: Sequence[str] | None = None,
        custom_objects: Mapping[str, Any] | None = None,
    ) -> None:
        self._x = x
        self._keep_columns = check_name_list("keep_columns", keep_columns, may_be_empty=True)
        self._outputs = None if outputs is None else check_name_list("outputs", outputs)
        self._model = _load(model, custom_objects)
        self._predict = _predict_of(self._model)
        self._description: str | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        """Predicts a batch.

        Args:
            batch: Dict from column to array of shape `(rows, ...)`.

        Returns:
            `pyarrow.Table` of the kept columns, the outputs and `_kerasext`.
        """
        # Not where the dataset is put together: there nothing of Keras is needed.
        from kerasext.callbacks import (  # noqa: PLC0415
            by_name,
            check_probabilities,
            check_rows,
            choose,
            to_rows,
        )

        kept = {name: self._column(batch, name, "keep_columns") for name in self._keep_columns}
        x = self._inputs(batch)
        rows = len(next(iter(batch.values())))
        named = choose(by_name(self._predict(x)), self._outputs)
        arrays = {name: _dense(name, to_rows(name, tensor)) for name, tensor in named.items()}
        check_rows(arrays, rows)
        names = [*kept, *arrays, MODEL]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                "An output must not have the name of a column that stays; rename one of them. "
                f"Received: {twice} twice"
            )
        if self._description is None:
            from kerasext.callbacks import describe  # noqa: PLC0415

            description = describe(self._model)
            check_probabilities(arrays, description.task)
            self._description = json.dumps(
                {"class_names": description.class_names, "attributes": description.attributes}
            )
        text = {name: array for name, array in arrays.items() if array.dtype.kind in TEXT_KINDS}
        rest = {**kept, **{name: array for name, array in arrays.items() if name not in text}}
        block = BlockAccessor.batch_to_arrow_block(rest) if rest else pa.table({})
        return pa.table(
            {
                **{name: block[name] for name in block.column_names},
                # Ray would make pickled objects of it.
                **{name: pa.array(array.tolist()) for name, array in text.items()},
                MODEL: model_column(self._description, rows),
            }
        )

    def _inputs(self, batch: Mapping[str, np.ndarray]) -> Any:
        if isinstance(self._x, str):
            return self._column(batch, self._x, "x")
        if isinstance(self._x, Mapping):
            return {name: self._column(batch, column, "x") for name, column in self._x.items()}
        return [self._column(batch, column, "x") for column in self._x]

    def _column(self, batch: Mapping[str, np.ndarray], name: str, argument: str) -> np.ndarray:
        if name not in batch:
            raise ValueError(
                f"`{argument}` must name columns of the dataset. "
                f"Received: {argument} with {name!r}, and the columns {sorted(batch)}"
            )
        return stacked(name, batch[name])


def _load(model: Any, custom_objects: Mapping[str, Any] | None) -> keras.Model:
    import keras  # noqa: PLC0415 - in the actor only

    import kerasext.models  # noqa: PLC0415 - by which Keras knows its classes
    from kerasext.keras_internals import predict_loop  # noqa: PLC0415

    is_path = isinstance(model, str | os.PathLike)
    if isinstance(model, keras.Model) or not (is_path or callable(model)):
        raise TypeError(
            "`model` must be the path of a .keras file, or a callable that returns a model, so "
            "that each actor has its own; save it with `model.save`. "
            f"Received: model of type {type(model).__name__}"
        )
    made = _from_file(os.fspath(model), custom_objects) if is_path else model()
    if not isinstance(made, keras.Model):
        raise TypeError(
            "`model` must be a callable that returns a `keras.Model`, or the file of one. "
            f"Received: a {type(made).__name__}"
        )
    predict_loop.leave_training(made)
    kerasext.models.warn_if_stale(made)
    return made


def _predict_of(model: keras.Model) -> Callable[[Any], Any]:
    """What predicts a batch as `predict` does."""
    from kerasext.inference import own_predict  # noqa: PLC0415 - in the actor only
    from kerasext.keras_internals import own_methods  # noqa: PLC0415

    return own_predict(model) if own_methods(model, "predict") else model.predict_on_batch


def _from_file(path: str, custom_objects: Mapping[str, Any] | None) -> Any:
    import keras  # noqa: PLC0415

    try:
        return keras.saving.load_model(path, custom_objects=custom_objects, compile=False)
    except Exception as error:
        raise ValueError(
            "`model` must be a file that Keras can load on every node; give `custom_objects` for "
            "classes of your own, or a callable that returns the model. "
            f"Received: model={path!r}, {error}"
        ) from error


def _dense(name: str, rows: np.ndarray | RaggedRows) -> np.ndarray:
    """An output as Arrow takes it: as it is stored, but text as it is."""
    spec = DenseSpec.of_array(name, rows)  # refuses what HDF5 has no type for
    assert isinstance(rows, np.ndarray)
    if rows.dtype.kind in TEXT_KINDS:
        return rows
    array = spec.prepare(rows)
    try:
        pa.from_numpy_dtype(array.dtype)
    except pa.ArrowNotImplementedError as error:
        raise TypeError(
            f"Arrow has no type for output {name!r}; cast it in the model, and return the real and "
            "the imaginary part of complex numbers as two outputs. "
            f"Received: dtype={rows.dtype}"
        ) from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)
