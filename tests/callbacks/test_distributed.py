"""Models on several devices: rows in order, all of them, and resumed; several processes refused."""

import json
import os
import socket
from textwrap import dedent

import pytest

COMMON = """
import os, sys
import keras, numpy as np
from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

path = sys.argv[1]
rows = np.random.default_rng(0).normal(size=(70, 8)).astype("float32")

class Interrupts(keras.callbacks.Callback):
    def on_predict_batch_end(self, batch, logs=None):
        if batch >= 2:
            raise KeyboardInterrupt

def make_model():
    inputs = keras.Input((8,))
    return ClassifierModel(inputs, keras.layers.Dense(4, activation="softmax")(inputs))

def assert_equal(predictions, expected):
    assert predictions.complete and predictions.rows == 70, predictions
    for name, array in expected.items():
        np.testing.assert_array_equal(predictions[name][:], array)
"""


@pytest.fixture
def start(keras_server):
    """Starts a process, for devices are made when a backend is first used."""
    return lambda script, *args, **env: keras_server.start(COMMON + dedent(script), *args, env=env)


def assert_done(process):
    """The process came to the end of its script."""
    ended = process.end()
    assert ended.status == 0, ended.errors[-3000:]
    assert ended.out.endswith("done\n")


@pytest.mark.backends("tensorflow", reason="`tf.distribute` is TensorFlow's")
def test_mirrored_strategy(start, path):
    """On two devices files equal what `predict` returns, in any cut, and so does a resumed one."""
    script = """
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = make_model()
        assert strategy.num_replicas_in_sync == 2
        # Of both the last batch has one row.
        for batch_size, steps in ((3, 2), (23, 1)):
            model.compile(steps_per_execution=steps)
            plain = model.predict(rows, batch_size=batch_size, verbose=0)
            writer = HDF5PredictionWriter(path, mode="w")
            result = model.predict(rows, batch_size=batch_size, verbose=0, callbacks=[writer])
            with PredictionFile(path) as predictions:
                assert_equal(predictions, plain)
                assert_equal(predictions, result)
            os.unlink(path)
        model.compile(steps_per_execution=2)
        plain = model.predict(rows, batch_size=8, verbose=0)
        options = {"batch_size": 8, "verbose": 0}
        try:
            predict_to_hdf5(model, rows, path, callbacks=[Interrupts()], **options)
        except KeyboardInterrupt:
            pass
        with PredictionFile(path) as predictions:
            assert not predictions.complete and 24 <= predictions.rows <= 32, predictions
        with predict_to_hdf5(model, rows, path, mode="resume", **options) as predictions:
            assert_equal(predictions, plain)
        print("done")
    """
    assert_done(start(script, path))


@pytest.mark.backends("tensorflow", reason="`tf.distribute` is TensorFlow's")
def test_ids_of_a_mirrored_strategy(start, path):
    """Ids and targets of shuffled batches that two devices share join to their rows."""
    script = """
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            inputs = {"image": keras.Input((8,), name="image")}
            model = keras.Model(inputs, {"first": inputs["image"][:, 0]})
        names = np.array([f"name {row}" for row in range(70)])
        numbers = np.arange(70) + 2**40
        for ids, steps in ((names, 1), (numbers, 2)):
            model.compile(steps_per_execution=steps)
            data = ({"image": rows, "id": ids}, rows[:, 0] * 2)
            data = tf.data.Dataset.from_tensor_slices(data).shuffle(70).batch(23)
            writer = HDF5PredictionWriter(path, mode="w", ids="id", targets=True)
            model.predict(data, verbose=0, callbacks=[writer])
            with PredictionFile(path) as predictions:
                order = np.argsort(predictions["ids"][:])
                np.testing.assert_array_equal(predictions["ids"][order], np.sort(ids))
                expected = rows[np.argsort(ids), 0]
                np.testing.assert_array_equal(predictions["first"][order], expected)
                np.testing.assert_array_equal(predictions["targets"][order], expected * 2)
        print("done")
    """
    assert_done(start(script, path))


@pytest.mark.backends("tensorflow", reason="`tf.distribute` is TensorFlow's")
def test_processes_that_share_a_predict_are_refused(start, tmp_path):
    """`MultiWorkerMirroredStrategy` of two workers: an error at begin, no file, a usable model."""
    script = """
        import tensorflow as tf
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            model = make_model()
        try:
            model.predict(rows, verbose=0, callbacks=[HDF5PredictionWriter(path)])
        except ValueError as error:
            assert "several processes" in str(error) and "2 processes" in str(error), error
        assert not os.path.exists(path)
        assert len(model.predict(rows, verbose=0)["labels"]) == 70
        print("done")
    """
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = [
        start(
            script,
            tmp_path / f"{index}.h5",
            TF_CONFIG=json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            ),
        )
        for index in range(2)
    ]
    for process in processes:
        assert_done(process)


@pytest.mark.backends("jax", reason="the others have no `keras.distribution`")
def test_data_parallel(start, path):
    """On two devices files equal what `predict` returns; batches that don't divide cost nothing.

    Where Keras gives up, the rows before are in the file and the model has its weights.
    """
    script = """
        assert len(keras.distribution.list_devices()) == 2
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        model = make_model()
        weights = model.get_weights()
        for steps in (1, 2):
            model.compile(steps_per_execution=steps)
            plain = model.predict(rows, batch_size=10, verbose=0)
            writer = HDF5PredictionWriter(path, mode="w", accumulate=False)
            assert model.predict(rows, batch_size=10, verbose=0, callbacks=[writer]) == {}
            with PredictionFile(path) as predictions:
                assert_equal(predictions, plain)

        model.compile()
        try:  # the last batch has one row
            model.predict(rows, batch_size=23, verbose=0, callbacks=[writer])
        except ValueError:
            pass
        else:
            raise AssertionError("Keras can't distribute a batch of one row")
        for before, after in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(before, after)

        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 7

            def __getitem__(self, index):
                part = slice(index * 10, index * 10 + 10)
                return ({"image": rows[part], "id": np.arange(70)[part] + 2**40},)

        image = keras.Input((8,), name="image")
        model = keras.Model({"image": image}, {"first": image[:, 0]})
        try:  # Keras has put them on the devices
            writer = HDF5PredictionWriter(path, mode="w", ids="id")
            model.predict(Batches(), verbose=0, callbacks=[writer])
        except ValueError as error:
            assert "JAX has 32 bits" in str(error), error
        else:
            raise AssertionError("ids that 32 bits do not hold were taken")
        x, ids = {"image": rows, "id": np.arange(70) + 2**40}, np.arange(70) + 2**40
        with predict_to_hdf5(model, x, path, ids="id", batch_size=8, mode="w", verbose=0) as found:
            np.testing.assert_array_equal(found["ids"], ids)  # of a batch that was filled up, too
            np.testing.assert_array_equal(found["first"], rows[:, 0])
        print("done")
    """
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    assert_done(start(script, path, XLA_FLAGS=flags))
