"""The callback that writes what `model.predict` computes."""

from __future__ import annotations

import functools
import logging
import math
import operator
import os
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import keras
import numpy as np

from kerasext.callbacks.duplicate_ids import find_duplicate_ids
from kerasext.callbacks.model_description import ModelDescription, describe
from kerasext.callbacks.predict_callback import PredictCallback
from kerasext.callbacks.predict_tap import PredictTap, SeveralSteps
from kerasext.callbacks.row_columns import Ids, RowColumns, check_weights
from kerasext.callbacks.step_outputs import number_of_rows, that_stay
from kerasext.callbacks.step_rows import Keep, Step, rows_before, rows_of
from kerasext.common import to_json
from kerasext.keras_internals import (
    PredictFunctions,
    jax_state,
    predict_loop,
    random_states,
    stateful_layers,
)
from kerasext.storage import (
    IDS,
    ROW,
    BackgroundWriter,
    Compression,
    Mode,
    PredictionFileWriter,
    Ragged,
    SkippedIds,
    check_compression,
    check_name_list,
    check_ragged,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

# By path, the last one of each.
_open_writers: weakref.WeakValueDictionary[Path, HDF5PredictionWriter] = (
    weakref.WeakValueDictionary()
)
SAME_STEPS = "its first and last step were computed again and are the same"


class HDF5PredictionWriter(PredictCallback):
    """Writes the outputs of every predict step to one HDF5 file.

    Each output becomes a dataset, rows first, under the name that its place in the structure gives
    it: the key of a dict, groups for nested dicts, `0`, `1`, ... for a list or tuple, `predictions`
    for a single tensor. Values are those that a plain `predict` returns, bfloat16 as float32.

    The file is complete when `predict` has ended, with as many batches as Keras was asked for.
    After any other end (an error in the model, the data or a callback, Ctrl-C, `stop_predicting`
    before the last step, data that end before `steps`) it has the rows until then and is
    incomplete. Keras does not tell callbacks about an error outside a step: use `with writer:`,
    which closes the file at once. Otherwise the file is closed by the next `predict` with this
    callback, or with the same path in the same thread, when the callback is deleted, or when Python
    exits.

    A thread of the callback's own writes the rows and commits them every `commit_interval` seconds.
    Committed rows survive a kill of the process and are visible to other processes. An error in
    writing, such as a full disk, ends `predict` at its next step.

    On TensorFlow and torch several threads may predict with one model, each with a writer. On JAX
    a second thread raises an error before it writes. All threads share `model.stop_predicting`:
    Keras sets it to `False` when any `predict` begins, and `True` may stop the `predict` of another
    thread. On torch, with data of unknown length, a file may then be complete too early.

    Args:
        path: String or path-like. The file to write.
        mode: String. `"x"` makes a new file and raises an error if one exists. `"w"` replaces a
            file, which stays until the new one has its first step. `"a"` adds rows to a complete
            file. `"resume"` finishes an interrupted call with the same model and data, and does not
            predict committed rows again. `"w"`, `"a"` and `"resume"` make the file if it is
            missing. On a complete file `"resume"` reads all data, predicts the first and the last
            step again, and compares them, the number of rows and all ids; if they are equal, the
            logger `kerasext` says so at level INFO. Defaults to `"x"`.
        resume_check: Bool. Whether `"resume"` compares values that it predicts again with those in
            the file. `False` is for models that are random or stateful in `predict`: it compares
            everything else, and `unchecked_resumes` of `PredictionFile.origin` counts such calls. A
            stateful model continues with its present state, because committed rows are skipped.
            Defaults to `True`.
        accumulate: Bool. Whether `predict` keeps and returns all outputs too, as without the
            callback. With `False`, it returns `{}`, later callbacks see no outputs, and memory
            stays constant. Defaults to `None`: `False` under `"resume"`, which can't return rows
            that it does not predict, else `True`.
        outputs: Sequence of strings. Names of the outputs to keep, or of groups of them. Defaults
            to `None`, which keeps all.
        dtypes: Dict from output name to the dtype it is stored as, such as
            `{"probabilities": "float16"}`, or `"S100"` for strings of up to 100 bytes of UTF-8. A
            value that does not fit raises an error. `"uint8"` and `"uint16"` store floats in [0, 1]
            or NaN as whole numbers, with an error of at most 1/508 or 1/131068; reading gives
            float32. If a string was too long, `mode="resume"` rewrites the file with the width
            given here, or twice the needed width, and keeps its rows.
        compression: String or `None`, or a dict from output name to one of these. `"auto"` is gzip
            for everything except floats: labels shrink to a tenth or less, floats only by an
            eighth. `"gzip"` compresses all outputs. `"zstd"`, `"blosc2"`, `"bitshuffle"` and
            filters such as `hdf5plugin.Zstd(clevel=3)` need hdf5plugin, also to read the file. A
            chunk that was committed partly filled stays uncompressed. Defaults to `"auto"`.
        ragged: Bool, or sequence of names as for `outputs`: outputs whose rows may differ in shape,
            which are stored without padding. An output may be a `tf.RaggedTensor` with one ragged
            axis, or dense with a shape that changes between steps; its number of axes must stay.
            Keras can't join dense outputs of different shapes: they need `accumulate=False`, and a
            model compiled with `steps_per_execution=1`. `True` is for all outputs whose rows have
            an axis. Defaults to `False`: a row of another shape raises an error.
        ids: Integers or strings that identify the rows, stored as `ids`. Either an array, list or
            iterable in the order of the rows; or the name of a key of `x`, which is taken out of
            each batch before the model runs. A model with one input then gets the entry that is
            left. Paths, dates, times and UUIDs are stored as text. Strings of a list or array are
            stored as wide as the longest one; other strings take 64 bytes, or more if the first
            step needs more, or the width in `dtypes`, such as `{"ids": "S100"}`. A wrong number of
            ids raises an error when `predict` ends, and duplicates raise a warning.
            `predict_to_hdf5` also takes strings from arrays, and on JAX from a model that is not
            built; Keras's `predict` does not. `file_paths` of `image_dataset_from_directory` need
            `shuffle=False`. Defaults to `None`.
        targets: `True` stores the `y` of data that yields `(x, y)` or `(x, y, sample_weight)`, as
            `targets`, or `targets/...` if it is nested. Otherwise arrays, lists or iterables in the
            order of the rows, or a nested structure of them: numbers, or class names. Defaults to
            `False`.
        keep: Callable that chooses the rows to store. It gets a dict of the arrays of a step: all
            outputs, `"ids"` and `"targets"`, text as `str`. It returns a boolean array of shape
            `(rows,)`. The number of each kept row in the data is stored as `row`. The writing
            thread calls it once for each step. `lambda step: ~(step["confidence"] >= 0.6)` keeps
            unsure rows, and those with NaN. Defaults to `None`, for all rows.
        metadata: Dict of JSON-serializable values to keep in the file.
        commit_interval: Float. Seconds between commits. Defaults to 1.
        fsync: Bool. Whether each commit waits for the disk, so that committed rows survive a loss
            of power. The end of `predict` always waits. Defaults to `False`.
        queue_bytes: Int. Bytes that may wait to be written before the model waits, besides one
            step. Defaults to 32 MiB.
        verbose: Int. 1 prints a line at the end of `predict`. Defaults to 0.

    Attributes:
        health: Dict. Statistics of the last `predict`: stored `rows`, `bytes` before compression,
            `seconds`, `stalled_seconds` (the part of them that the model waited for the disk) and
            predicted `rows_per_second`. `PredictionFile.health` has the same.

    Raises:
        ValueError: If an argument is out of range. During `predict`: see `PredictionFileWriter`;
            if the model has a mixin and its `probabilities` are none; if there are fewer or more
            `ids` or `targets` than rows, `keep` returns no boolean for each row, the sample weights
            of the data are text, or a complete file under `"resume"` is of other data.
        TypeError: If an argument has the wrong type, or ids are neither integers nor strings.
        FileExistsError: At the start of `predict`, if the file exists under `mode="x"`.
        FileNotFoundError: At the start of `predict`, if the folder does not exist.
        IsADirectoryError: At the start of `predict`, if the path is a folder.
        PermissionError: At the start of `predict`, if the path is not writable.
        BlockingIOError: At the start of `predict`, if another live writer has the file: one of
            another process or thread, or one whose `predict` has not returned yet.
        RuntimeError: At the start of `predict` on JAX, if another thread predicts with the model.
            During `predict`, if a step was computed that the writer could not see: a callback that
            predicts with the same model in `on_predict_batch_begin` must stand before the writer.

    Example:

    ```python
    writer = HDF5PredictionWriter("digits.h5", mode="w", accumulate=False)
    with writer:  # closes the file after any error
        model.predict(images, callbacks=[writer])
    with PredictionFile("digits.h5") as predictions:
        predictions["labels"][:10]
    ```
    """

    several_steps: SeveralSteps | None = None  # as the tap asks

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "x",
        resume_check: bool = True,
        accumulate: bool | None = None,
        outputs: Sequence[str] | None = None,
        dtypes: Mapping[str, DTypeLike] | None = None,
        compression: Compression | Mapping[str, Compression] = "auto",
        ragged: Ragged = False,
        ids: Ids = None,
        targets: Any = False,
        keep: Keep | None = None,
        metadata: Mapping[str, Any] | None = None,
        commit_interval: float = 1.0,
        fsync: bool = False,
        queue_bytes: int = 32 * 1024 * 1024,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                "`path` must be a string or path-like. "
                f"Received: path of type {type(path).__name__}"
            )
        if mode not in get_args(Mode):
            raise ValueError(f"`mode` must be one of {get_args(Mode)}. Received: mode={mode!r}")
        if mode == "resume" and accumulate:
            raise ValueError(
                "`mode='resume'` does not predict the rows that are there, so `predict` can't "
                "return them; leave out `accumulate`. Received: accumulate=True"
            )
        if not (keep is None or callable(keep)):
            raise TypeError(f"`keep` must be a callable. Received: keep={keep!r}")
        if not commit_interval > 0:
            raise ValueError(
                f"`commit_interval` must be positive. Received: commit_interval={commit_interval}"
            )
        if queue_bytes < 0:
            raise ValueError(
                f"`queue_bytes` must not be negative. Received: queue_bytes={queue_bytes}"
            )
        self.path = os.fspath(path)
        self.mode = mode
        self.resume_check = resume_check
        self.accumulate: bool = mode != "resume" if accumulate is None else accumulate
        self.outputs = None if outputs is None else check_name_list("outputs", outputs)
        self.dtypes = {name: _check_dtype(name, dtype) for name, dtype in (dtypes or {}).items()}
        self.compression = check_compression(compression)
        self.ragged = check_ragged(ragged)
        self.keep = keep
        self._columns = RowColumns(ids, targets)
        self.id_key = self._columns.id_key  # which the tap takes out of each batch
        self.metadata = dict(metadata or {})
        self._metadata_json = to_json(self.metadata, "metadata")
        self.commit_interval = commit_interval
        self.fsync = fsync
        self.queue_bytes = queue_bytes
        self.verbose = verbose
        self.resuming = mode == "resume"
        self.async_safe = self.accumulate  # see `on_predict_batch_end`
        self.health: dict[str, float] = {}
        self._writer: BackgroundWriter | None = None
        self._known_ids: SkippedIds | None = None
        self._tap: PredictTap | None = None

    def on_predict_begin(self, logs: Any = None) -> None:
        """Checks the path, locks it and prepares to write."""
        self.close()
        model = self._model
        predict_loop.check_predict_loop(model)
        PredictFunctions.of(model).enter(self)
        try:
            self._begin(model)
        except BaseException:
            self.close()
            raise

    def _begin(self, model: keras.Model) -> None:
        self._close_earlier_writer()
        jax_state.forget_state(model)
        writer = PredictionFileWriter(
            self.path,
            mode=self.mode,
            dtypes=self.dtypes,
            compression=self.compression,
            ragged=self.ragged,
            fsync=self.fsync,
            resume_check=self.resume_check,
        )
        self._writer = BackgroundWriter(
            writer,
            to_arrays=functools.partial(rows_of, names=self.outputs, keep=self.keep),
            queue_bytes=self.queue_bytes,
            commit_interval=self.commit_interval,
            step_bytes=operator.attrgetter("nbytes") if self.ragged or self.keep else None,
        )
        # Not a method of ours: a finalizer must not keep alive what it is for.
        self._finalizer = weakref.finalize(self, self._writer.abandon)
        self._thread = threading.current_thread()
        _open_writers[writer.path] = self
        self._random_states = dict(random_states(model)) if self.resuming else {}
        self._variables = jax_state.state_variables(model)
        self._steps = 0
        self._batches_seen = 0
        self._rows_seen = 0
        self._rows_known = writer.state.data_rows - writer.state.first_data_row
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._columns.begin()
        has_row = {ROW} if self.keep else set()
        writer.declare_columns(self._columns.names | has_row, self._columns.id_width)
        self._known_ids = writer.skipped_ids()
        if writer.is_complete and model.built:
            self._describe(writer)
            writer.check_fingerprint()

    def _close_earlier_writer(self) -> None:
        """Closes a writer that an interrupted `predict` has left open on this path.

        Keras tells a callback nothing of Ctrl-C between steps, and a notebook keeps the callback.
        """
        earlier = _open_writers.get(Path(os.path.realpath(self.path)))
        if earlier is None or earlier._writer is None:
            return
        thread = earlier._thread
        is_of_another = thread is not threading.current_thread() and thread.is_alive()
        if not (is_of_another or predict_loop.is_predicting_with(earlier)):
            earlier.close()

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Taps the step that is about to run."""
        self._check_seen("called")
        # `self.model` would synchronize the whole state of the model on JAX.
        self._tap = PredictTap.arm(self._model, self._variables, self)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Does nothing: without it Keras hands each step's end to a pool of threads.

        On JAX and torch (keras-team/keras#20284), which costs more than a small step. Where there
        are `logs` to be converted (`accumulate=True`) the threads have their use, and
        `async_safe` leaves them on.
        """

    def knows_step(self, rows: int) -> bool:
        """Whether a step need not be computed for it; called by the tap, not by Keras.

        The step with the last known row is computed again, to see that it is the same, and the
        first one, too, if the file is complete.
        """
        assert self._writer is not None
        if self._writer.writer.is_complete:
            if not self.resume_check:
                return self._rows_seen + rows <= self._rows_known
            if self._rows_seen == 0:
                return False
        return self._rows_seen + rows < self._rows_known

    def before_step(self, batches: Sequence[Any]) -> None:
        """Checks the first batches; called by the tap, not by Keras."""
        if self._steps == 0:
            check_weights(batches, self._model)

    def on_step_skipped(self, rows: int, batches: Sequence[Any]) -> None:
        """Counts the rows of a step that was not computed; called by the tap, not by Keras."""
        if self._known_ids is not None:
            columns = self._columns.of_step(batches, self._rows_seen, rows, self._model)
            self._known_ids.check(np.asarray(columns[IDS]))
        else:
            self._columns.skip(rows)
        self._batches_seen += len(batches)
        self._rows_seen += rows

    def on_step_outputs(self, outputs: Any, rows: int | None, batches: Sequence[Any]) -> None:
        """Hands over the outputs of a step; called by the tap, not by Keras."""
        assert self._writer is not None
        writer = self._writer.writer
        if rows is None:
            rows = number_of_rows(outputs)
        if self.knows_step(rows):  # it was computed for another callback of this `predict`
            self.on_step_skipped(rows, batches)
            return
        if writer.is_complete and self._rows_seen + rows > self._rows_known:
            raise self.other_number_of_rows(f"at least {self._rows_seen + rows}")
        known = min(max(self._rows_known - self._rows_seen, 0), rows)
        first_row = writer.state.first_data_row + self._rows_seen
        columns = self._columns.of_step(batches, self._rows_seen, rows, self._model)
        if writer.is_complete and self._known_ids is not None:
            self._known_ids.check(np.asarray(columns[IDS]))
        task = None
        if self._steps == 0:
            task = self._describe(writer, None if self.keep else self._expected_rows(rows)).task
            if batches and not writer.caller.batch_size:
                writer.caller.batch_size = rows // len(batches)
        if known or writer.is_complete:
            writer.caller.why_values_differ = self._why_values_differ()
        stay = that_stay(outputs, None if self.keep else self.outputs)
        self._writer.append(
            Step(stay, columns, first_row, rows, task),
            rows if writer.is_complete else rows - known,
            known=functools.partial(rows_before, row=first_row + known) if self.keep else known,
        )
        self._batches_seen += len(batches)
        self._rows_seen += rows
        self._steps += 1

    def _why_values_differ(self) -> str:
        """Why the model may predict other values than before, as far as it shows."""
        layers = stateful_layers(self._model)
        if layers:
            return f"the outputs of this model depend on earlier batches, by the layers {layers}"
        before = self._random_states
        if any(state != before.get(of, state) for of, state in random_states(self._model)):
            return "this model draws random numbers in `predict`"
        return ""

    def other_number_of_rows(self, received: object) -> ValueError:
        """The error for data that have another number of rows than the complete file."""
        return ValueError(
            "`mode='resume'` of a complete file needs the data of the last `predict` into it; pass "
            "mode='w' to start over, mode='a' to add other data, or another path. Received: "
            f"{received} rows, with {self._rows_known} in the last `predict` into {self.path!r}"
        )

    def on_step_error(self) -> None:
        """Closes the file as it is; called by the tap, not by Keras."""
        self.close()

    def on_predict_end(self, logs: Any = None) -> None:
        """Closes the file, as a complete one unless the data had more batches than came."""
        assert self._writer is not None
        # Where the length of the data is unknown, the last tap waits for a step that never comes.
        self._check_seen("called", "armed")
        if self._writer.writer.is_complete:
            self._end_comparison()
            return
        if self._steps == 0 or self._rows_seen < self._rows_known:
            self.close()
            raise ValueError(
                "`predict` must be given at least one row, and under `mode='resume'` those that "
                "are in the file first: without them no outputs can be written. "
                f"Received: {self._rows_seen} rows, with {self._rows_known} in the file"
            )
        if not self._ended_early():
            self._finish()
        self.close()
        if self.verbose:
            health = self.health
            print(
                f"{self.path}: {health['rows']:,} rows, {health['bytes'] / 1e6:,.1f} MB in "
                f"{health['seconds']:,.1f} s ({health['rows_per_second']:,.0f} rows/s); the model "
                f"waited {health['stalled_seconds']:,.1f} s for the disk."
            )

    def _end_comparison(self) -> None:
        """Closes a file that was complete before, and says that it is the file of these rows."""
        assert self._writer is not None
        was_stopped = self._ended_early() and self._model.stop_predicting
        try:
            if not was_stopped:
                if self._rows_seen != self._rows_known:
                    raise self.other_number_of_rows(self._rows_seen)
                self._columns.check_end(self._rows_seen)
            self._writer.finish()
        finally:
            self.close()
        said = f"{self.path} is complete: {SAME_STEPS}."
        if was_stopped:
            said += f" The call was stopped after {self._rows_seen} of {self._rows_known} rows."
        logging.getLogger("kerasext").info(said)
        if self.verbose:
            print(said)

    def close(self) -> None:
        """Closes the file, which says that it is incomplete unless `predict` has ended.

        Safe to call again, and not needed after a `predict` that has ended.
        """
        tap, self._tap = self._tap, None
        writer, self._writer = self._writer, None
        known_ids, self._known_ids = self._known_ids, None
        if known_ids is not None:
            known_ids.close()
        if tap is not None:
            tap.disarm()
        if self._model is not None:
            PredictFunctions.of(self._model).leave(self)
        if writer is not None:
            jax_state.forget_state(self._model)
            self._finalizer.detach()
            try:
                writer.close()
            finally:
                self.health = writer.writer.state.health

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check_seen(self, *states: str) -> None:
        if self._tap is not None and self._tap.state not in states:
            _ = self.model  # on JAX it has its weights back: no tap has seen to that
            self.close()
            raise RuntimeError(
                "A step was computed that the writer could not see. Either another callback "
                "predicted with the same model in its `on_predict_batch_begin`; put it before the "
                "writer in `callbacks`. Or another thread made the model's predict function at "
                "that moment; call `compile` and `make_predict_function` before threads begin. "
                "The file holds the rows before that step, and is incomplete."
            )

    def _expected_rows(self, rows: int) -> int | None:
        batches = (self.params or {}).get("steps")
        return batches and math.ceil(batches / self._model.steps_per_execution) * rows

    def _finish(self) -> None:
        assert self._writer is not None
        try:
            self._columns.check_end(self._rows_seen)
        except ValueError:
            self.close()
            raise
        self._writer.finish()
        found = find_duplicate_ids(self._writer.writer.path) if IDS in self._columns.names else None
        if found is not None:
            self.close()  # before a warning that may be made an error
            warnings.warn(
                "`ids` should be unique, so that each row can be found by its id. "
                f"Received: {found.ids:,} ids in more than one row of {str(self.path)!r}, such "
                f"as {found.example!r} in the rows {found.rows[0]} and {found.rows[1]}",
                stacklevel=2,
            )

    def _ended_early(self) -> bool:
        """Whether fewer batches came than Keras was to take, or there may have been more.

        By their number where that is known. `stop_predicting` may by then be the answer to another
        thread, whose `predict` sets it to `False` when it begins.
        """
        batches = (self.params or {}).get("steps")
        if batches is not None:
            return bool(self._batches_seen < batches)
        if keras.backend.backend() == "torch":  # which knows before the step that there is none
            return bool(self._model.stop_predicting)
        tap = self._tap
        return not (tap is None or tap.state == "armed" or tap.found_no_data)

    def _describe(
        self, writer: PredictionFileWriter, expected_rows: int | None = None
    ) -> ModelDescription:
        description = describe(self._model)
        own = {"started": self._started, "metadata": self._metadata_json}
        writer.set_description(
            {**description.attributes, **own}, description.class_names, expected_rows
        )
        return description


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
