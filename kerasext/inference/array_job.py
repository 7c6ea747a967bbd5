"""Predicting the rows of arrays: from which row on, at which batch size, past lack of memory."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kerasext.callbacks import PredictionMonitor, PredictionRun
from kerasext.inference.array_loop import predict_slices
from kerasext.inference.batch_size_trials import SIZES, Trials
from kerasext.inference.row_slices import RowSlices, read_rows
from kerasext.inference.tune_batch_size import largest_batch, remember, remembered
from kerasext.keras_internals import (
    fixed_batch_size,
    is_out_of_memory,
    job_step,
    predict_loop,
)

# A job that takes less at the smallest batch size is not worth trying others for.
_SHORT_SECONDS = 2.0
_LEAST_LOST_SECONDS = 0.5
_MOST_LOST = 0.03  # of a job's time, by batch sizes that are tried and are not the best
_ROWS_AT_ONCE = 65536  # whose ids are compared


class ArrayJob:
    """One call of `predict_to_hdf5` with arrays.

    Args:
        model: The model.
        x: What `can_slice` accepts.
        rows: Int. Number of its rows.
        run: `PredictionRun` of the job, in which no row was seen yet.
        jit_compile: Bool. Whether the step is compiled by XLA.
        monitors: Sequence of `PredictionMonitor`, which are shown the rows that are kept, each
            once, and not the steps: those may be filled up, or be computed again.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        rows: int,
        run: PredictionRun,
        *,
        jit_compile: bool,
        monitors: Sequence[PredictionMonitor] = (),
    ) -> None:
        self._model = model
        self._x = x
        self._rows = rows
        self._run = run
        self._monitors = monitors
        self._step = job_step(model, jit_compile=jit_compile)
        self._shards = predict_loop.data_shards()
        self._fixed_size = fixed_batch_size(model)
        self._is_filled_up = self._shards > 1 or self._fixed_size is not None
        self._end = rows  # of the rows that are being predicted
        self._was_stopped = False

    def predict(self, batch_size: int | None, **options: Any) -> None:
        """Predicts what is missing in the file, and ends the run.

        Args:
            batch_size: Int, or `None` to find one.
            **options: Those of `predict_slices`.
        """
        try:
            self._check_batch_size(batch_size)
            for monitor in self._monitors:
                monitor.set_model(self._model)
                monitor.begin(self._rows)
            self._predict_missing_rows(batch_size, **options)
        except BaseException as error:
            if isinstance(error, Exception) and not self._run.rows_seen:
                error.add_note(f"In the first rows. Received: x={_shapes(self._x)}")
            for monitor in self._monitors:
                monitor.close()
            raise
        finally:
            self._run.close()
        for monitor in self._monitors:
            monitor.on_predict_end()

    def _check_batch_size(self, batch_size: int | None) -> None:
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

    def _predict_missing_rows(self, batch_size: int | None, **options: Any) -> None:
        run = self._run
        earlier = run.batch_size
        size = batch_size or self._fixed_size or earlier
        size = size or (self._rows and remembered(self._model, self._x))
        if SIZES[0] % self._shards:
            size = self._divisible(size or SIZES[0])
        if run.is_complete:
            self._compare(self._divisible(earlier or size or SIZES[0]))
        elif not self._rows:
            self._predict_no_rows(self._divisible(size or 1))
        else:
            self._go_to_first_missing_row(size or SIZES[0])
            self._predict_all(size or self._tune(), **options)
        if not self._was_stopped:
            run.end()

    def _compare(self, size: int) -> None:
        """Predicts the first and the last batch of a complete file, and compares them and all ids.

        The batches are those that the file was written with, if it says so.
        """
        self._predict(min(size, self._rows), size)
        self._skip_to(max(self._rows - 1, 0) // size * size)
        self._predict(self._left, size)

    def _go_to_first_missing_row(self, size: int) -> None:
        known = self._run.rows_known
        if known > self._rows:
            raise ValueError(
                "`mode='resume'` needs the same data as the first run; pass all rows, or mode='w' "
                f"to start over. Received: {self._rows} rows, with {known} in the file"
            )
        # The last row that is there is predicted again, to see that it is the same; and where a
        # batch began in the run that was interrupted, so that the same batches are computed.
        self._skip_to(max(known - 1, 0) // size * size)

    def _skip_to(self, row: int) -> None:
        while self._run.rows_seen < row:
            rows = min(row - self._run.rows_seen, _ROWS_AT_ONCE)
            for listener in (self._run, *self._monitors):
                listener.on_step_skipped(rows, ())

    def _predict_no_rows(self, size: int) -> None:
        """Predicts a batch of zeros, which shows the outputs, and keeps none of its rows."""
        zeros = keras.tree.map_structure(lambda array: _zeros(array, size), self._x)
        self._end = 0
        try:
            predict_slices(self._model, RowSlices(zeros, size), self._step, self._take)
        except Exception as error:
            if self._run.is_closed:  # which has nothing to do with the rows
                raise
            raise ValueError(
                "Data without rows make a file only if the model can predict zeros in their place, "
                "which show the outputs; leave out this part of the job. "
                f"Received: x={_shapes(self._x)}, and the model raised {error!r}"
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
        while self._left and not self._was_stopped:
            try:
                # To where a batch begins that `mode="resume"` can begin with.
                self._predict(min(-self._run.rows_seen % size, self._left), size)
                self._was_stopped = self._predict(self._left, size, **options)
            except Exception as error:
                smaller = self._divisible(self._fixed_size or size // 2)
                if smaller >= size or not is_out_of_memory(error) or self._run.is_closed:
                    raise
                size = smaller

    def _predict(self, rows: int, size: int, **options: Any) -> bool:
        """Predicts the next rows; whether a callback has stopped it."""
        if not rows:
            return False
        first_row = self._run.rows_seen
        self._run.batch_size = size
        self._end = first_row + rows
        slices = RowSlices(self._x, size, first_row=first_row, rows=rows, fill=self._is_filled_up)
        return predict_slices(self._model, slices, self._step, self._take, **options)

    def _take(self, outputs: Any, rows: int) -> None:
        rows = min(rows, self._end)
        if self._is_filled_up or not self._end:
            outputs = keras.tree.map_structure(lambda tensor: tensor[:rows], outputs)
        for listener in (self._run, *self._monitors):
            listener.on_step_outputs(outputs, rows, ())

    def _divisible(self, size: int) -> int:
        """The size, or the next larger one that the devices can share."""
        return max(math.ceil(size / self._shards), 1) * self._shards

    @property
    def _left(self) -> int:
        return self._rows - self._run.rows_seen


def _zeros(array: Any, rows: int) -> np.ndarray:
    """So many rows of zeros, or of empty strings, with the shape and dtype of an array."""
    no_rows = read_rows(array, range(0))
    fill: Any = "" if no_rows.dtype == object else 0
    return np.full((rows, *no_rows.shape[1:]), fill, no_rows.dtype)


def _shapes(x: Any) -> Any:
    return keras.tree.map_structure(
        lambda array: f"{getattr(array, 'dtype', type(array).__name__)}{list(array.shape)}", x
    )
