"""Memory and time of predicting 2,048 rows of 100,000 float32 (780 MiB) and keeping them.

Compares `predict` followed by one h5py write with `predict` that writes as it goes. Memory is taken
in a process of its own for each.

    python benchmarks/wide_outputs.py
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import keras
import numpy as np
from measure import alternate, machine, peak_growth, ratio, rounded

from kerasext.callbacks import HDF5PredictionWriter

ROWS, WIDTH, RUNS = 2048, 100_000, 9

rows = np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(WIDTH)])
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def remove():
    """Makes room: replacing a large file takes long, and is no part of the job."""
    path.unlink(missing_ok=True)


def predict_only():
    """Keeps nothing on disk."""
    model.predict(rows, verbose=0)


def predict_then_save():
    """What people write today."""
    predictions = model.predict(rows, verbose=0)
    with h5py.File(path, "w") as file:
        file["predictions"] = predictions


def writer():
    """The same values in a file, none of them kept in memory."""
    callback = HDF5PredictionWriter(path, accumulate=False)
    model.predict(rows, verbose=0, callbacks=[callback])


def raw_writes():
    """The least that it can take: the model, and plain writes that the disk is waited for."""
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

if len(sys.argv) > 1:
    model.predict(rows[:64], verbose=0)
    print(peak_growth(VARIANTS[sys.argv[1]]))
else:
    print(machine())
    for name in VARIANTS:
        command = [sys.executable, __file__, name]
        growth = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"{name}: resident memory grows by {float(growth):,.0f} MiB")
    seconds = alternate(
        RUNS,
        remove,
        predict_then_save=predict_then_save,
        writer=writer,
        raw_writes=raw_writes,
    )
    for name in ("writer", "raw_writes"):
        print(f"{name} / predict_then_save: {ratio(seconds, name, 'predict_then_save'):.2f}")
    print(f"medians of {RUNS} alternating runs; seconds: {rounded(seconds)}")
