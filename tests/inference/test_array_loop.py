"""The loop for array jobs: order, ends and hooks, whatever is under way."""

import contextlib
import threading
import time

import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.inference import array_loop
from kerasext.inference.array_loop import LoopThreads
from kerasext.inference.row_slices import RowSlices
from kerasext.keras_internals import job_step
from kerasext.models import ClassifierModel

BACKEND = keras.backend.backend()


@pytest.fixture
def model():
    """A classifier of three classes."""
    inputs = keras.Input((8,))
    return ClassifierModel(inputs, keras.layers.Dense(3, activation="softmax")(inputs))


def predict_slices(*args, **options):
    """The loop, with threads of its own."""
    with LoopThreads() as threads:
        return array_loop.predict_slices(*args, threads, **options)


class Step:
    """Yields its batches; the even ones take longer."""

    ahead = 0
    together = 1
    several = None

    def __init__(self, in_threads, *, fails_at=None):
        self.in_threads = in_threads
        self.fails_at = fails_at
        self.threads = set()
        self.now = self.most_together = 0
        self.lock = threading.Lock()

    def prepare(self, batch):
        pass

    def __call__(self, batch):
        number = int(keras.ops.convert_to_numpy(batch)[0, 0])
        with self.lock:
            self.threads.add(threading.current_thread())
            self.now += 1
            self.most_together = max(self.most_together, self.now)
        time.sleep(0.02 if number % 2 == 0 else 0.005)
        with self.lock:
            self.now -= 1
        if number == self.fails_at:
            raise ValueError("no such batch")
        return number

    def wait(self, outputs):
        pass


def numbered_batches(batches):
    """Batches of 4 rows, and one of a single row, that have their numbers as values."""
    x = np.repeat(np.arange(batches, dtype="float32"), 4)[:-3, None]
    return RowSlices(x, 4)


class BatchHooks(keras.callbacks.Callback):
    """Has a hook for batches; ends `predict` after a batch in one way or another."""

    def __init__(self, after=None, error=None):
        super().__init__()
        self.after, self.error = after, error

    def on_predict_batch_end(self, batch, logs=None):
        if batch == self.after:
            if self.error is not None:
                raise self.error
            self.model.stop_predicting = True


@pytest.mark.parametrize(
    ("in_threads", "callbacks", "together"),
    [(1, [], 1), (2, [], 2), (2, [BatchHooks()], 1), (2, [keras.callbacks.Callback()], 2)],
)
def test_outputs_come_in_order(model, in_threads, callbacks, together):
    """As many batches as may be are computed at once, and are handed over in order.

    With hooks for batches only one is.
    """
    step, taken = Step(in_threads), []
    stopped = predict_slices(
        model,
        numbered_batches(9),
        step,
        lambda outputs, rows: taken.append((outputs, rows)),
        callbacks=callbacks,
    )
    assert taken == [*((number, 4) for number in range(8)), (8, 1)]
    assert not stopped
    assert step.most_together == together
    if together == 1:
        assert step.threads == {threading.current_thread()}


@pytest.mark.parametrize("in_threads", [1, 2])
@pytest.mark.parametrize("fails_at", [0, 1, 4, 8])
def test_what_came_before_an_error(model, in_threads, fails_at):
    """If a batch fails, those before it are handed over, and none of those after it."""
    taken = []
    with pytest.raises(ValueError, match="no such batch"):
        predict_slices(
            model,
            numbered_batches(9),
            Step(in_threads, fails_at=fails_at),
            lambda outputs, _: taken.append(outputs),
        )
    assert taken == list(range(fails_at))
    assert not [t for t in threading.enumerate() if t.name.startswith("kerasext-step")]


@pytest.mark.parametrize("in_threads", [1, 2])
def test_an_error_of_whoever_takes(model, in_threads):
    """If outputs can't be taken, nothing more is handed over."""
    taken = []

    def take(outputs, _):
        taken.append(outputs)
        if outputs == 3:
            raise OSError("a full disk")

    with pytest.raises(OSError, match="a full disk"):
        predict_slices(model, numbered_batches(9), Step(in_threads), take)
    assert taken == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [None, KeyError("on purpose"), KeyboardInterrupt()])
def test_what_came_before_a_hook_ended_it(model, error):
    """Batches whose hooks were called are handed over, however a callback ends the loop."""
    taken = []
    with contextlib.nullcontext() if error is None else pytest.raises(type(error)):
        stopped = predict_slices(
            model,
            numbered_batches(9),
            Step(2),
            lambda outputs, _: taken.append(outputs),
            callbacks=[BatchHooks(3, error)],
        )
        assert stopped
    assert taken == [0, 1, 2, 3]


def test_stopped_at_the_last_batch(model):
    """Who stops at the last batch has stopped nothing."""
    step = Step(1)
    assert not predict_slices(
        model, numbered_batches(9), step, lambda *_: None, callbacks=[BatchHooks(8)]
    )


class ChangesWeights(keras.callbacks.Callback):
    """Sets other weights before each batch."""

    def on_predict_batch_begin(self, batch, logs=None):
        for weight in self.model.weights:
            weight.assign(keras.ops.ones(weight.shape) * (batch % 3))


class Doubtful(keras.layers.Layer):
    """Random in `predict`."""

    def __init__(self, seed):
        super().__init__()
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


def random_model():
    """A model that draws the same random numbers as any other one from here."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(3, activation="softmax", kernel_initializer="ones")(
        Doubtful(7)(inputs)
    )
    return ClassifierModel(inputs, outputs)


def counting_model():
    """A model whose outputs depend on the number of batches before."""

    class Counts(keras.layers.Layer):
        def build(self, _):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, inputs):
            self.count.assign(self.count + 1)
            return inputs + self.count

    inputs = keras.Input((8,))
    return keras.Model(inputs, Counts()(inputs))


class KnowsItsRows(keras.Model):
    """Must know the number of rows when it is compiled."""

    def call(self, inputs):
        if inputs.shape[0] is None:
            raise ValueError("rows must be known")
        return inputs * 2


def eager_model():
    """A model that runs eagerly."""
    model = random_model()
    model.compile(run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("make", "size"),
    [
        *(
            (make, size)
            for make in (random_model, counting_model, eager_model)
            for size in (16, 35)
        ),
        (KnowsItsRows, 35),  # of a smaller last batch Keras compiles it for any number
    ],
)
def test_models_with_a_state_or_needs_of_their_own(make, size, rows, path):
    """Each batch sees the state that the one before has left, as in `predict`."""
    expected = make().predict(rows, batch_size=size, verbose=0)
    predict_to_hdf5(make(), rows, path, batch_size=size, verbose=0).close()
    expected = expected if isinstance(expected, dict) else {"predictions": expected}
    with PredictionFile(path) as predictions:
        for name, array in expected.items():
            np.testing.assert_array_equal(predictions[name][:], array)


def test_weights_that_a_callback_changes(model, rows, path):
    """What a hook changes before a batch holds for that batch, and for none before."""
    options = {"batch_size": 8, "verbose": 0}
    expected = model.predict(rows, callbacks=[ChangesWeights()], **options)
    predict_to_hdf5(model, rows, path, callbacks=[ChangesWeights()], **options).close()
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["probabilities"][:], expected["probabilities"])


@pytest.mark.backends("tensorflow", reason="the others compute each batch by a call")
@pytest.mark.parametrize("size", [1, 7, 32])
def test_small_batches_are_computed_together(model, size, rows, path):
    """Many small batches share calls; each is computed alone, bit for bit, also the last ones."""
    many = np.tile(rows, (1 + 600 * size // 70, 1)) * np.linspace(0, 3, 8, dtype="float32")
    step = job_step(model, jit_compile=False)
    calls = []

    class Counts(type(step)):
        def several(self, batches):
            calls.append(len(batches))
            return super().several(batches)

    step.__class__ = Counts
    taken = []
    predict_slices(model, RowSlices(many, size), step, lambda step, _: taken.append(step))
    assert set(calls) == {16}
    assert len(calls) == len(many) // size // 16
    expected = model.predict(many, batch_size=size, verbose=0)
    for name, array in expected.items():
        found = np.concatenate([outputs[name].numpy() for outputs in taken])
        np.testing.assert_array_equal(found, array)


def test_another_writer_among_the_callbacks(model, rows, path):
    """A second writer sees the steps of Keras's loop, which then predicts; the log says so."""
    other = HDF5PredictionWriter(path.with_name("other.h5"), accumulate=False)
    predict_to_hdf5(model, rows, path, batch_size=32, verbose=0, callbacks=[other]).close()
    expected = model.predict(rows, batch_size=32, verbose=0)
    for written in (path, other.path):
        with PredictionFile(written) as predictions:
            assert predictions.complete
            np.testing.assert_array_equal(predictions["labels"][:], expected["labels"])


class OwnFunction(keras.Sequential):
    """Doubles what Keras's predict function returns."""

    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function
        super().make_predict_function(force)
        kerass = self.predict_function

        def doubled(*args):
            outputs = kerass(*args)
            if BACKEND == "jax":
                return outputs[0] * 2, outputs[1]
            return outputs * 2

        self.predict_function = doubled
        return doubled


@pytest.mark.parametrize("size", [16, "auto"])
def test_a_predict_function_of_its_own(rows, path, size, capsys, caplog):
    """A model with one is predicted by Keras, and the job says so."""
    model = OwnFunction([keras.Input((8,)), keras.layers.Dense(3)])
    expected = model.predict(rows, verbose=0)
    with caplog.at_level("INFO", "kerasext"):
        predict_to_hdf5(model, rows, path, batch_size=size, verbose=2).close()
    said = "Keras's own `predict` writes"
    assert said in capsys.readouterr().out
    assert any(said in record.message for record in caplog.records)
    with PredictionFile(path) as predictions:
        np.testing.assert_allclose(predictions["predictions"][:], expected, rtol=1e-5)
