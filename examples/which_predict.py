"""Which of predict, predict_on_batch, predict_step and model(x) to use: measured, not remembered.

    python examples/which_predict.py [--full] [--figure which_predict.svg]

Prints how fast each is with many rows and with one, the memory that many rows take, and what else
tells them apart. For TensorFlow, on Linux. `--full` takes minutes.
"""

import argparse
import functools
import multiprocessing
import resource
import statistics
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import rich.box
import tensorflow as tf
from keras import layers
from rich.table import Column, Table

from kerasext import compile_predict, predict_to_hdf5, tune_batch_size
from kerasext.models import ClassifierModel

BATCH = 32  # rows that `predict` takes at a time unless it is told
RANDOM = np.random.default_rng(0)
ADVICE = """\
predict           many rows, results in memory, at a batch size that fits the model
predict_to_hdf5   many rows, results on disk: more than memory holds, or worth keeping
compile_predict   few rows, many times; predict_on_batch without kerasext
model(x)          inside something larger: gradients, another model, your tf.function
predict_step      to override, as the mixins do, rather than to call"""
Lines = dict[str, dict[str, float | str]]  # of a table: what was found of each way, by column


def make_networks() -> list[keras.Model]:
    """Three small ones, with ten outputs."""
    convolution = functools.partial(layers.Conv2D, kernel_size=3, strides=2, activation="relu")
    hidden = {
        "MLP": [keras.Input((32,)), layers.Dense(64, activation="relu")],
        "CNN": [keras.Input((64, 64, 3)), convolution(16), convolution(32), layers.Flatten()],
        "LSTM": [keras.Input((32, 16)), layers.LSTM(32)],
    }
    return [keras.Sequential([*most, layers.Dense(10)], name=name) for name, most in hidden.items()]


def ways_for_a_batch(model: keras.Model) -> dict[str, Callable]:
    """Functions that take one batch through a model."""
    any_rows = tf.TensorSpec(model.input_shape)
    return {
        "predict": functools.partial(model.predict, verbose=0),
        "predict_on_batch": model.predict_on_batch,
        "predict_step": model.predict_step,
        "model(x)": functools.partial(model, training=False),
        "tf.function": tf.function(lambda x: model(x, training=False), input_signature=[any_rows]),
        "compile_predict": compile_predict(model),
    }


def ways_for_a_job(model: keras.Model, path: Path) -> dict[str, Callable]:
    """Functions that take all rows and a batch size, and keep what the model says."""

    def loop(way, x, size):
        batches = (x[start : start + size] for start in range(0, len(x), size))
        return np.concatenate([np.asarray(way(batch)) for batch in batches])

    def write(x, size):
        predict_to_hdf5(model, x, path, batch_size=size, mode="w", verbose=0).close()

    ways = ways_for_a_batch(model)
    del ways["predict"], ways["compile_predict"]
    return {
        "predict": lambda x, size: model.predict(x, batch_size=size, verbose=0),
        **{name: functools.partial(loop, way) for name, way in ways.items()},
        "predict_to_hdf5": write,
    }


def median_seconds(ways: dict[str, Callable], *arguments, runs: int, calls: int = 1):
    """Seconds of a call of each way. They take turns, so that a slow moment hits them all."""
    seconds = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            call = functools.partial(way, *arguments)
            seconds[name] += timeit.repeat(call, repeat=calls, number=1)
    return {name: statistics.median(values) for name, values in seconds.items()}


def make_rows(model: keras.Model, seconds: float) -> np.ndarray:
    """As many rows as a loop over model(x) takes so many seconds for; a power of two."""
    batch = RANDOM.random((BATCH, *model.input_shape[1:]), np.float32)
    ways = ways_for_a_batch(model)
    expected = model.predict(batch, verbose=0)
    for way in ways.values():
        np.testing.assert_allclose(way(batch), expected, rtol=1e-3, atol=1e-5)
    step_seconds = median_seconds({"": ways["model(x)"]}, batch, runs=5)[""]
    rows = BATCH << max(int(np.log2(seconds / step_seconds)), 2)
    return RANDOM.random((rows, *batch.shape[1:]), np.float32)


def measure_speed(model: keras.Model, x: np.ndarray, runs: int) -> Lines:
    """Rows per second at the default batch size and the tuned one, and the time of one row."""
    ways = ways_for_a_batch(model)
    with tempfile.TemporaryDirectory() as folder:
        jobs = ways_for_a_job(model, Path(folder) / "predictions.h5")
        lines = {way: {} for way in jobs | ways}
        for size in sorted({BATCH, tune_batch_size(model, x).batch_size}):
            median_seconds(jobs, x[: 2 * size], size, runs=1)  # compiles what is compiled
            for way, seconds in median_seconds(jobs, x, size, runs=runs).items():
                lines[way][f"rows/s, batch {size:,}"] = len(x) / seconds
    for way, seconds in median_seconds(ways, x[:1], runs=runs, calls=5).items():
        lines[way]["one row, ms"] = seconds * 1e3
    return lines


def memory_growth(way: str) -> float:
    """Peak of what a job adds to resident memory, in units of its input, or of its output."""
    x = RANDOM.random((1024, 25_600), np.float32)
    model = keras.Sequential([keras.Input(x.shape[1:]), layers.Rescaling(2.0)])
    with tempfile.TemporaryDirectory() as folder:
        job = ways_for_a_job(model, Path(folder) / "predictions.h5")[way]
        job(x[: 2 * BATCH], BATCH)  # what TensorFlow needs once is not the job's
        Path("/proc/self/clear_refs").write_text("5")  # from here on, the peak is the job's
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        job(x, BATCH)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * 1024 / x.nbytes


def measure_memory(ways: list[str]) -> Lines:
    """The growth of each way, in a process of its own that has nothing but Keras loaded."""
    multiprocessing.set_forkserver_preload(["kerasext.inference"])
    with multiprocessing.get_context("forkserver").Pool(1, maxtasksperchild=1) as pool:
        growths = pool.map(memory_growth, ways, chunksize=1)
    return {way: {"growth / input": growth} for way, growth in zip(ways, growths, strict=True)}


class CountRuns(layers.Layer):
    """Passes on what it gets, and counts how often its Python code runs."""

    runs = 0

    def call(self, x):
        """The same."""
        self.runs += 1
        return x


def find_facts() -> Lines:
    """What each way does to a model with dropout, batch norm and a mixin, seen by doing it."""
    inputs = keras.Input((16,))
    counter, norm = CountRuns(), layers.BatchNormalization()
    outputs = layers.Dense(10, activation="softmax")(layers.Dropout(0.5)(norm(counter(inputs))))
    model = ClassifierModel(inputs, outputs)
    ways = ways_for_a_batch(model) | {
        "model(x) alone": model,
        "training=True": functools.partial(model, training=True),
    }
    x = tf.constant(RANDOM.random((64, 16), np.float32))
    facts = {}
    for name, way in ways.items():
        counter.runs, mean = 0, norm.moving_mean.numpy()
        with tf.GradientTape() as tape:
            tape.watch(x)
            first, *_, last = [way(x) for _ in range(8)]
            has_labels = isinstance(first, dict)
            if has_labels:
                first, last = first["probabilities"], last["probabilities"]
            total = tf.reduce_sum(first[:, 0])
        facts[name] = {
            "returns": "NumPy" if isinstance(first, np.ndarray) else "tensor",
            "labels": "yes" if has_labels else "no",
            "Python": str(counter.runs),
            "gradient": "no" if tape.gradient(total, x) is None else "yes",
            "differs": np.abs(np.subtract(first, last)).max(),
            "norm": np.abs(norm.moving_mean.numpy() - mean).max(),
        }
    return facts


def show(title: str, lines: Lines) -> None:
    """Prints a table."""
    columns = [Column(name, justify="right") for name in lines["predict"]]
    table = Table("", *columns, title=title, title_justify="left", box=rich.box.SIMPLE_HEAD)
    for way, line in lines.items():
        table.add_row(way, *(as_text(line.get(name, "")) for name in lines["predict"]))
    rich.print(table)


def as_text(found: float | str) -> str:
    """Text, or a number with decimals if it is small."""
    return found if isinstance(found, str) else f"{found:,.{0 if found >= 100 else 2}f}"


def draw(speeds: dict[str, Lines], memory: Lines, path: Path) -> None:
    """Draws what was measured, in one color for each network."""
    from matplotlib import pyplot  # noqa: PLC0415 - an extra

    pyplot.rcParams |= {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": ""}
    figure, (many, one, grown) = pyplot.subplots(1, 3, figsize=(9, 3), sharey=True, layout="tight")
    for number, (name, lines) in enumerate(speeds.items()):
        style = {"marker": "o", "color": f"C{number}"}
        heights = np.arange(len(lines)) + 0.2 * (number - 1)
        for height, line in zip(heights, lines.values(), strict=True):
            rates = [value for column, value in line.items() if column.startswith("rows/s")]
            many.plot(rates, [height] * len(rates), **style)
            many.plot(rates[:1], [height] * len(rates[:1]), **style, markerfacecolor="white")
        one_row = [line.get("one row, ms", np.nan) for line in lines.values()]
        one.plot(one_row, heights, **style, linestyle="", label=name)
    growths = [line["growth / input"] for line in memory.values()]
    grown.barh(range(len(growths)), growths, 0.5, color="gray")
    many.set(xscale="log", title=f"rows per second (hollow: batch {BATCH})")
    many.set_yticks(range(len(lines)), labels=list(lines))
    many.invert_yaxis()
    one.set(xscale="log", title="milliseconds for one row")
    one.legend()
    grown.set(title="peak memory, in units of the input")
    figure.savefig(path, metadata={"Date": None})


def main(figure: Path | None, *, full: bool) -> None:
    """Measures and prints all, and draws it."""
    print(f"Keras {keras.__version__}, TensorFlow {tf.__version__}")
    seconds, runs = (4.0, 5) if full else (0.3, 3)
    speeds = {}
    for model in make_networks():
        x = make_rows(model, seconds)
        speeds[model.name] = measure_speed(model, x, runs)
        show(f"{model.name}: {x.shape} -> {(len(x), *model.output_shape[1:])}", speeds[model.name])
    memory = measure_memory([way for way in speeds["MLP"] if way != "compile_predict"])
    show("Memory: (1024, 25600) in and out", memory)
    show("Eight calls with the same rows: (64, 16) -> (64, 10)", find_facts())
    print(ADVICE)
    if figure:
        draw(speeds, memory, figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="more rows and runs; takes 6 GiB")
    parser.add_argument("--figure", type=Path, help="SVG to draw; needs matplotlib")
    arguments = parser.parse_args()
    if keras.backend.backend() != "tensorflow":
        raise SystemExit(
            "This example is about TensorFlow; run it with KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    main(arguments.figure, full=arguments.full)
