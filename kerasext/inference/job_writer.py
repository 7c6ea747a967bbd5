"""The writer of a job that takes several `predict` calls."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import keras

from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor
from kerasext.keras_internals import jax_state

_ROWS_AT_ONCE = 65536


class JobWriter(HDF5PredictionWriter):
    """Writes what several `predict` calls yield, each of some of the rows, as if it were one.

    Args:
        path: String or path-like. The file.
        rows: Int. Rows of the whole job.
        monitors: Sequence of `PredictionMonitor`, which are shown the rows that are kept, each
            once, and not the steps: those may be filled up, or be computed again.
        **options: Those of `HDF5PredictionWriter`.

    Attributes:
        last_row: Int. The row after the last one of the present `predict` call; what follows in its
            outputs is not kept.
        several_steps: `SeveralSteps` if the present call gives several batches to a step.
        was_stopped: Bool. Whether a `predict` call ended before its last step, as another callback
            may ask for.
    """

    def __init__(
        self,
        path: Any,
        *,
        rows: int,
        monitors: Sequence[PredictionMonitor] = (),
        **options: Any,
    ) -> None:
        super().__init__(path, accumulate=False, **options)
        self._monitors = monitors
        self._rows = self.last_row = rows
        self._computing: Any = None
        self.was_stopped = False

    @property
    def row(self) -> int:
        """The next row to predict."""
        return self._rows_seen

    @property
    def known_rows(self) -> int:
        """Rows that the file had before, under `mode="resume"`."""
        return self._rows_known

    @property
    def is_complete(self) -> bool:
        """Whether the file was complete before: then rows are only compared."""
        assert self._writer is not None
        return self._writer.writer.is_complete

    @property
    def has_failed(self) -> bool:
        """Whether the thread that writes has come to an error."""
        return self._writer is None or self._writer.is_over

    def begin(self, model: Any) -> int:
        """Opens the file for the job.

        Args:
            model: The model.

        Returns:
            The batch size that an interrupted job had, 0 if it had none.
        """
        self._columns.check_lengths(self._rows)
        self.set_model(model)
        super().on_predict_begin()
        assert self._writer is not None
        if self.is_complete and self._rows_known != self._rows:
            raise self.other_number_of_rows(self._rows)
        for monitor in self._monitors:
            monitor.set_model(model)
            monitor.begin(self._rows)
        return self._writer.writer.caller.batch_size

    def go_on_from(self, row: int, batch_size: int) -> None:
        """Says which row comes next, and the size of the batches from there on."""
        assert self._writer is not None
        while self._rows_seen < row:
            rows = min(row - self._rows_seen, _ROWS_AT_ONCE)
            self.on_step_skipped(rows, ())
            for monitor in self._monitors:
                monitor.on_step_skipped(rows, ())
        self._writer.writer.caller.batch_size = batch_size

    def on_predict_begin(self, logs: Any = None) -> None:
        """Leaves the file as it is: the job has opened it."""
        # `predict` has built the model, if nobody had.
        self._variables = jax_state.state_variables(self._model)

    def on_step_outputs(self, outputs: Any, rows: int | None, batches: Sequence[Any]) -> None:
        """Hands over the outputs of a step, on JAX once the next one was begun.

        There a step returns before it is computed. Its rows count when it was: one that runs out of
        memory is to be computed again.
        """
        self.hand_over()
        self._computing = outputs, rows
        # The first step is checked, and under `mode="resume"` compared, before there is another.
        if keras.backend.backend() != "jax" or not self._steps or self.row < self.known_rows:
            self.hand_over()

    def hand_over(self) -> None:
        """Hands over the outputs of the last step, if they were not yet."""
        step, self._computing = self._computing, None
        if step is not None:
            outputs, rows = step
            if keras.backend.backend() == "jax":
                importlib.import_module("jax").block_until_ready(outputs)
            left = self.last_row - self.row
            if rows is not None and rows > left:  # the batch was filled up
                outputs = keras.tree.map_structure(lambda tensor: tensor[:left], outputs)
                rows = left
            super().on_step_outputs(outputs, rows, ())
            for monitor in self._monitors:
                monitor.on_step_outputs(outputs, rows, ())

    def on_predict_end(self, logs: Any = None) -> None:
        """Leaves the file open for the next call."""
        self.hand_over()
        self._check_seen("called", "armed")
        self.was_stopped = self.was_stopped or self._ended_early()

    def on_step_error(self) -> None:
        """Leaves the file open: the job goes on with smaller batches, or closes it."""

    def finish(self) -> None:
        """Ends the job, as `on_predict_end` does a `predict` call."""
        super().on_predict_end()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        for monitor in self._monitors:
            if exc_info[0] is None:
                monitor.on_predict_end()
            else:
                monitor.close()

    def _ended_early(self) -> bool:
        return self._rows_seen < self.last_row

    def _expected_rows(self, rows: int) -> int | None:
        return self._rows
