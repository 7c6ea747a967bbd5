"""A step of a job: the outputs of `predict`, compiled once."""

import keras
import numpy as np
import pytest

from kerasext.keras_internals import job_step

BACKEND = keras.backend.backend()


@pytest.fixture
def model():
    """One layer."""
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])


def computed(step, batch):
    """What a step yields of one batch, in NumPy."""
    step.prepare(batch)
    outputs = step(batch)
    step.wait(outputs)
    return keras.ops.convert_to_numpy(outputs)


@pytest.mark.parametrize("eagerly", [False, True])
def test_outputs_are_those_of_predict(model, rows, eagerly):
    """Of a batch of any size, compiled or not."""
    model.compile(run_eagerly=eagerly)
    step = job_step(model, jit_compile=bool(model.jit_compile))
    for count in (70, 3, 1):
        batch = keras.ops.convert_to_tensor(rows[:count])
        expected = model.predict(rows[:count], batch_size=count, verbose=0)
        np.testing.assert_array_equal(computed(step, batch), expected)


class Traced(keras.Sequential):
    """Counts how often its Python code runs."""

    traces = 0

    def predict_step(self, *args):
        self.traces += 1
        return super().predict_step(*args)


@pytest.mark.backends("tensorflow", "jax", reason="torch runs the Python code at each call")
def test_it_is_compiled_once(rows):
    """For all jobs of a model until `compile`."""
    model = Traced([keras.Input((8,)), keras.layers.Dense(3)])
    batch = keras.ops.convert_to_tensor(rows)
    traces = []
    for _ in range(3):
        computed(job_step(model, jit_compile=BACKEND == "jax"), batch)
        traces.append(model.traces)
    assert traces == traces[:1] * 3
    model.compile()
    computed(job_step(model, jit_compile=BACKEND == "jax"), batch)
    assert model.traces > traces[0]


def test_other_weights_count_at_once(model, rows):
    """However weights are set, the next call uses them."""
    step = job_step(model, jit_compile=bool(model.jit_compile))
    batch = keras.ops.convert_to_tensor(rows)
    before = computed(step, batch)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    after = model.predict(rows, batch_size=70, verbose=0)
    np.testing.assert_array_equal(computed(step, batch), after)
    assert not np.array_equal(before, after)


class Draws(keras.layers.Layer):
    """Random in `predict`."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


class Counts(keras.layers.Layer):
    """Depends on the number of batches before."""

    def build(self, _):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.assign(self.count + 1)
        return inputs + self.count


@pytest.mark.backends("tensorflow", reason="the others compute in one thread")
def test_when_two_batches_are_computed_at_once():
    """Models that only read their weights are; those that are random or keep a state are not."""
    batch = keras.ops.ones((4, 8))
    inputs, words = keras.Input((8,)), keras.Input((1,), dtype="string")
    table = keras.layers.StringLookup(vocabulary=["a", "b"])
    eager = keras.Model(inputs, inputs * 2)
    eager.compile(run_eagerly=True)
    found = {}
    for name, model, data in (
        ("reads", keras.Model(inputs, keras.layers.Dense(3)(inputs)), batch),
        ("recurs", keras.Model(inputs, keras.layers.LSTM(3)(inputs[..., None])), batch),
        ("looks up", keras.Model(words, table(words)), keras.ops.convert_to_tensor([["a"]])),
        ("draws", keras.Model(inputs, Draws()(inputs)), batch),
        ("counts", keras.Model(inputs, Counts()(inputs)), batch),
        ("eager", eager, batch),
    ):
        step = job_step(model, jit_compile=False)
        step.prepare(data)
        found[name] = step.in_threads
    assert found == {
        "reads": 2,
        "recurs": 2,
        "looks up": 2,
        "draws": 1,
        "counts": 1,
        "eager": 1,
    }
