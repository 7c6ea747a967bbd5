"""A whole job in one call: rows in, a prediction file out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.inference.batch_size_trials import SIZES, Trials
from kerasext.inference.job_writer import JobWriter
from kerasext.inference.out_of_memory import is_out_of_memory
from kerasext.inference.row_slices import RowSlices, can_slice, count_rows
from kerasext.inference.tune_batch_size import largest_batch, remember, remembered
from kerasext.storage import PredictionFile
from kerasext.storage.chunk_filters import Compression
from kerasext.storage.prediction_file_writer import Mode

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

# A job that takes less at the smallest batch size is not worth trying others for.
_SHORT_SECONDS = 2.0
_LEAST_LOST_SECONDS = 0.5
_MOST_LOST = 0.03  # of a job's time, by batch sizes that are tried and are not the best
# Steps shorter than this are mostly Keras's loop; several are put into one call of the model.
_SHORT_STEP_SECONDS = 0.004
_STEPS_PER_EXECUTION = 16


def predict_to_hdf5(
    model: keras.Model,
    x: Any,
    path: str | os.PathLike[str],
    *,
    batch_size: int | Literal["auto"] = "auto",
    steps: int | None = None,
    mode: Mode = "x",
    outputs: Sequence[str] | None = None,
    dtypes: Mapping[str, DTypeLike] | None = None,
    compression: Compression | Mapping[str, Compression] = "auto",
    metadata: Mapping[str, Any] | None = None,
    commit_interval: float = 1.0,
    fsync: bool = False,
    queue_bytes: int = 32 * 1024 * 1024,
    verbose: int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
) -> PredictionFile:
    """Predicts all rows of `x` into one HDF5 file, in constant memory and as fast as Keras goes.

    Keras's own `predict` does it, with a writer and, for arrays, without Keras's input pipeline:
    the batches are cut straight from `x`, of which nothing is copied, and of what is on disk a
    thread reads ahead. Where batches are small, several go into one step (`steps_per_execution`).
    When memory runs out, arrays are gone on with at half the batch size, from the row where it
    happened. Everything else, such as `tf.data`, and a model under a `tf.distribute` strategy, goes
    to `predict` as it is.

    Under `mode="resume"` arrays begin with the batch of the last row that is in the file, at the
    batch size that the file was begun with unless another one is given.

    Args:
        model: The model.
        x: Whatever `model.predict` takes; best NumPy arrays, memory maps, datasets of an open h5py
            file, or pandas, or dicts and lists of them.
        path: String or path-like. The file to write.
        batch_size: Int, or `"auto"` to find a good one on the first rows of arrays, whose
            predictions are kept. A job of a few seconds is not tuned, and a model is tuned once in
            a process for rows of the same shape. Defaults to `"auto"`.
        steps: Int. Number of batches of a generator or dataset without an end. Not for arrays.
        mode: As for `HDF5PredictionWriter`, and so are all of the following but the last two.
        outputs: As above.
        dtypes: As above.
        compression: As above.
        metadata: As above.
        commit_interval: As above.
        fsync: As above.
        queue_bytes: As above.
        verbose: As for `model.predict`: `"auto"` or 1 for a progress bar, 0 for silence.
        callbacks: List of further callbacks.

    Returns:
        The file, open as a `PredictionFile`; to be closed, or used in a `with` statement. It is
        incomplete if a callback has stopped the job.

    Raises:
        ValueError: If an argument is out of range, `steps` or a batch size is given for data that
            it does not fit, arrays are empty or of different lengths, or the model does not take
            the rows. See `HDF5PredictionWriter` for further errors.

    Example:

    ```python
    with h5py.File("images.h5") as images:  # larger than memory
        predictions = predict_to_hdf5(model, images["test"], "predictions.h5", mode="resume")
    predictions["labels"][:10]
    ```
    """
    if batch_size != "auto" and (
        isinstance(batch_size, bool | str) or not isinstance(batch_size, int | np.integer)
    ):
        raise ValueError(
            f"`batch_size` must be an int or 'auto'. Received: batch_size={batch_size!r}"
        )
    if batch_size != "auto" and batch_size < 1:
        raise ValueError(f"`batch_size` must be positive. Received: batch_size={batch_size}")
    options: dict[str, Any] = {
        "mode": mode,
        "outputs": outputs,
        "dtypes": dtypes,
        "compression": compression,
        "metadata": metadata,
        "commit_interval": commit_interval,
        "fsync": fsync,
        "queue_bytes": queue_bytes,
    }
    others = list(callbacks or ())
    size = None if batch_size == "auto" else int(batch_size)
    if not can_slice(x) or _is_distributed(model):
        writer = HDF5PredictionWriter(path, accumulate=False, **options)
        with writer:
            model.predict(x, size, verbose=verbose, steps=steps, callbacks=[*others, writer])
        return PredictionFile(path)
    if steps is not None:
        raise ValueError(
            "`steps` is for data without an end; take the rows of arrays that are to be predicted, "
            f"x[:rows]. Received: steps={steps}"
        )
    rows = count_rows(x)
    with JobWriter(path, rows=rows, **options) as job:
        _Job(model, x, rows, job).run(size, verbose=verbose, callbacks=others)
    return PredictionFile(path)


class _Job:
    """One call of `predict_to_hdf5` with arrays."""

    def __init__(self, model: keras.Model, x: Any, rows: int, writer: JobWriter) -> None:
        self._model = model
        self._x = x
        self._rows = rows
        self._writer = writer

    def run(self, batch_size: int | None, **options: Any) -> None:
        """Predicts what is missing in the file.

        Args:
            batch_size: Int, or `None` to find one.
            **options: Those of `model.predict`.
        """
        earlier = self._writer.begin(self._model)
        if not self._writer.is_complete:
            size = batch_size or earlier or remembered(self._model, self._x)
            known = self._writer.known_rows
            if known > self._rows:
                raise ValueError(
                    "`mode='resume'` goes on with the same rows, and those that are in the file "
                    f"must be the first of them. Received: {self._rows} rows, with {known} in the "
                    "file"
                )
            # Where a batch began in the run that was interrupted, so that the same are computed.
            self._writer.go_on_from((known - 1) // size * size if size and known else 0, size or 0)
            try:
                self._predict_all(size or self._tune(), **options)
            except Exception as error:
                if not self._writer.row:
                    error.add_note(f"In the first rows. Received: x={_describe(self._x)}")
                raise
        if not self._writer.was_stopped:
            self._writer.finish()

    def _tune(self) -> int:
        began = time.perf_counter()
        trials = Trials(self._predict, self._left, largest_batch(self._x))

        def goes_on(trials: Trials) -> bool:
            rate = trials.best.rows_per_second
            spent, left = time.perf_counter() - began, self._left / rate
            # The model is traced anyway, once.
            lost = spent - trials.done / rate - trials.trials[0].first_seconds
            allowed = max(_MOST_LOST * (spent + left), _LEAST_LOST_SECONDS)
            short = _SHORT_SECONDS if len(trials.trials) == 1 else _SHORT_SECONDS / 4
            return left > short and lost < allowed

        trials.run(goes_on)
        size = trials.best.batch_size if trials.trials else SIZES[0]
        if trials.is_conclusive:
            remember(self._model, self._x, size)
        return size

    def _predict_all(self, size: int, **options: Any) -> None:
        while self._left and not self._writer.was_stopped:
            try:
                self._predict_with(size, **options)
            except Exception as error:
                if size == 1 or not is_out_of_memory(error) or self._writer.has_failed:
                    raise
                size //= 2

    def _predict_with(self, size: int, **options: Any) -> None:
        self._writer.go_on_from(self._writer.row, size)
        # To where a batch begins that `mode="resume"` can begin with.
        self._predict(min(-self._writer.row % size, self._left), size)
        with _steps_per_execution(self._model, self._choose_steps(size)):
            self._predict(self._left, size, **options)

    def _choose_steps(self, size: int) -> int:
        """How many batches to give to one call of the model's predict function."""
        before: int = self._model.steps_per_execution
        if before > 1 or self._model.run_eagerly or keras.backend.backend() == "torch":
            return before
        if self._left < 8 * _STEPS_PER_EXECUTION * size:
            return 1
        first_seconds, step_seconds = (self._time(size, size) for _ in range(2))
        saved = self._left / size * step_seconds / 2
        # Tracing takes as many times as long.
        is_worth_it = saved > _STEPS_PER_EXECUTION * first_seconds
        return _STEPS_PER_EXECUTION if is_worth_it and step_seconds < _SHORT_STEP_SECONDS else 1

    def _time(self, rows: int, size: int) -> float:
        began = time.perf_counter()
        self._predict(rows, size)
        return time.perf_counter() - began

    def _predict(self, rows: int, size: int, **options: Any) -> None:
        """Predicts the next rows."""
        if rows:
            options.setdefault("verbose", 0)
            options["callbacks"] = [*options.get("callbacks", ()), self._writer]
            part = RowSlices(self._x, size, first_row=self._writer.row, rows=rows)
            with contextlib.closing(part):  # Keras keeps it until a garbage collection
                self._model.predict(part, **options)

    @property
    def _left(self) -> int:
        return self._rows - self._writer.row


@contextlib.contextmanager
def _steps_per_execution(model: keras.Model, steps: int) -> Iterator[None]:
    before = model.steps_per_execution, model.predict_function
    if steps != before[0]:
        # The function is made for a number of steps, and would be used again.
        model.steps_per_execution, model.predict_function = steps, None
    try:
        yield
    finally:
        model.steps_per_execution, model.predict_function = before


def _is_distributed(model: keras.Model) -> bool:
    # On TensorFlow a model keeps the strategy in whose scope it was made (Keras 3.12 to 3.15).
    strategy = getattr(model, "_distribute_strategy", None)
    return strategy is not None or keras.distribution.distribution() is not None


def _describe(x: Any) -> Any:
    return keras.tree.map_structure(
        lambda array: f"{getattr(array, 'dtype', type(array).__name__)}{list(array.shape)}", x
    )
