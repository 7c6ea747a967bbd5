"""A whole job in one call: rows in, a prediction file out."""

from __future__ import annotations

import contextlib
import logging
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
from kerasext.inference.array_job import ArrayJob, check_batch_size
from kerasext.inference.batch_size_trials import SIZES
from kerasext.inference.id_column import take_ids
from kerasext.inference.own_predict import OwnPredictWriter, write_own_predict
from kerasext.inference.row_slices import RowSlices, can_slice, count_rows
from kerasext.keras_internals import (
    SlicesAdapter,
    check_model,
    columns_as_inputs,
    fixed_batch_size,
    listed,
    own_methods,
    predict_loop,
    predicting_alone,
    shuffles_its_file_paths,
    weights_kept,
)
from kerasext.models import warn_if_stale
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

    Arrays are predicted in a loop of kerasext's own, which costs less than Keras's: batches are
    slices of `x`, which is not copied as a whole; one thread reads ahead, one writes, and two
    compute where a step changes no state of the model. The values are those of `predict` with the
    same batches and the same `jit_compile`, bit for bit. Callbacks, the progress bar and
    `stop_predicting` work as in `predict`; a callback's hooks for batches make steps wait for each
    other. If memory runs out, the job continues with half the batch size, from the row where it
    happened. Under `keras.distribution` the last batch is padded with copies of its last row, and
    the padding is dropped.

    Keras's `predict` takes the steps of other data, such as `tf.data`; of models with a `predict`
    or `make_predict_function` of their own, or under a `tf.distribute` strategy; and of jobs with
    another `HDF5PredictionWriter` among the callbacks. The logger `kerasext` says so at level INFO,
    and `verbose=2` prints it. There `"auto"` is 32, and lack of memory is an error.

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
            predictions are kept. A model is tuned once in a process for rows of the same shape, by
            this function or `tune_batch_size`. Inputs with a `batch_shape`, and stateful layers,
            fix the size; the last batch is then padded. Defaults to `"auto"`.
        steps: Int. Number of batches of a generator or dataset without an end. Not for arrays.
        jit_compile: Bool, `None` or `"tune"`. Whether XLA compiles the steps of arrays; on torch
            `torch.compile` does. It can double the speed of a model or halve it, takes seconds to
            compile, and changes values in their last bits. `"tune"` measures both on the first
            rows if the job takes more than about 5 seconds. `origin` of the file has the result,
            and `mode="resume"` keeps it. Defaults to `None`, which keeps what the file has, or what
            Keras chose for the model: off on a CPU with TensorFlow, on with a GPU and on JAX.
        verbose: As for `model.predict`: `"auto"` or 1 for a progress bar, 0 for silence.
        callbacks: Further callback, or list of them.
        **options: `mode`, `outputs`, `ids`, `keep` and all other options of
            `HDF5PredictionWriter` but `accumulate`. `ids` may also be the name of a column of a
            data frame. `targets=True` needs data that yield `(x, y)`; for arrays pass the targets.

    Returns:
        The file, open as a `PredictionFile`; to be closed, or used in a `with` statement. It is
        incomplete if a callback has stopped the job.

    Raises:
        TypeError: If the arguments are in another order, the model is no `keras.Model`, or has a
            `predict` of its own that does not take `callbacks`; if Keras does not know the dtype of
            a column of a data frame.
        ValueError: If an argument is out of range, `steps` or a batch size is given for data that
            it does not fit, `mode="resume"` can't keep the `jit_compile` of the file, arrays are of
            different lengths, `ids` are the `file_paths` of
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
    _check_choices(batch_size, jit_compile)
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
    why_keras = _why_keras_must_predict(model, x, others)
    if not why_keras:
        _check_options_of_arrays(steps, options)
        warn_if_stale(model)
        _predict_arrays(
            model,
            x,
            path,
            options,
            batch_size=size,
            jit_compile=jit_compile,
            verbose=verbose,
            callbacks=others,
        )
        return PredictionFile(path)
    if jit_compile is not None:
        raise ValueError(
            "`jit_compile` is for steps that kerasext compiles; pass it to `model.compile` if "
            f"Keras compiles them. Received: jit_compile={jit_compile!r}, and {why_keras}"
        )
    _tell(f"Keras's own `predict` writes {os.fspath(path)}: {why_keras}.", verbose)
    arguments: dict[str, Any] = {
        "batch_size": size,
        "steps": steps,
        "verbose": verbose,
        "callbacks": others,
    }
    if own_methods(model, "predict"):
        write_own_predict(OwnPredictWriter(path, **options), model, x, **arguments)
    else:
        _predict_with_keras(model, x, path, options, **arguments)
    return PredictionFile(path)


def _predict_arrays(
    model: keras.Model,
    x: Any,
    path: str | os.PathLike[str],
    options: WriterOptions,
    *,
    batch_size: int | None,
    jit_compile: bool | Literal["tune"] | None,
    verbose: int | str,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Predicts arrays in a loop of our own."""
    rows = count_rows(x)
    checked = CheckedOptions(**options)
    columns = RowColumns(checked.ids, checked.targets)
    columns.check_lengths(rows)
    if batch_size is not None:
        check_batch_size(model, batch_size)
    monitors = [callback for callback in callbacks if isinstance(callback, PredictionMonitor)]
    others = [callback for callback in callbacks if callback not in monitors]
    with predicting_alone(model):
        run = PredictionRun(path, model, checked, columns, rows=rows)
        job = ArrayJob(model, x, rows, run, jit_compile=jit_compile, monitors=monitors)
        job.predict(batch_size, verbose=verbose, callbacks=others)


def _predict_with_keras(
    model: keras.Model,
    x: Any,
    path: str | os.PathLike[str],
    options: WriterOptions,
    *,
    callbacks: Sequence[keras.callbacks.Callback],
    **arguments: Any,
) -> None:
    """Calls Keras's `predict` with a writer, and with slices of arrays where it takes them."""
    writer = HDF5PredictionWriter(path, accumulate=False, **options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(predicting_alone(model))
        stack.enter_context(weights_kept(model))
        stack.enter_context(writer)
        if can_slice(x):
            _check_options_of_arrays(arguments["steps"], options)
            if SlicesAdapter.is_known and predict_loop.strategy(model) is None:
                size = arguments.pop("batch_size") or fixed_batch_size(model) or SIZES[0]
                x = SlicesAdapter(stack.enter_context(contextlib.closing(RowSlices(x, size))))
        model.predict(x, callbacks=[*callbacks, writer], **arguments)


def _why_keras_must_predict(
    model: keras.Model, x: Any, callbacks: Sequence[keras.callbacks.Callback]
) -> str:
    """Why Keras's loop has to take the steps, and not the one for arrays; empty if it need not."""
    own = own_methods(model, "predict")
    if own:
        return f"the model has {listed(own)}"
    if not can_slice(x):
        return f"the data is no array, but of type {type(x).__name__}"
    if any(isinstance(callback, HDF5PredictionWriter) for callback in callbacks):
        return "another `HDF5PredictionWriter` sees its steps"
    return predict_loop.why_keras_must_predict(model)


def _tell(said: str, verbose: int | str) -> None:
    logging.getLogger("kerasext").info(said)
    if verbose == 2:
        print(said)


def _check_options_of_arrays(steps: int | None, options: WriterOptions) -> None:
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


def _check_choices(batch_size: Any, jit_compile: Any) -> None:
    if batch_size != "auto":
        if isinstance(batch_size, bool | str) or not isinstance(batch_size, int | np.integer):
            raise ValueError(
                f"`batch_size` must be an int or 'auto'. Received: batch_size={batch_size!r}"
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be positive. Received: batch_size={batch_size}")
    if jit_compile not in (None, True, False, "tune"):
        raise ValueError(
            f"`jit_compile` must be a bool, None or 'tune'. Received: jit_compile={jit_compile!r}"
        )


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
