"""The callback that writes what `model.predict` computes."""

from __future__ import annotations

import os
from typing import Any, Self, Unpack

from kerasext.callbacks.predict_callback import PredictCallback
from kerasext.callbacks.prediction_run import PredictionRun
from kerasext.callbacks.row_columns import RowColumns
from kerasext.callbacks.writer_options import (
    CheckedOptions,
    WriterOptions,
    takes_writer_options,
)
from kerasext.keras_internals import StepTaps


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

    @takes_writer_options
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        accumulate: bool | None = None,
        verbose: int = 0,
        **options: Unpack[WriterOptions],
    ) -> None:
        super().__init__()
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                "`path` must be a string or path-like. "
                f"Received: path of type {type(path).__name__}"
            )
        self._options = CheckedOptions(**options)
        self.path = os.fspath(path)
        self.mode = self._options.mode
        if self.mode == "resume" and accumulate:
            raise ValueError(
                "`mode='resume'` does not predict the rows that are there, so `predict` can't "
                "return them; leave out `accumulate`. Received: accumulate=True"
            )
        self.accumulate: bool = self.mode != "resume" if accumulate is None else accumulate
        self.verbose = verbose
        self.async_safe = self.accumulate  # see `on_predict_batch_end`
        self.health: dict[str, float] = {}
        self._columns = RowColumns(self._options.ids, self._options.targets)
        self._run: PredictionRun | None = None
        self._taps: StepTaps | None = None

    def on_predict_begin(self, logs: Any = None) -> None:
        """Checks the path, locks it and prepares to write."""
        self.close()
        model = self._model
        try:
            self._taps = StepTaps(model, accumulate=self.accumulate, id_key=self._columns.id_key)
            self._run = PredictionRun(
                self.path,
                model,
                self._options,
                self._columns,
                batches=(self.params or {}).get("steps"),
                callback=self,
            )
            jit_compile = bool(model.jit_compile and not model.run_eagerly)
            self._run.use_jit_compile(jit_compile, "pass it to `model.compile`")
        except BaseException:
            self.close()
            raise

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Taps the step that is about to run."""
        assert self._taps is not None
        assert self._run is not None
        try:
            self._taps.tap_next(self._run)
        except RuntimeError:
            self.close()
            raise

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        """Does nothing: without it Keras hands each step's end to a pool of threads.

        On JAX and torch (keras-team/keras#20284), which costs more than a small step. Where there
        are `logs` to be converted (`accumulate=True`) the threads have their use, and
        `async_safe` leaves them on.
        """

    def on_predict_end(self, logs: Any = None) -> None:
        """Closes the file, as a complete one unless the data had more batches than came."""
        assert self._taps is not None
        assert self._run is not None
        try:
            self._taps.check_end()
            said = self._run.end(is_whole=self._taps.has_seen_the_end())
        finally:
            self.close()
        if self.verbose:
            print(said)

    def close(self) -> None:
        """Closes the file, which says that it is incomplete unless `predict` has ended.

        Safe to call again, and not needed after a `predict` that has ended.
        """
        taps, self._taps = self._taps, None
        run, self._run = self._run, None
        if taps is not None:
            taps.close()
        if run is not None:
            try:
                run.close()
            finally:
                self.health = run.health

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
