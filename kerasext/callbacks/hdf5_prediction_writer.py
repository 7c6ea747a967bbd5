"""The callback that writes what `model.predict` computes."""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, get_args

import keras
import numpy as np

from kerasext.callbacks.predict_tap import PredictTap
from kerasext.callbacks.step_outputs import by_name, check_probabilities, choose, to_numpy
from kerasext.storage import PredictionFileWriter
from kerasext.storage.prediction_file_writer import Mode

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class HDF5PredictionWriter(keras.callbacks.Callback):
    """Writes the outputs of every predict step to one HDF5 file.

    Each output becomes a dataset, rows first, under the name that its place in the structure gives
    it: the key of a dict, groups for nested dicts, `0`, `1`, ... for a list or tuple, `predictions`
    for a single tensor. Values are those that a plain `predict` returns, bfloat16 as float32.

    The file is complete when `predict` has ended. After any other end (an error in the model, the
    data or a callback, Ctrl-C, `stop_predicting` before the last step) it holds the rows until then
    and says that it is incomplete. Keras tells a callback nothing of an error outside the step:
    then the file is closed by the next `predict` with this callback, when the callback is deleted,
    at the exit of the interpreter, or by `with writer:`, whichever comes first.

    Args:
        path: String or path-like. The file to write.
        mode: String. `"x"` for a new file that must not exist, `"w"` to replace one (which stays
            until the new one has its first step), `"a"` to add rows after those of a complete one.
            A callback used again follows it again. Defaults to `"x"`.
        accumulate: Bool. Whether `predict` keeps and returns all outputs too, as without the
            callback. With `False` it returns `{}`, later callbacks see no outputs, and memory stays
            constant. Defaults to `True`.
        outputs: Sequence of strings. Names of the outputs to keep, or of groups of them. Defaults
            to `None`, which keeps all.
        dtypes: Dict from output name to dtype to store it as, such as
            `{"probabilities": "float16"}`, or `"S100"` for strings of up to 100 bytes of UTF-8
            (64 otherwise). A value that does not fit is an error.
        metadata: Dict of JSON-serializable values to keep in the file.

    Raises:
        ValueError: If an argument is out of range. During `predict`: see `PredictionFileWriter`,
            and if the model has a mixin and its `probabilities` are none.
        TypeError: If an argument has the wrong type.
        FileExistsError: At the start of `predict`, if the file exists under `mode="x"`.
        FileNotFoundError: At the start of `predict`, if the folder does not exist.
        IsADirectoryError: At the start of `predict`, if the path is a folder.
        PermissionError: At the start of `predict`, if the path is not writable.
        BlockingIOError: At the start of `predict`, if another live writer has the file.

    Example:

    ```python
    writer = HDF5PredictionWriter("digits.h5", mode="w", accumulate=False)
    with writer:  # closes the file after any error
        model.predict(images, callbacks=[writer])
    with PredictionFile("digits.h5") as predictions:
        predictions["labels"][:10]
    ```
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "x",
        accumulate: bool = True,
        outputs: Sequence[str] | None = None,
        dtypes: Mapping[str, DTypeLike] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if mode not in get_args(Mode):
            raise ValueError(f"`mode` must be one of {get_args(Mode)}. Received: mode={mode!r}")
        if isinstance(outputs, str) or not all(isinstance(name, str) for name in outputs or ()):
            raise TypeError(f"`outputs` must be a list of names. Received: outputs={outputs!r}")
        if outputs is not None and not outputs:
            raise ValueError("`outputs` must name at least one output. Received: outputs=[]")
        self.path = os.fspath(path)
        self.mode = mode
        self.accumulate = accumulate
        self.outputs = None if outputs is None else tuple(outputs)
        self.dtypes = {name: _check_dtype(name, dtype) for name, dtype in (dtypes or {}).items()}
        self.metadata = dict(metadata or {})
        self._metadata_json = _to_json(self.metadata, "metadata")
        self._writer: PredictionFileWriter | None = None
        self._tap: PredictTap | None = None

    def on_predict_begin(self, logs: Any = None) -> None:
        """Checks the path, locks it and prepares to write."""
        self.close()
        model = self.model
        batches = (self.params or {}).get("steps")
        self._steps = 0
        self._writer = PredictionFileWriter(
            self.path,
            mode=self.mode,
            dtypes=self.dtypes,
            expected_steps=batches and math.ceil(batches / model.steps_per_execution),
        )
        # The storage's method, not ours: a finalizer must not keep alive what it waits for.
        self._finalizer = weakref.finalize(self, self._writer.close)

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Taps the step that is about to run."""
        self._check_seen("called")
        self._first_batch = batch
        # `self.model` would synchronize the whole state of the model on JAX.
        self._tap = PredictTap.arm(self._model, self)

    def on_step_outputs(self, outputs: Any) -> None:
        """Writes the outputs of a step; called by the tap, not by Keras."""
        assert self._writer is not None
        chosen = choose(by_name(outputs), self.outputs)
        arrays = {name: to_numpy(tensor) for name, tensor in chosen.items()}
        if self._steps == 0:
            self._describe(self._writer, arrays)
        self._writer.append(arrays)
        self._steps += 1

    def _describe(self, writer: PredictionFileWriter, arrays: dict[str, np.ndarray]) -> None:
        # Not earlier: a model may know its heads only when it has been called.
        description: dict[str, Any] = getattr(self._model, "prediction_metadata", dict)()
        check_probabilities(arrays, description.get("task"))
        writer.class_names = description.get("class_names")
        writer.attributes = {
            "model_name": self._model.name,
            "keras_version": keras.__version__,
            "backend": keras.backend.backend(),
            "prediction_metadata": _to_json(description, "prediction_metadata"),
            "metadata": self._metadata_json,
        }

    def on_step_error(self) -> None:
        """Closes the file as it is; called by the tap, not by Keras."""
        self.close()

    def on_predict_end(self, logs: Any = None) -> None:
        """Closes the file, as a complete one unless the call was stopped before its last step."""
        assert self._writer is not None
        # Where the length of the data is unknown, the last tap waits for a step that never comes.
        self._check_seen("called", "armed")
        if self._steps == 0:
            self.close()
            raise ValueError(
                "`predict` must be given at least one row: without one the outputs and their "
                "shapes are unknown, and no file is written. Received: no rows"
            )
        if not self._was_stopped():
            self._writer.finish()
        self.close()

    def close(self) -> None:
        """Closes the file, which says that it is incomplete unless `predict` has ended.

        Safe to call again, and not needed after a `predict` that has ended.
        """
        tap, self._tap = self._tap, None
        writer, self._writer = self._writer, None
        if tap is not None:
            tap.disarm()
        if writer is not None:
            self._finalizer.detach()
            writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check_seen(self, *states: str) -> None:
        if self._tap is not None and self._tap.state not in states:
            self.close()
            raise RuntimeError(
                "A step was computed that the writer could not see, for another callback predicted "
                "with the same model in its `on_predict_batch_begin`; put it before the writer in "
                "`callbacks`. The file holds the rows before that step, and is incomplete."
            )

    def _was_stopped(self) -> bool:
        if not self._model.stop_predicting:
            return False
        batches = (self.params or {}).get("steps")
        return batches is None or self._first_batch + self._model.steps_per_execution < batches


def _check_dtype(name: str, dtype: DTypeLike) -> np.dtype[Any]:
    try:
        checked = np.dtype(dtype)
    except TypeError:
        checked = np.dtype(object)
    if checked.kind not in "biufcS":
        raise TypeError(
            "`dtypes` must be of numbers, or 'S' and a number of bytes for strings. "
            f"Received: dtypes[{name!r}]={dtype!r}"
        )
    return checked


def _to_json(value: Mapping[str, Any], name: str) -> str:
    def plain(value: object) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"an object of type {type(value).__name__}")

    try:
        return json.dumps(value, default=plain, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"`{name}` must be a dict of JSON-serializable values. Received: {error}"
        ) from error
