"""What `predict_to_hdf5` takes to find a batch size, with models that are new to it.

python benchmarks/auto_batch_size.py
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import keras
import numpy as np
from example_models import cnn, mlp, random_rows
from measure import Figure, alternate, alternate_processes, amount, compare, machine, show
from peers import Job, best_size, plain

from kerasext import PredictionFile
from kerasext.inference import predict_to_hdf5, tune_batch_size

RUNS = amount(9, smallest=1)
ROWS, MANY_ROWS = amount(200_000, smallest=1000), amount(2_000_000, smallest=1000)
TUNING_ROWS = amount(2**30, smallest=2**10)
SIZES = (2048, 8192, 32_768, 65_536, 131_072)[: amount(5, smallest=1)]

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def to_file(model, rows, batch_size: int | str, callbacks=()) -> Job:
    """The job that is measured."""
    options = {"batch_size": batch_size, "verbose": 0, "callbacks": callbacks}
    return lambda: predict_to_hdf5(model, rows, path, **options).close()


def remove() -> None:
    """Makes room."""
    path.unlink(missing_ok=True)


def seconds_of(job: Job) -> float:
    """What it takes, once."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def first_call() -> Iterator[Figure]:
    """A short job, once in a process."""
    seconds = alternate_processes(RUNS, __file__, "first_plain", "first_to_file")
    name = f"MLP, {ROWS:,} x 32, first call of a process, traced and tuned, against predict's 32"
    yield compare(f"{name}: rate", seconds, "first_plain", "first_to_file", "times", target=">= 3")


def new_model() -> Iterator[Figure]:
    """A long job of a new model, against the same where the best batch size is known."""
    rows = random_rows(MANY_ROWS, 32)
    best = best_size(partial(to_file, mlp(), rows), SIZES, remove)
    new = {}

    def before():
        remove()
        new["model"] = mlp()

    def auto():
        to_file(new["model"], rows, "auto")()

    def known():
        to_file(new["model"], rows, best)()

    seconds = alternate(RUNS, before, auto=auto, known=known)
    case = f"MLP, {MANY_ROWS:,} x 32, new model, batch size found, against batch {best:,}: rate"
    yield compare(case, seconds, "known", "auto", "times", target=">= 0.8")


class StopAtOnce(keras.callbacks.Callback):
    """Ends a job with its first step after the batch size was found."""

    def on_predict_batch_end(self, batch, logs=None):  # noqa: ARG002
        """Asks Keras to stop."""
        self.model.stop_predicting = True


def job_of_a_minute() -> Iterator[Figure]:
    """What tuning loses of a job of a minute.

    Of such a job only the beginning is run, until the batch size is found. What the same rows take
    when it is known, with a new model too, is no loss.
    """
    for name, make, shape in (("MLP", mlp, (32,)), ("CNN", cnn, (64, 64, 3))):
        rows = np.broadcast_to(random_rows(1, *shape), (TUNING_ROWS, *shape))  # takes no memory
        trials = tune_batch_size(make(), rows).table
        minute = rows[: int(60 * max(trial.rows_per_second for trial in trials))]
        seconds = {"tuned": [], "known": []}
        for _ in range(RUNS):
            remove()
            job = to_file(make(), minute, "auto", callbacks=[StopAtOnce()])
            seconds["tuned"].append(seconds_of(job))
            with PredictionFile(path) as predictions:
                count, size = predictions.rows, predictions.origin["batch_size"]
            remove()
            job = to_file(make(), minute[:count], size)
            seconds["known"].append(seconds_of(job))
        lost = float(np.median(np.subtract(seconds["tuned"], seconds["known"]))) / 60 * 100
        yield Figure(f"{name}, a job of a minute: lost by tuning", lost, "%", "<= 5", seconds)


def figures() -> Iterator[Figure]:
    """Measures."""
    for job in (first_call, new_model, job_of_a_minute):
        yield from job()


# What is run in a process of its own.


def first_plain() -> float:
    """Seconds of the first call of `predict`."""
    return seconds_of(plain(mlp(), random_rows(ROWS, 32), 32))


def first_to_file() -> float:
    """Seconds of the first call of `predict_to_hdf5`."""
    return seconds_of(to_file(mlp(), random_rows(ROWS, 32), "auto"))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(globals()[sys.argv[1]]())
    else:
        print(machine())
        show(figures())
