"""Threads that predict with one model into a file each: how many files are wrong.

Each round runs the jobs of `JOBS` in some threads, on one model that returns its input, and
compares every file with the rows of its job. JAX is not among the backends: there one thread at a
time can predict with a model.

    KERAS_BACKEND=torch python benchmarks/threads.py
"""

from __future__ import annotations

import collections
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import h5py
import keras
import numpy as np
from measure import Figure, amount, machine, show

from kerasext import predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor

ROWS = 640
ROUNDS = amount(50, smallest=1)
JOBS_OF_A_ROUND = amount(32, smallest=8)
THREADS = 4


def make_model() -> keras.Model:
    """A model whose `labels` say which row it was given."""
    inputs = keras.Input((1,))
    labels = keras.layers.Lambda(lambda x: keras.ops.cast(x[:, 0], "int32"))(inputs)
    confidence = keras.layers.Lambda(lambda x: x[:, 0] * 0)(inputs)
    return keras.Model(inputs, {"labels": labels, "confidence": confidence})


def batches(x: np.ndarray) -> Iterator[Any]:
    """Data of which Keras does not know the length."""
    for start in range(0, len(x), 32):
        yield (x[start : start + 32],)


def job(model: keras.Model, x: np.ndarray, path: Path, **options: Any) -> None:
    """A job of arrays."""
    predict_to_hdf5(model, x, path, verbose=0, **options).close()


def writer(model: keras.Model, x: Any, path: Path, *others: Any, accumulate: bool) -> Any:
    """A `predict` with a writer."""
    callbacks = [*others, HDF5PredictionWriter(path, accumulate=accumulate)]
    size = 32 if isinstance(x, np.ndarray) else None
    return model.predict(x, batch_size=size, verbose=0, callbacks=callbacks)


def plain(model: keras.Model, x: np.ndarray, path: Path) -> None:
    """A `predict` without, whose result is kept as a file."""
    result = model.predict(x, batch_size=32, verbose=0)
    with h5py.File(path, "w") as file:
        file["labels"] = result["labels"]


def monitored(model: keras.Model, x: np.ndarray, path: Path) -> None:
    """A writer and a monitor, which must have seen every row."""
    monitor = PredictionMonitor()
    writer(model, x, path, monitor, accumulate=False)
    if monitor.rows != len(x):
        raise AssertionError(f"the monitor has {monitor.rows} rows")


JOBS: tuple[Callable[[keras.Model, np.ndarray, Path], Any], ...] = (
    lambda model, x, path: job(model, x, path, batch_size=32),
    lambda model, x, path: job(model, x, path, batch_size=4),  # several batches in a step
    lambda model, x, path: job(model, batches(x), path),
    lambda model, x, path: writer(model, x, path, accumulate=True),
    lambda model, x, path: writer(model, x, path, accumulate=False),
    monitored,
    plain,
    lambda model, x, path: job(model, x, path, mode="resume"),
)


def run_round(folder: Path, *, jobs: int, threads: int) -> collections.Counter[str]:
    """Runs jobs on a new model, and counts how they ended.

    Args:
        folder: Where the files go.
        jobs: Int. Number of jobs.
        threads: Int. Number of threads, which take one job after the other.

    Returns:
        Counter of "right", of what was wrong, and of errors.
    """
    model = make_model()
    ends: collections.Counter[str] = collections.Counter()
    numbers = iter(range(jobs))
    lock, begin = threading.Lock(), threading.Barrier(threads)

    def work() -> None:
        begin.wait()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            kind = number % len(JOBS)
            x = np.arange(number * ROWS, (number + 1) * ROWS, dtype="float32")[:, None]
            path = folder / f"{number}.h5"
            try:
                JOBS[kind](model, x, path)
                with h5py.File(path) as file:
                    is_right = np.array_equal(file["labels"][:], x[:, 0])
                    if "_kerasext" in file:
                        is_right &= bool(file["_kerasext/record"]["complete"])
                end = "right" if is_right else f"WRONG rows, kind {kind}"
            except Exception as error:  # noqa: BLE001 - counted
                end = f"kind {kind}: {type(error).__name__}: {error}"
            with lock:
                ends[end] += 1

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return ends


def figures() -> Iterator[Figure]:
    """Counts files that are not right.

    Raises:
        AssertionError: If there is one.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        return
    ends: collections.Counter[str] = collections.Counter()
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            ends += run_round(Path(folder), jobs=JOBS_OF_A_ROUND, threads=THREADS)
    name = f"{backend}, {ROUNDS} rounds of {JOBS_OF_A_ROUND} jobs in {THREADS} threads: not right"
    bad = ends.total() - ends["right"]
    yield Figure(name, bad, "files", "<= 0")
    if bad:
        raise AssertionError(f"files of jobs in threads are wrong: {ends}")


if __name__ == "__main__":
    print(machine())
    show(figures())
