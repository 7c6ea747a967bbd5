"""Whole jobs: `predict_to_hdf5`, which writes HDF5, against peers that write nothing.

    python benchmarks/whole_jobs.py [--large]

The peers are plain `predict`, and a loop over a compiled function that keeps its results in memory.
`--large` adds a job of 10 GB in and 2 GB out, and takes as much of the disk.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from measure import (
    Figure,
    alternate,
    alternate_processes,
    amount,
    in_own_process,
    is_smallest,
    machine,
    peak_growth,
    ratio,
    resident,
    show,
)

from kerasext.inference import predict_to_hdf5, tune_batch_size
from kerasext.models import ClassifierModel

RUNS = amount(9, smallest=1)
RUNS_OF_A_SIZE = amount(3, smallest=1)
ROWS, MANY_ROWS = amount(200_000, smallest=1000), amount(2_000_000, smallest=1000)
LARGER_MODEL_ROWS, TOKEN_ROWS = amount(16_384, smallest=512), amount(4096, smallest=512)
TUNING_ROWS = amount(2**30, smallest=2**10)
MEMORY_ROWS, MEMORY_WIDTH = amount(200_000, smallest=5000), 1024
# Job, batch size, target. Each case starts a process, which loads TensorFlow.
MEMORY_CASES = [
    ("plain", "1024", ""),
    ("to_file", "1024", "< 64"),
    ("to_file", "auto", "< 64"),
][-amount(3, smallest=1) :]
LARGE_ROWS = amount(2_500_000, smallest=10_000)  # 10 GB in, 2 GB out
LARGE_WIDTH, LARGE_OUTPUTS = 1000, 200

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "predictions.h5"


def classifier(shape: tuple[int, ...], *hidden: Callable) -> ClassifierModel:
    """A model of 10 classes."""
    inputs = outputs = keras.Input(shape)
    for layer in hidden:
        outputs = layer(outputs)
    return ClassifierModel(inputs, layers.Dense(10, activation="softmax")(outputs))


def mlp(width: int = 32) -> ClassifierModel:
    """A small multilayer perceptron."""
    return classifier((width,), layers.Dense(64, activation="relu"))


def cnn() -> ClassifierModel:
    """A small convolutional network on images of 64 x 64 x 3."""
    return classifier(
        (64, 64, 3),
        layers.Conv2D(16, 3, strides=2, activation="relu"),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
    )


def lstm() -> ClassifierModel:
    """A small recurrent network on sequences of 32 x 16."""
    return classifier((32, 16), layers.LSTM(32))


def transformer() -> ClassifierModel:
    """One block of a transformer on sequences of 64 x 32."""

    def attend(x):
        return layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))

    def feed_forward(x):
        hidden = layers.Dense(64, activation="relu")(x)
        return layers.LayerNormalization()(x + layers.Dense(32)(hidden))

    return classifier((64, 32), attend, feed_forward, layers.GlobalAveragePooling1D())


def random_rows(rows: int, *shape: int) -> np.ndarray:
    """Input."""
    return np.random.default_rng(0).random((rows, *shape), dtype=np.float32)


def remove() -> None:
    """Makes room: replacing a file takes time, and is no part of the job."""
    path.unlink(missing_ok=True)


def plain(model, rows, batch_size) -> Callable[[], object]:
    """`predict` as without the library."""
    return lambda: model.predict(rows, batch_size=batch_size, verbose=0)


def to_file(model, rows, batch_size, callbacks=()) -> Callable[[], object]:
    """The job that is measured."""
    options = {"batch_size": batch_size, "verbose": 0, "callbacks": callbacks}
    return lambda: predict_to_hdf5(model, rows, path, **options).close()


def loop(model, rows, batch_size) -> Callable[[], object]:
    """What people write by hand: a compiled function, its results in memory."""

    @tf.function
    def step(batch):
        return model.postprocess(model(batch, training=False))

    def run():
        return [
            step(tf.convert_to_tensor(rows[start : start + batch_size]))
            for start in range(0, len(rows), batch_size)
        ]

    return run


def fastest(job: Callable, model, rows) -> int:
    """The batch size at which a peer is fastest."""
    seconds = {
        size: statistics.median(alternate(RUNS_OF_A_SIZE, job=job(model, rows, size))["job"])
        for size in (128, 512, 2048, 8192, 32768)
        if size <= len(rows) // 2
    }
    return min(seconds, key=seconds.get)


def seconds_of(job: Callable[[], object]) -> float:
    """What it takes, once."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def rate(name: str, seconds, of: str, target: str, variant: str = "to_file") -> Figure:
    """How many times as fast as another the job is."""
    return Figure(f"{name}: rate", ratio(seconds, of, variant), "times", target, seconds)


def small_rows() -> Iterator[Figure]:
    """The MLP, with some rows."""
    model, rows = mlp(), random_rows(ROWS, 32)
    best = tune_batch_size(model, rows).batch_size
    sizes = {"best": best, "32": 32, "4096": 4096}
    seconds = alternate(
        RUNS,
        remove,
        plain_32=plain(model, rows, 32),
        plain_4096=plain(model, rows, 4096),
        **{f"to_file_{name}": to_file(model, rows, size) for name, size in sizes.items()},
    )
    name = f"MLP, {ROWS:,} x 32"
    at_best = f"{name}, batch {best:,} against predict's 32"
    yield rate(at_best, seconds, "plain_32", ">= 100", "to_file_best")
    yield rate(f"{name}, batch 32", seconds, "plain_32", ">= 6", "to_file_32")
    yield rate(f"{name}, batch 4,096", seconds, "plain_4096", ">= 1.7", "to_file_4096")


def first_call() -> Iterator[Figure]:
    """The same, once in a process."""
    seconds = alternate_processes(RUNS, __file__, "first_plain", "first_to_file")
    name = f"MLP, {ROWS:,} x 32, first call of a process, traced and tuned, against predict's 32"
    yield rate(name, seconds, "first_plain", ">= 3", "first_to_file")


def against_loop() -> Iterator[Figure]:
    """The MLP, with many rows."""
    model, rows = mlp(), random_rows(MANY_ROWS, 32)
    best, peers = tune_batch_size(model, rows).batch_size, fastest(loop, model, rows)
    seconds = alternate(
        RUNS, remove, to_file=to_file(model, rows, best), loop=loop(model, rows, peers)
    )
    name = f"MLP, {MANY_ROWS:,} x 32, batch {best:,}, against a loop in memory, batch {peers:,}"
    yield rate(name, seconds, "loop", ">= 0.8")


def larger_models() -> Iterator[Figure]:
    """Models that take longer than what is around them."""
    images = random_rows(LARGER_MODEL_ROWS, 64, 64, 3)
    sequences = random_rows(LARGER_MODEL_ROWS, 32, 16)
    tokens = random_rows(TOKEN_ROWS, 64, 32)
    for name, model, rows, target in (
        (f"CNN, {LARGER_MODEL_ROWS:,} x 64 x 64 x 3", cnn(), images, ">= 1.7"),
        (f"LSTM, {LARGER_MODEL_ROWS:,} x 32 x 16", lstm(), sequences, ">= 0.9"),
    ):
        seconds = alternate(
            RUNS, remove, to_file=to_file(model, rows, 128), plain=plain(model, rows, 128)
        )
        yield rate(f"{name}, batch 128", seconds, "plain", target)
    for name, model, rows in (
        (f"LSTM, {LARGER_MODEL_ROWS:,} x 32 x 16", lstm(), sequences),
        (f"transformer, {TOKEN_ROWS:,} x 64 x 32", transformer(), tokens),
    ):
        best, peers = tune_batch_size(model, rows).batch_size, fastest(plain, model, rows)
        seconds = alternate(
            RUNS, remove, to_file=to_file(model, rows, best), plain=plain(model, rows, peers)
        )
        case = f"{name}, batch {best:,} against predict's {peers:,}"
        yield rate(case, seconds, "plain", ">= 0.9")


class StopAtOnce(keras.callbacks.Callback):
    """Ends a job with its first step after the batch size was found."""

    def on_predict_batch_end(self, batch, logs=None):  # noqa: ARG002
        """Asks Keras to stop."""
        self.model.stop_predicting = True


def tuning() -> Iterator[Figure]:
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
            with h5py.File(path) as file:
                record = file["_kerasext/record"][()]
            remove()
            job = to_file(make(), minute[: record["rows"]], int(record["batch_size"]))
            seconds["known"].append(seconds_of(job))
        lost = float(np.median(np.subtract(seconds["tuned"], seconds["known"]))) / 60 * 100
        yield Figure(f"{name}, a job of a minute: lost by tuning", lost, "%", "<= 5", seconds)


def memory() -> Iterator[Figure]:
    """Memory that input takes which is in memory already."""
    size = f"{round(MEMORY_ROWS * MEMORY_WIDTH * 4 / 2**20, -1):.0f} MiB"
    for job, batch_size, target in MEMORY_CASES:
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
    jobs = [small_rows, first_call, against_loop, larger_models, tuning, memory]
    for job in [*jobs, larger_than_memory] if large or is_smallest() else jobs:
        yield from job()


# What is run in a process of its own.


def first_plain() -> float:
    """Seconds of the first call of `predict`."""
    return seconds_of(plain(mlp(), random_rows(ROWS, 32), 32))


def first_to_file() -> float:
    """Seconds of the first call of `predict_to_hdf5`."""
    return seconds_of(to_file(mlp(), random_rows(ROWS, 32), "auto"))


def memory_of(job: str, batch_size: str) -> float:
    """Growth in MiB."""
    model, rows = mlp(MEMORY_WIDTH), random_rows(MEMORY_ROWS, MEMORY_WIDTH)
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
