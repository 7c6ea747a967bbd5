"""A whole job in one call: rows in, a prediction file out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any, Literal, Unpack

import keras
import numpy as np

from kerasext.callbacks import (
    CheckedOptions,
    HDF5PredictionWriter,
    PredictionMonitor,
    PredictionRun,
    RowColumns,
    WriterOptions,
    takes_writer_options,
)
from kerasext.inference.array_job import ArrayJob
from kerasext.inference.id_column import take_ids
from kerasext.inference.own_predict import OwnPredictWriter, write_own_predict
from kerasext.inference.row_slices import can_slice, count_rows
from kerasext.keras_internals import (
    check_model,
    columns_as_inputs,
    own_methods,
    predict_loop,
    predicting_alone,
    shuffles_its_file_paths,
    weights_kept,
)
from kerasext.storage import PredictionFile


@takes_writer_options
def predict_to_hdf5(
    model: keras.Model,
    x: Any,
    path: str | os.PathLike[str],
    *,
    batch_size: int | Literal["auto"] = "auto",
    steps: int | None = None,
    jit_compile: bool | Literal["tune"] | None = None,
    verbose: int | str = "auto",
    callbacks: keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None = None,
    **options: Unpack[WriterOptions],
) -> PredictionFile:
    """Predicts all rows of `x` into one HDF5 file, in constant memory.

    Calls Keras's `predict` with a writer. Arrays do not go through Keras's input pipeline: batches
    are slices of `x`, which is not copied as a whole, and a thread reads ahead from disk. Several
    small batches go into one step (`steps_per_execution`). Under `keras.distribution` the last
    batch is padded with copies of its last row, and the padding is dropped. If memory runs out,
    arrays continue with half the batch size, from the row where it happened. Other data, such as
    `tf.data`, and models under a `tf.distribute` strategy go to `predict` unchanged.

    A model with a `predict` method of its own gets `x` unchanged, through that method. The file
    holds the outputs of Keras's `predict` that it calls, and ids and targets belong to the rows in
    the order in which they arrive there. `"auto"` leaves the batch size to the method, and memory
    is what the method takes.

    Under `mode="resume"` arrays start with the batch of the last committed row, at the stored batch
    size unless another one is given. On a complete file, the first and the last batch are predicted
    again and compared. The number of rows and all ids are compared, too.

    On TensorFlow and torch several threads may call it with one model; no thread sees changes of
    another. On JAX a second thread raises `RuntimeError`.

    Args:
        model: The model.
        x: Data as `model.predict` takes it; best NumPy arrays, memory maps, datasets of an open
            h5py file, or pandas, or dicts and lists of them. On TensorFlow text may have any of
            NumPy's dtypes. A model with a graph and several named inputs takes them from the
            columns of a data frame. Arrays without rows make a complete file without rows; the
            model then predicts zeros, to find out the outputs.
        path: String or path-like. The file to write.
        batch_size: Int, or `"auto"` to measure a good size on the first rows of arrays, whose
            predictions are kept. A job of a few seconds is not tuned and uses 32. A model is tuned
            once in a process for rows of the same shape, by this function or `tune_batch_size`.
            Inputs with a `batch_shape`, and stateful layers, fix the size; the last batch is then
            padded. Defaults to `"auto"`.
        steps: Int. Number of batches of a generator or dataset without an end. Not for arrays.
        mode: As for `HDF5PredictionWriter`, and so are all of the following but the last two.
        resume_check: As above.
        outputs: As above.
        dtypes: As above.
        compression: As above.
        ragged: As above.
        ids: As above. The name of a key of a dict of arrays, or of a column of a data frame, is
            taken out of `x` before Keras sees it.
        targets: As above. `True` needs data that yield `(x, y)`; for arrays pass the targets.
        keep: As above.
        metadata: As above.
        commit_interval: As above.
        fsync: As above.
        queue_bytes: As above.
        verbose: As for `model.predict`: `"auto"` or 1 for a progress bar, 0 for silence.
        callbacks: Further callback, or list of them.

    Returns:
        The file, open as a `PredictionFile`; to be closed, or used in a `with` statement. It is
        incomplete if a callback has stopped the job.

    Raises:
        TypeError: If the arguments are in another order, the model is no `keras.Model`, or has a
            `predict` of its own that does not take `callbacks`; if Keras does not know the dtype of
            a column of a data frame.
        ValueError: If an argument is out of range, `steps` or a batch size is given for data that
            it does not fit, arrays are of different lengths, `ids` are the `file_paths` of
            a data set that shuffles, or the model does not take the rows; if the model's own
            `predict` does not hand `callbacks` to Keras's, calls that more than once, or returns
            something else than it does. See `HDF5PredictionWriter` for further errors.

    Example:

    ```python
    with h5py.File("images.h5") as images:  # larger than memory
        predictions = predict_to_hdf5(model, images["test"], "predictions.h5", mode="resume")
    predictions["labels"][:10]
    ```
    """
    _check_order(model, x, path)
    if batch_size != "auto" and (
        isinstance(batch_size, bool | str) or not isinstance(batch_size, int | np.integer)
    ):
        raise ValueError(
            f"`batch_size` must be an int or 'auto'. Received: batch_size={batch_size!r}"
        )
    if batch_size != "auto" and batch_size < 1:
        raise ValueError(f"`batch_size` must be positive. Received: batch_size={batch_size}")
    others = list(keras.tree.flatten(callbacks)) if callbacks is not None else []
    size = None if batch_size == "auto" else int(batch_size)
    ids = options.get("ids")
    if isinstance(ids, str):
        x, ids = take_ids(model, x, ids)
    x = columns_as_inputs(model, x)
    if shuffles_its_file_paths(x, ids):
        raise ValueError(
            "`ids` must be in the order of the rows, and this data set shuffles the files that "
            "`file_paths` lists; make it with `image_dataset_from_directory(..., shuffle=False)`. "
            "Received: the file_paths of a data set that shuffles"
        )
    options["ids"] = ids
    if own_methods(model, "predict"):
        given = {
            "batch_size": size,
            "steps": steps,
            "verbose": None if verbose == "auto" else verbose,
        }
        given = {name: value for name, value in given.items() if value is not None}
        own_writer = OwnPredictWriter(path, **options)
        write_own_predict(own_writer, model, x, callbacks=others, **given)
        return PredictionFile(path)
    if not can_slice(x) or predict_loop.strategy(model) is not None:
        writer = HDF5PredictionWriter(path, accumulate=False, **options)
        with predicting_alone(model), weights_kept(model), writer:
            model.predict(x, size, verbose=verbose, steps=steps, callbacks=[*others, writer])
        return PredictionFile(path)
    if steps is not None:
        raise ValueError(
            "`steps` is for data without an end; take the rows of arrays that are to be predicted, "
            f"x[:rows]. Received: steps={steps}"
        )
    if options.get("targets") is True:
        raise ValueError(
            "`targets=True` takes the y of data that yields (x, y); pass an array in the order of "
            "the rows, targets=y. Received: targets=True for arrays"
        )
    rows = count_rows(x)
    # One job for them, too, and not as many as it takes calls of `predict`.
    monitors = [callback for callback in others if isinstance(callback, PredictionMonitor)]
    others = [callback for callback in others if callback not in monitors]
    checked = CheckedOptions(**options)
    columns = RowColumns(checked.ids, checked.targets)
    columns.check_lengths(rows)
    with predicting_alone(model):
        run = PredictionRun(path, model, checked, columns, rows=rows)
        with contextlib.closing(run):
            job = ArrayJob(
                model, x, rows, run, jit_compile=bool(model.jit_compile), monitors=monitors
            )
            job.predict(size, verbose=verbose, callbacks=others)
    return PredictionFile(path)


def _check_order(model: Any, x: Any, path: Any) -> None:
    is_path = isinstance(path, str | os.PathLike)
    if not is_path or isinstance(x, keras.Model):
        received = {"model": model, "x": x, "path": path}
        raise TypeError(
            "The arguments must be a model, its data and the path of the file, in this order: "
            "`predict_to_hdf5(model, x, 'predictions.h5')`. Received: "
            + ", ".join(
                f"{name} of type {type(value).__name__}" for name, value in received.items()
            )
        )
    check_model(model)
