"""Predicting the rows of arrays: from which row on, at which batch size, past lack of memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import keras

from kerasext import keras_internals
from kerasext.inference.batch_size_trials import SIZES, Trials
from kerasext.inference.jax_weights import weights_kept
from kerasext.inference.job_writer import JobWriter
from kerasext.inference.out_of_memory import is_out_of_memory
from kerasext.inference.row_slices import RowSlices
from kerasext.inference.tune_batch_size import largest_batch, remember, remembered

# A job that takes less at the smallest batch size is not worth trying others for.
_SHORT_SECONDS = 2.0
_LEAST_LOST_SECONDS = 0.5
_MOST_LOST = 0.03  # of a job's time, by batch sizes that are tried and are not the best
# Short steps are mostly Keras's loop; several are put into one call of the model.
_STEPS_PER_EXECUTION = 16
_SAVED_SHARE, _SAVED_SECONDS = 0.7, 0.0004  # of a step, at most
_TRACE_SHARE = 0.5  # of the time that as many traces by themselves would take
_KEPT = "_kerasext_predict_function"


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

    def run(self, batch_size: int | None, **options: Any) -> None:
        """Predicts what is missing in the file.

        Args:
            batch_size: Int, or `None` to find one.
            **options: Those of `model.predict`.
        """
        earlier = self._writer.begin(self._model)
        if not self._writer.is_complete:
            size = batch_size or earlier or remembered(self._model, self._x)
            self._go_to_first_missing_row(size or SIZES[0])
            try:
                self._predict_all(size or self._tune(), **options)
            except Exception as error:
                if not self._writer.row:
                    error.add_note(f"In the first rows. Received: x={_describe(self._x)}")
                raise
        if not self._writer.was_stopped:
            self._writer.finish()

    def _go_to_first_missing_row(self, size: int) -> None:
        known = self._writer.known_rows
        if known > self._rows:
            raise ValueError(
                "`mode='resume'` goes on with the same rows, and those that are in the file must "
                f"be the first of them. Received: {self._rows} rows, with {known} in the file"
            )
        # The last row that is there is predicted again, to see that it is the same; and where a
        # batch began in the run that was interrupted, so that the same batches are computed.
        self._writer.go_on_from(max(known - 1, 0) // size * size, size)

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
            return SIZES[0] // 2
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
        if self._writer.ragged:  # Keras joins the outputs of a step's batches
            return before
        model, steps = self._model, self._left / size
        if steps < 8 * _STEPS_PER_EXECUTION:
            return 1
        if _kept_function(model):
            return _STEPS_PER_EXECUTION
        step_seconds = min(self._time(size, size) for _ in range(2))  # the first may be traced
        saved = steps * min(_SAVED_SHARE * step_seconds, _SAVED_SECONDS)
        if saved < _LEAST_LOST_SECONDS:
            return 1
        if keras.backend.backend() == "jax":  # where one function, traced already, takes any number
            is_ours = keras_internals.sparing_function(model, model.predict_function)
            return _STEPS_PER_EXECUTION if is_ours is not model.predict_function else before
        # How long a model takes to be traced is seen of one that is not.
        traced, model.predict_function = model.predict_function, None
        try:
            trace_seconds = self._time(size, size) - step_seconds
        finally:
            model.predict_function = traced
        is_worth_it = saved > _STEPS_PER_EXECUTION * _TRACE_SHARE * trace_seconds
        return _STEPS_PER_EXECUTION if is_worth_it else 1

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
            # Keras keeps the part until a garbage collection.
            with weights_kept(self._model), contextlib.closing(part):
                try:
                    self._model.predict(part, **options)
                except BaseException:
                    with contextlib.suppress(Exception):  # what was raised tells more
                        self._writer.hand_over()
                    raise

    @property
    def _left(self) -> int:
        return self._rows - self._writer.row


@contextlib.contextmanager
def _steps_per_execution(model: keras.Model, steps: int) -> Iterator[None]:
    before = model.steps_per_execution, model.predict_function
    if steps == before[0]:
        yield
        return
    if keras.backend.backend() == "jax":  # where `weights_kept` has one function for any number
        model.steps_per_execution = steps
        try:
            yield
        finally:
            model.steps_per_execution = before[0]
        return
    # The function is made for a number of steps, and would be used again.
    model.steps_per_execution, model.predict_function = steps, _kept_function(model)
    try:
        yield
        # Not after an error, which may leave a tap in its place. Past Keras's `__setattr__`, which
        # tracks what it is given.
        model.__dict__[_KEPT] = before[1], model.predict_function
    finally:
        model.steps_per_execution, model.predict_function = before


def _kept_function(model: keras.Model) -> Any:
    """The function of several steps that an earlier job has left, unless `compile` came since."""
    of, function = model.__dict__.get(_KEPT, (None, None))
    return function if of is model.predict_function else None


def _describe(x: Any) -> Any:
    return keras.tree.map_structure(
        lambda array: f"{getattr(array, 'dtype', type(array).__name__)}{list(array.shape)}", x
    )
