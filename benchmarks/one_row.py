"""Time of one row through `compile_predict`, and its memory over many calls.

Against `model.predict`, and on TensorFlow against a concrete function written by hand, which takes
and returns NumPy arrays too. The network is small, so that little but overhead is measured.

    python benchmarks/one_row.py
"""

import statistics
from functools import partial

import keras
import numpy as np
from measure import alternate, machine, ratio, resident

from kerasext.inference import compile_predict
from kerasext.models import ClassifierModel

RUNS = 45
CALLS = 200  # of the fast variants in a run
CALLS_OF_PREDICT = 5
CALLS_FOR_MEMORY = 100_000


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


row = np.random.default_rng(0).normal(size=(1, 32)).astype("float32")
print(f"{machine()}, {keras.backend.backend()}")
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
    said = f"{model_class.__name__}: {faster:.0f} times as fast as predict"
    if keras.backend.backend() == "tensorflow":
        # Apart from `predict`, whose threads would still be awake.
        seconds = alternate(RUNS, by_hand=repeated(by_hand(model), row, CALLS), compiled=fast)
        said += f", {ratio(seconds, 'compiled', 'by_hand'):.2f} times as long as by hand"
    microseconds = statistics.median(seconds["compiled"]) / CALLS * 1e6
    print(f"{said}; medians of {RUNS} alternating runs; {microseconds:.0f} us a row")

before = resident("VmRSS")
repeated(compiled, row, CALLS_FOR_MEMORY)()
print(f"{CALLS_FOR_MEMORY:,} calls: {resident('VmRSS') - before:.2f} MiB more of resident memory")
