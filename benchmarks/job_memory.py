"""Memory of `predict_to_hdf5`, each case in a process of its own.

    python benchmarks/job_memory.py [--large]

`--large` adds a job of 10 GB in and 2 GB out, and takes as much of the disk.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
from example_models import mlp, random_rows
from keras import layers
from measure import (
    Figure,
    amount,
    in_own_process,
    is_smallest,
    machine,
    peak_growth,
    resident,
    show,
)
from peers import plain

from kerasext.inference import predict_to_hdf5

ROWS, WIDTH = amount(200_000, smallest=5000), 1024
# Job, batch size, target. Each case starts a process, which loads TensorFlow.
CASES = [
    ("plain", "1024", ""),
    ("to_file", "1024", "< 64"),
    ("to_file", "auto", "< 64"),
][-amount(3, smallest=1) :]
LARGE_ROWS = amount(2_500_000, smallest=10_000)  # 10 GB in, 2 GB out
LARGE_WIDTH, LARGE_OUTPUTS = 1000, 200

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def to_file(model, rows, batch_size):
    """The job that is measured."""
    options = {"batch_size": batch_size, "verbose": 0}
    return lambda: predict_to_hdf5(model, rows, path, **options).close()


def input_in_memory() -> Iterator[Figure]:
    """Memory that input takes which is in memory already."""
    size = f"{round(ROWS * WIDTH * 4 / 2**20, -1):.0f} MiB"
    for job, batch_size, target in CASES:
        grown = in_own_process(__file__, "memory_of", job, batch_size)
        case = f"{size} of input, {job}, batch {batch_size}: resident memory grows"
        yield Figure(case, grown, "MiB", target)


def larger_than_memory() -> Iterator[Figure]:
    """10 GB from disk to disk."""
    rows = Path(folder.name) / "rows.h5"
    block = random_rows(10_000, LARGE_WIDTH)
    with h5py.File(rows, "w") as file:
        dataset = file.create_dataset("rows", (LARGE_ROWS, LARGE_WIDTH), "f4")
        for start in range(0, LARGE_ROWS, len(block)):
            dataset[start : start + len(block)] = block
    peak = in_own_process(__file__, "memory_of_large_job", str(rows))
    yield Figure("10 GB in, 2 GB out: peak of resident memory", peak, "MiB", "< 1024")


def figures(large: bool = False) -> Iterator[Figure]:
    """Measures; the smallest size includes the large job."""
    yield from input_in_memory()
    if large or is_smallest():
        yield from larger_than_memory()


# What is run in a process of its own.


def memory_of(job: str, batch_size: str) -> float:
    """Growth in MiB."""
    model, rows = mlp(WIDTH), random_rows(ROWS, WIDTH)
    model.predict(rows[:64], verbose=0)
    size = int(batch_size) if batch_size.isdigit() else batch_size
    return peak_growth({"plain": plain, "to_file": to_file}[job](model, rows, size))


def memory_of_large_job(rows: str) -> float:
    """Peak in MiB, of the whole process."""
    model = keras.Sequential([keras.Input((LARGE_WIDTH,)), layers.Dense(LARGE_OUTPUTS)])
    with h5py.File(rows) as file:
        to_file(model, file["rows"], "auto")()
    return resident("VmHWM")


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--large"]):
        print(machine())
        show(figures(large="--large" in sys.argv))
    else:
        print(globals()[sys.argv[1]](*sys.argv[2:]))
