"""The callback that counts predictions while `model.predict` runs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kerasext.callbacks.figures_log import FiguresLog
from kerasext.callbacks.predict_callback import PredictCallback
from kerasext.callbacks.step_outputs import by_name, that_stay, to_rows
from kerasext.evaluation import RunningFigures
from kerasext.keras_internals import StepTaps
from kerasext.storage import ClassNames, Head, output_path, setting_of

_SECONDS_BETWEEN_UPDATES = 0.5  # of the bar and the log
_MOST_CLASSES_LOGGED = 100  # a chart for each


class PredictionMonitor(PredictCallback):
    """Counts predictions while they are made: classes, confidence, rows per second.

    The model must return `labels` and `confidence`, as with a mixin of `kerasext.models`. Pass the
    monitor to `predict` or `predict_to_hdf5`, alone or beside an `HDF5PredictionWriter`. Its memory
    is constant. While `predict` runs, the numbers are one step old. They stay after `predict`, also
    after an error, and the next `predict` starts them anew. In `predict_to_hdf5` they are those of
    the whole job.

    Args:
        head: String. The head whose outputs are counted, such as `"animal"` for `animal/labels` and
            `animal/confidence`. Defaults to `""`, for a model with one head.
        threshold: Float in [0, 1]. Confidences below it are counted. Defaults to 0.5.
        bins: Int. Bins of the histogram of confidence. Defaults to 20.
        log_dir: String or path-like. Folder in which TensorFlow logs the numbers for TensorBoard,
            about twice a second and at the end. The step of a log entry is the number of rows.
            TensorBoard itself is not needed. Defaults to `None`, for no log.
        verbose: Int. 1 shows Keras's progress bar with the numbers, 2 one line at the end. Pass
            `verbose=0` to `predict`, which has a bar of its own. Defaults to 0, for silence.

    Attributes:
        figures: The counts, for `kerasext.evaluation.compare`.

    Raises:
        TypeError: If `head` is not a string.
        ValueError: If a number is out of range. At the first step: if the model has no `labels` or
            `confidence`. Later: if `labels` are not labels.
        ImportError: At the start of `predict`, if `log_dir` is set and TensorFlow not installed.
        RuntimeError: During `predict`: if another callback predicts with the same model in its
            `on_predict_batch_begin`, and stands after the monitor in `callbacks`.

    Example:

    ```python
    monitor = PredictionMonitor(verbose=1)
    model.predict(images, verbose=0, callbacks=[monitor])
    monitor.class_shares           # {"cat": 0.71, "dog": 0.29}
    monitor.share_below_threshold  # 0.04

    evaluation.compare("last_week.h5", monitor)  # whether predictions changed
    ```
    """

    def __init__(
        self,
        *,
        head: str = "",
        threshold: float = 0.5,
        bins: int = 20,
        log_dir: str | os.PathLike[str] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(head, str):
            raise TypeError(f"`head` must be the name of a head. Received: head={head!r}")
        if not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be in [0, 1]. Received: threshold={threshold}")
        if bins < 2:
            raise ValueError(f"`bins` must be at least 2. Received: bins={bins}")
        self.head = head
        self.threshold = threshold
        self.bins = bins
        self.log_dir = log_dir
        self.verbose = verbose
        self._names = tuple(output_path(head, name) for name in ("labels", "confidence"))
        self._reset()

    def _reset(self) -> None:
        self.figures = RunningFigures(bins=self.bins, threshold=self.threshold)
        self._waiting: Mapping[str, Any] | None = None
        self._bar: keras.utils.Progbar | None = None
        self._log: FiguresLog | None = None
        self._taps: StepTaps | None = None
        self._rows_skipped = self._batches = self._batches_skipped = 0
        self._total_rows: int | None = None
        self._seconds = 0.0

    @property
    def rows(self) -> int:
        """Rows that were computed and counted."""
        return self.figures.rows

    @property
    def rows_skipped(self) -> int:
        """Rows that a writer with `mode="resume"` already had. They were not computed.

        The first and the last step of a complete file are computed, and counted in `rows`.
        """
        return self._rows_skipped

    @property
    def rows_per_second(self) -> float:
        """Rows that were counted, per second since `predict` began; 0 before the first row."""
        return self.rows / self._seconds if self._seconds else 0.0

    @property
    def class_shares(self) -> dict[str, float] | np.ndarray:
        """Share of each class among the labels that are not -1; NaN if there are none.

        A dict from class name to share if the model has `class_names`, else a float64 array of
        shape `(classes,)`. With a `MultiLabelClassifierMixin`, for each label the share of rows
        that have it. With more axes than rows, such as pixels, all positions count alike.
        """
        return self.figures.class_shares

    @property
    def unlabelled(self) -> int:
        """Labels that are -1, which a mixin gives to rows with NaN."""
        return self.figures.unlabelled

    @property
    def confidence_histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts, int64 of shape `(bins,)`, and edges, float64 of shape `(bins + 1,)`.

        As from `numpy.histogram`, the last bin includes 1. Confidences that are NaN are in no bin.
        """
        return self.figures.confidence_counts, np.linspace(0, 1, self.bins + 1)

    @property
    def share_below_threshold(self) -> float:
        """Share of the confidences below `threshold`, without NaN; NaN if there are none."""
        return self.figures.share_below_threshold

    def on_predict_begin(self, logs: Any = None) -> None:
        """Starts the numbers anew."""
        self.begin()
        self._taps = StepTaps(self._model)

    def begin(self, total_rows: int | None = None) -> None:
        """Starts the numbers anew; called by `predict_to_hdf5`, whose job may take several calls.

        Args:
            total_rows: Int. Rows of the whole job. Defaults to `None`: the bar counts batches.
        """
        self._end()
        self._reset()
        self._total_rows = total_rows
        if self.log_dir is not None:
            self._log = FiguresLog(self.log_dir)
        if self.verbose:
            unit = "step" if total_rows is None else "row"
            self._bar = keras.utils.Progbar(
                None, verbose=self.verbose, unit_name=unit, stateful_metrics=self._scalars()
            )
        self._started = self._updated_at = time.monotonic()

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Taps the step that is about to run."""
        assert self._taps is not None
        try:
            self._taps.tap_next(self)
        except RuntimeError:
            self.close()
            raise

    def on_step_begin(self, rows: int | None, batches: Sequence[Any]) -> None:
        """Only looks on; called by the tap, not by Keras."""

    def on_step_skipped(self, rows: int, batches: Sequence[Any]) -> None:
        """Counts the rows of a step that was not computed; called by the tap, not by Keras."""
        self._rows_skipped += rows
        self._batches_skipped += len(batches)

    def on_step_outputs(self, outputs: Any, rows: int | None, batches: Sequence[Any]) -> None:
        """Takes the outputs of a step; called by the tap, not by Keras."""
        step = self._find(outputs)
        if self._waiting is None and not self.rows:  # the first step
            self.figures = self._new_figures(by_name(outputs))
        # One step late: on JAX, asking for values waits until the step is computed.
        self._take_in()
        self._waiting = that_stay(step, None)
        self._batches += len(batches)
        now = time.monotonic()
        if now - self._updated_at >= _SECONDS_BETWEEN_UPDATES:
            self._updated_at = now
            self._update_bar()
            self._write_log()

    def on_step_error(self) -> None:
        """Ends as after an error; called by the tap, not by Keras."""
        self.close()

    def on_predict_end(self, logs: Any = None) -> None:
        """Counts the last step, and shows the numbers."""
        if self._taps is not None:
            try:
                self._taps.check_end()
            except RuntimeError:
                self.close()
                raise
        self._take_in()
        self._update_bar(finalize=True)
        self.close()

    def close(self) -> None:
        """Ends the log; the numbers stay.

        Safe to call again, and not needed after a `predict` that has ended. After an error outside
        of a step, of which Keras tells a callback nothing, the next `predict` does it.
        """
        self._end()

    def _end(self) -> None:
        taps, self._taps = self._taps, None
        if taps is not None:
            taps.close()
        with contextlib.suppress(Exception):  # on JAX the step may have failed
            self._take_in()
        self._bar = None
        if self._log is not None:
            self._write_log()
            self._log.close()
            self._log = None

    def _find(self, outputs: Any) -> dict[str, Any]:
        """The two outputs of a step that are counted."""
        is_flat = isinstance(outputs, dict) and not self.head
        named = outputs if is_flat else by_name(outputs)  # which costs as much as all the rest
        if not all(name in named for name in self._names):
            raise ValueError(
                "A monitored model must yield `labels` and `confidence`; use a mixin of "
                "`kerasext.models`, and name a head of several with `head`. "
                f"Received: head={self.head!r}, and the outputs {sorted(by_name(outputs))}"
            )
        return {name: named[name] for name in self._names}

    def _new_figures(self, named: Mapping[str, Any]) -> RunningFigures:
        """Made at the first step, because a model may not know its heads before."""
        description: dict[str, Any] = getattr(self._model, "prediction_metadata", dict)()
        names = setting_of(description, "class_names", self.head)
        head = Head(
            self.head, named, description, class_names=None if names is None else ClassNames(names)
        )
        return RunningFigures.of_head(head, bins=self.bins, threshold=self.threshold)

    def _take_in(self) -> None:
        """Counts the step that waits."""
        step, self._waiting = self._waiting, None
        if step is not None:
            labels, confidence = (to_rows(name, step[name]) for name in self._names)
            self.figures.take(labels, confidence)
            self._seconds = time.monotonic() - self._started

    def _update_bar(self, *, finalize: bool = False) -> None:
        if self._bar is None:
            return
        done, skipped = self._batches, self._batches_skipped
        total = (self.params or {}).get("steps")
        if self._total_rows is not None:
            done, skipped, total = self.rows, self._rows_skipped, self._total_rows
        # Skipped rows do not count, because the bar estimates the rest from the time of each row.
        self._bar.target = total - skipped if total else done if finalize else None
        shown = [(name, value) for name, value in self._scalars().items() if value]
        self._bar.update(done, shown, finalize=finalize)

    def _write_log(self) -> None:
        if self._log is None:
            return
        scalars, shares = self._scalars(), self.class_shares
        if len(shares) <= _MOST_CLASSES_LOGGED:
            by_class = shares.items() if isinstance(shares, dict) else enumerate(shares)
            scalars |= {f"class_shares/{name}": share for name, share in by_class}
        under = output_path(self.head, "")
        self._log.write(
            self.rows,
            {under + name: float(value) for name, value in scalars.items()},
            {under + "confidence": self.confidence_histogram},
        )

    def _scalars(self) -> dict[str, float]:
        """The numbers of the bar and the log."""
        return {
            "rows_per_second": self.rows_per_second,
            "share_below_threshold": self.share_below_threshold,
            "unlabelled": self.unlabelled,
            "rows_skipped": self._rows_skipped,
        }
