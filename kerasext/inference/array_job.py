"""Predicting the rows of arrays: from which row on, at which batch size, past lack of memory."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from kerasext.callbacks import PredictionMonitor, PredictionRun
from kerasext.inference.array_loop import LoopThreads, predict_slices
from kerasext.inference.batch_size_trials import SIZES, Trials
from kerasext.inference.row_slices import RowSlices, read_rows
from kerasext.inference.tune_batch_size import fetch, largest_batch, remember, remembered
from kerasext.keras_internals import (
    JobStep,
    StepListener,
    fixed_batch_size,
    is_out_of_memory,
    job_step,
    predict_loop,
)

_TRIAL_SECONDS = 0.004  # of each batch size
_AGAIN_SHARE = 0.005  # of the rest of a job, for measuring each of the best sizes once more
_AGAIN_FROM_SECONDS = 1.0  # so long must the rest be
_SIZE_TO_COMPARE = 2048  # batches of the step as Keras compiles it, and as XLA does
_LEAST_BATCHES = 4
_WORTH_COMPILING_SECONDS = 5.0  # of a job, for which the step is compiled once more
_CLEARLY_FASTER = 0.95
_UNKNOWN_GAIN = 2.0  # of a larger batch size, before two were tried
_ROWS_AT_ONCE = 65536  # whose ids are compared


class ArrayJob:
    """One call of `predict_to_hdf5` with arrays.

    Args:
        model: The model.
        x: What `can_slice` accepts.
        rows: Int. Number of its rows.
        run: `PredictionRun` of the job, in which no row was seen yet.
        jit_compile: As for `predict_to_hdf5`.
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
        jit_compile: bool | Literal["tune"] | None,
        monitors: Sequence[PredictionMonitor] = (),
    ) -> None:
        self._model = model
        self._x = x
        self._rows = rows
        self._run = run
        self._monitors = monitors
        self._listeners: list[StepListener] = [run, *monitors]
        self._jit_compile = jit_compile
        self._shards = predict_loop.data_shards()
        self._fixed_size = fixed_batch_size(model)
        self._is_filled_up = self._shards > 1 or self._fixed_size is not None
        self._end = rows  # of the rows that are being predicted
        self._was_stopped = False
        self._threads = LoopThreads()

    def predict(self, batch_size: int | None, **options: Any) -> None:
        """Predicts what is missing in the file, and ends the run.

        Args:
            batch_size: Int, or `None` to find one.
            **options: Those of `predict_slices`.
        """
        try:
            for monitor in self._monitors:
                monitor.set_model(self._model)
                monitor.begin(self._rows)
            with self._threads:
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

    def _predict_missing_rows(self, batch_size: int | None, **options: Any) -> None:
        run = self._run
        jit_compile = self._resolve_compilation()
        run.use_jit_compile(jit_compile, "leave it out")
        self._compiles_each_size = jit_compile and keras.backend.backend() != "torch"
        self._step = job_step(self._model, jit_compile=jit_compile)
        earlier = run.batch_size
        size = batch_size or self._fixed_size or earlier or None
        if not size and self._rows:
            size = remembered(self._model, self._x, self._rows)
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

    def _resolve_compilation(self) -> bool:
        """Whether XLA compiles the steps: as asked for, as in the file, or as Keras does."""
        model, wanted, stored = self._model, self._jit_compile, self._run.jit_compile
        why_not = predict_loop.why_not_jit_compiled(model)
        if why_not and (wanted is True or (wanted is not False and stored)):
            raise ValueError(
                "A model can be compiled by XLA only if all its layers can, and it does not run "
                f"eagerly; pass jit_compile=False. Received: {why_not}"
            )
        if isinstance(wanted, bool):
            return wanted
        if stored is not None:
            return stored
        if wanted == "tune" and not why_not:
            return self._is_faster_compiled()
        return bool(model.jit_compile) and not why_not

    def _is_faster_compiled(self) -> bool:
        """Times both ways on some rows if the job is long enough. Keeps none of the outputs."""
        kerass = bool(self._model.jit_compile)
        size = self._fixed_size or remembered(self._model, self._x, self._rows)
        size = size or min(largest_batch(self._x), _SIZE_TO_COMPARE)
        size = self._divisible(min(size, self._rows // (4 * _LEAST_BATCHES)))
        if not self._model.built or 4 * _LEAST_BATCHES * size > self._rows:
            return kerass
        variables = self._model.non_trainable_variables
        states = [keras.ops.convert_to_numpy(variable) for variable in variables]
        try:
            seconds = self._time_both(size)
        finally:  # as if no batch had been computed
            for variable, state in zip(variables, states, strict=True):
                variable.assign(state)
        return seconds[True] < _CLEARLY_FASTER * seconds[False] if True in seconds else kerass

    def _time_both(self, size: int) -> dict[bool, float]:
        """Seconds of the job, by whether XLA compiles the step; the second if it is worth it."""
        seconds: dict[bool, float] = {}
        for jit_compile in (False, True):
            step = job_step(self._model, jit_compile=jit_compile)
            try:
                timed = [self._time(step, size, batches) for batches in (1, _LEAST_BATCHES)]
            except Exception:  # XLA does not know every operation
                if not jit_compile:
                    raise
                return {False: 0.0, True: math.inf}
            seconds[jit_compile] = timed[1] / _LEAST_BATCHES * self._rows / size
            if seconds[False] < _WORTH_COMPILING_SECONDS:
                break
        return seconds

    def _time(self, step: JobStep, size: int, batches: int) -> float:
        slices = RowSlices(
            self._x, size, rows=size * batches, fill=self._is_filled_up, reader=self._threads.reader
        )
        began = time.perf_counter()
        predict_slices(self._model, slices, step, fetch, self._threads)
        return time.perf_counter() - began

    def _compare(self, size: int) -> None:
        """Predicts the first and the last batch of a complete file, and compares them and all ids.

        The batches are those that the file was written with, if it says so.
        """
        if self._run.knows(self._rows):  # values are not to be compared
            self._skip_to(self._rows)
            return
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
            for listener in self._listeners:
                listener.on_step_skipped(rows, ())

    def _predict_no_rows(self, size: int) -> None:
        """Predicts a batch of zeros, which shows the outputs, and keeps none of its rows."""
        zeros = keras.tree.map_structure(lambda array: _zeros(array, size), self._x)
        self._end = 0
        try:
            predict_slices(
                self._model, RowSlices(zeros, size), self._step, self._take, self._threads
            )
        except Exception as error:
            if self._run.is_closed:  # which has nothing to do with the rows
                raise
            raise ValueError(
                "Data without rows make a file only if the model can predict zeros in their place, "
                "which show the outputs; leave out this part of the job. "
                f"Received: x={_shapes(self._x)}, and the model raised {error!r}"
            ) from error

    def _tune(self) -> int:
        trials = Trials(self._predict, self._left, largest_batch(self._x), seconds=_TRIAL_SECONDS)
        try:
            trials.run(self._is_worth_another)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return self._divisible(SIZES[0] // 2)
        if not trials.trials:
            return SIZES[0]
        left_seconds = self._left / trials.best.rows_per_second
        if left_seconds > _AGAIN_FROM_SECONDS:
            trials.measure_again(_AGAIN_SHARE * left_seconds)
        size = trials.best.batch_size
        up_to = sys.maxsize if trials.is_conclusive else self._rows
        remember(self._model, self._x, size, up_to=up_to)
        return size

    def _is_worth_another(self, trials: Trials) -> bool:
        """Whether a larger batch size may save more time than it takes to compile a step for it."""
        if not self._compiles_each_size:
            return True
        last, *before = reversed(trials.trials)
        rate = last.rows_per_second
        gain = rate / max(t.rows_per_second for t in before) if before else _UNKNOWN_GAIN
        compiling = last.first_seconds - last.batch_size / rate
        return self._left / trials.best.rows_per_second * (1 - 1 / gain) > compiling

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
        slices = RowSlices(
            self._x,
            size,
            first_row=first_row,
            rows=rows,
            fill=self._is_filled_up,
            reader=self._threads.reader,
        )
        return predict_slices(self._model, slices, self._step, self._take, self._threads, **options)

    def _take(self, outputs: Any, rows: int) -> None:
        rows = min(rows, self._end)
        if self._is_filled_up or not self._end:
            outputs = keras.tree.map_structure(lambda tensor: tensor[:rows], outputs)
        for listener in self._listeners:
            listener.on_step_outputs(outputs, rows, ())

    def _divisible(self, size: int) -> int:
        """The size, or the next larger one that the devices can share."""
        return max(math.ceil(size / self._shards), 1) * self._shards

    @property
    def _left(self) -> int:
        return self._rows - self._run.rows_seen


def check_batch_size(model: keras.Model, batch_size: int) -> None:
    """Checks that a model takes batches of a size.

    Raises:
        ValueError: If it does not.
    """
    shards, fixed = predict_loop.data_shards(), fixed_batch_size(model)
    if batch_size % shards:
        raise ValueError(
            f"`batch_size` must be a multiple of the {shards} devices that share a batch under "
            f"`keras.distribution`. Received: batch_size={batch_size}"
        )
    if fixed is not None and batch_size != fixed:
        raise ValueError(
            f"`batch_size` must be {fixed}, which the inputs or the state of the model have; leave "
            f"it out. Received: batch_size={batch_size}"
        )


def _zeros(array: Any, rows: int) -> np.ndarray:
    """So many rows of zeros, or of empty strings, with the shape and dtype of an array."""
    no_rows = read_rows(array, range(0))
    fill: Any = "" if no_rows.dtype == object else 0
    return np.full((rows, *no_rows.shape[1:]), fill, no_rows.dtype)


def _shapes(x: Any) -> Any:
    return keras.tree.map_structure(
        lambda array: f"{getattr(array, 'dtype', type(array).__name__)}{list(array.shape)}", x
    )
