import contextlib
import gc
import threading
import tracemalloc
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

from kerasext.inference import row_slices
from kerasext.inference.row_slices import RowSlices, can_slice, count_rows
from kerasext.keras_internals import SlicesAdapter
from kerasext.storage import PredictionFile, PredictionFileWriter

BACKEND = keras.backend.backend()


class Source:
    """Rows that are read from somewhere, as of a file; knows by which thread and which rows."""

    def __init__(self, rows, *, broken=None):
        self.rows = rows
        self.broken = broken
        self.shape, self.dtype = rows.shape, rows.dtype
        self.reads = []

    def __getitem__(self, key):
        self.reads.append((threading.current_thread(), key.start, key.stop))
        if self.broken is not None and key.start <= self.broken < key.stop:
            raise OSError("an unreadable sector")
        return self.rows[key]

    def __array__(self, dtype=None, copy=None):
        return self.rows


class Recorder(keras.Model):
    """Keeps what its predict step is given, and yields the first array of it."""

    def __init__(self):
        super().__init__()
        self.seen = SimpleNamespace(batches=[])  # Keras would track a list
        self.compile(run_eagerly=True)
        self.built = True

    def predict_step(self, *args):
        """Takes the state too on JAX."""
        *state, data = args
        self.seen.batches.append(data)
        first = keras.tree.flatten(data)[0]
        return (first, state[0][1]) if state else first

    def take(self):
        """The batches since the last call."""
        batches, self.seen.batches = self.seen.batches, []
        return batches


def on_disk(rows, path, kind):
    """The rows in a file: `memory map`, `h5py` or `stored output`."""
    if kind == "memory map":
        mapped = np.memmap(path, dtype=rows.dtype, mode="w+", shape=rows.shape)
        mapped[:] = rows
        return mapped
    if kind == "h5py":
        return h5py.File(path, "w").create_dataset("rows", data=rows)
    writer = PredictionFileWriter(path)
    writer.append({"features": rows})
    writer.finish()
    return PredictionFile(path)["features"]


def tensor(rows, framework):
    """The rows as a tensor of a framework, which need not be the backend."""
    if framework == "jax":
        return pytest.importorskip("jax").numpy.asarray(rows)
    if framework == "torch":
        return pytest.importorskip("torch").tensor(rows)
    return pytest.importorskip("tensorflow").constant(rows)


def frame(rows):
    """Columns of two types in pandas."""
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"a": rows[:, 0], "b": np.arange(70)})


IN_MEMORY = {
    "float32": lambda rows: rows,
    "float64": lambda rows: rows.astype("float64"),
    "float16": lambda rows: rows.astype("float16"),
    "bfloat16": lambda rows: rows.astype("bfloat16"),
    "big-endian": lambda rows: rows.astype(">f8"),
    "int64": lambda rows: (rows * 1e12).astype("int64"),
    "uint16": lambda rows: (rows * 1e4).astype("int16").view("uint16"),
    "uint32": lambda rows: (rows * 1e8).astype("int32").view("uint32"),
    "uint8": lambda rows: (rows * 100).astype("int8").view("uint8"),
    "bool": lambda rows: rows > 0,
    "one axis": lambda rows: rows[:, 0],
    "four axes": lambda rows: rows.reshape(70, 2, 2, 2),
    "no columns": lambda rows: rows[:, :0],
    "not contiguous": lambda rows: np.repeat(rows, 2, axis=0)[::2, ::-1],
    "columns first": np.asfortranarray,
    "TensorFlow": lambda rows: tensor(rows, "tensorflow"),
    "JAX": lambda rows: tensor(rows, "jax"),
    "JAX float16": lambda rows: tensor(rows.astype("float16"), "jax"),
    "torch": lambda rows: tensor(rows, "torch"),
    "torch float64": lambda rows: tensor(rows.astype("float64"), "torch"),
    "torch float16": lambda rows: tensor(rows.astype("float16"), "torch"),
    "pandas": frame,
    "pandas float64": lambda rows: frame(rows.astype("float64")),
    "pandas series": lambda rows: frame(rows)["a"],
    "dict": lambda rows: {"b": rows, "a": rows[:, :2].astype("float64"), "c": rows > 0},
    "list": lambda rows: [rows, rows[:, 0]],
    "list of one": lambda rows: [rows],
    "tuple": lambda rows: (rows, rows[:, 0]),
    "nested": lambda rows: {"z": [rows, {"y": rows[:, 0]}], "a": (Source(rows),)},
    "another source": Source,
}
ON_DISK = ["memory map", "h5py", "stored output"]


@pytest.fixture(params=[*IN_MEMORY, *ON_DISK, *(f"{kind} of float64" for kind in ON_DISK)])
def x(request, rows, path):
    """70 rows in each of the forms that can be sliced."""
    if request.param in IN_MEMORY:
        return IN_MEMORY[request.param](rows)
    kind, is_float64, _ = request.param.partition(" of float64")
    return on_disk(rows.astype("float64") if is_float64 else rows, path, kind)


def test_the_model_gets_what_keras_gives_it(x):
    """Values, types, shapes and structure of every batch are those of plain `predict`."""
    model = Recorder()
    for batch_size in (23, 100):  # of 23 the last batch has one row
        plain = model.predict(x, batch_size=batch_size, verbose=0)
        expected = model.take()
        result = model.predict(SlicesAdapter(RowSlices(x, batch_size)), verbose=0)
        found = model.take()
        np.testing.assert_array_equal(result, plain)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert described(one) == described(other)
            for array, same in zip(*map(keras.tree.flatten, (one, other)), strict=True):
                np.testing.assert_array_equal(array, same)


def described(batch):
    """Structure with the order of keys, types and shapes of a batch."""
    return repr(
        keras.tree.map_structure(
            lambda array: (keras.backend.standardize_dtype(array.dtype), tuple(array.shape)), batch
        )
    )


@pytest.mark.backends("tensorflow", reason="no other backend has strings")
@pytest.mark.parametrize("to_strings", [lambda words: words, keras.ops.convert_to_tensor])
def test_strings(to_strings):
    """Strings reach the model as in plain `predict`."""
    x = to_strings(np.array(["ant", "bee", "cat", "doe"] * 10, dtype=object))
    model = Recorder()
    plain = model.predict(x, batch_size=16, verbose=0)
    np.testing.assert_array_equal(model.predict(SlicesAdapter(RowSlices(x, 16)), verbose=0), plain)
    assert plain[0] == b"ant"


@pytest.mark.backends("torch", reason="the others have it")
def test_a_type_that_torch_does_not_have(rows):
    """Integers that torch lacks are refused as in plain `predict`, with the same error."""
    x = rows.view("uint32").astype("uint64")
    with pytest.raises((TypeError, ValueError)) as expected:
        Recorder().predict(x, verbose=0)
    with pytest.raises(type(expected.value)) as found:
        Recorder().predict(SlicesAdapter(RowSlices(x, 32)), verbose=0)
    assert str(found.value) == str(expected.value)


@pytest.mark.backends("tensorflow", reason="no other backend has strings")
@pytest.mark.parametrize("dtype", ["U3", "S3"])
def test_text(dtype, tmp_path):
    """Text of a fixed width, from .npy files too, reaches the model as the objects Keras takes."""
    words = np.array(["ant", "bee", "cat", "doe"] * 10, dtype)
    plain = Recorder().predict(words.astype("U").astype(object), batch_size=16, verbose=0)
    np.save(tmp_path / "words.npy", words)
    for x in (words, np.load(tmp_path / "words.npy", mmap_mode="r")):
        found = Recorder().predict(SlicesAdapter(RowSlices(x, 16)), verbose=0)
        np.testing.assert_array_equal(found, plain)
    assert plain[0] == b"ant"


@pytest.mark.backends("jax", "torch", reason="TensorFlow has strings")
@pytest.mark.parametrize("dtype", ["U3", "S3", object])
def test_text_for_models_without_strings(dtype):
    """Where models take no strings, that is said before `predict` begins."""
    with pytest.raises(TypeError, match="Only models on the TensorFlow backend take text"):
        RowSlices(np.array(["ant"] * 70, dtype), 32)


@pytest.mark.parametrize("dtype", ["i4,i4"])
def test_types_that_keras_does_not_know(dtype):
    """What Keras refuses is refused with the same error, before `predict` begins."""
    x = np.zeros(70, dtype)
    with pytest.raises(ValueError, match="Invalid dtype") as expected:
        Recorder().predict(x, verbose=0)
    with pytest.raises(ValueError, match="Invalid dtype") as found:
        RowSlices(x, 32)
    assert str(found.value) == str(expected.value)


@pytest.fixture(params=["plain", "eager", *([] if BACKEND == "torch" else ["jit", "4 steps"])])
def model(request):
    """A small model, compiled in each of the ways that matter to the predict loop."""
    options = {
        "plain": {},
        "eager": {"run_eagerly": True},
        "jit": {"jit_compile": True},
        "4 steps": {"steps_per_execution": 4},
    }
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.compile(**options[request.param])
    return model


@pytest.mark.parametrize("batch_size", [1, 23, 70, 100])
def test_predict_returns_the_same(model, rows, batch_size):
    """However the model is compiled, results are those of plain `predict`, call after call."""
    slices = RowSlices(rows, batch_size)
    plain = model.predict(rows, batch_size=batch_size, verbose=0)
    for _ in range(2):
        np.testing.assert_array_equal(model.predict(SlicesAdapter(slices), verbose=0), plain)


def test_one_row(model, rows):
    """A single row is a batch."""
    plain = model.predict(rows[:1], verbose=0)
    np.testing.assert_array_equal(
        model.predict(SlicesAdapter(RowSlices(rows[:1], 32)), verbose=0), plain
    )


def test_a_model_is_traced_once_per_shape(rows):
    """Batches of one shape never trace the model again, in this call or the next."""
    traces = []

    class Traced(keras.Model):
        def call(self, x):
            traces.append(x.shape)
            return x

    model = Traced()
    model.predict(SlicesAdapter(RowSlices(rows, 32)), verbose=0)
    first = len(traces)
    model.predict(SlicesAdapter(RowSlices(rows, 32)), verbose=0)
    model.predict(SlicesAdapter(RowSlices(rows[:64], 32)), verbose=0)
    if BACKEND == "torch":  # which goes through Python at each batch
        assert len(traces) == first + 3 + 2
        return
    assert len(traces) == first
    model.predict(rows, batch_size=32, verbose=0)
    assert len(traces) == first  # and plain `predict` gives it nothing else


def test_a_part_of_the_rows(rows):
    """`first_row` and `rows` choose what is given; parts of other batch sizes make the whole."""
    model = Recorder()
    parts = [RowSlices(rows, 16, rows=40), RowSlices(rows, 7, first_row=40, rows=20)]
    parts.append(RowSlices(rows, 3, first_row=60))
    found = [model.predict(SlicesAdapter(part), verbose=0) for part in parts]
    np.testing.assert_array_equal(np.concatenate(found), rows)
    assert [len(batch) for batch in model.take()] == [16, 16, 8, 7, 7, 6, 3, 3, 3, 1]
    assert [(part.first_row, part.rows, part.num_batches) for part in parts] == [
        (0, 40, 3),
        (40, 20, 3),
        (60, 10, 4),
    ]


def test_numbers_of_rows_and_batches(rows):
    """The size of batches, of the last one, and their number are known."""
    with_rest, without = RowSlices(rows, 32), RowSlices(rows, 35)
    assert (with_rest.batch_size, with_rest.num_batches) == (32, 3)
    assert list(with_rest.rows_of_batches()) == [32, 32, 6]
    assert without.num_batches == 2
    assert list(without.rows_of_batches()) == [35, 35]


@pytest.mark.parametrize("block_rows", [1, 16, 20, 64, 1000])
def test_batches_do_not_depend_on_what_is_read_at_once(rows, block_rows, monkeypatch):
    """However much is cut or read at once, batches are the same."""
    monkeypatch.setattr(row_slices, "_BLOCK_BYTES", block_rows * rows[0].nbytes)
    source = Source(rows)
    from_disk = RowSlices(source, 8, read_ahead_bytes=8 * block_rows * rows[0].nbytes)
    for slices in (RowSlices(rows, 8), from_disk):
        found = [np.asarray(batch) for batch in slices]
        assert [len(batch) for batch in found] == [8] * 8 + [6]
        np.testing.assert_array_equal(np.concatenate(found), rows)
    _, *reads = source.reads  # the first one is the size of a row
    assert max(stop - start for _, start, stop in reads) == min(max(block_rows // 8 * 8, 8), 70)


def test_what_is_on_disk_is_read_by_a_thread(rows):
    """The main thread reads one row to know its size, and nothing more."""
    source = Source(rows)
    slices = RowSlices(source, 10, read_ahead_bytes=0)
    assert source.reads == [(threading.main_thread(), 0, 1)]
    Recorder().predict(SlicesAdapter(slices), verbose=0)
    _, *reads = source.reads
    assert [(start, stop) for _, start, stop in reads] == [(at, at + 10) for at in range(0, 70, 10)]
    assert threading.main_thread() not in [thread for thread, _, _ in reads]


def test_arrays_are_not_copied():
    """An array that has to be cast takes no more memory than a few blocks."""
    x = np.zeros((64, 65536))  # 32 MiB of float64
    tracemalloc.start()
    try:
        for _ in RowSlices(x, 1):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * row_slices._BLOCK_BYTES


@pytest.mark.parametrize("read_ahead_bytes", [0, 2**20])
def test_an_error_of_the_source_comes_at_its_batch(rows, read_ahead_bytes):
    """All batches before the one that can't be read are given; then the error is raised."""
    slices = RowSlices(Source(rows, broken=47), 10, read_ahead_bytes=read_ahead_bytes)
    batches = iter(slices)
    found = [np.asarray(next(batches)) for _ in range(4)]
    np.testing.assert_array_equal(np.concatenate(found), rows[:40])
    with pytest.raises(OSError, match="an unreadable sector"):
        next(batches)
    with pytest.raises(OSError, match="an unreadable sector"):
        Recorder().predict(SlicesAdapter(slices), verbose=0)


class EndsEarly(keras.callbacks.Callback):
    """Ends predict after its third batch, in one of the ways there are."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def on_predict_batch_end(self, batch, logs=None):
        if batch == 2 and self.how == "stop_predicting":
            self.model.stop_predicting = True
        elif batch == 2 and self.how is not None:
            raise self.how


@pytest.mark.parametrize("how", [None, ValueError, KeyboardInterrupt, "stop_predicting"])
@pytest.mark.parametrize("closed", [True, False])
def test_no_thread_outlives_predict(rows, how, closed):
    """After an end of whatever kind nothing goes on reading, once closed or collected."""
    source = Source(rows)
    slices = RowSlices(source, 5, read_ahead_bytes=0)
    with contextlib.suppress(ValueError, KeyboardInterrupt):
        Recorder().predict(SlicesAdapter(slices), verbose=0, callbacks=[EndsEarly(how)])
    if closed:
        slices.close()
    elif how is not None:
        gc.collect()
    for thread, _, _ in source.reads[1:]:
        thread.join(30)
        assert not thread.is_alive()
    batches_read = len(source.reads) - 1  # the first one is the size of a row
    assert batches_read == 14 if how is None else batches_read < 10


@pytest.mark.parametrize(
    "x",
    [
        3.5,
        "rows",
        [1, 2, 3],
        ["ant", "bee"],
        {},
        None,
        [np.zeros((3, 1)), None],
        np.float32(1),
        np.array(1.0),
        (np.zeros((3, 1)) for _ in range(2)),
        range(3),
        memoryview(b"rows"),
        h5py.Empty("f4"),
        keras.Input((3,)),
        keras.utils.PyDataset(),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_can_not_be_sliced(x):
    """Whatever is no array with rows is left to Keras, and refused by name."""
    assert not can_slice(x)
    with pytest.raises(ValueError, match=r"must be an array.*Received: type\(x\)=<class"):
        count_rows(x)


def test_data_sets_and_sparse_arrays_can_not_be_sliced():
    """Inputs that Keras treats in ways of their own are left to it."""
    tf = pytest.importorskip("tensorflow")
    sparse = pytest.importorskip("scipy.sparse")
    assert not can_slice(tf.data.Dataset.range(3))
    assert not can_slice(tf.sparse.eye(3))
    assert not can_slice(tf.ragged.constant([[1], [2, 3]]))
    assert not can_slice(sparse.csr_matrix(np.eye(3)))


def test_what_can_be_sliced(x):
    """All kinds of arrays can, with their rows counted."""
    assert can_slice(x)
    assert count_rows(x) == 70


def test_unequal_numbers_of_rows_are_named():
    """Arrays of unequal length are refused with the length of each."""
    x = {"image": np.zeros((70, 2)), "more": [np.zeros(69), np.zeros(70)]}
    with pytest.raises(ValueError, match="same number of rows") as caught:
        RowSlices(x, 32)
    assert str(caught.value).endswith(
        "Received: len(x['image'])=70, len(x['more'][0])=69, len(x['more'][1])=70"
    )


def test_no_rows_are_refused():
    """Predicting nothing is an error before `predict` begins."""
    with pytest.raises(ValueError, match="at least one of the 0 rows"):
        RowSlices(np.zeros((0, 8)), 32)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"first_row": -1}, "first_row=-1, rows=None"),
        ({"first_row": 70}, "first_row=70, rows=None"),
        ({"rows": 0}, "first_row=0, rows=0"),
        ({"first_row": 60, "rows": 11}, "first_row=60, rows=11"),
    ],
)
def test_arguments_out_of_range(rows, arguments, received):
    """Numbers that choose no rows, or rows that are not there, are refused."""
    with pytest.raises(ValueError, match=f"Received: {received}$"):
        RowSlices(rows, **{"batch_size": 32, **arguments})


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
def test_filled_up_batches(rows):
    """`fill` makes the last batch as large as the others, of copies of its last row."""
    x = np.arange(200 * 3, dtype="float32").reshape(200, 3)
    slices = RowSlices({"a": x, "b": x[:, 0]}, 32, first_row=7, rows=rows, fill=True)
    batches = list(slices)
    assert [len(batch["a"]) for batch in batches] == [32] * slices.num_batches
    for name, array in (("a", x), ("b", x[:, 0])):
        found = np.concatenate([keras.ops.convert_to_numpy(batch[name]) for batch in batches])
        np.testing.assert_array_equal(found[:rows], array[7 : 7 + rows])
        np.testing.assert_array_equal(
            found[rows:], np.repeat(array[6 + rows : 7 + rows], len(found) - rows, axis=0)
        )
