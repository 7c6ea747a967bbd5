"""The batch size at which a model is fastest, and how it was measured."""

from __future__ import annotations

import sys
import time
import weakref
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kerasext.callbacks import by_name, to_rows
from kerasext.inference.array_loop import LoopThreads, predict_slices
from kerasext.inference.batch_size_trials import SIZES, Trial, Trials
from kerasext.inference.row_slices import RowSlices, count_rows
from kerasext.keras_internals import (
    check_model,
    columns_as_inputs,
    fixed_batch_size,
    job_step,
    listed,
    own_methods,
    predict_loop,
    predicting_alone,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

# Of the input of the largest batch that is tried; up to 128 rows may have eight times as much, for
# large images are not worth less to an accelerator.
_BATCH_BYTES = 16 * 1024 * 1024
_FEW_ROWS = 128
_TIMED_SECONDS = 0.1  # long enough to tell sizes apart, on a machine that does other things too

_known: weakref.WeakKeyDictionary[keras.Model, dict[tuple[Any, ...], tuple[int, int]]] = (
    weakref.WeakKeyDictionary()
)


class TunedBatchSize:
    """The result of `tune_batch_size`.

    Attributes:
        batch_size: Int. The smallest batch size within 5 % of the best rate.
        table: List of named tuples with `batch_size`, `rows_per_second` and more, one for each
            trial. `rich.print` of this object shows it.
    """

    def __init__(self, batch_size: int, table: list[Trial]) -> None:
        self.batch_size = batch_size
        self.table = table

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws rows per second over batch size; needs matplotlib.

        Args:
            ax: Axes of matplotlib to draw on. Defaults to new ones.

        Returns:
            The axes.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        if ax is None:
            from matplotlib import pyplot  # noqa: PLC0415 - an extra

            ax = pyplot.subplots()[1]
        sizes = [trial.batch_size for trial in self.table]
        ax.plot(sizes, [trial.rows_per_second for trial in self.table], marker="o")
        ax.axvline(self.batch_size, linestyle=":", color="gray")
        ax.set(xscale="log", xlabel="batch size", ylabel="rows per second", ylim=(0, None))
        ax.set_xticks(sizes, labels=map(str, sizes))
        ax.minorticks_off()
        return ax

    def __rich__(self) -> Table:
        from rich.table import Table  # noqa: PLC0415 - takes a while to load

        table = Table("batch size", "rows/s", "first batch, s", title="tune_batch_size")
        for column in table.columns:
            column.justify = "right"
        for trial in self.table:
            table.add_row(
                f"{trial.batch_size:,}",
                f"{trial.rows_per_second:,.0f}",
                f"{trial.first_seconds:.2f}",
                style="bold" if trial.batch_size == self.batch_size else None,
            )
        return table

    def __repr__(self) -> str:
        return f"<TunedBatchSize {self.batch_size}, of {len(self.table)} sizes tried>"


def tune_batch_size(
    model: keras.Model, x: Any, *, max_batch_size: int = SIZES[-1], max_seconds: float = 10.0
) -> TunedBatchSize:
    """Finds the batch size at which a model predicts the most rows per second.

    Predicts rows of `x` at batch sizes from 32 to 131,072, each four times the last, until two in a
    row are slower than the best, or memory runs out. `predict_to_hdf5` then uses the size that was
    found for this model.

    Args:
        model: The model.
        x: Array, or dicts, lists and tuples of arrays, with rows as `predict` takes them. At least
            128 rows, and four times as many as the largest size to try.
        max_batch_size: Int. Largest size to try. Sizes above 32 are limited to batches of 16 MiB
            of input; up to 128 rows, a batch may have 128 MiB.
        max_seconds: Float. Seconds after which no further size is tried.

    Returns:
        `TunedBatchSize`, with the attributes `batch_size` and `table`.

    Raises:
        TypeError: If the model is no `keras.Model`, or only Keras's or its own `predict` can
            predict with it: it or its class has a `predict` or `make_predict_function` of its own,
            or it belongs to a `tf.distribute` strategy.
        ValueError: If `x` is no array, has too few rows, or an argument is not positive; if the
            model takes batches of one size only.
        RuntimeError: On JAX, if another thread writes predictions of the model.

    Example:

    ```python
    tuned = tune_batch_size(model, images)
    rich.print(tuned)
    model.predict(images, batch_size=tuned.batch_size)
    ```
    """
    check_model(model)
    own = own_methods(model, "predict")
    if own:
        raise TypeError(
            "`tune_batch_size` can't measure a model with a `predict` of its own, which takes no "
            "batches cut by kerasext; time `model.predict(x, batch_size=...)` at some sizes. "
            f"Received: model={model!r} with {listed(own)}"
        )
    reason = predict_loop.why_keras_must_predict(model)
    if reason:
        raise TypeError(
            "`tune_batch_size` can measure only models that kerasext's own loop can predict with; "
            f"time `model.predict(x, batch_size=...)` at some sizes. Received: {reason}"
        )
    fixed = fixed_batch_size(model)
    if fixed is not None:
        raise ValueError(
            "`tune_batch_size` is for models that take batches of any size; predict with "
            f"batch_size={fixed}, which the inputs or the state of this model have. "
            f"Received: model={model!r}"
        )
    x = columns_as_inputs(model, x)
    rows = count_rows(x)
    if max_batch_size < 1 or not max_seconds > 0:
        raise ValueError(
            "`max_batch_size` and `max_seconds` must be positive. "
            f"Received: max_batch_size={max_batch_size}, max_seconds={max_seconds}"
        )
    if rows < 4 * SIZES[0]:
        raise ValueError(
            f"`x` must have at least {4 * SIZES[0]} rows to measure with. Received: {rows} rows"
        )

    threads = LoopThreads()
    step = job_step(model, jit_compile=bool(model.jit_compile))

    def predict(count: int, size: int) -> None:
        # From the first row on, again and again: nothing is kept.
        for start in range(0, count, rows // size * size):
            count_now = min(count - start, rows // size * size)
            part = RowSlices(x, size, rows=count_now, reader=threads.reader)
            predict_slices(model, part, step, fetch, threads)

    until = time.perf_counter() + max_seconds
    largest = min(max_batch_size, largest_batch(x), rows // 4)
    trials = Trials(predict, sys.maxsize, largest, seconds=_TIMED_SECONDS)
    with predicting_alone(model), threads:
        trials.run(lambda _: time.perf_counter() < until)
    tuned = TunedBatchSize(trials.best.batch_size, trials.trials)
    remember(model, x, tuned.batch_size)
    return tuned


def fetch(outputs: Any, _: int) -> None:
    """Waits for outputs, as for those that are written."""
    for output in by_name(outputs).values():
        to_rows("", output)


def largest_batch(x: Any) -> int:
    """Rows of the largest batch that is tried."""
    row_bytes = sum(row.nbytes for row in _first_rows(x))
    rows = _BATCH_BYTES // max(row_bytes, 1)
    return max(rows, min(8 * rows, _FEW_ROWS))


def remember(model: keras.Model, x: Any, batch_size: int, *, up_to: int = sys.maxsize) -> None:
    """Keeps the best batch size of a model for such rows until the process or the model ends.

    Args:
        model: The model.
        x: Rows.
        batch_size: Int. The size.
        up_to: Int. Rows of the largest job for which it is the best, where more rows might have
            shown that a larger one is. Defaults to jobs of any size.
    """
    _known.setdefault(model, {})[_signature(x)] = batch_size, up_to


def remembered(model: keras.Model, x: Any, rows: int) -> int | None:
    """The batch size that was found for a model and a job of so many such rows, if any."""
    batch_size, up_to = _known.get(model, {}).get(_signature(x), (None, 0))
    return batch_size if rows <= up_to else None


def _signature(x: Any) -> tuple[Any, ...]:
    return tuple((row.shape, row.dtype) for row in _first_rows(x))


def _first_rows(x: Any) -> list[np.ndarray]:
    return [np.asarray(array[:1]) for array in keras.tree.flatten(x)]
