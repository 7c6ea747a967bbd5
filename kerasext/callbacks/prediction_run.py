"""The state of one run: its file, its rows and how it ends. Knows nothing of who drives it."""

from __future__ import annotations

import functools
import logging
import math
import operator
import os
import threading
import warnings
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasext.callbacks.duplicate_ids import find_duplicate_ids
from kerasext.callbacks.model_description import ModelDescription, describe
from kerasext.callbacks.row_columns import RowColumns, check_weights
from kerasext.callbacks.step_outputs import number_of_rows, that_stay
from kerasext.callbacks.step_rows import Step, rows_before, rows_of
from kerasext.callbacks.writer_options import CheckedOptions
from kerasext.keras_internals import predict_loop, random_states, stateful_layers
from kerasext.storage import IDS, ROW, BackgroundWriter, PredictionFileWriter, SkippedIds

# By path, the last one of each.
_open_runs: weakref.WeakValueDictionary[Path, PredictionRun] = weakref.WeakValueDictionary()
_JIT_COMPILE = "jit_compile"
SAME_STEPS = "its first and last step were computed again and are the same"


class PredictionRun:
    """One run, from its first row to the end of its file.

    `HDF5PredictionWriter` is a `StepListener` through it: it hands it the steps of Keras's
    `predict`. `predict_to_hdf5` hands it the steps of its own loop. Steps come in the order of
    their rows; each is either skipped or has its outputs.

    Opens and locks the file.

    Args:
        path: String or path-like. The file.
        model: The model that predicts.
        options: `CheckedOptions`.
        columns: `RowColumns` of the ids and targets.
        rows: Int. Rows of the data, `None` if unknown.
        batches: Int. Batches of the data, `None` if unknown.
        callback: The callback that drives the run; held weakly, and closed when another run wants
            the file of a `predict` that was interrupted. Defaults to `None`.

    Attributes:
        path: String. As given.
        is_complete: Bool. Whether the file was complete before: then rows are only compared.
        rows_seen: Int. Rows of the data until now, those that were skipped included.
        rows_known: Int. Rows of the data that the file had before, under `mode="resume"`.

    Raises:
        OSError: If the file can't be opened; see `HDF5PredictionWriter`.
        ValueError: If it can't be resumed with this model or these columns.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        model: keras.Model,
        options: CheckedOptions,
        columns: RowColumns,
        *,
        rows: int | None = None,
        batches: int | None = None,
        callback: Any = None,
    ) -> None:
        _close_interrupted_run(path)
        self.path = os.fspath(path)
        self._model = model
        self._options = options
        self._columns = columns
        self._rows = rows
        self._batches = batches
        self._file = PredictionFileWriter(
            path,
            mode=options.mode,
            dtypes=options.dtypes,
            compression=options.compression,
            ragged=options.ragged,
            fsync=options.fsync,
            resume_check=options.resume_check,
        )
        self._background = BackgroundWriter(
            self._file,
            to_arrays=functools.partial(rows_of, names=options.outputs, keep=options.keep),
            queue_bytes=options.queue_bytes,
            commit_interval=options.commit_interval,
            step_bytes=operator.attrgetter("nbytes") if options.ragged or options.keep else None,
        )
        # Not a method of ours: a finalizer must not keep alive what it is for.
        self._finalizer = weakref.finalize(self, self._background.abandon)
        self._is_closed = False
        self._thread = threading.current_thread()
        self._callback = None if callback is None else weakref.ref(callback)
        _open_runs[self._file.path] = self
        self.is_complete = self._file.is_complete
        self.rows_seen = 0
        self.rows_known = self._file.state.data_rows - self._file.state.first_data_row
        self._steps = 0
        self._batches_seen = 0
        self._jit_compile = False
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._skipped_ids: SkippedIds | None = None
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        options, file = self._options, self._file
        self._random_states = dict(random_states(self._model)) if options.mode == "resume" else {}
        self._columns.begin()
        has_row = {ROW} if options.keep else set()
        file.declare_columns(self._columns.names | has_row, self._columns.id_width)
        self._skipped_ids = file.skipped_ids()
        if self.is_complete and self._model.built:
            self._describe()
            file.check_fingerprint()
        if self.is_complete and self._rows is not None and self.rows_known != self._rows:
            raise self._other_number_of_rows(self._rows)

    @property
    def is_closed(self) -> bool:
        """Whether the file was closed, or the thread that writes has come to an error."""
        return self._is_closed or self._background.is_over

    @property
    def batch_size(self) -> int:
        """Rows of the batches, as the file has it for `mode="resume"`; 0 if unknown."""
        return self._file.caller.batch_size

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        self._file.caller.batch_size = batch_size

    @property
    def health(self) -> dict[str, float]:
        """As for `HDF5PredictionWriter`."""
        return self._file.state.health

    @property
    def jit_compile(self) -> bool | None:
        """Whether XLA compiled the steps of the interrupted run; `None` if nothing is resumed."""
        stored = self._file.resumed_attribute(_JIT_COMPILE)
        return None if stored is None else bool(stored)

    def use_jit_compile(self, jit_compile: bool, remedy: str) -> None:
        """Says whether XLA compiles the steps, before the first one.

        Args:
            jit_compile: Bool.
            remedy: String. What to do if the interrupted run had it otherwise.

        Raises:
            ValueError: If it had: values would differ in their last bits.
        """
        stored = self.jit_compile
        if stored not in (None, jit_compile):
            raise ValueError(
                f"`mode='resume'` needs the same `jit_compile` as the first run; {remedy}. "
                f"Stored: jit_compile={stored}. Received: jit_compile={jit_compile}"
            )
        self._jit_compile = jit_compile

    def knows(self, rows: int) -> bool:
        """Whether the next rows need not be computed.

        The step with the last known row is computed again, to see that it is the same, and the
        first one, too, if the file is complete.
        """
        if self.is_complete:
            if not self._options.resume_check:
                return self.rows_seen + rows <= self.rows_known
            if self.rows_seen == 0:
                return False
        return self.rows_seen + rows < self.rows_known

    def on_step_begin(self, rows: int | None, batches: Sequence[Any]) -> bool:
        """Says whether a step must be computed, and checks the batches of the first one."""
        if rows is not None and self.knows(rows):
            return False
        if self._steps == 0:
            check_weights(batches, self._model)
        return True

    def on_step_skipped(self, rows: int, batches: Sequence[Any] = ()) -> None:
        """Passes over rows that are in the file."""
        if self._skipped_ids is not None:
            columns = self._columns.of_step(batches, self.rows_seen, rows, self._model)
            self._skipped_ids.check(np.asarray(columns[IDS]))
        else:
            self._columns.skip(rows)
        self._batches_seen += len(batches)
        self.rows_seen += rows

    def on_step_outputs(self, outputs: Any, rows: int | None, batches: Sequence[Any] = ()) -> None:
        """Hands the outputs of a step to the thread that writes.

        Args:
            outputs: What the model returned, in its structure and tensors.
            rows: Int. Rows of the data that the step was given, `None` if unknown.
            batches: The batches of the step, if ids or targets are taken from them.

        Raises:
            BaseException: See `BackgroundWriter.append`.
            ValueError: If there are fewer ids or targets than rows, or more rows than in a complete
                file.
        """
        file = self._file
        if rows is None:
            rows = number_of_rows(outputs)
        if self.knows(rows):  # it was computed for another listener
            self.on_step_skipped(rows, batches)
            return
        if self.is_complete and self.rows_seen + rows > self.rows_known:
            raise self._other_number_of_rows(f"at least {self.rows_seen + rows}")
        known = min(max(self.rows_known - self.rows_seen, 0), rows)
        first_row = file.state.first_data_row + self.rows_seen
        columns = self._columns.of_step(batches, self.rows_seen, rows, self._model)
        if self.is_complete and self._skipped_ids is not None:
            self._skipped_ids.check(np.asarray(columns[IDS]))
        keep = self._options.keep
        task = None
        if self._steps == 0:
            task = self._describe(None if keep else self._expected_rows(rows)).task
            if batches and not self.batch_size:
                self.batch_size = rows // len(batches)
        if known or self.is_complete:
            file.caller.why_values_differ = self._why_values_differ()
        stay = that_stay(outputs, None if keep else self._options.outputs)
        self._background.append(
            Step(stay, columns, first_row, rows, task),
            rows if self.is_complete else rows - known,
            known=functools.partial(rows_before, row=first_row + known) if keep else known,
        )
        self._batches_seen += len(batches)
        self.rows_seen += rows
        self._steps += 1

    def on_step_error(self) -> None:
        """Closes the file as it is."""
        self.close()

    def end(self, *, is_whole: bool = True) -> str:
        """Ends the run: the file is complete if all rows were there.

        Args:
            is_whole: Bool. Whether data of unknown length have come to their end.

        Returns:
            What there is to say of it.

        Raises:
            BaseException: An error of the thread that writes.
            ValueError: If there was no row, or another number of rows than of ids, of targets or of
                rows in a complete file.
        """
        if self._batches is not None:
            # `stop_predicting` tells nothing: the `predict` of another thread sets it to `False`
            # when it begins.
            is_whole = self._batches_seen >= self._batches
        elif self._rows is not None:
            is_whole = self.rows_seen >= self._rows
        try:
            if self.is_complete:
                return self._end_comparison(is_whole=is_whole)
            if self._steps == 0 or self.rows_seen < self.rows_known:
                raise ValueError(
                    "`predict` must be given at least one row, and under `mode='resume'` those "
                    "that are in the file first: without them no outputs can be written. "
                    f"Received: {self.rows_seen} rows, with {self.rows_known} in the file"
                )
            if is_whole:
                self._finish()
        finally:
            self.close()
        if is_whole:
            self._warn_of_duplicate_ids()
        health = self.health
        return (
            f"{self.path}: {health['rows']:,} rows, {health['bytes'] / 1e6:,.1f} MB in "
            f"{health['seconds']:,.1f} s ({health['rows_per_second']:,.0f} rows/s); the model "
            f"waited {health['stalled_seconds']:,.1f} s for the disk."
        )

    def close(self) -> None:
        """Closes the file, which says that it is incomplete unless the run has ended."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._skipped_ids is not None:
            self._skipped_ids.close()
        self._finalizer.detach()
        self._background.close()

    def _end_comparison(self, *, is_whole: bool) -> str:
        was_stopped = not is_whole and self._model.stop_predicting
        if not was_stopped:
            if self.rows_seen != self.rows_known:
                raise self._other_number_of_rows(self.rows_seen)
            self._columns.check_end(self.rows_seen)
        self._background.finish()
        said = f"{self.path} is complete: {SAME_STEPS}."
        if was_stopped:
            said += f" The call was stopped after {self.rows_seen} of {self.rows_known} rows."
        logging.getLogger("kerasext").info(said)
        return said

    def _finish(self) -> None:
        self._columns.check_end(self.rows_seen)
        self._background.finish()

    def _warn_of_duplicate_ids(self) -> None:
        found = find_duplicate_ids(self._file.path) if IDS in self._columns.names else None
        if found is not None:
            warnings.warn(
                "`ids` should be unique, so that each row can be found by its id. "
                f"Received: {found.ids:,} ids in more than one row of {self.path!r}, such "
                f"as {found.example!r} in the rows {found.rows[0]} and {found.rows[1]}",
                stacklevel=3,
            )

    def _other_number_of_rows(self, received: object) -> ValueError:
        return ValueError(
            "`mode='resume'` of a complete file needs the data of the last `predict` into it; pass "
            "mode='w' to start over, mode='a' to add other data, or another path. Received: "
            f"{received} rows, with {self.rows_known} in the last `predict` into "
            f"{self.path!r}"
        )

    def _why_values_differ(self) -> str:
        """Why the model may predict other values than before, as far as it shows."""
        layers = stateful_layers(self._model)
        if layers:
            return f"the outputs of this model depend on earlier batches, by the layers {layers}"
        before = self._random_states
        if any(state != before.get(of, state) for of, state in random_states(self._model)):
            return "this model draws random numbers in `predict`"
        return ""

    def _expected_rows(self, rows_of_step: int) -> int | None:
        if self._rows is not None or self._batches is None:
            return self._rows
        return math.ceil(self._batches / int(self._model.steps_per_execution)) * rows_of_step

    def _describe(self, expected_rows: int | None = None) -> ModelDescription:
        description = describe(self._model)
        own: dict[str, str | float] = {
            "started": self._started,
            "metadata": self._options.metadata_json,
            _JIT_COMPILE: self._jit_compile,
        }
        self._file.set_description(
            {**description.attributes, **own}, description.class_names, expected_rows
        )
        return description

    def close_if_interrupted(self) -> None:
        """Closes the file that an interrupted `predict` has left open in this thread.

        Keras tells a callback nothing of Ctrl-C between steps, and a notebook keeps the callback.
        """
        callback = None if self._callback is None else self._callback()
        is_of_another = self._thread is not threading.current_thread() and self._thread.is_alive()
        if callback is not None and not (
            is_of_another or predict_loop.is_predicting_with(callback)
        ):
            callback.close()


def _close_interrupted_run(path: str | os.PathLike[str]) -> None:
    earlier = _open_runs.get(Path(os.path.realpath(path)))
    if earlier is not None:
        earlier.close_if_interrupted()
