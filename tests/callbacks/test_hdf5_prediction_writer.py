import importlib
import json
import os

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

BACKEND = keras.backend.backend()


def write(model, x, path, *, batch_size=23, predict=None, **options):
    """Predicts with a writer of these options and returns what `predict` does."""
    writer = HDF5PredictionWriter(path, **options)
    return model.predict(x, batch_size=batch_size, verbose=0, callbacks=[writer], **(predict or {}))


STRUCTURES = {
    "tensor": lambda x: x * 2,
    "tensor of rank 1": lambda x: x[:, 0],
    "tensor of rank 4": lambda x: keras.ops.reshape(x, (-1, 2, 2, 2)),
    "dict": lambda x: {"b": x, "a": x[:, :1]},
    "nested dict": lambda x: {"one": {"p": x}, "two": {"p": -x, "q": {"r": x[:, 0]}}},
    "tuple": lambda x: (x, x[:, 0]),
    "list": lambda x: [x, {"y": x[:, 1:3]}],
    "no features": lambda x: {"x": x, "none": x[:, :0]},
    "mixed dtypes": lambda x: {
        "i8": keras.ops.cast(x, "int8"),
        "b": x > 0,
        "f16": keras.ops.cast(x, "float16"),
    },
}

STEPS_PER_EXECUTION = [
    1,
    pytest.param(
        4, marks=pytest.mark.backends("tensorflow", "jax", reason="Keras refuses it on torch")
    ),
]


@pytest.mark.parametrize("steps_per_execution", STEPS_PER_EXECUTION)
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_is_stored_as_predict_returns_it(
    name, steps_per_execution, structure_model, rows, path, assert_file_equals
):
    """Names, shapes, dtypes and values are those of a plain `predict`, the last row included."""
    model = structure_model(STRUCTURES[name])
    model.compile(steps_per_execution=steps_per_execution)
    plain = model.predict(rows, batch_size=23, verbose=0)
    returned = write(model, rows, path)
    assert_file_equals(path, plain)
    keras.tree.map_structure(np.testing.assert_array_equal, returned, plain)
    assert write(model, rows, path, mode="w", accumulate=False) == {}
    assert_file_equals(path, plain)


@pytest.mark.parametrize("batch_size", [1, 7, 69, 70, 1000])
@pytest.mark.parametrize("count", [1, 70])
def test_every_cut_into_batches_is_stored_whole(
    batch_size, count, classifier, rows, path, assert_file_equals
):
    """One row, single-row batches and a last batch of one row are stored in full.

    The file says how many rows a batch had.
    """
    plain = classifier.predict(rows[:count], batch_size=batch_size, verbose=0)
    write(classifier, rows[:count], path, batch_size=batch_size, accumulate=False)
    assert_file_equals(path, plain)
    with PredictionFile(path) as predictions:
        assert predictions.origin["batch_size"] == min(batch_size, count)


COMPILED = pytest.param(
    {"jit_compile": True},
    marks=pytest.mark.backends("tensorflow", "jax", reason="torch's compiler takes a minute"),
)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, COMPILED])
def test_compile_options_make_no_difference(options, classifier, rows, path, assert_file_equals):
    """Eager and compiled models are written as they predict."""
    classifier.compile(**options)
    plain = classifier.predict(rows, batch_size=23, verbose=0)
    write(classifier, rows, path, accumulate=False)
    assert_file_equals(path, plain)


class Shards(keras.utils.PyDataset):
    def __init__(self, rows, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows

    def __len__(self):
        return 7

    def __getitem__(self, index):
        return (self.rows[10 * index : 10 * index + 10],)


def batches(rows):
    """The rows in batches of 23."""
    for start in range(0, 70, 23):
        yield (rows[start : start + 23],)


def tf_data(*columns):
    """Rows of these columns as `tf.data`, which Keras takes on every backend."""
    data = importlib.import_module("tensorflow").data.Dataset
    return data.from_tensor_slices(columns if len(columns) > 1 else columns[0])


def data_loader(rows):
    """The rows from torch's loader, in batches of 23."""
    torch = importlib.import_module("torch")
    data = torch.utils.data.TensorDataset(torch.as_tensor(rows))
    return torch.utils.data.DataLoader(data, batch_size=23)


INPUTS = {
    "array": lambda rows: rows,
    "x, y and weights": lambda rows: tf_data(rows, rows[:, 0], rows[:, 1]).batch(23),
    "tf.data": lambda rows: tf_data(rows).batch(23),
    "tf.data of unknown length": lambda rows: tf_data(rows).filter(lambda _: True).batch(23),
    "generator": batches,
    "PyDataset with workers": lambda rows: Shards(rows, workers=4, max_queue_size=3),
}
if BACKEND == "torch":  # elsewhere it need not be installed
    INPUTS["DataLoader"] = data_loader


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, of generators
@pytest.mark.parametrize("name", INPUTS)
def test_every_input_is_stored_in_order(name, classifier, rows, path, assert_file_equals):
    """Rows come in the order of the input, whatever kind of data it is."""
    plain = classifier.predict(INPUTS[name](rows), verbose=0)
    write(classifier, INPUTS[name](rows), path, batch_size=None, accumulate=False)
    assert_file_equals(path, plain)
    assert plain["labels"].shape == (70,)


def test_a_dict_of_arrays_is_an_input_too(rows, path, assert_file_equals):
    """Models of several inputs are written as they predict."""
    inputs = {"left": keras.Input((8,), name="left"), "right": keras.Input((8,), name="right")}
    model = keras.Model(inputs, keras.layers.Add()(list(inputs.values())))
    x = {"left": rows, "right": rows}
    write(model, x, path)
    assert_file_equals(path, rows * 2)


def test_steps_limits_the_rows(classifier, rows, path, assert_file_equals):
    """`steps` ends the call early on purpose: the file has these rows and is complete."""
    plain = classifier.predict(rows, batch_size=16, steps=2, verbose=0)
    write(classifier, rows, path, batch_size=16, predict={"steps": 2})
    assert_file_equals(path, plain)
    assert len(plain["labels"]) == 32


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_more_steps_than_data(classifier, rows, path, assert_file_equals):
    """Where the data end before `steps`, the file has what there was and is incomplete."""
    write(classifier, batches(rows), path, batch_size=None, predict={"steps": 10})
    plain = classifier.predict(rows, batch_size=23, verbose=0)
    assert_file_equals(path, plain, complete=False)


DTYPES = ["bool", "uint8", "uint16", "uint32", "int8", "int16", "int32"]
DTYPES += ["float16", "float32", "complex64"]
if BACKEND != "jax":  # which has them with `jax_enable_x64` only
    DTYPES += ["uint64", "int64", "float64", "complex128"]


def cast(x, dtype):
    """The tensor in any dtype of the backend; Keras knows no uint16 to uint64 on torch."""
    if BACKEND == "torch":
        return x.to(getattr(importlib.import_module("torch"), dtype))
    return keras.ops.cast(x, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_stored_as_they_are(dtype, structure_model, rows, path, assert_file_equals):
    """Each dtype that a backend has is stored as such, all bits of it."""
    x = np.abs(rows * 50)
    model = structure_model(lambda x: cast(x, dtype))
    plain = model.predict(x, batch_size=23, verbose=0)
    assert plain.dtype == dtype
    write(model, x, path, accumulate=False)
    assert_file_equals(path, plain)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_small_floats_are_stored_as_float32(dtype, structure_model, rows, path):
    """HDF5 has no bfloat16 and no float8: the same values are stored as float32.

    Also where plain `predict` can't return them, as float8 on torch.
    """
    model = structure_model(lambda x: cast(x, dtype))
    # Numbers that each of them has: versions of the backends round others apart.
    rows = np.clip(np.round(rows * 2) / 2, -3.5, 3.5)
    write(model, rows, path, accumulate=False)
    expected = rows.astype(getattr(ml_dtypes, dtype)).astype("float32")
    with h5py.File(path) as file:
        assert file["predictions"].dtype == np.float32
        np.testing.assert_array_equal(file["predictions"][()], expected)


@pytest.mark.backends("tensorflow", reason="no other backend has strings")
def test_strings_are_stored_as_utf8(structure_model, rows, path):
    """Strings are stored as UTF-8, which h5py and the reader give back."""
    tf = importlib.import_module("tensorflow")
    model = structure_model(lambda x: tf.strings.join(["é", tf.strings.as_string(x[:, 0] > 0)]))
    plain = model.predict(rows, verbose=0)
    write(model, rows, path)
    expected = [value.decode() for value in plain]
    with h5py.File(path) as file:
        assert file["predictions"].asstr()[()].tolist() == expected
    with PredictionFile(path) as predictions:
        assert predictions["predictions"][:].tolist() == expected


def test_dtypes_and_outputs_choose_what_is_stored(classifier, rows, path):
    """`outputs` leaves the others out, and `dtypes` sets the storage dtype by name."""
    plain = classifier.predict(rows, batch_size=23, verbose=0)
    dtypes = {"probabilities": "float16", "labels": np.uint8}
    write(classifier, rows, path, outputs=["labels", "probabilities"], dtypes=dtypes)
    with h5py.File(path) as file:
        assert set(file) == {"_kerasext", "labels", "probabilities", "row", "class"}
        for name, dtype in dtypes.items():
            assert file[name].dtype == dtype
            np.testing.assert_array_equal(file[name][()], plain[name].astype(dtype))


@pytest.mark.parametrize(("dtype", "steps"), [("uint8", 254), ("uint16", 65534)])
def test_probabilities_as_whole_numbers(dtype, steps, classifier, rows, path):
    """Plain h5py and the reader have them within half a step, NaN too, also of rows added later."""
    rows[5] = np.nan
    plain = classifier.predict(rows, batch_size=23, verbose=0)
    dtypes = {"probabilities": dtype, "confidence": dtype, "labels": "int8"}
    for mode in ("x", "a"):
        write(classifier, rows, path, mode=mode, dtypes=dtypes, accumulate=False)
    bound = {"rtol": 0, "atol": 0.5 / steps + 1e-7}
    with h5py.File(path) as file, PredictionFile(path) as predictions:
        predictions.verify()
        assert predictions["labels"].dtype == np.int8
        for name in ("probabilities", "confidence"):
            stored, attributes = file[name], file[name].attrs
            assert (stored.dtype, stored.compression) == (dtype, "gzip")
            assert attributes["_FillValue"] == steps + 1
            expected = np.concatenate([plain[name]] * 2)
            found = stored[()] * attributes["scale_factor"]
            is_fill = stored[()] == attributes["_FillValue"]
            np.testing.assert_array_equal(is_fill, np.isnan(expected))
            np.testing.assert_allclose(found[~is_fill], expected[~is_fill], **bound)
            assert predictions[name].dtype == np.float32
            np.testing.assert_allclose(predictions[name][:], expected, **bound)


def test_logits_are_no_whole_numbers(structure_model, rows, path):
    """What is not in [0, 1] is refused at the first step, by name, and no file is made."""
    model = structure_model(lambda x: {"logits": x})
    with pytest.raises(ValueError, match=r"'logits' must be in \[0, 1\].*'float16'"):
        write(model, rows, path, dtypes={"logits": "uint8"})
    assert os.listdir(path.parent) == []


def sparse(x):
    """A sparse tensor of the backend."""
    if BACKEND == "tensorflow":
        return importlib.import_module("tensorflow").sparse.from_dense(x)
    if BACKEND == "jax":
        return importlib.import_module("jax.experimental.sparse").BCOO.fromdense(x)
    return x.to_sparse()


REFUSED = {
    "rank 0": (lambda x: {"loss": keras.ops.mean(x)}, ValueError, "'loss' must have one row for"),
    "sparse": (lambda x: {"s": sparse(x)}, TypeError, "'s'.* a value of type .*(Tensor|BCOO)"),
    "none": (lambda x: {"a": x, "b": None}, TypeError, "'b'.* a value of type NoneType"),
    "reserved": (lambda x: {"_kerasext": x}, ValueError, "reserved.*name='_kerasext'"),
    "empty name": (lambda x: {"": x}, ValueError, "name=''"),
    "path clash": (lambda x: {"a": x, "a/b": x}, ValueError, "'a' and 'a/b'"),
    "unequal rows": (lambda x: {"a": x, "b": x[:1]}, ValueError, "'b' must have one row"),
    "nothing": (lambda _: {}, ValueError, "at least one output"),
}
if BACKEND == "tensorflow":  # the only one that has these
    tf = importlib.import_module("tensorflow")
    REFUSED["ragged"] = (
        lambda x: {"r": tf.RaggedTensor.from_tensor(x)},
        TypeError,
        "'r'.*RaggedTensor",
    )
    REFUSED["not UTF-8"] = (
        lambda x: {"t": tf.fill(tf.shape(x), b"\xff")},
        ValueError,
        "'t' must be UTF-8",
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_hdf5_cannot_hold_is_refused_by_name(name, structure_model, rows, path):
    """At the first step the error names the output; no file is made, the model is as before."""
    function, error, message = REFUSED[name]
    model = structure_model(function)
    model.compile(run_eagerly=name == "sparse")
    with pytest.raises(error, match=message):
        write(model, rows, path, accumulate=False)
    assert os.listdir(path.parent) == []
    model.function = lambda x: x
    model.make_predict_function(force=True)
    np.testing.assert_array_equal(model.predict(rows, verbose=0), rows)


def test_logits_are_refused_at_the_first_step(rows, path):
    """A model whose rows don't sum to 1 is told of `from_logits`, before a row is stored."""
    inputs = keras.Input((8,))
    scores = keras.layers.Dense(3, activation="relu")(inputs)
    model = ClassifierModel(inputs, scores)
    with pytest.raises(ValueError, match="from_logits=True"):
        write(model, rows, path)
    assert not path.exists()


def test_the_file_knows_where_it_comes_from(classifier, rows, path):
    """Names of the classes, settings, versions and the user's metadata are in the file."""
    metadata = {"split": "test", "epoch": np.int64(3), "lr": np.float32(0.5), "ids": np.arange(2)}
    write(classifier, rows, path, metadata=metadata)
    with h5py.File(path) as file:
        for name in ("labels", "probabilities"):
            assert file[name].attrs["class_names"].tolist() == [b"ant", b"bee", b"cat", b"doe"]
        assert file.attrs["model_name"] == b"zoo"  # fixed width, which h5py reads as bytes
        assert file.attrs["keras_version"].decode() == keras.__version__
        assert file.attrs["backend"].decode() == BACKEND
        assert json.loads(file.attrs["prediction_metadata"])["task"] == "classifier"
        assert json.loads(file.attrs["metadata"]) == {
            "split": "test",
            "epoch": 3,
            "lr": 0.5,
            "ids": [0, 1],
        }
    with PredictionFile(path) as predictions:
        names = predictions.class_names[predictions["labels"][:]]
        assert set(names) <= {"ant", "bee", "cat", "doe"}


def test_heads_have_their_own_class_names(rows, path):
    """With several heads each one's labels carry the names of that head."""
    inputs = keras.Input((8,))
    heads = {
        "kind": keras.layers.Dense(3, activation="softmax")(inputs),
        "sex": keras.layers.Dense(2, activation="softmax")(inputs),
    }
    model = ClassifierModel(inputs, heads, class_names={"kind": ["a", "b", "c"]})
    write(model, rows, path)
    with PredictionFile(path) as predictions:
        assert predictions.class_names.keys() == {"kind"}
        assert list(predictions.class_names["kind"]) == ["a", "b", "c"]
        assert predictions["sex/labels"].shape == (70,)


def test_one_list_of_class_names_is_for_every_head(rows, path):
    """Names given once are those of each head, and of no output that the user adds."""
    inputs = keras.Input((8,))
    heads = [keras.layers.Dense(2, activation="softmax")(inputs) for _ in range(2)]

    class Twice(ClassifierModel):
        def postprocess(self, y_pred):
            outputs = super().postprocess(y_pred)
            return {**outputs, "mine": {"labels": outputs["0"]["labels"]}}

    write(Twice(inputs, heads, class_names=["no", "yes"]), rows, path)
    with PredictionFile(path) as predictions:
        assert predictions.class_names.keys() == {"0", "1"}
        assert "mine/labels" in predictions


@pytest.mark.parametrize(("mode", "files"), [("w", [70, 70]), ("a", [70, 140])])
def test_a_callback_used_again_follows_its_mode(mode, files, classifier, rows, path):
    """Under "w" each call makes the file anew, under "a" each adds its rows."""
    writer = HDF5PredictionWriter(path, mode=mode)
    for expected in files:
        plain = classifier.predict(rows, verbose=0, callbacks=[writer])
        with PredictionFile(path) as predictions:
            assert predictions.rows == expected
            np.testing.assert_array_equal(predictions["labels"][-70:], plain["labels"])


def test_a_callback_used_again_under_x_refuses(classifier, rows, path):
    """Under "x" the second call finds the file of the first and refuses before a step."""
    writer = HDF5PredictionWriter(path)
    classifier.predict(rows, verbose=0, callbacks=[writer])
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="mode='w'"):
        classifier.predict(rows, verbose=0, callbacks=[writer])
    assert path.read_bytes() == before


def test_adding_other_outputs_leaves_the_file_untouched(classifier, structure_model, rows, path):
    """Rows of other names, shapes or dtypes are refused, naming both, and nothing is changed."""
    model = structure_model(lambda x: {"a": x, "b": x[:, 0]})
    write(model, rows, path)
    before = path.read_bytes()
    model.function = lambda x: {"a": x[:, :3], "b": x[:, 0]}
    model.make_predict_function(force=True)
    with pytest.raises(ValueError, match=r"'a'.*Stored: row shape \(8,\).*row shape \(3,\)"):
        write(model, rows, path, mode="a")
    model.function = lambda x: {"a": x, "b": keras.ops.cast(x[:, 0], "float16")}
    model.make_predict_function(force=True)
    with pytest.raises(ValueError, match=r"'b'.*dtype float32.*dtype float16"):
        write(model, rows, path, mode="a")
    with pytest.raises(ValueError, match=r"Stored: \['a', 'b'\]. Received: \['confidence'"):
        write(classifier, rows, path, mode="a")
    assert path.read_bytes() == before


class CountsSteps(keras.callbacks.Callback):
    steps = 0

    def on_predict_batch_begin(self, batch, logs=None):
        self.steps += 1


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("there.h5", FileExistsError, "mode='w'"),
        ("folder", IsADirectoryError, "not a folder"),
        ("missing/p.h5", FileNotFoundError, "must exist; create it"),
        ("/sys/p.h5", PermissionError, "writable"),
    ],
)
def test_a_bad_path_is_refused_before_a_step(place, error, message, classifier, rows, tmp_path):
    """The error comes at the start of `predict`, with the remedy, before anything is computed."""
    (tmp_path / "there.h5").write_text("precious")
    (tmp_path / "folder").mkdir()
    counter = CountsSteps()
    writer = HDF5PredictionWriter(tmp_path / place)
    with pytest.raises(error, match=message):
        classifier.predict(rows, verbose=0, callbacks=[counter, writer])
    assert counter.steps == 0
    assert (tmp_path / "there.h5").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["folder", "there.h5"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "r"}, ValueError, "mode='r'"),
        ({"outputs": "labels"}, TypeError, "outputs='labels'"),
        ({"outputs": []}, ValueError, r"outputs=\[\]"),
        ({"dtypes": {"a": "datetime64[s]"}}, TypeError, "datetime64"),
        ({"dtypes": {"a": "float99"}}, TypeError, "float99"),
        ({"compression": "lz77"}, ValueError, "compression='lz77'"),
        ({"commit_interval": 0}, ValueError, "commit_interval=0"),
        ({"queue_bytes": -1}, ValueError, "queue_bytes=-1"),
        ({"metadata": {"a": object()}}, TypeError, "JSON-serializable.*type object"),
        ({"metadata": {"a": float("nan")}}, ValueError, "JSON"),
    ],
)
def test_bad_options_are_refused_at_construction(options, error, message, path):
    """What is wrong whatever the model is refused before `predict` is called."""
    with pytest.raises(error, match=message):
        HDF5PredictionWriter(path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"outputs": ["probabilitys"]},
            r"`outputs` .* of the model, .* nearest is 'probabilities'. Received: 'probabilitys'",
        ),
        ({"dtypes": {"label": "int8"}}, r"`dtypes`.* nearest is 'labels'. Received: 'label'"),
        ({"ragged": ["label"]}, r"`ragged`.* nearest is 'labels'. Received: 'label'"),
        ({"compression": {"label": "gzip"}}, r"`compression`.* nearest is 'labels'.*'label'"),
    ],
)
def test_unknown_names_are_refused_at_the_first_step(options, message, classifier, rows, path):
    """A name that the model's outputs don't have is refused, with the nearest that they have."""
    with pytest.raises(ValueError, match=message):
        write(classifier, rows, path, **options)
    assert os.listdir(path.parent) == []


def test_two_writers_of_one_call_each_have_their_file(classifier, rows, tmp_path):
    """Two writers in one `predict`, one of them not accumulating, both see every row."""
    first = HDF5PredictionWriter(tmp_path / "1.h5", accumulate=False, outputs=["labels"])
    second = HDF5PredictionWriter(tmp_path / "2.h5", accumulate=False)
    assert classifier.predict(rows, verbose=0, callbacks=[first, second]) == {}
    with PredictionFile(tmp_path / "1.h5") as one, PredictionFile(tmp_path / "2.h5") as two:
        assert list(one) == ["labels"]
        np.testing.assert_array_equal(one["labels"][:], two["labels"][:])


def test_other_callbacks_see_what_they_see_without_it(classifier, rows, path):
    """With `accumulate=True` the logs of other callbacks are those of a plain `predict`."""

    class Keeps(keras.callbacks.Callback):
        def on_predict_begin(self, logs=None):
            self.kept = []

        def on_predict_batch_end(self, batch, logs=None):
            self.kept.append((batch, {name: np.array(value) for name, value in logs.items()}))

    keeps = Keeps()
    classifier.predict(rows, batch_size=23, verbose=0, callbacks=[keeps])
    plain = keeps.kept
    writer = HDF5PredictionWriter(path)
    classifier.predict(rows, batch_size=23, verbose=0, callbacks=[writer, keeps])
    assert [batch for batch, _ in keeps.kept] == [batch for batch, _ in plain]
    for (_, seen), (_, expected) in zip(keeps.kept, plain, strict=True):
        assert seen.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(seen[name], expected[name])


def test_health_is_told_and_kept(classifier, rows, path, capsys):
    """After a run the callback tells rows, bytes and seconds, the file has them, a line says so."""
    writer = HDF5PredictionWriter(path, accumulate=False, verbose=1)
    classifier.predict(rows, batch_size=23, verbose=0, callbacks=[writer])
    with PredictionFile(path) as predictions:
        health = predictions.health
        size = sum(output.nbytes for output in predictions.values())
    assert writer.health["rows"] == health["rows"] == 70
    assert writer.health["bytes"] == health["bytes"] == size
    assert 0 <= health["stalled_seconds"] <= health["seconds"]
    assert health["rows_per_second"] == pytest.approx(70 / health["seconds"])
    assert f"{path}: 70 rows" in capsys.readouterr().out


@pytest.mark.parametrize("compression", ["gzip", "zstd", None, {"labels": "blosc2"}])
def test_compressed_files_hold_the_same(compression, classifier, rows, path, assert_file_equals):
    """Whatever the compression, the file holds what `predict` returned."""
    plain = classifier.predict(rows, batch_size=23, verbose=0)
    write(classifier, rows, path, compression=compression, accumulate=False)
    assert_file_equals(path, plain)
