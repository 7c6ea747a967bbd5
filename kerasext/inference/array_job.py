"""Predicting the rows of arrays: from which row on, at which batch size, past lack of memory."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import keras
import numpy as np

from kerasext.callbacks import SeveralSteps
from kerasext.inference.batch_size_trials import SIZES, Trials
from kerasext.inference.job_writer import JobWriter
from kerasext.inference.out_of_memory import is_out_of_memory
from kerasext.inference.row_slices import RowSlices, read_rows
from kerasext.inference.tune_batch_size import largest_batch, remember, remembered
from kerasext.keras_internals import PredictFunctions, fixed_batch_size, predict_loop, weights_kept

# A job that takes less at the smallest batch size is not worth trying others for.
_SHORT_SECONDS = 2.0
_LEAST_LOST_SECONDS = 0.5
_MOST_LOST = 0.03  # of a job's time, by batch sizes that are tried and are not the best
# Short steps are mostly Keras's loop; several are put into one call of the model.
_STEPS_PER_EXECUTION = 16
_SAVED_SHARE, _SAVED_SECONDS = 0.7, 0.0004  # of a step, at most
_TRACE_SHARE = 0.5  # of the time that as many traces by themselves would take


class ArrayJob:
    """One call of `predict_to_hdf5` with arrays, in as many calls of `predict` as it takes.

    Args:
        model: The model.
        x: What `can_slice` accepts.
        rows: Int. Number of its rows.
        writer: `JobWriter` that was not begun.
    """

    def __init__(self, model: keras.Model, x: Any, rows: int, writer: JobWriter) -> None:
        self._model = model
        self._x = x
        self._rows = rows
        self._writer = writer
        self._shards = predict_loop.data_shards()
        self._fixed_size = fixed_batch_size(model)
        self._functions = PredictFunctions.of(model)

    def run(self, batch_size: int | None, **options: Any) -> None:
        """Predicts what is missing in the file.

        Args:
            batch_size: Int, or `None` to find one.
            **options: Those of `model.predict`.
        """
        if batch_size and batch_size % self._shards:
            raise ValueError(
                f"`batch_size` must be a multiple of the {self._shards} devices that share a batch "
                f"under `keras.distribution`. Received: batch_size={batch_size}"
            )
        fixed = self._fixed_size
        if batch_size and fixed and batch_size != fixed:
            raise ValueError(
                f"`batch_size` must be {fixed}, which the inputs or the state of the model have; "
                f"leave it out. Received: batch_size={batch_size}"
            )
        earlier = self._writer.begin(self._model)
        size = batch_size or fixed or earlier or (self._rows and remembered(self._model, self._x))
        if SIZES[0] % self._shards:
            size = self._divisible(size or SIZES[0])
        if not self._writer.is_complete:
            self._go_to_first_missing_row(size or SIZES[0])
        try:
            if self._writer.is_complete:
                self._compare(self._divisible(earlier or size or SIZES[0]))
            elif not self._rows:
                self._predict_no_rows(self._divisible(size or 1))
            else:
                self._predict_all(size or self._tune(), **options)
        except Exception as error:
            if not self._writer.row:
                error.add_note(f"In the first rows. Received: x={_describe(self._x)}")
            raise
        if not self._writer.was_stopped:
            self._writer.finish()

    def _compare(self, size: int) -> None:
        """Predicts the first and the last batch of a complete file, and compares them and all ids.

        The batches are those that the file was written with, if it says so.
        """
        if not self._writer.resume_check:
            self._writer.go_on_from(self._rows, size)
            return
        self._predict(min(size, self._rows), size)
        self._writer.go_on_from(max(self._rows - 1, 0) // size * size, size)
        self._predict(self._left, size)

    def _go_to_first_missing_row(self, size: int) -> None:
        known = self._writer.known_rows
        if known > self._rows:
            raise ValueError(
                "`mode='resume'` needs the same data as the first run; pass all rows, or mode='w' "
                f"to start over. Received: {self._rows} rows, with {known} in the file"
            )
        # The last row that is there is predicted again, to see that it is the same; and where a
        # batch began in the run that was interrupted, so that the same batches are computed.
        self._writer.go_on_from(max(known - 1, 0) // size * size, size)

    def _predict_no_rows(self, size: int) -> None:
        """Predicts a batch of zeros, which shows the outputs, and keeps none of its rows."""
        zeros = keras.tree.map_structure(lambda array: _zeros(array, size), self._x)
        self._writer.last_row = 0
        try:
            with weights_kept(self._model):
                self._model.predict(RowSlices(zeros, size), verbose=0, callbacks=[self._writer])
        except Exception as error:
            if self._writer.has_failed:  # which has nothing to do with the rows
                raise
            raise ValueError(
                "Data without rows make a file only if the model can predict zeros in their place, "
                "which show the outputs; leave out this part of the job. "
                f"Received: x={_describe(self._x)}, and the model raised {error!r}"
            ) from error

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

        try:
            trials.run(goes_on)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return self._divisible(SIZES[0] // 2)
        size = trials.best.batch_size if trials.trials else SIZES[0]
        if trials.is_conclusive:
            remember(self._model, self._x, size)
        return size

    def _predict_all(self, size: int, **options: Any) -> None:
        while self._left and not self._writer.was_stopped:
            try:
                self._predict_with(size, **options)
            except Exception as error:
                smaller = self._divisible(self._fixed_size or size // 2)
                if smaller >= size or not is_out_of_memory(error) or self._writer.has_failed:
                    raise
                size = smaller

    def _predict_with(self, size: int, **options: Any) -> None:
        self._writer.go_on_from(self._writer.row, size)
        # To where a batch begins that `mode="resume"` can begin with.
        self._predict(min(-self._writer.row % size, self._left), size)
        if not self._takes_several_steps(size):
            self._predict(self._left, size, **options)
            return
        functions = self._functions
        function = functions.several_steps or functions.make_apart(_STEPS_PER_EXECUTION)
        self._predict(self._left, size, SeveralSteps(_STEPS_PER_EXECUTION, function), **options)
        functions.several_steps = function  # which is traced now

    def _takes_several_steps(self, size: int) -> bool:
        """Whether to give several batches to one call of a predict function."""
        model = self._model
        if (
            int(model.steps_per_execution) > 1
            # Keras joins the outputs of a step's batches, which ragged ones do not let it.
            or self._writer.ragged
            or not predict_loop.can_take_several_steps(model)
        ):
            return False
        steps = self._left / size
        if steps < 8 * _STEPS_PER_EXECUTION:
            return False
        if self._functions.several_steps:
            return True
        step_seconds = min(self._time(size, size) for _ in range(2))  # the first may be traced
        saved = steps * min(_SAVED_SHARE * step_seconds, _SAVED_SECONDS)
        if saved < _LEAST_LOST_SECONDS:
            return False
        return self._is_worth_a_trace(saved, size, step_seconds)

    def _is_worth_a_trace(self, saved: float, size: int, step_seconds: float) -> bool:
        if keras.backend.backend() == "jax":  # where the function that is traced takes any number
            return True
        # How long a model takes to be traced is seen of a function that is not.
        untraced = SeveralSteps(1, self._functions.make_apart(1))
        trace_seconds = self._time(size, size, untraced) - step_seconds
        return saved > _STEPS_PER_EXECUTION * _TRACE_SHARE * trace_seconds

    def _time(self, rows: int, size: int, several: SeveralSteps | None = None) -> float:
        began = time.perf_counter()
        self._predict(rows, size, several)
        return time.perf_counter() - began

    def _predict(
        self, rows: int, size: int, several: SeveralSteps | None = None, **options: Any
    ) -> None:
        """Predicts the next rows."""
        if rows:
            options.setdefault("verbose", 0)
            options["callbacks"] = [*options.get("callbacks", ()), self._writer]
            part = RowSlices(
                self._x,
                size,
                first_row=self._writer.row,
                rows=rows,
                batches_at_once=several.batches if several else None,
                fill=self._shards > 1 or self._fixed_size is not None,
            )
            self._writer.several_steps = several
            self._writer.last_row = self._writer.row + rows
            # Keras keeps the part until a garbage collection.
            with weights_kept(self._model), contextlib.closing(part):
                try:
                    self._model.predict(part, **options)
                except BaseException:
                    with contextlib.suppress(Exception):  # what was raised tells more
                        self._writer.hand_over()
                    raise

    def _divisible(self, size: int) -> int:
        """The size, or the next larger one that the devices can share."""
        return max(math.ceil(size / self._shards), 1) * self._shards

    @property
    def _left(self) -> int:
        return self._rows - self._writer.row


def _zeros(array: Any, rows: int) -> np.ndarray:
    """So many rows of zeros, or of empty strings, with the shape and dtype of an array."""
    no_rows = read_rows(array, range(0))
    fill: Any = "" if no_rows.dtype == object else 0
    return np.full((rows, *no_rows.shape[1:]), fill, no_rows.dtype)


def _describe(x: Any) -> Any:
    return keras.tree.map_structure(
        lambda array: f"{getattr(array, 'dtype', type(array).__name__)}{list(array.shape)}", x
    )
