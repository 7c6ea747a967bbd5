"""Time of `predict` with the writer and a monitor against the same without the monitor.

python benchmarks/monitor.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
from measure import Figure, alternate, amount, machine, ratio, show

from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor
from kerasext.models import ClassifierModel

RUNS = amount(21, smallest=1)
CLASSES = 10
# rows, batch size
CASES = [(amount(20_000, smallest=1000), 32), (amount(100_000, smallest=1000), 512)]

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def figures() -> Iterator[Figure]:
    """Measures."""
    inputs = keras.Input((32,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = ClassifierModel(inputs, keras.layers.Dense(CLASSES, activation="softmax")(hidden))
    for count, batch_size in CASES:
        rows = np.random.default_rng(0).normal(size=(count, 32)).astype("float32")

        def writer(*monitors, rows=rows, batch_size=batch_size):
            """Predicts into a file, nothing kept in memory."""
            callback = HDF5PredictionWriter(path, mode="w", accumulate=False)
            options = {"batch_size": batch_size, "verbose": 0}
            model.predict(rows, callbacks=[*monitors, callback], **options)

        # `again` is what two of the same differ by.
        seconds = alternate(
            RUNS,
            writer=writer,
            again=writer,
            monitored=lambda writer=writer: writer(PredictionMonitor()),
        )
        case = f"{count:,} rows, {CLASSES} classes, batch {batch_size}: time with the writer"
        for name, what in (("again", ""), ("monitored", " and a monitor")):
            value = ratio(seconds, name, "writer")
            yield Figure(f"{case}{what}", value, "of the writer alone", runs=seconds)


if __name__ == "__main__":
    print(machine())
    show(figures())
