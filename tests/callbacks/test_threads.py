"""Several threads predict with one model: each file has the rows of its own call, or none."""

import os
import sys
import threading
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kerasext import predict_to_hdf5, tune_batch_size
from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor
from kerasext.models import ClassifierModel

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import threads as benchmark

ROWS = 40
not_jax = pytest.mark.backends("tensorflow", "torch", reason="on JAX Keras itself can't")
only_jax = pytest.mark.backends("jax", reason="the others can")


@pytest.fixture
def model():
    """A model that returns its input, so that each row tells which one it is."""
    return keras.Sequential([keras.Input((1,)), keras.layers.Rescaling(1.0)])


def data(number):
    """The rows of a thread."""
    return (np.arange(ROWS, dtype="float32") + 1000 * number)[:, None]


def in_threads(*functions):
    """Runs functions in threads of their own, and returns what each of them raised."""
    errors = [None] * len(functions)

    def run(number, function):
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            errors[number] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


class Meets(keras.callbacks.Callback):
    """Lets threads wait for each other in a hook, so that they are in the same step together."""

    def __init__(self, barrier, *hooks):
        super().__init__()
        for hook in hooks:
            setattr(self, hook, lambda *_, **__: barrier.wait(60))


def assert_holds(path, rows, *, complete=True):
    """The file has these rows, read with plain h5py."""
    with h5py.File(path) as file:
        assert bool(file["_kerasext/record"]["complete"]) is complete
        np.testing.assert_array_equal(file["predictions"][:], rows)


def writing(model, number, path, *others, accumulate=False):
    """A `predict` of the rows of a thread, in ten steps."""
    writer = HDF5PredictionWriter(path, accumulate=accumulate)
    return lambda: model.predict(data(number), batch_size=4, verbose=0, callbacks=[writer, *others])


@not_jax
@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize(
    "hooks",
    [
        ["on_predict_batch_begin"],  # all wrappers are on, then they go
        ["on_predict_batch_begin", "on_predict_batch_end"],
        ["on_predict_begin", "on_predict_batch_end"],
    ],
)
def test_writers_in_step(hooks, accumulate, model, tmp_path):
    """Three writers whose steps begin together have each its own rows, and the model is as it was.

    The first faults of this kind had rows of another thread, and steps twice.
    """
    before = model.predict_function
    barrier = threading.Barrier(3)
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    meets = Meets(barrier, *hooks)
    functions = [
        writing(model, number, path, meets, accumulate=accumulate)
        for number, path in enumerate(paths)
    ]
    assert in_threads(*functions) == [None] * 3
    for number, path in enumerate(paths):
        assert_holds(path, data(number))
    assert "make_predict_function" not in vars(model)
    assert before is None or model.predict_function is before
    np.testing.assert_array_equal(model.predict(data(9), verbose=0), data(9))


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, of generators
@not_jax
def test_all_kinds_of_jobs():
    """Jobs of arrays, of generators and of small batches, writers, monitors and plain predicts."""
    ends = benchmark_round(jobs=16, threads=4)
    assert ends == {"right": 16}


def benchmark_round(**options):
    """One round of `benchmarks/threads.py`, with several batches in a step where it can be."""
    import tempfile  # noqa: PLC0415 - the round makes many files

    with tempfile.TemporaryDirectory() as folder:
        return benchmark.run_round(Path(folder), **options)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@not_jax
def test_many_jobs():
    """32 jobs in 4 threads, some rounds; `benchmarks/threads.py` runs more."""
    for _ in range(4):
        assert benchmark_round(jobs=32, threads=4) == {"right": 32}


class Elsewhere(keras.callbacks.Callback):
    """Calls a function in another thread, in a hook of the second step."""

    def __init__(self, hook, function):
        super().__init__()
        self.errors = []

        def call(batch, logs=None):
            if batch == 1:
                self.errors = in_threads(function)

        setattr(self, hook, call)


@not_jax
@pytest.mark.parametrize("hook", ["on_predict_batch_begin", "on_predict_batch_end"])
def test_predict_function_made_elsewhere(hook, model, path):
    """Another thread makes the predict function anew: no step is missed."""
    other = Elsewhere(hook, lambda: model.make_predict_function(force=True))
    writing(model, 0, path, other)()
    assert other.errors == [None]
    assert_holds(path, data(0))
    assert_is_kerass(model)


def assert_is_kerass(model):
    """The predict function of the model is Keras's own, and works."""
    np.testing.assert_array_equal(model.predict(data(9), verbose=0), data(9))
    assert "make_predict_function" not in vars(model)
    assert not hasattr(model.predict_function, "__self__")


@not_jax
@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
def test_compiled_elsewhere_between_steps(options, model, path):
    """Another thread compiles the model between two steps, which plain `predict` does not bear."""
    other = Elsewhere("on_predict_batch_end", lambda: model.compile(**options))
    writing(model, 0, path, other)()
    assert_holds(path, data(0))
    assert_is_kerass(model)


@pytest.mark.backends("tensorflow", reason="torch has no `steps_per_execution`")
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, of its loop
def test_several_steps_from_elsewhere(model, path):
    """Steps of which Keras counts one and takes three: what counts is the batches that came."""
    other = Elsewhere("on_predict_batch_end", lambda: model.compile(steps_per_execution=3))
    writing(model, 0, path, other)()
    assert_holds(path, data(0))
    assert_is_kerass(model)


@not_jax
def test_compiled_elsewhere_within_a_step(model, path):
    """Another thread compiles the model just before a step: Keras's loop fails, no row is wrong."""
    other = Elsewhere("on_predict_batch_begin", model.compile)
    writer = HDF5PredictionWriter(path, accumulate=False)
    with pytest.raises(TypeError, match="NoneType"), writer:
        model.predict(data(0), batch_size=4, verbose=0, callbacks=[writer, other])
    assert_holds(path, data(0)[:4], complete=False)
    assert_is_kerass(model)


@not_jax
def test_a_wrapper_left_by_another_thread(model, path):
    """A thread that failed between hook and step, and lives on, disturbs no other one."""
    failed, go_on = threading.Event(), threading.Event()

    class Fails(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            raise KeyError("on purpose")

    def fail():
        try:
            writing(model, 1, path.with_name("failed.h5"), Fails())()
        finally:
            failed.set()
            go_on.wait(60)

    thread = threading.Thread(target=lambda: in_threads(fail))
    thread.start()
    assert failed.wait(60)
    np.testing.assert_array_equal(model.predict(data(9), verbose=0), data(9))
    writing(model, 0, path)()
    assert_holds(path, data(0))
    go_on.set()
    thread.join()
    assert_is_kerass(model)  # the next `predict` takes away what a dead thread has left
    assert not path.with_name("failed.h5").exists()


@not_jax
def test_a_job_beside_other_threads(model, tmp_path):
    """Other threads predict with the model of a job, with and without a writer, meanwhile."""
    rows = np.arange(1000, dtype="float32")[:, None]
    results, seen = [], []

    class Predicts(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            seen.append(self.model.steps_per_execution)
            if len(seen) in (5, 12):
                number = len(results)
                in_threads(
                    lambda: results.append(model.predict(data(0), batch_size=4, verbose=0)),
                    writing(model, 1, tmp_path / f"writer{number}.h5"),
                )

    path = tmp_path / "job.h5"
    predict_to_hdf5(model, rows, path, batch_size=4, verbose=0, callbacks=[Predicts()]).close()
    assert_holds(path, rows)
    assert set(seen) == {1}
    assert len(results) == 2
    for number, result in enumerate(results):
        np.testing.assert_array_equal(result, data(0))
        assert_holds(tmp_path / f"writer{number}.h5", data(1))


class Stops(keras.callbacks.Callback):
    """Ends `predict` after its second step, and takes it back as the begin of another one does."""

    def on_predict_batch_end(self, batch, logs=None):
        self.model.stop_predicting = batch == 1

    def on_predict_end(self, logs=None):
        self.model.stop_predicting = False


def unknown_length(rows):
    """The rows in batches, of whose number Keras knows nothing."""
    for start in range(0, len(rows), 4):
        yield (rows[start : start + 4],)


@pytest.mark.parametrize(
    "source",
    [
        lambda rows: rows,
        pytest.param(
            unknown_length,
            marks=pytest.mark.backends(
                "tensorflow", "jax", reason="of torch's loop the last step is like any other"
            ),
        ),
    ],
)
def test_stopped_though_it_is_not_said(source, model, path):
    """A file lacks rows and is not complete, though another thread has set `stop_predicting`."""
    x = source(data(0))
    size = 4 if isinstance(x, np.ndarray) else None
    writer = HDF5PredictionWriter(path, accumulate=False)
    model.predict(x, batch_size=size, verbose=0, callbacks=[Stops(), writer])
    assert_holds(path, data(0)[:8], complete=False)


def test_stopped_by_another_thread(model, path):
    """`stop_predicting` belongs to the model: whoever it stops has an incomplete file."""
    other = Elsewhere("on_predict_batch_end", lambda: setattr(model, "stop_predicting", True))
    predict_to_hdf5(model, data(0), path, batch_size=4, verbose=0, callbacks=[other]).close()
    assert_holds(path, data(0)[:8], complete=False)


@only_jax
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize(
    "second",
    [
        lambda model, path: writing(model, 1, path)(),
        lambda model, path: predict_to_hdf5(model, data(1), path, verbose=0),
        lambda model, path: predict_to_hdf5(model, unknown_length(data(1)), path, verbose=0),
        lambda model, _: model.predict(data(1), verbose=0, callbacks=[PredictionMonitor()]),
        lambda model, _: tune_batch_size(model, np.tile(data(1), (4, 1))),
    ],
    ids=["writer", "arrays", "generator", "monitor", "tuning"],
)
@pytest.mark.parametrize("first", ["writer", "arrays", "generator"])
def test_a_second_thread_on_jax(first, second, model, tmp_path):
    """There a second thread is refused before it writes, and the first one has all of its rows."""
    path = tmp_path / "first.h5"
    other = Elsewhere("on_predict_batch_end", lambda: second(model, tmp_path / "second.h5"))
    if first == "writer":
        writing(model, 0, path, other)()
    else:
        x = data(0) if first == "arrays" else unknown_length(data(0))
        size = 4 if first == "arrays" else "auto"
        predict_to_hdf5(model, x, path, batch_size=size, verbose=0, callbacks=[other]).close()
    (error,) = other.errors
    assert isinstance(error, RuntimeError)
    assert "On JAX one thread at a time" in str(error)
    assert_holds(path, data(0))
    assert os.listdir(tmp_path) == ["first.h5"]
    in_threads(lambda: second(model, tmp_path / "second.h5"))
    np.testing.assert_array_equal(model.predict(data(9), verbose=0), data(9))


@only_jax
def test_one_thread_after_the_other_on_jax(model, tmp_path):
    """Threads may take turns, also after one that failed and was closed, or is dead."""

    def fail(close):
        def batches():
            yield (data(0)[:4],)
            raise KeyError("on purpose")

        writer = HDF5PredictionWriter(tmp_path / "failed.h5", mode="w", accumulate=False)
        try:
            model.predict(batches(), verbose=0, callbacks=[writer])
        finally:
            writers.append(writer)
            if close:
                writer.close()

    writers = []
    assert isinstance(in_threads(lambda: fail(close=False))[0], KeyError)  # that thread is dead
    for number in range(3):
        path = tmp_path / f"{number}.h5"
        assert in_threads(writing(model, number, path)) == [None]
        assert_holds(path, data(number))
    with pytest.raises(KeyError):
        fail(close=True)
    assert in_threads(writing(model, 4, tmp_path / "4.h5")) == [None]
    writing(model, 5, tmp_path / "5.h5")()


def test_a_class_of_its_own_predict_function(path):
    """A class may override `make_predict_function`, which is called for a wrapped model, too."""

    class Own(ClassifierModel):
        made = 0

        def make_predict_function(self, force=False):
            self.made += 1
            return super().make_predict_function(force)

    inputs = keras.Input((8,))
    model = Own(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    rows = np.ones((20, 8), "float32")
    other = Elsewhere("on_predict_batch_begin", lambda: model.make_predict_function(force=True))
    writer = HDF5PredictionWriter(path)
    result = model.predict(rows, batch_size=4, verbose=0, callbacks=[writer, other])
    assert other.errors == [None]
    assert model.made >= 2
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["probabilities"][:], result["probabilities"])
    assert model.predict_function.__class__ is not Own
