"""The callback that counts predictions while `model.predict` runs."""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from kerasext.callbacks.figures_log import FiguresLog
from kerasext.callbacks.predict_callback import PredictCallback
from kerasext.callbacks.progress_line import ProgressLine
from kerasext.callbacks.reference_figures import read_figures
from kerasext.callbacks.running_figures import RunningFigures
from kerasext.callbacks.stability_index import index_by_chance, stability_index
from kerasext.callbacks.step_outputs import (
    by_name,
    number_of_bytes,
    number_of_rows,
    that_stay,
    to_rows,
)
from kerasext.keras_internals import StepTaps
from kerasext.storage import PredictionFile, RaggedRows

_ROWS_AT_ONCE = 8192
_BYTES_AT_ONCE = 4 * 1024 * 1024
_SECONDS_AT_ONCE = 0.25
_LOG_SECONDS = 1.0
_ROWS_BEFORE_WARNING = 4096
_MOST_CLASSES_LOGGED = 100  # a chart for each


class PredictionMonitor(PredictCallback):
    """Counts predictions while they are made: classes, confidence, rows per second.

    For models whose `predict` returns `labels` and `confidence`, as with a mixin; alone or beside
    an `HDF5PredictionWriter`. Memory is constant. Rows that a writer with `mode="resume"` skips are
    counted in `rows_skipped` only. While `predict` runs, the numbers are at most 0.25 seconds or
    one step old. They stay after it, also after an error, and start again with the next `predict`.
    In `predict_to_hdf5` they are of the whole job.

    Args:
        head: String. Which head's outputs are counted, such as `"animal"` for `animal/labels` and
            `animal/confidence`. Defaults to `""`, for a model of one.
        threshold: Float in [0, 1]. Confidences below it are counted. Defaults to 0.5.
        bins: Int. Bins of the histogram of confidence. Defaults to 20.
        reference: `PredictionFile`, or string or path-like for one, of an earlier `predict` of the
            same kind of model: see `drift`. Read when `predict` begins. Defaults to `None`.
        drift_threshold: Float. If `drift` exceeds it by more than chance explains, a `UserWarning`
            says so once in each `predict`, after 4,096 rows at the earliest, or at the end. Rows
            that are sorted by class give a false warning. Defaults to 0.25.
        log_dir: String or path-like. Folder to write the figures to, for TensorBoard, about once a
            second and at the end; their step is the number of rows. Defaults to `None`.
        verbose: Int. 1 shows a line with the figures on stderr while they change, or, if that is no
            terminal, at the end; best with `verbose=0` of `predict`. Defaults to 0.

    Raises:
        TypeError: If `head` is no string.
        ValueError: If a number is out of range. At the start of `predict`: if `reference` has not
            the outputs. At its first step: if the model has not the outputs, or other classes than
            the reference. Later: if `labels` are no labels.
        FileNotFoundError: At the start of `predict`, if there is no file `reference`.
        RuntimeError: During `predict`: if another callback predicts with the same model in its
            `on_predict_batch_begin`, and stands after the monitor in `callbacks`.

    Example:

    ```python
    monitor = PredictionMonitor(reference="last_week.h5", verbose=1)
    model.predict(images, verbose=0, callbacks=[monitor])
    monitor.class_shares           # {"cat": 0.71, "dog": 0.29}
    monitor.share_below_threshold  # 0.04
    monitor.drift                  # {"labels": 0.02, "confidence": 0.31}
    ```
    """

    def __init__(
        self,
        *,
        head: str = "",
        threshold: float = 0.5,
        bins: int = 20,
        reference: PredictionFile | str | os.PathLike[str] | None = None,
        drift_threshold: float = 0.25,
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
        if not drift_threshold > 0:
            raise ValueError(
                f"`drift_threshold` must be positive. Received: drift_threshold={drift_threshold}"
            )
        self.head = head
        self.threshold = threshold
        self.bins = bins
        self.reference = reference
        self.drift_threshold = drift_threshold
        self.log_dir = log_dir
        self.verbose = verbose
        self._names = tuple(f"{head}/{name}".lstrip("/") for name in ("labels", "confidence"))
        self._is_running = False
        self._reset()

    def _reset(self) -> None:
        self._figures = self._new_figures()
        self._reference: RunningFigures | None = None
        self._class_names: Sequence[str] | None = None
        self._log: FiguresLog | None = None
        self._taps: StepTaps | None = None
        self._line = ProgressLine()
        self._waiting: list[tuple[Mapping[str, Any], int]] = []
        self._rows_waiting = 0
        self._rows_at_once: int | None = None
        self._rows_skipped = 0
        self._batches = self._batches_skipped = 0
        self._total_rows: int | None = None
        self._seconds = 0.0
        self._has_warned = False

    @property
    def rows(self) -> int:
        """Rows that were computed and counted."""
        return self._figures.rows

    @property
    def rows_skipped(self) -> int:
        """Rows that a writer with `mode="resume"` had, so that they were not computed.

        Of a complete file its first and last step are computed, and counted in `rows`.
        """
        return self._rows_skipped

    @property
    def rows_per_second(self) -> float:
        """Rows that were counted, per second since `predict` began; 0 before there are any."""
        return self.rows / self._seconds if self._seconds else 0.0

    @property
    def class_shares(self) -> dict[str, float] | np.ndarray:
        """Share of each class among the labels, those that are -1 left out; NaN if there are none.

        A dict by name of the class where the model has `class_names`, else a float64 array of shape
        `(classes,)`. Of a `MultiLabelClassifierMixin`, for each label the share of rows that have
        it. With more axes than rows, such as pixels, all positions count alike.
        """
        shares = self._figures.class_shares
        if self._class_names is None:
            return shares
        return dict(zip(self._class_names, shares.tolist(), strict=False))

    @property
    def unlabelled(self) -> int:
        """Labels that are -1, which a mixin gives to rows with NaN."""
        return self._figures.unlabelled

    @property
    def confidence_histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts, int64 of shape `(bins,)`, and edges, float64 of shape `(bins + 1,)`.

        The last bin has 1, too, as in `numpy.histogram`. Confidences that are NaN are in none.
        """
        return self._figures.confidence_counts.copy(), np.linspace(0, 1, self.bins + 1)

    @property
    def share_below_threshold(self) -> float:
        """Of the confidences that are not NaN, those below `threshold`; NaN if there are none."""
        return self._figures.share_below_threshold

    @property
    def drift(self) -> dict[str, float] | None:
        """How far `"labels"` and `"confidence"` are from the reference; `None` without one.

        The population stability index, `sum((p - q) * log(p / q))` over bins, where p are the
        shares here and q those in the reference: 0 if they are the same, to look into above 0.25,
        as a rule of thumb (Siddiqi, "Credit Risk Scorecards", 2006). The bins of labels are the
        classes and -1; those of a `MultiLabelClassifierMixin` are 0, 1 and -1 of each label, and
        the largest index of a label counts. The bins of confidence are those of the histogram. An
        empty bin is taken for half a count, unless both are empty. NaN before there are any rows.
        """
        if self._reference is None:
            return None
        figures, reference = self._figures, self._reference
        classes = max(figures.classes, reference.classes)
        figures.expect_classes(classes)
        reference.expect_classes(classes)
        return {
            "labels": stability_index(figures.label_counts, reference.label_counts),
            "confidence": stability_index(figures.confidence_counts, reference.confidence_counts),
        }

    def on_predict_begin(self, logs: Any = None) -> None:
        """Begins anew, and reads the reference."""
        self.begin()
        self._taps = StepTaps(self._model)

    def begin(self, total_rows: int | None = None) -> None:
        """Begins anew; called by `predict_to_hdf5`, whose job takes several `predict` calls.

        Args:
            total_rows: Int. Rows of the whole job. Defaults to `None`, for what Keras says of the
                number of batches.
        """
        self._end()
        self._reset()
        self._total_rows = total_rows
        if self.reference is not None:
            self._reference = read_figures(
                self.reference,
                head=self.head,
                bins=self.bins,
                threshold=self.threshold,
                task=self._description().get("task"),
            )
        if self.log_dir is not None:
            self._log = FiguresLog(self.log_dir)
        self._is_running = True
        self._started = self._taken_at = self._logged_at = self._shown_at = time.monotonic()

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
        if rows is None:
            rows = number_of_rows(outputs)
        step = self._find(outputs)
        if self._rows_at_once is None:
            self._look_at(by_name(outputs))
            nbytes = number_of_bytes(step) or 1
            self._rows_at_once = min(_ROWS_AT_ONCE, _BYTES_AT_ONCE * max(rows, 1) // nbytes)
        # Values are not looked at: on JAX that would wait until the step is computed.
        self._waiting.append((that_stay(step, None), rows))
        self._rows_waiting += rows
        self._batches += len(batches)
        if (
            self._rows_waiting >= self._rows_at_once
            or time.monotonic() - self._taken_at >= _SECONDS_AT_ONCE
        ):
            self._take_in(len(self._waiting) - 1)  # the last one may still be computed
            if self.rows >= _ROWS_BEFORE_WARNING:
                self._warn_of_drift()
            self._tell()

    def on_step_error(self) -> None:
        """Ends as after an error; called by the tap, not by Keras."""
        self.close()

    def on_predict_end(self, logs: Any = None) -> None:
        """Takes in what is left, and says how it was."""
        if self._taps is not None:
            try:
                self._taps.check_end()
            except RuntimeError:
                self.close()
                raise
        self._take_in(len(self._waiting))
        if self.verbose:
            self._line.end(self._text())
        self.close()
        self._warn_of_drift()

    def close(self) -> None:
        """Ends the line of progress and the log; the figures stay.

        Safe to call again, and not needed after a `predict` that has ended. After an error outside
        of a step, of which Keras tells a callback nothing, the next `predict` does it.
        """
        self._end()

    def _end(self) -> None:
        if not self._is_running:
            return
        self._is_running = False
        taps, self._taps = self._taps, None
        if taps is not None:
            taps.close()
        with contextlib.suppress(Exception):  # on JAX a step that failed may be among them
            self._take_in(len(self._waiting))
        self._waiting = []
        self._line.end(None)
        log, self._log = self._log, None
        if log is not None:
            self._write_to(log)
            log.close()

    def _new_figures(self, task: str | None = None) -> RunningFigures:
        return RunningFigures(
            bins=self.bins, threshold=self.threshold, multi_label=task == "multilabel"
        )

    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = getattr(self._model, "prediction_metadata", dict)()
        return description

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

    def _look_at(self, named: Mapping[str, Any]) -> None:
        """Sees in the first step, before which a model may not know its heads, what is counted."""
        description = self._description()
        names = description.get("class_names")
        self._class_names = names.get(self.head) if isinstance(names, Mapping) else names
        self._figures = self._new_figures(description.get("task"))
        classes = self._number_of_classes(named)
        self._figures.expect_classes(classes)
        if self._reference is not None and classes and self._reference.classes > classes:
            raise ValueError(
                "`reference` must be of the classes of the model; pass a file of this model's. "
                f"Received: {self._reference.classes} classes in the reference, and {classes}"
            )

    def _number_of_classes(self, named: Mapping[str, Any]) -> int:
        """How many classes there are, 0 if no output tells."""
        if self._class_names is not None:
            return len(self._class_names)
        probabilities = named.get(f"{self.head}/probabilities".lstrip("/"))
        return int(getattr(probabilities, "shape", (0,))[-1] or 0)

    def _take_in(self, steps: int) -> None:
        taken, self._waiting = self._waiting[:steps], self._waiting[steps:]
        rows = sum(rows for _, rows in taken)
        self._rows_waiting -= rows
        if taken:
            labels, confidence = (
                np.concatenate([self._values(name, step[name]) for step, _ in taken])
                for name in self._names
            )
            self._figures.take(labels, confidence, rows)
        self._taken_at = time.monotonic()
        self._seconds = self._taken_at - self._started if self.rows else 0.0

    def _values(self, name: str, tensor: Any) -> np.ndarray:
        """The values of an output: of several steps they can be joined, whatever their shapes."""
        rows = to_rows(name, tensor)
        if not self._figures.multi_label:
            return rows.values if isinstance(rows, RaggedRows) else rows.reshape(-1)
        return (
            rows.values.reshape(-1, rows.row_shapes[:, -1].max(initial=1))
            if isinstance(rows, RaggedRows)
            else rows.reshape(-1, rows.shape[-1])
        )

    def _tell(self) -> None:
        """Shows the figures where they are wanted, if it is time."""
        if self._log is not None and self._taken_at - self._logged_at >= _LOG_SECONDS:
            self._logged_at = self._taken_at
            self._write_to(self._log)
        if self.verbose and self._taken_at - self._shown_at >= _SECONDS_AT_ONCE:
            self._shown_at = self._taken_at
            self._line.show(self._text())

    def _text(self) -> str:
        parts = [f"{self.rows:,} rows", f"{self.rows_per_second:,.0f} rows/s"]
        if self.rows_skipped:
            parts.insert(1, f"{self.rows_skipped:,} skipped")
        left = self._seconds_left()
        if left:
            parts.append(f"{timedelta(seconds=math.ceil(left))} left")
        if not math.isnan(self.share_below_threshold):
            parts.append(f"{self.share_below_threshold:.1%} below {self.threshold:g}")
        if self.unlabelled:
            parts.append(f"{self.unlabelled:,} without a label")
        if self.drift is not None:
            parts.append("drift " + ", ".join(f"{v:.2f} ({k})" for k, v in self.drift.items()))
        return " | ".join(parts)

    def _seconds_left(self) -> float | None:
        """Time that is left at the rate so far, `None` if it is not known how much is left."""
        if self._total_rows is not None:
            done, skipped, total = self.rows, self._rows_skipped, self._total_rows
        else:
            done, skipped = self._batches, self._batches_skipped
            total = (self.params or {}).get("steps") or 0
        if not total or not done:
            return None
        return max(total - skipped - done, 0) * self._seconds / done

    def _write_to(self, log: FiguresLog) -> None:
        under = f"{self.head}/".lstrip("/")
        shares = self._figures.class_shares
        names = self._class_names or range(len(shares))
        scalars = {
            "rows_per_second": self.rows_per_second,
            "share_below_threshold": self.share_below_threshold,
            "unlabelled": self.unlabelled,
            **{f"drift/{name}": index for name, index in (self.drift or {}).items()},
        }
        if len(shares) <= _MOST_CLASSES_LOGGED:
            scalars |= {f"class_shares/{n}": s for n, s in zip(names, shares, strict=False)}
        log.write(
            self.rows,
            {under + name: float(value) for name, value in scalars.items()},
            {under + "confidence": self.confidence_histogram},
        )

    def _warn_of_drift(self) -> None:
        drift = self.drift
        if drift is None or self._has_warned or not self.rows:
            return
        assert self._reference is not None
        bins = {"labels": self._figures.label_counts.shape[-1], "confidence": self.bins}
        # By rows: further axes, such as pixels, are no samples of their own.
        parted = [
            f"{index:.2f} of the {name}"
            for name, index in drift.items()
            if index > self.drift_threshold
            and index > index_by_chance(bins[name], self.rows, self._reference.rows)
        ]
        if parted:
            self._has_warned = True
            self._line.clear()
            where = getattr(self.reference, "path", self.reference)
            warnings.warn(
                "Predictions should be distributed as those in the reference; look at the data, "
                "and at `class_shares` and `confidence_histogram`. Received: a population "
                f"stability index of {' and '.join(parted)} after {self.rows:,} rows, above "
                f"drift_threshold={self.drift_threshold}, against {str(where)!r}",
                stacklevel=2,
            )
