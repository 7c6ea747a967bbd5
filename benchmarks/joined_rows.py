"""What it costs to keep ids beside the outputs, and to take a file to other tools.

The ids are strings in no order. Memory is all that the process which exports has, with the packages
that it loads.

    python benchmarks/joined_rows.py
"""

import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Figure, alternate, amount, in_own_process, machine, ratio, resident, show

from kerasext import PredictionFile
from kerasext.storage import PredictionFileWriter

ROWS = amount(1_000_000, smallest=2000)
BATCH_SIZE = 512
RUNS = amount(7, smallest=1)
LARGE_ROWS = amount(500_000, smallest=10_000)  # of 1,000 classes: 2 GB

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def time_with_ids() -> Iterator[Figure]:
    """Measures `predict` with the writer, with ids and without."""
    # Not at the top: the process that exports loads no Keras.
    keras = importlib.import_module("keras")
    callbacks = importlib.import_module("kerasext.callbacks")
    models = importlib.import_module("kerasext.models")
    random = np.random.default_rng(0)
    rows = random.normal(size=(ROWS, 32)).astype("float32")
    inputs = keras.Input((32,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    model = models.ClassifierModel(inputs, keras.layers.Dense(10, activation="softmax")(hidden))
    numbers = random.permutation(ROWS)
    names = [f"images/{number:07d}.png" for number in numbers]

    def predict(ids):
        writer = callbacks.HDF5PredictionWriter(path, mode="w", accumulate=False, ids=ids)
        model.predict(rows, batch_size=BATCH_SIZE, verbose=0, callbacks=[writer])

    seconds = alternate(
        RUNS,
        without=lambda: predict(None),
        strings=lambda: predict(names),
        integers=lambda: predict(numbers),
    )
    for kind in ("strings", "integers"):
        value = ratio(seconds, kind, "without")
        name = f"{ROWS:,} rows, batch {BATCH_SIZE}: time with ids, {kind}"
        target = "<= 1.05" if kind == "strings" else ""
        yield Figure(name, value, "of that without", target, seconds)


def write_large_file(target: Path) -> None:
    """Writes probabilities of 2 GB with ids."""
    random = np.random.default_rng(0)
    writer = PredictionFileWriter(target, mode="w")
    for start in range(0, LARGE_ROWS, 5000):
        probabilities = random.random((5000, 1000), dtype="float32")
        ids = np.array([f"images/{row:07d}.png" for row in range(start, start + 5000)], "S64")
        writer.append({"probabilities": probabilities, "ids": ids})
    writer.finish()


def memory_of_export(source: Path) -> None:
    """Prints MiB of resident memory at the peak of `to_parquet`."""
    with PredictionFile(source) as predictions:
        predictions.to_parquet(source.with_suffix(".parquet"))
    print(resident("VmHWM"))


def figures() -> Iterator[Figure]:
    """Measures."""
    yield from time_with_ids()
    write_large_file(path)
    size = path.stat().st_size / 1e9
    peak = in_own_process(__file__, str(path))
    name = f"to_parquet of a file of {size:.1f} GB: resident memory at its peak"
    yield Figure(name, peak, "MiB", "< 300")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        memory_of_export(Path(sys.argv[1]))
    else:
        print(machine())
        show(figures())
