"""Outputs whose rows differ in shape, from `predict` into the file: read back with plain h5py."""

import os

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.callbacks.step_outputs import number_of_bytes, to_rows
from kerasext.models import ClassifierMixin
from kerasext.storage import RaggedRows

BACKEND = keras.backend.backend()
on_tensorflow = pytest.mark.backends("tensorflow", reason="ragged tensors")
if BACKEND == "tensorflow":
    import tensorflow as tf

RNG = np.random.default_rng(0)
SIZES = [(4, 5), (2, 6), (4, 5), (1, 1), (7, 3)]
IMAGES = [RNG.random((3, *size, 2)).astype("float32") for size in SIZES]
IMAGES[-1] = IMAGES[-1][:1]
ROWS = [row for batch in IMAGES for row in batch]


class Segmenter(keras.Model):
    """Yields a value for each pixel, and one for each image."""

    def call(self, x):
        return {"mask": x * 2, "head": {"mean": keras.ops.mean(x, axis=(1, 2, 3))}}


def batches():
    """Images of other sizes in each batch."""
    for images in IMAGES:
        yield (images,)


def read(path, name):
    """The rows of an output, from its datasets."""
    with h5py.File(path) as file:
        rows = int(file["_kerasext/record"]["rows"])
        group = file[name]
        splits, values = group["row_splits"][: rows + 1], group["values"][()]
        parts = np.split(values[: splits[-1]], splits[1:-1])[:rows]
        if "row_shapes" not in group:
            return parts
        return [row.reshape(shape) for row, shape in zip(parts, group["row_shapes"], strict=False)]


def assert_rows(found, expected):
    """The same arrays."""
    for row, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(row, right, strict=True)


def predict(model, path, *, data=batches, **options):
    """Predicts with a writer of these options."""
    writer = HDF5PredictionWriter(path, **{"accumulate": False, **options})
    with writer:
        result = model.predict(data(), steps=5, verbose=0, callbacks=[writer])
    return result, writer


@pytest.mark.parametrize("ragged", [True, ["mask"]])
def test_batches_of_other_sizes(ragged, path):
    """Each row of a dense output has the shape that it had in its batch."""
    assert predict(Segmenter(), path, ragged=ragged)[0] == {}
    assert_rows(read(path, "mask"), [row * 2 for row in ROWS])
    with h5py.File(path) as file:
        assert file["_kerasext/record"]["complete"] == 1
        assert file["head/mean"].shape == (len(ROWS),)
    with PredictionFile(path) as predictions:
        assert_rows(predictions["mask"], [row * 2 for row in ROWS])
        assert predictions["mask"].padded().shape == (13, 7, 6, 2)
        assert predictions.health["rows"] == 13


def test_without_asking(path):
    """A batch of another size is refused with the remedy, and the rows before it are kept."""
    with pytest.raises(ValueError, match=r"'mask' must have the same row .*`ragged=\['mask'\]`"):
        predict(Segmenter(), path)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (3, False)
        np.testing.assert_array_equal(predictions["mask"], IMAGES[0] * 2)


def test_a_mixin_on_images_of_other_sizes(path):
    """Labels, confidence and probabilities are stored for each pixel, with class names."""

    class Net(ClassifierMixin, keras.Model):
        def call(self, x):
            return keras.ops.softmax(x)

    predict(Net(class_names=["cat", "dog"]), path, ragged=True)
    with PredictionFile(path) as predictions:
        for labels, row in zip(predictions["labels"], ROWS, strict=True):
            np.testing.assert_array_equal(labels, row.argmax(axis=-1))
        names = predictions.class_names[predictions["labels"][0]]
        assert names.shape == SIZES[0]


def test_resuming(path):
    """An interrupted `predict` goes on where it stopped, and other rows are refused."""

    def broken():
        for number, batch in enumerate(batches()):
            if number == 3:
                raise RuntimeError("broken")
            yield batch

    def other():
        for (images,) in batches():
            yield (images[:, ::-1] + 1,)

    options = {"ragged": ["mask"], "mode": "resume"}
    with pytest.raises(Exception, match="broken"):
        predict(Segmenter(), path, data=broken, **options)
    with PredictionFile(path) as predictions:
        rows = predictions.rows
        assert 0 < rows <= 9
    with pytest.raises(ValueError, match="other values of output"):
        predict(Segmenter(), path, data=other, **options)
    predict(Segmenter(), path, **options)
    assert_rows(read(path, "mask"), [row * 2 for row in ROWS])


def test_names_that_are_no_outputs(path):
    """A name in `ragged` that the model does not have is refused, and no file is made."""
    with pytest.raises(ValueError, match=r"`ragged` must name outputs.*'mask'. Received: 'masks'"):
        predict(Segmenter(), path, ragged=["masks"])
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("ragged", ["mask", 1, None])
def test_what_ragged_can_not_be(ragged, path):
    """A bool or a list of names, said when the callback is made."""
    with pytest.raises(TypeError, match=r"`ragged` must be .*Received: ragged="):
        HDF5PredictionWriter(path, ragged=ragged)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool"])
def test_number_of_bytes(dtype):
    """Bytes of all tensors of a structure, known before their values are."""
    tensor = keras.ops.zeros((3, 5), dtype)
    size = 15 * np.dtype(dtype).itemsize
    assert number_of_bytes(tensor) == size
    assert number_of_bytes({"a": tensor, "b": [tensor, np.zeros(3)]}) == 2 * size + 24


LENGTHS = np.array([3, 0, 1, 4, 0, 2, 5, 0, 0, 1] * 7)
TOKENS = [np.arange(n) + 10.0 * i for i, n in enumerate(LENGTHS)]


def ragged_model(structure_model, function, **options):
    """A model of ragged outputs that is given lengths."""
    model = structure_model(function)
    model.compile(**options)
    return model


def tokens_of(x):
    """A ragged tensor with as many values in each row as `x` has there."""
    lengths = tf.cast(x[:, 0], "int32")
    row = tf.cast(x[:, 1], "float32")
    place = tf.cast(tf.ragged.range(lengths), "float32")
    return place + 10.0 * row[:, None]


def vectors_of(x):
    """The same with vectors of three numbers in place of each."""
    return tf.ragged.map_flat_values(lambda flat: tf.stack([flat] * 3, axis=-1), tokens_of(x))


ROWS_IN = np.stack([LENGTHS, np.arange(70)], axis=1)


@on_tensorflow
@pytest.mark.parametrize(
    ("accumulate", "options", "batch_size"),
    [
        (True, {}, 23),
        (False, {}, 1),
        (False, {}, 100),
        (False, {"run_eagerly": True}, 23),
        (True, {"steps_per_execution": 2}, 23),
    ],
)
def test_ragged_tensors(accumulate, options, batch_size, structure_model, path):
    """Each row has its own length, which may be 0; `predict` returns what it does without."""
    model = ragged_model(
        structure_model, lambda x: {"t": tokens_of(x), "v": vectors_of(x), "n": x[:, 0]}, **options
    )
    writer = HDF5PredictionWriter(path, ragged=["t", "v"], accumulate=accumulate)
    result = model.predict(ROWS_IN, batch_size=batch_size, verbose=0, callbacks=[writer])
    expected = [row.astype("f4") for row in TOKENS]
    assert_rows(read(path, "t"), expected)
    assert_rows(read(path, "v"), [np.stack([row] * 3, axis=1) for row in expected])
    with PredictionFile(path) as predictions:
        np.testing.assert_array_equal(predictions["n"], LENGTHS)
        np.testing.assert_array_equal(predictions["t"].padded()[:, 0][LENGTHS > 0][1], 20)
    if accumulate:
        assert_rows([row.numpy() for row in result["t"]], expected)
    else:
        assert result == {}


@on_tensorflow
def test_a_single_ragged_tensor(structure_model, path):
    """A model that yields nothing else, bfloat16 at that."""
    model = ragged_model(structure_model, lambda x: tf.cast(tokens_of(x), "bfloat16"))
    writer = HDF5PredictionWriter(path, ragged=True, accumulate=False)
    model.predict(ROWS_IN[:20], batch_size=7, verbose=0, callbacks=[writer])
    assert_rows(read(path, "predictions"), [row.astype("f4") for row in TOKENS[:20]])


@on_tensorflow
def test_ragged_strings(structure_model, path):
    """Rows of strings come back as `str`."""
    model = ragged_model(structure_model, lambda x: {"s": tf.strings.as_string(tokens_of(x))})
    writer = HDF5PredictionWriter(path, ragged=["s"], dtypes={"s": "S20"}, accumulate=False)
    model.predict(ROWS_IN, batch_size=23, verbose=0, callbacks=[writer])
    with PredictionFile(path) as predictions:
        assert [len(row) for row in predictions["s"]] == LENGTHS.tolist()
        assert float(predictions["s"][3][2]) == TOKENS[3][2]


@on_tensorflow
def test_ragged_tensors_must_be_asked_for(structure_model, path):
    """At the first step the error names the output and what to pass; no file is made."""
    model = ragged_model(structure_model, lambda x: {"n": x[:, 0], "t": tokens_of(x)})
    for options in ({}, {"ragged": ["n"]}):
        writer = HDF5PredictionWriter(path, **options)
        with pytest.raises(TypeError, match=r"'t' must be a dense array; pass `ragged=\['t'\]`"):
            model.predict(ROWS_IN, verbose=0, callbacks=[writer])
        assert os.listdir(path.parent) == []


@on_tensorflow
def test_more_than_one_ragged_axis(structure_model, path):
    """Is refused by name at the first step, with what to return instead."""
    model = ragged_model(
        structure_model, lambda x: {"d": tf.RaggedTensor.from_tensor(x[:, None], ragged_rank=2)}
    )
    writer = HDF5PredictionWriter(path, ragged=True)
    with pytest.raises(
        TypeError, match=r"'d' must have one ragged axis; return `to_tensor.*rank=2"
    ):
        model.predict(ROWS_IN, verbose=0, callbacks=[writer])
    assert os.listdir(path.parent) == []


@on_tensorflow
@pytest.mark.parametrize("splits", ["int32", "int64"])
def test_to_rows(splits):
    """A ragged tensor becomes values and shapes, whatever its splits are of."""
    tensor = tf.RaggedTensor.from_row_lengths(
        tf.reshape(tf.range(12.0), (6, 2)), tf.constant([2, 0, 4], splits)
    )
    rows = to_rows("x", tensor)
    assert isinstance(rows, RaggedRows)
    np.testing.assert_array_equal(rows.row_shapes, [[2, 2], [0, 2], [4, 2]])
    assert_rows(rows, [row.numpy() for row in tensor])
    assert number_of_bytes(tensor) == 12 * 4 + 4 * tensor.row_splits.dtype.size


@on_tensorflow
def test_a_mixin_of_ragged_probabilities(path):
    """Logits that are called probabilities are found in ragged rows, too."""

    class Net(ClassifierMixin, keras.Model):
        def call(self, x):
            return x

        def postprocess(self, y_pred):
            lengths = tf.cast(y_pred[:, 0], "int32")
            values = tf.ones((tf.reduce_sum(lengths), 2)) * self.share
            return {"probabilities": tf.RaggedTensor.from_row_lengths(values, lengths)}

    model = Net()
    model.share = 0.5
    writer = HDF5PredictionWriter(path, ragged=True, accumulate=False)
    model.predict(ROWS_IN, verbose=0, callbacks=[writer])
    assert [len(row) for row in read(path, "probabilities")] == LENGTHS.tolist()
    model.share = 0.75
    model.make_predict_function(force=True)
    writer = HDF5PredictionWriter(path, ragged=True, accumulate=False, mode="w")
    with pytest.raises(ValueError, match="sum to 1"):
        model.predict(ROWS_IN, verbose=0, callbacks=[writer])
