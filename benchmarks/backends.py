"""The writer and whole jobs against plain `predict` and what users write by hand, on any backend.

KERAS_BACKEND=jax python benchmarks/backends.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
from example_models import mlp, random_rows
from measure import Figure, alternate, amount, compare, machine, show
from peers import loop_over_batches, plain

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.inference import predict_to_hdf5

RUNS = amount(9, smallest=1)
ROWS, FEWER_ROWS = amount(400_000, smallest=1000), amount(40_000, smallest=1000)
BATCH_SIZE = 512
# The targets by backend; on TensorFlow the other benchmarks have theirs.
JOB_TIME = {"jax": "<= 0.85", "torch": "<= 0.85"}
WRITER_TIME = {"jax": "<= 1.1"}
WRITER_RATE = {"jax": ">= 1.2", "torch": ">= 1.5"}  # of wide outputs

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"
peer_path = Path(folder.name) / "by_hand.h5"


def remove() -> None:
    """Makes room."""
    path.unlink(missing_ok=True)
    peer_path.unlink(missing_ok=True)


def jobs(classes: int, count: int) -> dict:
    """All that is compared."""
    model, rows = mlp(classes=classes, model_class=keras.Model), random_rows(count, 32)
    predict = plain(model, rows, BATCH_SIZE)
    options = {"batch_size": BATCH_SIZE, "verbose": 0}

    def then_save():
        """What people write today."""
        predictions = predict()
        with h5py.File(peer_path, "w") as file:
            file["predictions"] = predictions

    def writer():
        """The same values in a file, none of them kept in memory."""
        callback = HDF5PredictionWriter(path, accumulate=False)
        model.predict(rows, callbacks=[callback], **options)

    return {
        "plain": predict,
        "then_save": then_save,
        "loop": loop_over_batches(model, rows, BATCH_SIZE, peer_path),
        "writer": writer,
        "job": lambda: predict_to_hdf5(model, rows, path, **options).close(),
    }


def figures() -> Iterator[Figure]:
    """Measures."""
    backend = keras.backend.backend()
    for count, classes in ((ROWS, 10), (FEWER_ROWS, 1000)):
        seconds = alternate(RUNS, remove, **jobs(classes, count))
        case = f"{backend}, {count:,} rows, {classes} outputs, batch {BATCH_SIZE}"
        targets = {} if classes > 100 else {"writer": WRITER_TIME, "job": JOB_TIME}
        for name, what in (("writer", "with the writer"), ("job", "of predict_to_hdf5")):
            target = targets.get(name, {}).get(backend, "")
            time = f"{case}: time {what}"
            yield compare(time, seconds, name, "plain", "of plain predict", target=target)
            unit = "of a loop over predict_on_batch with h5py"
            yield compare(time, seconds, name, "loop", unit)
        target = WRITER_RATE.get(backend, "") if classes > 100 else ""
        rate, unit = f"{case}: rate with the writer", "times that of predict, then save"
        yield compare(rate, seconds, "then_save", "writer", unit, target=target)


if __name__ == "__main__":
    print(machine())
    show(figures())
