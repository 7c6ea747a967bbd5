"""Time of `predict` with the writer against plain `predict`, many small rows.

Plain `predict` keeps the results in memory and nothing on disk; with the writer they are on disk
and not in memory.

    python benchmarks/many_rows.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from measure import Figure, alternate, amount, machine, ratio, show

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

RUNS = amount(9, smallest=1)
ROWS, FEWER_ROWS = amount(200_000, smallest=1000), amount(100_000, smallest=1000)
# rows, classes, batch size, with the mixin
CASES = [
    (ROWS, 10, 256, False),
    (ROWS, 10, 256, True),
    (FEWER_ROWS, 10, 32, True),
    (FEWER_ROWS, 1000, 256, True),
]

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def figures() -> Iterator[Figure]:
    """Measures."""
    for count, classes, batch_size, mixin in CASES:
        rows = np.random.default_rng(0).normal(size=(count, 32)).astype("float32")
        inputs = keras.Input((32,))
        hidden = keras.layers.Dense(64, activation="relu")(inputs)
        outputs = keras.layers.Dense(classes, activation="softmax")(hidden)
        model = (ClassifierModel if mixin else keras.Model)(inputs, outputs)

        def plain(model=model, rows=rows, batch_size=batch_size):
            """Predicts as without the library."""
            model.predict(rows, batch_size=batch_size, verbose=0)

        def writer(model=model, rows=rows, batch_size=batch_size):
            """Predicts into a file, nothing kept in memory."""
            callback = HDF5PredictionWriter(path, mode="w", accumulate=False)
            model.predict(rows, batch_size=batch_size, verbose=0, callbacks=[callback])

        seconds = alternate(RUNS, plain=plain, writer=writer)
        case = f"{count:,} rows, {classes} classes, batch {batch_size}"
        case += ", with the mixin" if mixin else ", one output"
        value = ratio(seconds, "writer", "plain")
        yield Figure(f"{case}: time with the writer", value, "of plain predict", runs=seconds)


if __name__ == "__main__":
    print(machine())
    show(figures())
