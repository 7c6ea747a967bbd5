"""Time of one row through `compile_predict`, and its memory over many calls.

Against `model.predict`, and on TensorFlow against a concrete function written by hand, which takes
and returns NumPy arrays too. The network is small, so that little but overhead is measured.

    python benchmarks/one_row.py
"""

import statistics
from collections.abc import Iterator
from functools import partial

import keras
import numpy as np
from measure import Figure, alternate, amount, machine, ratio, resident, show

from kerasext.inference import compile_predict
from kerasext.models import ClassifierModel

RUNS = amount(45, smallest=1)
CALLS = amount(200, smallest=5)  # of the fast variants in a run
CALLS_OF_PREDICT = amount(5, smallest=1)
CALLS_FOR_MEMORY = amount(100_000, smallest=100)


def by_hand(model):
    """What one would write for this model and no other: no checks, no casts, no structures."""
    import tensorflow as tf  # noqa: PLC0415 (JAX needs none)

    spec = tf.TensorSpec((None, 32), "float32")
    if isinstance(model, ClassifierModel):
        function = tf.function(model.predict_step).get_concrete_function(spec)
        return lambda row: {name: t.numpy() for name, t in function(tf.constant(row)).items()}
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    return lambda row: function(tf.constant(row)).numpy()


def repeated(function, row, times):
    """A run of several calls, for the clock's sake."""

    def run():
        for _ in range(times):
            function(row)

    return run


def figures() -> Iterator[Figure]:
    """Measures."""
    row = np.random.default_rng(0).normal(size=(1, 32)).astype("float32")
    is_tensorflow = keras.backend.backend() == "tensorflow"
    for model_class in (keras.Model, ClassifierModel):
        inputs = keras.Input((32,))
        hidden = keras.layers.Dense(64, activation="relu")(inputs)
        outputs = keras.layers.Dense(10, activation="softmax")(hidden)
        model = model_class(inputs, outputs)
        compiled = compile_predict(model)
        fast = repeated(compiled, row, CALLS)
        slow = repeated(partial(model.predict, verbose=0), row, CALLS_OF_PREDICT)
        seconds = alternate(RUNS, predict=slow, compiled=fast)
        faster = ratio(seconds, "predict", "compiled") * CALLS / CALLS_OF_PREDICT
        case = f"one row, {model_class.__name__}"
        # On other backends `predict` itself takes little.
        target = ">= 100" if is_tensorflow else ""
        yield Figure(f"{case}: speed of compile_predict", faster, "times that of predict", target)
        if is_tensorflow:
            # Apart from `predict`, whose threads would still be awake.
            seconds = alternate(RUNS, by_hand=repeated(by_hand(model), row, CALLS), compiled=fast)
            longer = ratio(seconds, "compiled", "by_hand")
            yield Figure(f"{case}: time", longer, "of a function written by hand", "<= 1.15")
        microseconds = statistics.median(seconds["compiled"]) / CALLS * 1e6
        yield Figure(f"{case}: time", microseconds, "us")
    before = resident("VmRSS")
    repeated(compiled, row, CALLS_FOR_MEMORY)()
    growth = resident("VmRSS") - before
    yield Figure(f"{CALLS_FOR_MEMORY:,} calls: growth of resident memory", growth, "MiB", "< 1")


if __name__ == "__main__":
    print(machine())
    show(figures())
