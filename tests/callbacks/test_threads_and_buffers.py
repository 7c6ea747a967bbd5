"""What backends do beside the loop: hooks in threads, buffers used again, work not waited for."""

import gc
import importlib
import threading
import weakref

import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter, step_rows

BACKEND = keras.backend.backend()
COUNTED = np.arange(400, dtype="float32").reshape(400, 1)  # each row tells which one it is

IGNORED = "ignore:Your input ran out of data:UserWarning"  # Keras, of generators


@pytest.fixture
def double(structure_model):
    """A model that says which row it was given."""
    return structure_model(lambda x: {"a": x * 2, "b": x[:, 0]})


class SafeInThreads(keras.callbacks.Callback):
    """Lets Keras call the hooks at the ends of batches in threads, out of order."""

    async_safe = True

    def __init__(self):
        super().__init__()
        self.threads = set()

    def on_predict_batch_end(self, batch, logs=None):
        self.threads.add(threading.get_ident())


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("bare", [True, False])
def test_order_in_threads(bare, accumulate, double, path, assert_file_equals):
    """Rows are in order where Keras calls hooks in a thread pool, out of order.

    It does for a callback that is not in a list, and for those that say that they are safe.
    """
    plain = double.predict(COUNTED, batch_size=1, verbose=0)
    writer = HDF5PredictionWriter(path, accumulate=accumulate)
    safe = SafeInThreads()
    callbacks = writer if bare else [safe, writer]
    returned = double.predict(COUNTED, batch_size=1, verbose=0, callbacks=callbacks)
    assert_file_equals(path, plain)
    if accumulate:
        keras.tree.map_structure(np.testing.assert_array_equal, returned, plain)
    else:
        assert returned == {}
    if BACKEND != "tensorflow" and accumulate and not bare:
        assert threading.get_ident() not in safe.threads, "it was to test another thread"


@pytest.mark.filterwarnings(IGNORED)
def test_a_bare_callback_can_resume(double, path, assert_file_equals):
    """A callback that is not in a list is stopped and goes on like any other."""

    def batches(error=None):
        for row in COUNTED[:40]:
            if error is not None and row[0] == 30:
                raise error
            yield (row[None],)

    writer = HDF5PredictionWriter(path, mode="resume", accumulate=False)
    with pytest.raises(Exception, match="on purpose"), writer:
        double.predict(batches(RuntimeError("on purpose")), verbose=0, callbacks=writer)
    double.predict(batches(), verbose=0, callbacks=writer)
    assert_file_equals(path, double.predict(COUNTED[:40], batch_size=1, verbose=0))


def test_a_step_of_a_wrong_shape_leaves_the_weights(classifier, rows, path):
    """Input that the model refuses, in the first step or later, leaves it as it was."""
    plain = classifier.predict(rows, verbose=0)
    for before in (0, 2):

        def batches(before=before):
            yield from [(rows[:5],)] * before
            yield (rows[:5, :3],)

        writer = HDF5PredictionWriter(path, mode="w", accumulate=False)
        with pytest.raises(Exception, match="shape"), writer:
            classifier.predict(batches(), verbose=0, callbacks=[writer])
        result = classifier.predict(rows, verbose=0)
        np.testing.assert_array_equal(result["probabilities"], plain["probabilities"])


@pytest.mark.backends("tensorflow", "jax", reason="tensors of torch may change, and are copied")
def test_outputs_are_not_waited_for(double, path, monkeypatch):
    """Only the writing thread waits for values: after the first step `predict` runs ahead."""
    threads = []
    to_rows = step_rows.to_rows
    monkeypatch.setattr(
        step_rows,
        "to_rows",
        lambda *args: (threads.append(threading.get_ident()), to_rows(*args))[1],
    )
    writer = HDF5PredictionWriter(path, accumulate=False)
    double.predict(COUNTED, batch_size=10, verbose=0, callbacks=[writer])
    assert len(threads) == 40 * 2
    assert threading.get_ident() not in threads


@pytest.mark.filterwarnings(IGNORED)
# TensorFlow makes a tensor of memory that is aligned to 64 bytes without a copy, JAX of any.
@pytest.mark.backends("torch", reason="the others' own `predict` reads such input too late")
def test_input_that_is_used_again(structure_model, path):
    """Outputs that are a view of the input are stored as they were, whatever becomes of it."""
    buffer = np.empty((10, 1), dtype="float32")

    def batches():
        yield (COUNTED[:10],)  # Keras reads one more before it gives this to the model
        for start in range(10, 400, 10):
            buffer[:] = COUNTED[start : start + 10]
            yield (buffer,)

    writer = HDF5PredictionWriter(path, accumulate=False, commit_interval=60)
    structure_model(lambda x: x).predict(batches(), verbose=0, callbacks=[writer])
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["predictions"][:], COUNTED)


@pytest.mark.backends("torch", reason="the others' tensors never change")
def test_a_buffer_that_the_model_writes_into(structure_model, path):
    """Rows are stored as they were when the model returned them, though written later."""
    buffer = importlib.import_module("torch").empty(10, 1)

    def function(x):
        buffer[: len(x)] = x * 2
        return {"one": buffer[: len(x)], "left out": x}

    writer = HDF5PredictionWriter(path, accumulate=False, outputs=["one"], commit_interval=60)
    model = structure_model(function)
    model.predict(COUNTED, batch_size=10, verbose=0, callbacks=[writer])
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["one"][:], COUNTED * 2)


@pytest.mark.backends("torch", reason="no other backend has graphs behind its outputs")
def test_no_graph_is_kept_alive(structure_model, path):
    """Of a step that is done neither outputs nor what they were computed from stay in memory."""
    torch = importlib.import_module("torch")
    alive, counts = weakref.WeakSet(), []

    def function(x):
        counts.append(len(alive))
        with torch.enable_grad():
            inner = x * torch.ones(1, requires_grad=True)
            outer = inner * 2
        alive.update([inner, outer])
        return outer

    writer = HDF5PredictionWriter(path, accumulate=False, commit_interval=60)
    model = structure_model(function)
    model.predict_on_batch(COUNTED[:10])
    gc.collect()
    del counts[:]
    gc.disable()
    try:
        model.predict(COUNTED, batch_size=10, verbose=0, callbacks=[writer])
    finally:
        gc.enable()
    assert counts == [0] * 40
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["predictions"][:], COUNTED * 2)


@pytest.mark.backends("torch", reason="no other backend has this state")
def test_evaluation_mode(rows, path, assert_file_equals):
    """A model in training mode predicts in evaluation mode, and stays in it, as without."""
    layers = [keras.Input((8,)), keras.layers.Dropout(0.5), keras.layers.BatchNormalization()]
    model = keras.Sequential(layers)
    plain = model.predict(rows, batch_size=23, verbose=0)
    model.train()
    model.predict(rows, batch_size=23, verbose=0, callbacks=[HDF5PredictionWriter(path)])
    assert not model.training
    assert_file_equals(path, plain)
