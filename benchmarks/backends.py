"""The writer against plain `predict`, and against saving its result, on the backend in use.

KERAS_BACKEND=jax python benchmarks/backends.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from measure import Figure, alternate, amount, machine, ratio, show

from kerasext.callbacks import HDF5PredictionWriter

RUNS = amount(9, smallest=1)
ROWS, FEWER_ROWS = amount(400_000, smallest=1000), amount(40_000, smallest=1000)
# The targets; on TensorFlow the other benchmarks have theirs.
MOST_TIME = {"jax": "<= 1.1"}
LEAST_GAIN = {"jax": ">= 1.2", "torch": ">= 1.5"}


def make_model(width: int) -> keras.Model:
    """A small model, so that what is around it counts."""
    inputs = keras.Input((32,))
    hidden = keras.layers.Dense(64, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(width, activation="softmax")(hidden))


def figures() -> Iterator[Figure]:
    """Measures."""
    backend = keras.backend.backend()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.h5"
        for count, width, batch_size in ((ROWS, 10, 512), (FEWER_ROWS, 1000, 512)):
            rows = np.random.default_rng(0).normal(size=(count, 32)).astype("float32")
            model = make_model(width)
            options = {"batch_size": batch_size, "verbose": 0}

            def plain(model=model, rows=rows, options=options):
                """Keeps nothing on disk."""
                return model.predict(rows, **options)

            def then_save(plain=plain):
                """What people write today."""
                predictions = plain()
                with h5py.File(path, "w") as file:
                    file["predictions"] = predictions

            def writer(model=model, rows=rows, options=options):
                """The same values in a file, none of them kept in memory."""
                callback = HDF5PredictionWriter(path, accumulate=False)
                model.predict(rows, callbacks=[callback], **options)

            seconds = alternate(
                RUNS,
                lambda: path.unlink(missing_ok=True),
                plain=plain,
                then_save=then_save,
                writer=writer,
            )
            case = f"{backend}, {count:,} rows, {width} outputs, batch {batch_size}"
            wide = width > 100
            yield Figure(
                f"{case}: time with the writer",
                ratio(seconds, "writer", "plain"),
                "of plain predict",
                "" if wide else MOST_TIME.get(backend, ""),
                runs=seconds,
            )
            yield Figure(
                f"{case}: rate with the writer",
                ratio(seconds, "then_save", "writer"),
                "times that of predict, then save",
                LEAST_GAIN.get(backend, "") if wide else "",
            )


if __name__ == "__main__":
    print(machine())
    show(figures())
