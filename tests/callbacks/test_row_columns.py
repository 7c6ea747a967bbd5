"""Every row in the file joins to its input and its target, whatever the data come from."""

import contextlib
import datetime
import functools
import importlib
import uuid
import warnings
from collections import ChainMap
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.evaluation import evaluate
from kerasext.shards import index_shards, merge_shards

BACKEND = keras.backend.backend()
ROWS = 70
BIG = 2**40 + 1  # which 32 bits don't hold
DATA = np.arange(ROWS * 8, dtype="float32").reshape(ROWS, 8)
TARGETS = np.arange(ROWS) % 7
NUMBERS = np.arange(ROWS) * 3 + BIG
HOUR = datetime.timedelta(hours=1)
NAMES = np.array([f"größe/{row}.png" for row in range(ROWS)])
not_torch = pytest.mark.backends("tensorflow", "jax", reason="Keras refuses it on torch")


@pytest.fixture
def model(structure_model):
    """A model of dicts whose output tells which row it is of, and which knows no other key."""

    def call(x):
        return {"first": x["image"][:, 0], **({"extra": x["id"][:, 0]} if len(x) > 1 else {})}

    made = structure_model(call)
    made({"image": DATA[:2]})
    return made


def predict(model, data, path, *others, steps=None, batch_size=None, **options):
    """Predicts with a writer."""
    writer = HDF5PredictionWriter(path, mode=options.pop("mode", "w"), accumulate=False, **options)
    with writer:
        model.predict(
            data, batch_size=batch_size, steps=steps, verbose=0, callbacks=[*others, writer]
        )


def text_of(ids):
    """Ids as plain h5py has them, as `str` where they are text."""
    return np.char.decode(ids[:], "utf-8") if ids.dtype.kind == "S" else ids[:]


def assert_joined(path, names, targets=True):
    """Each row has the id and the target of its input, and each input one row."""
    with h5py.File(path) as file:
        rows = (file["first"][:] / 8).astype(int)
        assert sorted(rows) == list(range(ROWS))
        np.testing.assert_array_equal(text_of(file["ids"]), names[rows])
        if targets:
            np.testing.assert_array_equal(file["targets"][:], TARGETS[rows])


def tf_data(names):
    """Shuffled batches of `(x, y)`, the last one of one row."""
    tf = importlib.import_module("tensorflow")
    data = tf.data.Dataset.from_tensor_slices(({"image": DATA, "id": names}, TARGETS))
    return data.shuffle(ROWS, seed=1).batch(23)


class Shuffled(keras.utils.PyDataset):
    """Batches in another order, of which each is made by one of some workers."""

    def __init__(self, names, **kwargs):
        super().__init__(**kwargs)
        self.names = names
        self.order = np.random.default_rng(0).permutation(ROWS)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = self.order[index * 23 : (index + 1) * 23]
        return {"image": DATA[rows], "id": self.names[rows]}, TARGETS[rows]


@pytest.mark.backends("tensorflow", "jax", reason="Keras takes no strings from tf.data on torch")
@pytest.mark.parametrize("names", [NAMES, NUMBERS], ids=["text", "numbers"])
@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_shuffled_tf_data(names, steps_per_execution, model, path):
    """Ids, of text too, come from the very batches that a compiled model predicts."""
    model.compile(jit_compile=True, steps_per_execution=steps_per_execution)
    predict(model, tf_data(names), path, ids="id", targets=True)
    assert_joined(path, names)


@pytest.mark.parametrize("workers", [1, 4])
def test_workers(workers, model, path):
    """Workers that make batches ahead of the model mix nothing up, and numbers stay exact."""
    data = Shuffled(NUMBERS, workers=workers)
    predict(model, data, path, ids="id", targets=True)
    assert_joined(path, NUMBERS)


@pytest.mark.backends("torch", reason="it is about its loaders")
@pytest.mark.parametrize("names", [NAMES, NUMBERS], ids=["text", "numbers"])
def test_data_loader(names, model, path):
    """A shuffling DataLoader of torch gives ids as lists of strings, or tensors of numbers."""
    torch = importlib.import_module("torch")
    items = [
        ({"image": DATA[row], "id": names[row].item()}, int(TARGETS[row])) for row in range(ROWS)
    ]
    data = torch.utils.data.DataLoader(items, batch_size=23, shuffle=True)
    predict(model, data, path, ids="id", targets=True)
    assert_joined(path, names)


@pytest.mark.backends("jax", reason="elsewhere Keras refuses strings of generators")
def test_generator_of_text(model, path):
    """Strings of a generator reach the file, not the device."""
    data = Shuffled(NAMES)
    predict(model, (data[index] for index in range(4)), path, steps=4, ids="id", targets=True)
    assert_joined(path, NAMES)


@pytest.mark.parametrize("weighted", [False, True])
def test_data_without_targets_or_with_weights(weighted, model, path):
    """Batches may be a dict alone, or have sample weights after the targets."""

    def batches():
        for start in range(0, ROWS, 23):
            rows = slice(start, start + 23)
            x = {"image": DATA[rows], "id": NUMBERS[rows]}
            yield (x, TARGETS[rows], np.ones(len(x["image"]))) if weighted else (x,)

    predict(model, batches(), path, steps=4, ids="id", targets=weighted)
    assert_joined(path, NUMBERS, targets=weighted)


def aligned():
    """Everything that ids in the order of the rows may be, by what it is."""
    return {
        "list": NAMES.tolist(),
        "tuple": tuple(NUMBERS.tolist()),
        "array of text": NAMES,
        "array of bytes": np.char.encode(NAMES, "utf-8"),
        "array of objects": NAMES.astype(object),
        "array of numbers": NUMBERS,
        "generator": (name for name in NAMES.tolist()),
        "range": range(ROWS),
        "column": NUMBERS[:, None],
    }


@pytest.mark.parametrize("kind", aligned())
def test_in_the_order_of_the_rows(kind, model, path):
    """Ids may be any list, array or iterable of integers or strings that is as long as the data."""
    ids = aligned()[kind]
    predict(model, {"image": DATA}, path, ids=ids, targets=TARGETS, batch_size=23)
    expected = np.ravel(list(aligned()[kind]))
    if expected.dtype.kind == "S":
        expected = np.char.decode(expected, "utf-8")
    assert_joined(path, expected)


PATHS = [Path(f"/größe/{row}.png") for row in range(ROWS)]
UUIDS = [uuid.UUID(int=row + 1) for row in range(ROWS)]
TIMES = [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + row * HOUR for row in range(ROWS)]
HOURS = np.datetime64("2026-01-01T00", "h") + np.arange(ROWS)
AS_TEXT = {
    "paths": (PATHS, [str(path) for path in PATHS]),
    "UUIDs": (tuple(UUIDS), [str(one) for one in UUIDS]),
    "times": (TIMES, [time.isoformat() for time in TIMES]),
    "dates, one by one": ((time.date() for time in TIMES), [str(time.date()) for time in TIMES]),
    "datetime64": (HOURS, [str(hour) for hour in HOURS]),
    "objects": (np.array(PATHS), [str(path) for path in PATHS]),
}


@pytest.mark.filterwarnings("ignore:.ids. should be unique")
@pytest.mark.parametrize("kind", AS_TEXT)
def test_ids_that_become_text(kind, model, path):
    """Paths, dates, times and UUIDs are stored as the text that they have."""
    ids, expected = AS_TEXT[kind]
    predict(model, {"image": DATA}, path, ids=ids, batch_size=23)
    assert_joined(path, np.array(expected), targets=False)


class Sequence:
    """What has a length and slices, as a column of a Hugging Face data set."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]

    def __iter__(self):
        return iter(self.values)


TARGET_COLUMNS = {
    "list": lambda values: values,
    "tuple": tuple,
    "sequence": Sequence,
    "generator": lambda values: (value for value in values),
}


@pytest.mark.parametrize("values", [TARGETS, NAMES, DATA[:, :2]], ids=["numbers", "text", "rows"])
@pytest.mark.parametrize("kind", TARGET_COLUMNS)
def test_targets_in_the_order_of_the_rows(kind, values, model, path):
    """Targets may be a list, a tuple, any sequence or an iterable, in a structure too."""
    for nested in (False, True):
        column = TARGET_COLUMNS[kind](values.tolist())
        targets = {"a": column, "b": [TARGETS]} if nested else column
        predict(model, {"image": DATA}, path, targets=targets, batch_size=23)
        with h5py.File(path) as file:
            stored = file["targets/a" if nested else "targets"]
            np.testing.assert_array_equal(text_of(stored), values)
            if nested:
                np.testing.assert_array_equal(file["targets/b/0"][:], TARGETS)


def test_text_of_targets_is_as_wide_as_the_longest(model, path):
    """A list of names has one width, so that a longer one late in the data is no error."""
    names = [*["a"] * 60, *["b" * 100] * 10]
    for targets in (names, np.array(names)):
        predict(model, {"image": DATA}, path, targets=targets, batch_size=23)
        with h5py.File(path) as file:
            assert file["targets"].dtype == "S100"


@pytest.mark.parametrize("whole_job", [True, False])
def test_resume_with_targets_one_by_one(whole_job, model, path):
    """Targets of an iterable are joined to the right rows by a call that skips some."""
    data = {"image": DATA}
    stopping = StopsAfter(5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        predict(model, data, path, stopping, targets=iter(TARGETS.tolist()), batch_size=8)
    options = {"targets": iter(TARGETS.tolist()), "mode": "resume", "batch_size": 8}
    if whole_job:
        predict_to_hdf5(model, data, path, verbose=0, **options).close()
    else:
        predict(model, data, path, **options)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["targets"][:], TARGETS)


def test_from_other_libraries(model, path, tmp_path):
    """Ids may be a column of pandas, a dataset of h5py or an output of another file."""
    pandas = pytest.importorskip("pandas")
    for ids in (pandas.Series(NAMES, index=range(100, 100 + ROWS)), pandas.Index(NUMBERS)):
        predict(model, {"image": DATA}, path, ids=ids, batch_size=23)
        assert_joined(path, ids.to_numpy(), targets=False)
    with h5py.File(tmp_path / "ids.h5", "w") as file:
        file["names"] = NAMES.astype(object)
        predict(model, {"image": DATA}, path, ids=file["names"], batch_size=23)
    assert_joined(path, NAMES, targets=False)
    other = tmp_path / "other.h5"
    with PredictionFile(path) as predictions:
        predict(model, {"image": DATA}, other, ids=predictions["ids"], batch_size=23)
    assert_joined(other, NAMES, targets=False)


def test_width_of_text(model, path):
    """Text whose longest is known takes as many bytes, other text 64 unless `dtypes` says more."""
    for ids, width in ((NAMES.tolist(), 14), (iter(NAMES.tolist()), 64)):
        predict(model, {"image": DATA}, path, ids=ids, batch_size=23)
        with h5py.File(path) as file:
            assert file["ids"].dtype == f"S{width}"
    long = [f"{row:0100}" if row > 40 else str(row) for row in range(ROWS)]
    with pytest.raises(ValueError, match=r"`dtypes=\{'ids': 'S100'\}`"):
        predict(model, {"image": DATA}, path, ids=iter(long), batch_size=23)
    predict(model, {"image": DATA}, path, ids=iter(long), dtypes={"ids": "S100"}, batch_size=23)
    assert_joined(path, np.array(long), targets=False)


def test_nested_targets(model, path):
    """Targets of several heads are a group, from the data and from arrays."""

    def batches():
        for start in range(0, ROWS, 23):
            rows = slice(start, start + 23)
            yield {"image": DATA[rows]}, {"a": TARGETS[rows], "b": DATA[rows, :2]}

    for data, targets, steps in (
        (batches(), True, 4),
        ({"image": DATA}, {"a": TARGETS, "b": DATA[:, :2]}, None),
    ):
        predict(model, data, path, targets=targets, steps=steps)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(file["targets/a"][:], TARGETS)
            np.testing.assert_array_equal(file["targets/b"][:], DATA[:, :2])


def test_read_as_outputs_are(model, path):
    """`PredictionFile` has the columns among the outputs, in batches and checked by `verify`."""
    predict(model, {"image": DATA}, path, ids=NAMES, targets=TARGETS, batch_size=23)
    with PredictionFile(path) as predictions:
        assert list(predictions) == ["first", "ids", "targets"]
        assert predictions["ids"][[69, 0]].tolist() == [NAMES[69], NAMES[0]]
        assert [len(batch["ids"]) for batch in predictions.iter_batches(50)] == [50, 20]
        predictions.verify()


def test_the_model_gets_no_ids(structure_model, path):
    """The key is taken out of what the model sees, for each of two writers of one `predict`."""
    seen = []
    model = structure_model(lambda x: (seen.append(sorted(x)), x["image"][:, 0])[1])
    model({"image": DATA[:2]})
    seen.clear()
    data = Shuffled(NUMBERS)
    one, two, plain = (path.with_name(name) for name in ("1.h5", "2.h5", "3.h5"))
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(HDF5PredictionWriter(one, ids="id", accumulate=False)),
            stack.enter_context(HDF5PredictionWriter(two, ids="id", accumulate=False)),
            stack.enter_context(HDF5PredictionWriter(plain, accumulate=False)),
        ]
        model.predict(data, verbose=0, callbacks=writers)
    assert {tuple(keys) for keys in seen} == {("image",)}
    with h5py.File(one) as first, h5py.File(two) as second, h5py.File(plain) as third:
        np.testing.assert_array_equal(first["ids"][:], NUMBERS[data.order])
        np.testing.assert_array_equal(second["ids"][:], NUMBERS[data.order])
        assert "ids" not in third


def test_a_functional_model(path):
    """A model of named inputs is not disturbed by the key, whatever its place in the alphabet."""
    for key in ("id", "zid"):
        inputs = {"image": keras.Input((8,), name="image")}
        model = keras.Model(inputs, {"first": inputs["image"][:, 0]})

        def batches(key=key):
            for start in range(0, ROWS, 23):
                rows = slice(start, start + 23)
                yield ({"image": DATA[rows], key: NUMBERS[rows]},)

        predict(model, batches(), path, steps=4, ids=key)
        assert_joined(path, NUMBERS, targets=False)


class Dense(keras.Model):
    """A model of one tensor, without a graph."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_initializer="ones")

    def call(self, x):
        return {"first": self.dense(x)[:, 0]}


class DenseOfDict(Dense):
    """The same of a dict of one tensor."""

    def call(self, x):
        return super().call(x["image"])


def functional():
    """The same with a graph, and without a name."""
    inputs = keras.Input((8,))
    return keras.Model(inputs, {"first": keras.layers.Dense(1)(inputs)[:, 0]})


def sequential():
    """The same as a stack of layers."""
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])


@pytest.mark.parametrize("make", [Dense, DenseOfDict, functional, sequential])
@pytest.mark.parametrize("from_arrays", [True, False])
def test_models_of_one_input(from_arrays, make, path):
    """A model of one tensor gets it without the dict that the key was taken out of."""
    model = make()
    model({"image": DATA[:2]} if make is DenseOfDict else DATA[:2])
    expected = model.predict({"image": DATA} if make is DenseOfDict else DATA, verbose=0)
    expected = expected["first"] if isinstance(expected, dict) else expected
    data = {"image": DATA, "id": NUMBERS} if from_arrays else Shuffled(NUMBERS)
    predict_to_hdf5(model, data, path, ids="id", verbose=0).close()
    order = np.arange(ROWS) if from_arrays else data.order
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["ids"][:], NUMBERS[order])
        stored = file["first" if "first" in file else "predictions"][:]
        np.testing.assert_allclose(stored, expected[order], rtol=1e-5, atol=1e-5)


WRONG = {
    "too few": ({"ids": NAMES[:60]}, "60 for at least 69 rows", 46),
    "too many": ({"ids": np.arange(80)}, "80 for 70 rows", 70),
    "too few of an iterable": ({"ids": iter(range(60))}, "60 for at least 69 rows", 46),
    "too many of an iterable": ({"ids": iter(range(80))}, "more than 70 for 70 rows", 70),
    "too few targets": ({"targets": TARGETS[:60]}, "60 for at least 69 rows", 46),
    "too many targets": ({"targets": {"a": np.arange(80)}}, "80 for 70 rows", 70),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_number(case, model, path):
    """Too few or too many are an error that keeps the rows, and the right ones go on from them."""
    options, received, rows = WRONG[case]
    with pytest.raises(ValueError, match=f"must have one for each row.*{received}"):
        predict(model, {"image": DATA}, path, **options, batch_size=23)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (rows, False)
    right = {"ids": NAMES if case == "too few" else np.arange(ROWS)}
    if "targets" in case:
        right = {"targets": TARGETS if "few" in case else {"a": np.arange(ROWS)}}
    predict(model, {"image": DATA}, path, **right, mode="resume", batch_size=23)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (ROWS, True)


@pytest.mark.parametrize(
    ("options", "data", "error", "message"),
    [
        ({"ids": "idd"}, Shuffled(NUMBERS), ValueError, "the nearest is 'id'.*ids='idd'"),
        ({"ids": "name"}, Shuffled(NUMBERS), ValueError, r"keys \['id', 'image'\]"),
        ({"ids": "id"}, DATA, ValueError, "x of type"),
        ({"targets": True}, {"image": DATA}, ValueError, "data without y"),
        ({"ids": iter([1.5] * 70)}, {"image": DATA}, TypeError, "integers"),
        ({"ids": iter(["a", 1] * 35)}, {"image": DATA}, TypeError, "integers"),
        ({"ids": NAMES, "dtypes": {"ids": "S12"}}, {"image": DATA}, ValueError, "'S14'"),
        ({"ids": np.zeros((70, 2), int)}, {"image": DATA}, ValueError, "one integer or string"),
        ({"ids": 7}, {"image": DATA}, TypeError, "type.ids.=int"),
        ({"ids": {"a": 1}}, {"image": DATA}, TypeError, "type.ids.=dict"),
        ({"ids": ["a", None]}, {"image": DATA}, TypeError, "NoneType"),
        ({"targets": 7}, {"image": DATA}, TypeError, "lists or iterables.*targets=int"),
        ({"targets": {"a": "name"}}, {"image": DATA}, TypeError, "targets/a=str"),
        ({"targets": [[0, 1], [0]]}, {"image": DATA}, ValueError, "same shape in each row"),
        ({"targets": {"a": [0], 1: [1], "1": [1]}}, {"image": DATA}, ValueError, "same path"),
    ],
    ids=map(str, range(15)),
)
def test_refused(options, data, error, message, structure_model, path):
    """What can't be stored is refused before a row is, and an old file stays."""
    path.write_bytes(b"old")
    model = structure_model(lambda x: x["image"] if isinstance(x, dict) else x)
    with pytest.raises(error, match=message):
        predict(model, data, path, **options)
    assert path.read_bytes() == b"old"


def test_a_target_of_another_shape(model, path):
    """A batch whose targets have another shape ends `predict`, and the rows before it stay."""

    class Growing(Shuffled):
        def __getitem__(self, index):
            return {"image": DATA[:8]}, DATA[:8, : 2 if index < 1 else 3]

    with pytest.raises(ValueError, match="'targets' must have the same row shape"):
        predict(model, Growing(NUMBERS), path, targets=True)
    with PredictionFile(path) as predictions:
        assert predictions.rows == 8


COLUMN = {
    "ids": {"ids": NUMBERS},
    "targets": {"targets": TARGETS},
    "row": {"keep": lambda step: step["other"][:, 0] > 0},
}


@pytest.mark.parametrize("name", COLUMN)
def test_an_output_of_that_name(name, structure_model, path):
    """An output that is called as a column is refused if that column is asked for."""
    model = structure_model(lambda x: {name: x, "other": x})
    with pytest.raises(ValueError, match=f"reserved.*name='{name}'"):
        predict(model, DATA, path, **COLUMN[name])
    predict(model, DATA, path, outputs=["other"], **COLUMN[name])


@pytest.mark.parametrize("rest", ["", "/probabilities"])
@pytest.mark.parametrize("name", ["ids", "targets", "row", "class"])
def test_an_output_that_is_no_column(name, rest, structure_model, path):
    """An output may have the name of a column or a scale; it is resumed, compared and read as one.

    The other columns are there beside it.
    """
    model = structure_model(
        lambda x: {name: {"probabilities": x} if rest else x, "probabilities": x}
    )
    options = dict(ChainMap(*(COLUMN[column] for column in COLUMN if column != name)))
    options.pop("keep", None)
    with pytest.raises(KeyboardInterrupt):
        predict(model, DATA, path, StopsAfter(3, KeyboardInterrupt()), batch_size=8, **options)
    for _ in range(2):  # the second time the file is complete
        predict(model, DATA, path, batch_size=8, mode="resume", **options)
    with PredictionFile(path) as predictions:
        predictions.verify()
        assert predictions.complete
        assert predictions.columns == {*options}
        np.testing.assert_array_equal(predictions[name + rest][:], DATA)
        assert "plain_outputs" not in predictions.origin
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file[name + rest], DATA)
        rows = "row_" if name == "row" else "row"
        classes = "class_" if name == "class" else "class"
        assert [dim[0].name for dim in file["probabilities"].dims] == [f"/{rows}", f"/{classes}"]


def test_outputs_named_as_columns_in_shards(structure_model, tmp_path):
    """Files with such outputs are joined, file after file: an output `ids` gives no order."""

    def call(x):
        labels, confidence = keras.ops.argmax(x, axis=1), 0 * x[:, 0]
        columns = {"ids": x[:, 0], "targets": x, "row": x}
        return {**columns, "labels": labels, "confidence": confidence}

    model = structure_model(call)
    folder = tmp_path / "job"
    folder.mkdir()
    for part in range(2):
        predict(model, DATA[part * 12 :][:12], folder / f"{part}.h5")
    merged = merge_shards(folder, tmp_path / "merged.h5")
    for path in (merged, index_shards(folder)):
        with PredictionFile(path) as predictions:
            predictions.verify()
            assert predictions.columns == frozenset()
            np.testing.assert_array_equal(predictions["ids"][:], DATA[:24, 0])
            with pytest.raises(ValueError, match="must have the column 'targets'"):
                evaluate(predictions)


def test_duplicates_are_reported(model, path):
    """Ids that stand in more than one row are warned of, once the file is complete."""
    ids = NAMES.copy()
    ids[60] = ids[3]
    with pytest.warns(UserWarning, match="1 ids in more than one row.*rows 3 and 60"):
        predict(model, {"image": DATA}, path, ids=ids, batch_size=23)
    with PredictionFile(path) as predictions:
        assert predictions.complete


class StopsAfter(keras.callbacks.Callback):
    """Raises, or asks to stop, after a number of steps."""

    def __init__(self, steps, error=None):
        super().__init__()
        self.steps, self.error = steps, error

    def on_predict_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            if self.error:
                raise self.error
            self.model.stop_predicting = True


def test_stopped_before_the_end(model, path):
    """Ids of rows that were not predicted, for another callback has stopped, are no error."""
    predict(model, {"image": DATA}, path, StopsAfter(2), ids=NAMES, batch_size=8)
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        np.testing.assert_array_equal(predictions["ids"][:], NAMES[: predictions.rows])


@pytest.mark.parametrize("source", ["array", "iterable", "key"])
@pytest.mark.parametrize("wrong", [None, 3, 30, 37])
def test_resume(source, wrong, model, path):
    """Ids of rows that are skipped, or predicted again, are compared with those in the file."""

    class Ordered(Shuffled):
        def __init__(self, names):
            super().__init__(names)
            self.order = np.arange(ROWS)

        def __len__(self):
            return 9

        def __getitem__(self, index):
            rows = self.order[index * 8 : (index + 1) * 8]
            return ({"image": DATA[rows], "id": self.names[rows]},)

    def run(names, *others, **options):
        if source == "key":
            predict(model, Ordered(names), path, *others, ids="id", **options)
        else:
            ids = iter(names.tolist()) if source == "iterable" else names
            data = {"image": DATA}
            predict(model, data, path, *others, ids=ids, batch_size=8, **options)

    with pytest.raises(KeyboardInterrupt):
        run(NUMBERS, StopsAfter(5, KeyboardInterrupt()))
    with PredictionFile(path) as predictions:
        assert predictions.rows == 40
    names = NUMBERS.copy()
    if wrong is not None:
        names[wrong] = 1
        with pytest.raises(ValueError, match="same data in the same order"):
            run(names, mode="resume")
    run(NUMBERS, mode="resume")
    assert_joined(path, NUMBERS, targets=False)


def test_columns_must_stay(model, path):
    """A file with ids is gone on with ids only, refused before a row is predicted."""
    with pytest.raises(KeyboardInterrupt):
        predict(
            model,
            {"image": DATA},
            path,
            StopsAfter(5, KeyboardInterrupt()),
            ids=NAMES,
            targets=TARGETS,
            batch_size=8,
        )
    for options in ({}, {"ids": NAMES}, {"targets": TARGETS}):
        with pytest.raises(ValueError, match=r"Stored: \['ids', 'targets'\]"):
            predict(model, {"image": DATA}, path, **options, mode="resume", batch_size=8)
    longer = np.char.add(NAMES, "x" * 70)
    with pytest.raises(ValueError, match=r"the same data.* id 'größe/0\.png' in row 0"):
        predict(
            model, {"image": DATA}, path, ids=longer, targets=TARGETS, mode="resume", batch_size=8
        )


def test_more_rows(model, path):
    """`mode="a"` adds rows with their ids, in the width that the file has."""
    predict(model, {"image": DATA[:40]}, path, ids=NAMES[:40], batch_size=8)
    predict(model, {"image": DATA[40:]}, path, ids=[f"{row}" for row in range(30)], mode="a")
    with PredictionFile(path) as predictions:
        expected = [*NAMES[:40], *(f"{row}" for row in range(30))]
        assert predictions["ids"][:].tolist() == expected


def test_used_again(model, path):
    """A writer used again stores its ids again; an iterable that is used up is too short."""
    with warnings.catch_warnings():
        writer = HDF5PredictionWriter(path, mode="w", accumulate=False, ids=NAMES)
        for _ in range(2):
            model.predict({"image": DATA}, verbose=0, callbacks=[writer])
        assert_joined(path, NAMES, targets=False)
    writer = HDF5PredictionWriter(path, mode="w", accumulate=False, ids=iter(NAMES.tolist()))
    model.predict({"image": DATA}, verbose=0, callbacks=[writer])
    with pytest.raises(ValueError, match="0 for at least 32 rows"):
        model.predict({"image": DATA}, verbose=0, callbacks=[writer])


@pytest.mark.backends("jax", "torch", reason="tf.data reads ahead, and Keras's own outputs suffer")
def test_batches_in_one_buffer(model, path):
    """Ids and targets are copied: the data may use the memory of a batch for the next one."""
    ids, targets = np.empty(7, int), np.empty(7, int)

    class InOneBuffer(Shuffled):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            rows = slice(index * 7, index * 7 + 7)
            ids[:], targets[:] = NUMBERS[rows], TARGETS[rows]
            return {"image": DATA[rows], "id": ids}, targets

    predict(model, InOneBuffer(NUMBERS), path, ids="id", targets=True)
    assert_joined(path, NUMBERS)


class Named(keras.utils.PyDataset):
    """Batches of `(x, y, names)`, as many write a data set that yields names."""

    def __init__(self, names):
        super().__init__()
        self.names = names

    def __len__(self):
        return 4

    def __getitem__(self, index):
        part = slice(index * 23, (index + 1) * 23)
        return {"image": DATA[part]}, TARGETS[part], self.names[part]


def named_tf_data():
    """The same by `tf.data`."""
    tf = importlib.import_module("tensorflow")
    return tf.data.Dataset.from_tensor_slices(({"image": DATA}, TARGETS, NAMES)).batch(23)


def named_loader():
    """The same by torch, which makes a tuple of the names."""
    data = importlib.import_module("torch").utils.data
    return data.DataLoader(
        [({"image": DATA[row]}, TARGETS[row], str(NAMES[row])) for row in range(ROWS)],
        batch_size=23,
    )


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(named_tf_data, marks=not_torch),
        pytest.param(
            lambda: Named(NAMES),
            marks=pytest.mark.backends("jax", reason="elsewhere Keras refuses such strings"),
        ),
        pytest.param(
            named_loader,
            marks=pytest.mark.backends("torch", reason="elsewhere Keras takes no strings of it"),
        ),
    ],
)
@pytest.mark.parametrize("whole_job", [True, False])
def test_names_in_the_place_of_weights(whole_job, make, model, path):
    """Of `(x, y, name)` the names would be lost as weights: that is said, and nothing written."""
    job = functools.partial(predict_to_hdf5, verbose=0) if whole_job else predict
    with pytest.raises(ValueError, match="third part of a batch is its sample weights"):
        job(model, make(), path)
    assert not path.exists()


@pytest.mark.parametrize("weights", [np.ones(ROWS, "float32"), np.arange(ROWS)])
def test_weights_are_let_pass(weights, model, path):
    """Sample weights that are numbers are left alone."""
    predict(model, Named(weights), path, targets=True)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["targets"][:], TARGETS)


@not_torch
@pytest.mark.parametrize("in_targets", [True, False])
def test_what_is_said_of_names_works(in_targets, model, path):
    """Names as targets, or in `x` by a key, are stored, as the error says."""
    tf = importlib.import_module("tensorflow")
    if in_targets:
        parts, options = ({"image": DATA}, {"label": TARGETS, "name": NAMES}), {"targets": True}
    else:
        parts, options = ({"image": DATA, "name": NAMES}, TARGETS), {"ids": "name"}
    predict(model, tf.data.Dataset.from_tensor_slices(parts).batch(23), path, **options)
    with h5py.File(path) as file:
        stored = file["targets/name" if in_targets else "ids"]
        np.testing.assert_array_equal(text_of(stored), NAMES)
