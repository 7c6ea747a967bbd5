"""Time of `predict` with the writer, many small rows, against what users write by hand.

    python benchmarks/many_rows.py

Plain `predict` keeps the results in memory and nothing on disk; with the writer they are on disk
and not in memory. A loop over `predict_on_batch` writes the same file, but doesn't wait for the
disk, as the writer does at its end.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
from example_models import mlp, random_rows
from measure import Figure, alternate, amount, compare, machine, show
from peers import check_same_rows, loop_over_batches, plain

from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

RUNS = amount(9, smallest=1)
ROWS, FEWER_ROWS = amount(200_000, smallest=1000), amount(100_000, smallest=1000)
# rows, classes, batch size, model, targets against `predict` and against the loop
CASES = [
    (ROWS, 10, 256, keras.Model, "", ""),
    (ROWS, 10, 256, ClassifierModel, "<= 0.65", "<= 1.0"),
    (FEWER_ROWS, 10, 32, ClassifierModel, "<= 0.7", ""),
    (FEWER_ROWS, 1000, 256, ClassifierModel, "", "<= 1.25"),
]

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"
peer_path = Path(folder.name) / "by_hand.h5"


def remove() -> None:
    """Makes room: replacing a file takes time, and is no part of the job."""
    path.unlink(missing_ok=True)
    peer_path.unlink(missing_ok=True)


def figures() -> Iterator[Figure]:
    """Measures."""
    for count, classes, batch_size, model_class, target, loop_target in CASES:
        model, rows = mlp(classes=classes, model_class=model_class), random_rows(count, 32)

        def writer(model=model, rows=rows, batch_size=batch_size):
            """Predicts into a file, nothing kept in memory."""
            callback = HDF5PredictionWriter(path, accumulate=False)
            model.predict(rows, batch_size=batch_size, verbose=0, callbacks=[callback])

        loop = loop_over_batches(model, rows, batch_size, peer_path)
        remove()
        writer()
        loop()
        check_same_rows(path, peer_path)
        variants = {"plain": plain(model, rows, batch_size), "writer": writer, "loop": loop}
        seconds = alternate(RUNS, remove, **variants)
        case = f"{count:,} rows, {classes} classes, batch {batch_size}"
        case += ", one output" if model_class is keras.Model else ", with the mixin"
        case += ": time with the writer"
        yield compare(case, seconds, "writer", "plain", "of plain predict", target=target)
        unit = "of a loop over predict_on_batch with h5py"
        yield compare(case, seconds, "writer", "loop", unit, target=loop_target)


if __name__ == "__main__":
    print(machine())
    show(figures())
