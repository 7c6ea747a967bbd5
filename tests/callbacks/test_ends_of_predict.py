"""No way out of `predict` changes the model or loses what was written."""

import contextlib
import gc
import importlib
import os
import threading

import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.storage import PredictionFileWriter

# Before 3.15 Keras reads a batch ahead on JAX: an error in the data comes a batch early.
READS_AHEAD = keras.backend.backend() == "jax" and keras.__version__ < "3.15"


class Raises(keras.callbacks.Callback):
    def __init__(self, hook, error, batch=2):
        super().__init__()
        self.error, self.batch = error, batch
        setattr(self, hook, self._fail)

    def _fail(self, batch=None, logs=None):
        if batch is None or isinstance(batch, dict) or batch == self.batch:
            raise self.error


def batches(rows, error=None):
    """The rows in batches of 23; an error takes the place of the third."""
    for start in range(0, 70, 23):
        if start == 46 and error is not None:
            raise error
        yield (rows[start : start + 23],)


class Fails(Exception):
    pass


@pytest.fixture(params=[True, False], ids=["eager", "compiled"])
def fails_in_step(request, structure_model, on_host, rows):
    """A model with weights that raises in the third batch that it computes."""
    calls = []

    def fail():
        calls.append(1)
        if len(calls) == 3:
            raise Fails("on purpose")

    model = structure_model(lambda x: on_host(fail, model.dense(x)))
    model.dense = keras.layers.Dense(3)
    model.compile(run_eagerly=request.param)
    model.predict_on_batch(rows)  # makes the weights
    calls.clear()
    return model


ENDS = {
    "in the data": lambda rows: (batches(rows, Fails("on purpose")), []),
    "callback, batch begin": lambda rows: (
        rows,
        [Raises("on_predict_batch_begin", Fails("on purpose"))],
    ),
    "callback, batch end": lambda rows: (
        rows,
        [Raises("on_predict_batch_end", Fails("on purpose"))],
    ),
    "Ctrl-C, batch begin": lambda rows: (
        rows,
        [Raises("on_predict_batch_begin", KeyboardInterrupt("on purpose"))],
    ),
    "Ctrl-C, batch end": lambda rows: (
        rows,
        [Raises("on_predict_batch_end", KeyboardInterrupt("on purpose"))],
    ),
}


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", ENDS)
def test_an_error_outside_the_step(name, before, classifier, rows, path):
    """After an error in the data or a callback, before or after ours, every next call is right."""
    plain = classifier.predict(rows, batch_size=23, verbose=0)
    writer = HDF5PredictionWriter(path, mode="w", accumulate=False)
    x, others = ENDS[name](rows)
    callbacks = [*others, writer] if before else [writer, *others]
    # TensorFlow's pipeline passes on only the text of an error in a generator.
    with pytest.raises(BaseException, match="on purpose"), writer:
        classifier.predict(x, batch_size=23 if x is rows else None, verbose=0, callbacks=callbacks)
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        assert predictions.rows in ((23, 46, 69) if READS_AHEAD else (46, 69))
        np.testing.assert_array_equal(predictions["labels"][:], plain["labels"][: predictions.rows])
    after = classifier.predict(rows, batch_size=23, verbose=0)
    np.testing.assert_array_equal(after["labels"], plain["labels"])
    after = classifier.predict_on_batch(rows)
    np.testing.assert_array_equal(after["labels"], plain["labels"])
    assert classifier.predict(rows, verbose=0, callbacks=[writer]) == {}
    with PredictionFile(path) as predictions:
        assert predictions.complete
        assert predictions.rows == 70


def test_an_error_in_the_model_closes_the_file_at_once(fails_in_step, rows, path):
    """The writer sees an error inside the step: the file is released without further ado.

    On JAX, whose compiled steps are given the weights for good, the model has them all the same.
    """
    model = fails_in_step
    weights = model.get_weights()
    writer = HDF5PredictionWriter(path, accumulate=False)
    with pytest.raises(Exception, match="on purpose"):
        model.predict(rows, batch_size=23, verbose=0, callbacks=[writer])
    assert os.listdir(path.parent) == [path.name]
    for value, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(value, expected)
    plain = model.predict(rows, batch_size=23, verbose=0)
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        np.testing.assert_array_equal(predictions["predictions"][:], plain[:46])


def test_weights_set_after_an_error_stay(classifier, rows, path):
    """What a failed call left behind never comes back over weights that were set since."""
    fails = Raises("on_predict_batch_end", Fails("on purpose"))
    writer = HDF5PredictionWriter(path, mode="w", accumulate=False)
    with pytest.raises(Fails):
        classifier.predict(rows, batch_size=8, verbose=0, callbacks=[writer, fails])
    weights = [value + 1 for value in classifier.get_weights()]
    classifier.set_weights(weights)
    classifier.predict(rows, verbose=0, callbacks=[writer])
    for value, expected in zip(classifier.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_a_bad_step_loses_nothing_of_those_before(structure_model, rows, path):
    """A step whose row shape differs is refused by name; the rows before it are kept."""
    model = structure_model(lambda x: {"a": x if len(x) == 23 else x[:, :3]})
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match=r"'a'.*First step: \(8,\). Received: shape=\(1, 3\)"):
        model.predict(rows, batch_size=23, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        np.testing.assert_array_equal(predictions["a"][:], rows[:69])


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_no_rows_are_an_error_that_changes_nothing(mode, classifier, rows, path):
    """Without a row there is nothing to write: a clear error, and an old file stays."""
    if mode != "x":
        classifier.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    before = sorted((file.name, file.read_bytes()) for file in path.parent.iterdir())
    with pytest.raises(ValueError, match="at least one row"):
        classifier.predict(rows[:0], verbose=0, callbacks=[HDF5PredictionWriter(path, mode=mode)])
    assert sorted((file.name, file.read_bytes()) for file in path.parent.iterdir()) == before
    assert len(classifier.predict(rows, verbose=0)["labels"]) == 70


class Stops(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_predict_batch_end(self, batch, logs=None):
        if batch >= self.batch:
            self.model.stop_predicting = True


def tens(rows, count):
    """Batches of Keras, so many."""
    for start in range(0, count * 10, 10):
        yield (rows[start : start + 10],)


def data_set(rows, count):
    """The same as a data set whose length Keras knows."""
    tf = importlib.import_module("tensorflow")
    return tf.data.Dataset.from_tensor_slices(rows[: count * 10]).batch(10)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # which is true
@pytest.mark.parametrize("source", [tens, data_set])
def test_data_that_end_before_the_steps(source, classifier, rows, path):
    """A file lacks rows of the steps that were asked for and is not complete; "resume" goes on."""
    writer = HDF5PredictionWriter(path, mode="resume", accumulate=False)
    classifier.predict(source(rows, 4), steps=7, verbose=0, callbacks=[writer])
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (40, False)
    with predict_to_hdf5(
        classifier, source(rows, 4), path, steps=7, mode="resume", verbose=0
    ) as predictions:
        assert (predictions.rows, predictions.complete) == (40, False)
    classifier.predict(source(rows, 7), steps=7, verbose=0, callbacks=[writer])
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (70, True)


STEPS_PER_EXECUTION = [
    1,
    pytest.param(
        3, marks=pytest.mark.backends("tensorflow", "jax", reason="Keras refuses it on torch")
    ),
]


@pytest.mark.parametrize("steps_per_execution", STEPS_PER_EXECUTION)
@pytest.mark.parametrize(("batch", "complete"), [(1, False), (3, True)])
def test_stop_predicting(
    batch, complete, steps_per_execution, classifier, rows, path, assert_file_equals
):
    """A stopped call leaves the rows until then; the file is complete only if none were left."""
    classifier.compile(steps_per_execution=steps_per_execution)
    writer = HDF5PredictionWriter(path)
    result = classifier.predict(rows, batch_size=23, verbose=0, callbacks=[writer, Stops(batch)])
    assert_file_equals(path, result, complete=complete)
    assert len(result["labels"]) < 70 or complete


@pytest.mark.backends("torch", reason="the others have it")
def test_steps_per_execution_on_torch(classifier, rows, path, assert_file_equals):
    """Keras's refusal comes through as it is; model, writer and folder are as before."""
    plain = classifier.predict(rows, verbose=0)
    writer = HDF5PredictionWriter(path)
    classifier.compile(steps_per_execution=2)
    with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
        classifier.predict(rows, verbose=0, callbacks=[writer])
    assert os.listdir(path.parent) == []
    classifier.compile()
    classifier.predict(rows, verbose=0, callbacks=[writer])
    assert_file_equals(path, plain)


class PredictsInBatchBegin(keras.callbacks.Callback):
    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def on_predict_batch_begin(self, batch, logs=None):
        if batch == 2:
            self.model.predict_on_batch(self.rows)


def test_a_step_that_was_not_seen_is_an_error(classifier, rows, path):
    """Rows that another callback kept from the writer are never missing without a word.

    And the model can be used again, on JAX too.
    """
    plain = classifier.predict(rows, verbose=0)
    with pytest.raises(RuntimeError, match="put it before this one"):
        classifier.predict(
            rows,
            batch_size=23,
            verbose=0,
            callbacks=[HDF5PredictionWriter(path), PredictsInBatchBegin(rows)],
        )
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (46, False)
    np.testing.assert_allclose(classifier.predict(rows, verbose=0)["labels"], plain["labels"])


def test_nested_predict_in_batch_end(classifier, rows, path, assert_file_equals):
    """Another callback may predict with the same model between steps."""

    class Predicts(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            self.model.predict_on_batch(rows)

    result = classifier.predict(
        rows, batch_size=23, verbose=0, callbacks=[HDF5PredictionWriter(path), Predicts()]
    )
    assert_file_equals(path, result)


def test_a_second_live_writer_is_refused(classifier, rows, path, tmp_path):
    """Two writers on one file in one call: the second is refused, the first can be closed."""
    first = HDF5PredictionWriter(path, mode="w")
    with first, pytest.raises(BlockingIOError, match="held by this process"):
        classifier.predict(rows, verbose=0, callbacks=[first, HDF5PredictionWriter(path, mode="w")])
    assert os.listdir(tmp_path) == []


def test_a_deleted_callback_releases_the_file(classifier, rows, path):
    """Without `with`, a callback that nobody holds any more has closed its file."""
    writer = HDF5PredictionWriter(path, accumulate=False)
    with pytest.raises(Fails):
        classifier.predict(
            rows,
            batch_size=23,
            verbose=0,
            callbacks=[writer, Raises("on_predict_batch_begin", Fails("on purpose"))],
        )
    del writer
    for _ in range(3):  # a suspended generator of Keras's is ended by the first, and then frees
        gc.collect()
    wait_for_the_lock(path)
    assert os.listdir(path.parent) == [path.name]
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (46, False)


def test_interpreter_exit_closes_the_file(keras_server, path):
    """A script that ends after an error, its callback still alive, leaves a file that opens."""
    script = """
        import sys
        import keras, numpy as np
        from kerasext.callbacks import HDF5PredictionWriter

        def batches():
            yield (np.ones((5, 3)),)
            yield (np.ones((5, 3)),)
            raise RuntimeError("no more")

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        writer = HDF5PredictionWriter(sys.argv[1], accumulate=False)
        model.predict(batches(), verbose=0, callbacks=[writer])
    """
    ended = keras_server.run(script, path)
    assert ended.status == 1
    assert "RuntimeError: no more" in ended.errors
    assert "Exception ignored" not in ended.errors
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (5 if READS_AHEAD else 10, False)
    assert os.listdir(path.parent) == [path.name]


def wait_for_the_lock(path):
    """Waits for the thread of a writer that was deleted: the next writer does."""
    PredictionFileWriter(path, mode="resume").close()


class Interrupts(keras.callbacks.Callback):
    """Ctrl-C between the second step and the third; Keras tells no callback."""

    def on_predict_batch_begin(self, batch, logs=None):
        if batch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("mode", ["resume", "w"])
def test_a_cell_that_is_run_again(classifier, rows, path, assert_file_equals, mode):
    """An interrupted cell of a notebook, run again unchanged, writes its file.

    The notebook keeps what the first run left behind; nobody closed its writer.
    """
    plain = classifier.predict(rows, batch_size=23, verbose=0)
    left = []
    for others in ([Interrupts()], [Interrupts()], []):
        writer = HDF5PredictionWriter(path, mode=mode, accumulate=False)
        left.append(writer)
        with contextlib.nullcontext() if not others else pytest.raises(KeyboardInterrupt):
            classifier.predict(rows, batch_size=23, verbose=0, callbacks=[writer, *others])
    assert_file_equals(path, plain)
    left[0].close()  # which is of no consequence any more
    assert_file_equals(path, plain)


def test_a_job_after_an_interrupted_predict(classifier, rows, path, assert_file_equals):
    """`predict_to_hdf5` finishes what an interrupted `predict` began, whose writer is there."""
    writer = HDF5PredictionWriter(path, accumulate=False)
    with pytest.raises(KeyboardInterrupt):
        classifier.predict(rows, batch_size=23, verbose=0, callbacks=[writer, Interrupts()])
    predict_to_hdf5(classifier, rows, path, batch_size=23, mode="resume", verbose=0).close()
    assert_file_equals(path, classifier.predict(rows, batch_size=23, verbose=0))


def test_a_predict_that_has_not_returned_keeps_its_file(
    classifier, structure_model, rows, path, assert_file_equals
):
    """A second writer is refused inside a `predict` that writes the file, which it leaves alone."""
    other = structure_model(lambda x: x)

    class Predicts(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            with pytest.raises(BlockingIOError, match="held by this process"):
                other.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path, mode="w")])

    result = classifier.predict(
        rows, batch_size=23, verbose=0, callbacks=[HDF5PredictionWriter(path), Predicts()]
    )
    assert_file_equals(path, result)


def test_a_writer_of_another_thread(structure_model, rows, path):
    """A thread that lives keeps its file; one that has ended gives it up."""
    model, other = structure_model(lambda x: x), structure_model(lambda x: x)
    left, begun, may_end = [], threading.Event(), threading.Event()

    def begin():
        left.append(HDF5PredictionWriter(path))
        left[0].set_model(other)
        left[0].on_predict_begin()
        begun.set()
        may_end.wait(60)

    thread = threading.Thread(target=begin)
    thread.start()
    begun.wait(60)
    try:
        with pytest.raises(BlockingIOError, match="held by this process"):
            model.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    finally:
        may_end.set()
        thread.join()
    model.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (70, True)


COLLECTED_IN_A_READ = """
    import gc, io, sys
    import h5py, keras, numpy as np
    from kerasext.callbacks import HDF5PredictionWriter

    class Breaks(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            if batch == 2:
                raise ValueError

    class Reader(io.FileIO):
        def readinto(self, buffer):
            gc.collect()  # as may happen at any moment
            return super().readinto(buffer)

    path, other = sys.argv[1:]
    with h5py.File(other, "w") as file:
        file["a"] = np.arange(3)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    writer = HDF5PredictionWriter(path, accumulate=False)
    try:
        model.predict(np.ones((6, 2)), batch_size=1, verbose=0, callbacks=[writer, Breaks()])
    except ValueError:
        pass
    writer.itself, finalizer = writer, writer._run._finalizer
    gc.collect()
    gc.disable()
    del writer
    with h5py.File(Reader(other), "r") as file:
        print(file["a"][:].tolist(), finalizer.alive)
"""


def test_a_writer_that_is_collected_while_hdf5_reads(keras_server, path, tmp_path):
    """A garbage collection in a read of HDF5 does not wait for the thread that closes the file.

    The thread needs HDF5, and would wait for the read. At the exit its rows are in the file.
    """
    ended = keras_server.start(COLLECTED_IN_A_READ, path, tmp_path / "other.h5").end(60)
    assert ended == (0, "[0, 1, 2] False\n", ended.errors)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (2, False)
