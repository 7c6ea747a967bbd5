"""Time of `predict` with the writer against plain `predict`, 200,000 small rows.

Plain `predict` keeps the results in memory and nothing on disk.

    python benchmarks/many_rows.py
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from measure import alternate, machine, ratio, rounded

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

ROWS, BATCH_SIZE, RUNS = 200_000, 256, 7

rows = np.random.default_rng(0).normal(size=(ROWS, 32)).astype("float32")
inputs = keras.Input((32,))
hidden = keras.layers.Dense(64, activation="relu")(inputs)
outputs = keras.layers.Dense(10, activation="softmax")(hidden)
folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"

print(machine())
models = {
    "one output": keras.Model(inputs, outputs),
    "ClassifierModel": ClassifierModel(inputs, outputs),
}
for name, model in models.items():

    def plain(model=model):
        """Predicts as without the library."""
        model.predict(rows, batch_size=BATCH_SIZE, verbose=0)

    def writer(model=model):
        """Predicts into a file, nothing kept in memory."""
        callback = HDF5PredictionWriter(path, mode="w", accumulate=False)
        model.predict(rows, batch_size=BATCH_SIZE, verbose=0, callbacks=[callback])

    seconds = alternate(RUNS, plain=plain, writer=writer)
    print(
        f"{name}: writer / plain predict {ratio(seconds, 'writer', 'plain'):.2f}, median of {RUNS} "
        f"alternating runs; seconds: {rounded(seconds)}"
    )
