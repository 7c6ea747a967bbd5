"""Memory and time of predicting 2,048 rows of 100,000 float32 (780 MiB) and keeping them.

Compares `predict` followed by one h5py write with `predict` that writes as it goes. Memory is taken
in a process of its own for each.

    python benchmarks/wide_outputs.py
"""

import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from measure import Figure, alternate, amount, in_own_process, machine, peak_growth, ratio, show

from kerasext.callbacks import HDF5PredictionWriter

ROWS, WIDTH, RUNS = amount(2048, smallest=64), 100_000, amount(9, smallest=1)

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


@functools.cache
def job():
    """The model and its rows."""
    rows = np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(WIDTH)]), rows


def remove():
    """Makes room: replacing a large file takes long, and is no part of the job."""
    path.unlink(missing_ok=True)


def predict_only():
    """Keeps nothing on disk."""
    model, rows = job()
    model.predict(rows, verbose=0)


def predict_then_save():
    """What people write today."""
    model, rows = job()
    predictions = model.predict(rows, verbose=0)
    with h5py.File(path, "w") as file:
        file["predictions"] = predictions


def writer():
    """The same values in a file, none of them kept in memory."""
    model, rows = job()
    callback = HDF5PredictionWriter(path, accumulate=False)
    model.predict(rows, verbose=0, callbacks=[callback])


def raw_writes():
    """The least that it can take: the model, and plain writes that the disk is waited for."""
    model, rows = job()
    with path.open("wb") as file:
        for start in range(0, ROWS, 32):
            file.write(np.asarray(model.predict_on_batch(rows[start : start + 32])))
        file.flush()
        os.fsync(file.fileno())


VARIANTS = {
    "predict_only": predict_only,
    "predict_then_save": predict_then_save,
    "writer": writer,
}
# Those whose memory is measured. Each starts a process, which loads TensorFlow.
MEMORY_VARIANTS = list(VARIANTS)[-amount(3, smallest=1) :]


def figures() -> Iterator[Figure]:
    """Measures."""
    for name in MEMORY_VARIANTS:
        grown = in_own_process(__file__, name)
        yield Figure(f"{name}: resident memory grows", grown, "MiB")
    variants = {**VARIANTS, "raw_writes": raw_writes}
    del variants["predict_only"]
    seconds = alternate(RUNS, remove, **variants)
    for name in ("writer", "raw_writes"):
        value = ratio(seconds, name, "predict_then_save")
        yield Figure(f"{name}: time", value, "of predict_then_save", runs=seconds)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        model, rows = job()
        model.predict(rows[:64], verbose=0)
        print(peak_growth(VARIANTS[sys.argv[1]]))
    else:
        print(machine())
        show(figures())
