"""`predict_to_hdf5` with ids that stand among the inputs."""

import importlib

import h5py
import keras
import numpy as np
import pytest

from kerasext import predict_to_hdf5

ROWS = 70
DATA = np.arange(ROWS * 8, dtype="float32").reshape(ROWS, 8)
NAMES = np.array([f"größe/{row}.png" for row in range(ROWS)])
NUMBERS = np.arange(ROWS) + 2**40


class Rows(keras.Model):
    """Yields the first feature; is not built, and can't be with another key than `image`."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")

    def call(self, x):
        assert list(x) == ["image"]
        return {"first": self.dense(x["image"][:, :1])[:, 0]}


def assert_joined(path, ids, order=slice(None)):
    """Every row has the id of its input."""
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["first"][:], DATA[order, 0])
        stored = file["ids"][:]
        is_text = stored.dtype.kind == "S"
        np.testing.assert_array_equal(
            np.char.decode(stored, "utf-8") if is_text else stored, ids[order]
        )


@pytest.mark.parametrize("batch_size", [16, "auto"])
@pytest.mark.parametrize("ids", [NAMES, NAMES.tolist(), NUMBERS], ids=["text", "list", "numbers"])
def test_dict_of_arrays(ids, batch_size, path):
    """A key of text, which Keras takes from no array, is taken out on every backend."""
    x = {"id": ids, "image": DATA}
    predict_to_hdf5(Rows(), x, path, ids="id", batch_size=batch_size, verbose=0).close()
    assert_joined(path, np.array(ids))
    assert list(x) == ["id", "image"]


def test_data_frame(path):
    """A column of a data frame is taken out of the inputs."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(DATA, columns=list("abcdefgh"), index=range(5, 5 + ROWS))
    frame["name"] = NAMES
    inputs = keras.Input((8,))
    model = keras.Model(inputs, {"first": inputs[:, 0]})
    predict_to_hdf5(model, frame, path, ids="name", verbose=0).close()
    assert_joined(path, NAMES)


class Batches(keras.utils.PyDataset):
    """Batches with an id."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(index * 23, index * 23 + 23)
        return ({"image": DATA[rows], "id": NUMBERS[rows]},)


def sources():
    """Data that is not taken apart."""
    data = Batches()
    return {"PyDataset": data, "generator": (data[index] for index in range(4))}


@pytest.mark.parametrize("source", sources())
def test_a_model_that_is_not_built(source, path):
    """It is built without the ids, also on JAX, and no batch is lost by that."""
    steps = 4 if source == "generator" else None
    data = sources()[source]
    predict_to_hdf5(Rows(), data, path, ids="id", steps=steps, verbose=0).close()
    assert_joined(path, NUMBERS)


@pytest.mark.backends("tensorflow", "jax", reason="Keras takes no strings from tf.data on torch")
def test_tf_data(path):
    """So it is with tf.data, of which a batch can be taken without an end to the others."""
    tf = importlib.import_module("tensorflow")
    data = tf.data.Dataset.from_tensor_slices({"image": DATA, "id": NAMES}).batch(16)
    predict_to_hdf5(Rows(), data, path, ids="id", verbose=0).close()
    assert_joined(path, NAMES)


@pytest.mark.parametrize("number", [60, 80])
def test_another_number(number, path):
    """Ids that are known not to be as many as the rows are refused before a file is made."""
    with pytest.raises(ValueError, match=f"{number} for 70 rows"):
        predict_to_hdf5(Rows(), {"image": DATA}, path, ids=range(number), verbose=0)
    targets = np.zeros(number)
    with pytest.raises(ValueError, match=f"{number} for 70 rows"):
        predict_to_hdf5(Rows(), {"image": DATA}, path, targets=targets, verbose=0)
    assert not path.exists()


def test_no_such_key(path):
    """A key that is not there is refused by name, with the nearest."""
    with pytest.raises(ValueError, match=r"the nearest is 'image'.*ids='imag'"):
        predict_to_hdf5(Rows(), {"image": DATA}, path, ids="imag", verbose=0)
    assert not path.exists()


def test_targets_of_arrays(path):
    """Arrays have no y: targets are given beside them."""
    with pytest.raises(ValueError, match="targets=y"):
        predict_to_hdf5(Rows(), {"image": DATA}, path, targets=True, verbose=0)
    predict_to_hdf5(Rows(), {"image": DATA}, path, targets=DATA[:, 3], verbose=0).close()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["targets"][:], DATA[:, 3])


class StopsAt(keras.callbacks.Callback):
    """Raises at the end of a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_predict_batch_end(self, batch, logs=None):
        if batch == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("iterable", [False, True])
def test_resume(iterable, path):
    """The ids of rows that are left out of the job are compared with those in the file."""
    model = Rows()
    x = {"image": DATA}
    options = {"batch_size": 8, "verbose": 0, "mode": "resume"}

    def given(names):
        return iter(names) if iterable else names

    with pytest.raises(KeyboardInterrupt):
        predict_to_hdf5(model, x, path, ids=given(NAMES), callbacks=[StopsAt(5)], **options)
    wrong = NAMES.copy()
    wrong[2] = "another"
    with pytest.raises(ValueError, match=r"row 2\. Received: the id 'another'"):
        predict_to_hdf5(model, x, path, ids=given(wrong), **options)
    predict_to_hdf5(model, x, path, ids=given(NAMES), **options).close()
    assert_joined(path, NAMES)


def test_when_memory_runs_out(path, monkeypatch):
    """Rows that are predicted again in smaller batches keep their ids, of an iterable too."""
    model = Rows()
    model({"image": DATA[:1]})
    predict_step, large = type(model).predict_step, 20

    def limited(self, *args):
        rows = keras.tree.flatten(args[-1])[0].shape[0]
        if rows is not None and rows > large:
            raise MemoryError
        return predict_step(self, *args)

    monkeypatch.setattr(Rows, "predict_step", limited)
    model.run_eagerly = True
    predict_to_hdf5(model, {"image": DATA}, path, ids=iter(NAMES), batch_size=32, verbose=0).close()
    assert_joined(path, NAMES)
