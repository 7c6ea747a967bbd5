import os

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor
from kerasext.inference import array_job, predict_to_hdf5
from kerasext.keras_internals import is_out_of_memory
from kerasext.models import ClassifierModel

ROWS = 1000
BACKEND = keras.backend.backend()


@pytest.fixture
def model():
    """A small classifier."""
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    return ClassifierModel(inputs, keras.layers.Dense(4, activation="softmax")(hidden))


@pytest.fixture
def x():
    """1,000 rows of 8 features."""
    return np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")


def in_step(function, data):
    """Calls a function of Python with the rows of each step, compiled as the step may be."""
    if BACKEND == "tensorflow":
        import tensorflow as tf  # noqa: PLC0415 - only where it is the backend

        checked = tf.numpy_function(function, [data], tf.float32)
        checked.set_shape(data.shape)  # raises its own errors, for a MemoryError that of its own
        return checked
    if BACKEND == "jax":
        import jax  # noqa: PLC0415 - only where it is the backend

        # Raises its own error, with the text of the function's.
        return jax.pure_callback(function, jax.ShapeDtypeStruct(data.shape, data.dtype), data)
    return function(data)


def no_memory():
    """An error as `in_step` has to raise it to make it that of the backend."""
    if BACKEND == "torch":
        import torch  # noqa: PLC0415 - only where it is the backend

        return torch.OutOfMemoryError("CUDA out of memory")
    return MemoryError("RESOURCE_EXHAUSTED: no memory")


@pytest.fixture
def limited(model):
    """Makes a model that runs out of memory above a batch size, from some call on."""

    def make(largest, *, after=0, error=no_memory):
        calls = []

        def check(values):
            calls.append(len(values))
            if len(values) > largest and len(calls) > after:
                raise error()
            return values

        class Limited(ClassifierModel):
            def predict_step(self, *args):
                *state, data = args  # no state but on JAX
                return super().predict_step(*state, in_step(check, data))

        return Limited(model.input, model.output), calls

    return make


class StopsAfter(keras.callbacks.Callback):
    """Ends `predict` after some steps, in one way or another."""

    def __init__(self, steps, error=None):
        super().__init__()
        self.steps, self.error = steps, error

    def on_predict_batch_end(self, batch, logs=None):
        self.steps -= 1
        if not self.steps and self.error:
            raise self.error
        self.model.stop_predicting = not self.steps


def assert_holds(path, expected, *, exact=True):
    """The file is complete and has what `predict` returned, bit for bit or nearly."""
    with h5py.File(path) as file:
        assert file["_kerasext/record"]["complete"] == 1
        for name, array in expected.items():
            found = file[name][()]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            if exact or array.dtype.kind == "i":
                np.testing.assert_array_equal(found, array)
            else:
                np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-6)


def batch_size(path):
    """The batch size that the file says."""
    with h5py.File(path) as file:
        return int(file["_kerasext/record"]["batch_size"])


@pytest.mark.parametrize("size", [1, 23, 32, 333, ROWS, 5 * ROWS])
def test_holds_what_predict_returns(model, x, path, size):
    """The file has what a plain `predict` of that batch size returns, and is returned open."""
    rows = x[:70] if size == 1 else x
    expected = model.predict(rows, batch_size=size, verbose=0)
    with predict_to_hdf5(model, rows, path, batch_size=size, verbose=0) as predictions:
        assert isinstance(predictions, PredictionFile)
        assert (predictions.rows, predictions.complete) == (len(rows), True)
    assert_holds(path, expected)
    assert batch_size(path) == size


@pytest.mark.parametrize("size", ["auto", 32])
def test_one_row(model, x, path, size):
    """One row is a job too."""
    expected = model.predict(x[:1], verbose=0)
    predict_to_hdf5(model, x[:1], path, batch_size=size, verbose=0).close()
    assert_holds(path, expected)


def test_sources(model, x, path, tmp_path):
    """Datasets of h5py, memory maps and predictions of another model are read from the disk."""
    expected = model.predict(x, batch_size=100, verbose=0)
    np.save(tmp_path / "x.npy", x)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = x
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        sources = [file["x"], mapped, keras.ops.convert_to_tensor(x)]
        for source in sources:
            predict_to_hdf5(model, source, path, batch_size=100, mode="w", verbose=0).close()
            assert_holds(path, expected)


def test_several_inputs(x, path):
    """Dicts of arrays go to the inputs of their names."""
    inputs = {name: keras.Input((8,), name=name) for name in ("a", "b")}
    total = keras.layers.Add()([inputs["a"], keras.layers.Dense(8)(inputs["b"])])
    model = keras.Model(inputs, {"total": total, "b": inputs["b"]})
    data = {"b": x, "a": x.astype("float64")}
    expected = model.predict(data, batch_size=64, verbose=0)
    predict_to_hdf5(model, data, path, batch_size=64, verbose=0).close()
    assert_holds(path, expected)


class Batches(keras.utils.PyDataset):
    """The first 96 rows in batches of Keras."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.rows[index * 32 : index * 32 + 32], np.zeros(32)


def tf_dataset(x):
    """The rows again and again, in batches of `tf.data`."""
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(x).batch(32).repeat()


def data_loader(x):
    """The first 96 rows in batches of torch."""
    data = pytest.importorskip("torch").utils.data
    return data.DataLoader([(row,) for row in x[:96]], batch_size=32)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras's own
@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (tf_dataset, 3),
        (lambda x: ((batch,) for batch in np.split(x[:96], 3)), None),
        (Batches, None),
        (data_loader, None),
    ],
    ids=["tf.data", "generator", "PyDataset", "DataLoader"],
)
def test_everything_else_goes_to_keras(model, x, path, make, steps):
    """What can't be cut by rows is predicted as `predict` does, `steps` included."""
    expected = model.predict(x[:96], batch_size=32, verbose=0)
    before = model.predict_function
    predict_to_hdf5(model, make(x), path, steps=steps, verbose=0).close()
    assert_holds(path, expected)
    assert model.predict_function is before


class Hooks(keras.callbacks.Callback):
    """Notes the hooks that are called, with their arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_predict_begin(self, logs=None):
        self.calls.append(("begin", self.params["steps"], logs))

    def on_predict_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begin", batch, logs))

    def on_predict_batch_end(self, batch, logs=None):
        self.calls.append(("batch end", batch, logs))

    def on_predict_end(self, logs=None):
        self.calls.append(("end", self.params["steps"], logs))


@pytest.mark.parametrize("steps", [1] if BACKEND == "torch" else [1, 3])
def test_callbacks_are_called_as_by_predict(model, x, path, steps):
    """With Keras's hooks, batch numbers and parameters, as of a `predict` that keeps nothing."""
    model.compile(steps_per_execution=steps)
    theirs, ours = Hooks(), Hooks()
    writer = HDF5PredictionWriter(path, accumulate=False)
    options = {"batch_size": 32, "verbose": 0}
    model.predict(x, callbacks=[writer, theirs], **options)
    predict_to_hdf5(model, x, path, mode="w", callbacks=[ours], **options).close()
    ends = [batch for name, batch, _ in ours.calls if name == "batch end"]
    assert len(ends) == -(-32 // steps)
    # Of the last step Keras counts batches that do not come.
    assert ours.calls[:-2] == theirs.calls[:-2]
    assert ours.calls[-1] == theirs.calls[-1]
    assert ends[-1] == 31


def test_own_steps_per_execution(model, x, path):
    """What the user has compiled the model with is not changed."""
    model.compile(steps_per_execution=3)
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="must be 1 with the PyTorch backend"):
            predict_to_hdf5(model, x, path, batch_size=32, verbose=0)
        assert not path.exists()
        return
    expected = model.predict(x, batch_size=32, verbose=0)
    predict_to_hdf5(model, x, path, batch_size=32, verbose=0).close()
    assert_holds(path, expected)
    assert model.steps_per_execution == 3


@pytest.mark.parametrize("steps", [1, 5, 30])
@pytest.mark.parametrize("error", [None, RuntimeError("stop"), KeyboardInterrupt()])
def test_resume(model, limited, x, path, steps, error):
    """A job that was stopped goes on at the batch of its last row, bit for bit."""
    expected = model.predict(x, batch_size=32, verbose=0)
    stop = StopsAfter(steps, error)
    options = {"batch_size": 32, "verbose": 0}
    if error is None:
        with predict_to_hdf5(model, x, path, callbacks=[stop], **options) as predictions:
            assert not predictions.complete
    else:
        with pytest.raises(type(error)):
            predict_to_hdf5(model, x, path, callbacks=[stop], **options)
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        rows = predictions.rows
    assert rows % 32 == 0
    counted, calls = limited(ROWS)
    predict_to_hdf5(counted, x, path, mode="resume", verbose=0).close()
    assert_holds(path, expected)
    assert batch_size(path) == 32
    assert sum(calls) == ROWS - rows + 32


def test_resume_of_a_complete_job(model, limited, x, path, capfd, caplog):
    """The first and the last batch are computed again, in the size of the file, and no other."""
    predict_to_hdf5(model, x, path, batch_size=48, verbose=0).close()
    before = path.read_bytes()
    counted, calls = limited(ROWS)
    with (
        caplog.at_level("INFO", "kerasext"),
        predict_to_hdf5(counted, x, path, mode="resume", batch_size=64, verbose=0) as predictions,
    ):
        assert predictions.complete
    assert calls == [48, ROWS % 48]
    assert path.read_bytes() == before
    assert capfd.readouterr().out == ""
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("kerasext", "INFO")
    assert "is complete: its first and last step were computed again" in record.message


OTHERS = {  # what a complete file of the rows and the ids 0, 1, ... is resumed with
    "more rows": (
        lambda x: np.tile(x, (2, 1)),
        None,
        "2000 rows, with 1000 in the last",
    ),
    "fewer rows": (lambda x: x[:999], None, "999 rows, with 1000 in the last"),
    "other rows at first": (lambda x: x + (np.arange(ROWS) < 20)[:, None], None, "before row 32"),
    "other rows at last": (lambda x: x + (np.arange(ROWS) > 995)[:, None], None, "before row 1000"),
    "another order": (lambda x: x[::-1], None, "same order"),
    "another id": (
        lambda x: x,
        np.arange(ROWS) + (np.arange(ROWS) == 500),
        "the id 500 in row 500",
    ),
    "another last id": (
        lambda x: x,
        np.arange(ROWS) * (np.arange(ROWS) < 999),
        "the id 999 in row",
    ),
    "too many ids": (lambda x: x, np.arange(ROWS + 1), "1001 for 1000 rows"),
    "no ids": (lambda x: x, False, "must have the columns"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_complete_job_of_other_data(model, x, path, other):
    """Rows, their number and every id are compared; a difference raises and changes nothing."""
    options = {"batch_size": 32, "verbose": 0}
    predict_to_hdf5(model, x, path, ids=np.arange(ROWS), **options).close()
    before = path.read_bytes()
    change, ids, message = OTHERS[other]
    ids = np.arange(len(change(x))) if ids is None else ids
    with pytest.raises(ValueError, match=message):
        predict_to_hdf5(
            model, change(x), path, mode="resume", ids=None if ids is False else ids, **options
        )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    predict_to_hdf5(model, x, path, mode="resume", ids=np.arange(ROWS), **options).close()


def test_a_complete_job_of_other_targets(model, x, path):
    """Targets of the first and of the last batch are compared, too."""
    options = {"batch_size": 32, "verbose": 0}
    predict_to_hdf5(model, x, path, targets=np.zeros(ROWS), **options).close()
    with pytest.raises(ValueError, match="'targets'"):
        predict_to_hdf5(model, x, path, mode="resume", targets=np.ones(ROWS), **options)


def test_a_complete_job_of_unknown_length(model, x, path):
    """Data that go to Keras as they are, are read to their end."""

    def batches(rows):
        yield from ((batch,) for batch in np.split(rows, 10))

    options = {"mode": "resume", "verbose": 0}
    predict_to_hdf5(model, batches(x), path, steps=10, **options).close()
    predict_to_hdf5(model, batches(x), path, steps=10, **options).close()
    before = path.read_bytes()
    for rows, message in (
        (x[:900], "900 rows"),
        (np.tile(x, (2, 1)), "at least 1200"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_to_hdf5(model, batches(rows), path, steps=10, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [32, "auto"])
def test_resume_begins_a_file(model, x, path, size):
    """Under "resume" a missing file is made."""
    expected = model.predict(x, batch_size=32, verbose=0)
    predict_to_hdf5(model, x, path, mode="resume", batch_size=size, verbose=0).close()
    assert_holds(path, expected, exact=size == 32)


def test_resume_with_fewer_rows(model, x, path):
    """Data that is shorter than the file is refused, and the file stays."""
    options = {"batch_size": 32, "verbose": 0}
    predict_to_hdf5(model, x, path, callbacks=[StopsAfter(20)], **options).close()
    with pytest.raises(ValueError, match=r"the same data as the first run.*100 rows"):
        predict_to_hdf5(model, x[:100], path, mode="resume", **options)
    predict_to_hdf5(model, x, path, mode="resume", **options).close()
    assert_holds(path, model.predict(x, batch_size=32, verbose=0))


def test_resume_of_what_a_callback_has_begun(model, limited, x, path):
    """A file whose batch size is not known is gone on with at one that is found."""
    expected = model.predict(x, batch_size=32, verbose=0)
    writer = HDF5PredictionWriter(path, accumulate=False)
    with writer:
        model.predict(x, verbose=0, callbacks=[StopsAfter(10), writer])
    counted, calls = limited(ROWS)
    predict_to_hdf5(counted, x, path, mode="resume", verbose=0).close()
    assert_holds(path, expected, exact=False)
    assert sum(calls) == ROWS - 320 + 32


def test_adding_rows(model, x, path):
    """Under "a" a second job stands after the first, and is resumed from its own first row."""
    options = {"batch_size": 32, "verbose": 0}
    predict_to_hdf5(model, x[:300], path, **options).close()
    predict_to_hdf5(model, x[300:], path, mode="a", callbacks=[StopsAfter(4)], **options).close()
    predict_to_hdf5(model, x[300:], path, mode="resume", **options).close()
    parts = [model.predict(part, batch_size=32, verbose=0) for part in (x[:300], x[300:])]
    assert_holds(path, {name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def test_out_of_memory_at_the_usual_size(model, limited, x, path):
    """Where even the smallest size that is tried is too large, smaller ones are."""
    limit, _ = limited(10)
    predict_to_hdf5(limit, x, path, verbose=0).close()
    assert_holds(path, model.predict(x, verbose=0), exact=False)
    assert batch_size(path) == 8


@pytest.mark.parametrize("after", [0, 1, 3])
def test_out_of_memory(model, limited, x, path, after):
    """When memory runs out, the batches become smaller, and every row is there once."""
    limit, calls = limited(60, after=after)
    expected = model.predict(x, batch_size=200, verbose=0)
    predict_to_hdf5(limit, x, path, batch_size=200, verbose=0).close()
    assert_holds(path, expected, exact=False)
    assert calls.count(200) == after + 1
    assert calls.count(100) == 1
    assert batch_size(path) == 50
    assert sum(size for size in calls if size <= 60) == ROWS - 200 * after


def test_out_of_memory_for_good(limited, x, path):
    """A model for which one row is too large fails with its own error."""
    limit, _ = limited(0)
    with pytest.raises(Exception, match="memory") as caught:
        predict_to_hdf5(limit, x, path, batch_size=4, verbose=0)
    assert is_out_of_memory(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("error", [MemoryError(), no_memory()])
def test_out_of_memory_in_python(model, x, path, error):
    """Errors of NumPy and of the backend that are raised past the compiled step count as well."""

    class Limited(ClassifierModel):
        def predict_step(self, *args):
            if len(args[-1]) > 60:
                raise error
            return super().predict_step(*args)

    limit = Limited(model.input, model.output)
    limit.compile(run_eagerly=True)
    predict_to_hdf5(limit, x, path, batch_size=200, verbose=0).close()
    assert_holds(path, model.predict(x, batch_size=50, verbose=0), exact=False)
    assert batch_size(path) == 50


class NoNoise(keras.layers.Layer):
    """Draws random numbers, and so changes its state, for nothing."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(5)

    def call(self, inputs):
        return inputs + 0 * keras.random.normal(keras.ops.shape(inputs), seed=self.generator)


class Hungry(ClassifierModel):
    """Needs more memory than there is for more than 60 rows at a time."""

    def predict_step(self, *args):
        *state, data = args
        if data.shape[0] > 60:
            many = keras.ops.broadcast_to(data[:, :1], (data.shape[0], 2**44))
            data = data + keras.ops.sort(many, axis=-1)[:, :8]
        return super().predict_step(*state, data)


@pytest.mark.backends("jax", "torch", reason="its batches have no size when it is traced")
@pytest.mark.parametrize("layer", [keras.layers.Identity, NoNoise])
def test_out_of_memory_for_real(x, path, layer):
    """Also where the error comes when the step has long returned, as on JAX, no weight is lost."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(4, activation="softmax")(layer()(inputs))
    model = Hungry(inputs, outputs)
    weights = model.get_weights()
    predict_to_hdf5(model, x, path, batch_size=200, verbose=0).close()
    assert_holds(path, model.predict(x, batch_size=50, verbose=0), exact=False)
    assert batch_size(path) == 50
    for weight, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_other_errors_of_the_model(limited, x, path):
    """An error that is not of memory ends the job, with the rows before it in the file."""
    limit, _ = limited(60, after=2, error=lambda: ZeroDivisionError("a bad division"))
    with pytest.raises(Exception, match="a bad division"):
        predict_to_hdf5(limit, x, path, batch_size=100, verbose=0)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (200, False)


def test_tuning(model, x, path, monkeypatch):
    """A job is tuned on its own rows, each predicted once, and the model only once."""
    many = np.tile(x, (300, 1))
    expected = model.predict(many, batch_size=8192, verbose=0)
    tried = []

    class Noted(array_job.RowSlices):
        def __init__(self, x, batch_size, **options):
            tried.append(batch_size)
            super().__init__(x, batch_size, **options)

    monkeypatch.setattr(array_job, "RowSlices", Noted)
    monkeypatch.setattr(array_job.ArrayJob, "_is_worth_another", lambda *_: True)
    predict_to_hdf5(model, many, path, verbose=0).close()
    assert_holds(path, expected, exact=False)
    assert {32, 128, 512} <= set(tried)
    first = batch_size(path)
    tried.clear()
    predict_to_hdf5(model, many, path, mode="w", verbose=0).close()
    assert_holds(path, expected, exact=False)
    assert batch_size(path) == first
    assert set(tried) == {first}


def test_a_job_of_few_rows_is_not_tuned(model, x, path):
    """A job of too few rows to measure takes the usual batch size."""
    predict_to_hdf5(model, x[:150], path, verbose=0).close()
    assert batch_size(path) == 32
    assert_holds(path, model.predict(x[:150], batch_size=32, verbose=0))


def test_options_of_the_writer(model, x, path):
    """What is written, and as what, is chosen as for the callback."""
    predict_to_hdf5(
        model,
        x,
        path,
        outputs=["probabilities"],
        dtypes={"probabilities": "float16"},
        metadata={"fold": 3},
        compression="gzip",
        verbose=0,
    ).close()
    with h5py.File(path) as file:
        assert set(file) == {"_kerasext", "probabilities", "row", "class"}
        assert (file["probabilities"].dtype, file["probabilities"].compression) == ("f2", "gzip")
    with PredictionFile(path) as predictions:
        assert predictions.metadata == {"fold": 3}


BAD = {
    "batch size of zero": ({"batch_size": 0}, "`batch_size` must be positive.*batch_size=0"),
    "negative batch size": ({"batch_size": -3}, "batch_size=-3"),
    "another word": ({"batch_size": "large"}, "an int or 'auto'.*batch_size='large'"),
    "a fraction": ({"batch_size": 2.5}, "an int or 'auto'.*batch_size=2.5"),
    "a truth": ({"batch_size": True}, "batch_size=True"),
    "steps": ({"steps": 3}, "`steps` is for data without an end.*steps=3"),
    "lengths": ({"x": {"a": np.zeros((3, 8)), "b": np.zeros((4, 8))}}, "len.*=3.*len.*=4"),
    "features": ({"x": np.zeros((30, 7), "f4")}, r"Received: x=float32\[30, 7\]"),
    "interval": ({"commit_interval": 0}, "commit_interval=0"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input(model, x, path, bad):
    """The error names the argument and what was received, and there is no file."""
    arguments, message = BAD[bad]
    arguments = {"x": x, "verbose": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        predict_to_hdf5(model, arguments.pop("x"), path, **arguments)
    assert not list(path.parent.iterdir())


def test_a_present_file_is_found_before_anything_is_computed(limited, x, path):
    """Under "x" a present file is an error before the model is called."""
    path.write_bytes(b"mine")
    counted, calls = limited(ROWS)
    with pytest.raises(FileExistsError):
        predict_to_hdf5(counted, x, path, verbose=0)
    assert not calls
    assert path.read_bytes() == b"mine"


def in_batches(x, first_bad):
    """Batches that end with an error, as Keras takes them."""
    for start in range(0, first_bad, 32):
        yield (x[start : start + 32],)
    raise OSError("unreadable")


ENDS = {  # what the job is given, besides its model
    "callback": lambda x: (x, {"callbacks": [StopsAfter(2, RuntimeError("no"))]}),
    "interrupted": lambda x: (x, {"callbacks": [StopsAfter(2, KeyboardInterrupt())]}),
    "first callback": lambda x: (x, {"callbacks": [StopsAfter(1, RuntimeError("no"))]}),
    "rows": lambda x: (FailsOnce(x, 500), {}),
    "first rows": lambda x: (FailsOnce(x, 20), {}),
    "generator": lambda x: (in_batches(x, 96), {}),
    "generator at once": lambda x: (in_batches(x, 0), {}),
    "callback with a generator": lambda x: (
        in_batches(x, 960),
        {"callbacks": [StopsAfter(2, RuntimeError("no"))]},
    ),
    "shape": lambda x: (x[:, :7], {}),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_model_is_usable_after_any_end(model, x, path, end):
    """After an error the model has its weights, and plain `predict` returns what it always does."""
    expected = model.predict(x, verbose=0)
    weights = model.get_weights()
    data, options = ENDS[end](x)
    if hasattr(data, "shape"):
        options["batch_size"] = 32
    # TensorFlow makes errors of its own of those in a generator or a compiled step.
    with pytest.raises((Exception, KeyboardInterrupt), match=r"^no$|unreadable|shape|size|^$"):
        predict_to_hdf5(model, data, path, verbose=0, **options)
    for weight, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, before)
    found = model.predict(x, verbose=0)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, np.zeros(ROWS, "int32"), verbose=0)


def test_the_model_is_usable_after_an_error_of_its_own(model, limited, x, path):
    """After an error in a compiled step it has its weights."""
    expected = model.predict(x, verbose=0)
    limit, calls = limited(0, after=5, error=lambda: ZeroDivisionError("a bad division"))
    with pytest.raises(Exception, match="a bad division"):
        predict_to_hdf5(limit, x, path, batch_size=32, verbose=0)
    calls.clear()
    found = limit.predict(x[:100], verbose=0)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array[:100], rtol=1e-5)


@pytest.mark.backends("tensorflow", reason="`tf.distribute` is TensorFlow's")
def test_under_a_strategy(x, path):
    """A model of `tf.distribute` is given the data as it is, and all rows are there, in order."""
    tf = pytest.importorskip("tensorflow")
    strategy = tf.distribute.MirroredStrategy(["cpu:0"])
    with strategy.scope():
        inputs = keras.Input((8,))
        model = ClassifierModel(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    expected = model.predict(x, batch_size=64, verbose=0)
    predict_to_hdf5(model, x, path, batch_size=64, verbose=0).close()
    assert_holds(path, expected)


@pytest.mark.backends("jax", reason="`keras.distribution` is JAX's")
def test_under_a_distribution(keras_server, x, path, tmp_path):
    """On several devices all rows are there, in order, also of batches that do not divide."""
    np.save(tmp_path / "x.npy", x[:960])
    code = """
        import sys
        import keras, numpy as np
        from kerasext import PredictionFile, predict_to_hdf5

        x, path = np.load(sys.argv[1]), sys.argv[2]
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        weights = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
        expected = x @ weights[0] + weights[1]

        class Interrupts(keras.callbacks.Callback):
            def on_predict_batch_end(self, batch, logs=None):
                if batch == 3:
                    raise KeyboardInterrupt

        for rows in (len(x), len(x) - 1, 65, 1):
            for batch_size in (64, "auto"):
                options = {"batch_size": batch_size, "mode": "w", "verbose": 0}
                with predict_to_hdf5(model, x[:rows], path, **options) as predictions:
                    assert predictions.complete and predictions.rows == rows
                    np.testing.assert_allclose(
                        predictions["predictions"][:], expected[:rows], rtol=1e-5, atol=1e-6
                    )
        options = {"batch_size": 64, "verbose": 0}
        try:
            predict_to_hdf5(model, x[:-1], path, mode="w", callbacks=[Interrupts()], **options)
        except KeyboardInterrupt:
            with PredictionFile(path) as predictions:
                assert 0 < predictions.rows < len(x) - 1
        with predict_to_hdf5(model, x[:-1], path, mode="resume", **options) as predictions:
            assert predictions.complete and predictions.rows == len(x) - 1
            np.testing.assert_allclose(
                predictions["predictions"][:], expected[:-1], rtol=1e-5, atol=1e-6
            )
        try:
            predict_to_hdf5(model, x, path, batch_size=63)
        except ValueError as error:
            assert "multiple of the 2 devices" in str(error), error
        print(len(keras.distribution.list_devices()))
    """
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    ended = keras_server.run(code, tmp_path / "x.npy", path, env={"XLA_FLAGS": flags})
    assert ended.status == 0, ended.errors[-4000:]
    assert ended.out.split()[-1] == "2"


def test_the_progress_bar(model, x, path, capsys):
    """`verbose=1` shows Keras's own bar, once."""
    predict_to_hdf5(model, x, path, batch_size=32, verbose=1).close()
    assert capsys.readouterr().out.count("32/32") >= 1


class FailsOnce:
    """Rows on a disk that can't be read at first, from some row on."""

    def __init__(self, rows, first_bad):
        self.rows, self.first_bad = rows, first_bad
        self.shape, self.dtype = rows.shape, rows.dtype

    def __array__(self, dtype=None, copy=None):
        return np.array(self.rows, dtype)

    def __getitem__(self, key):
        if key.stop > self.first_bad:
            self.first_bad = len(self.rows) + 1 if key.stop - key.start == 4 else self.first_bad
            raise OSError("unreadable")
        return self.rows[key]


def test_rows_that_can_not_be_read(model, x, path):
    """An error between two steps leaves nothing behind that writes rows of later jobs twice."""
    source = FailsOnce(x, len(x) * 5 // 6)
    options = {"batch_size": 4, "mode": "w", "verbose": 0}
    for _ in range(2):  # the second one with the steps that the first has left
        predict_to_hdf5(model, x, path, **options).close()
    before = model.predict_function
    with pytest.raises(OSError, match="unreadable"):
        predict_to_hdf5(model, source, path, **options)
    assert (model.steps_per_execution, model.predict_function) == (1, before)
    expected = model.predict(x, batch_size=4, verbose=0)
    for data in (x, source):
        predict_to_hdf5(model, data, path, **options).close()
        assert_holds(path, expected)


def test_file_paths_of_a_data_set_that_shuffles(path, tmp_path):
    """Paths that are not in the order of the rows are refused; in that order they are the ids."""
    for name in ("ant", "bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(9):
            image = np.full((4, 4, 3), number * 20)
            keras.utils.save_img(tmp_path / "images" / name / f"{number}.png", image, scale=False)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalMaxPooling2D()])
    for shuffle in (True, False):
        data = keras.utils.image_dataset_from_directory(
            tmp_path / "images", image_size=(4, 4), batch_size=4, shuffle=shuffle, verbose=False
        )
        options = {"ids": data.file_paths, "verbose": 0}
        if shuffle:
            with pytest.raises(ValueError, match="this data set shuffles"):
                predict_to_hdf5(model, data, path, **options)
            assert not path.exists()
        else:
            with predict_to_hdf5(model, data, path, **options) as predictions:
                numbers = [int(id_.removesuffix(".png")[-1]) for id_ in predictions["ids"][:]]
                assert predictions["predictions"][:, 0].tolist() == [20 * n for n in numbers]


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1)])
def test_order_of_the_arguments(order, model, x, path):
    """Arguments in another order are an error that says the order, and shows no array."""
    given = [(model, x, path)[at] for at in order]
    with pytest.raises(TypeError, match=r"in this order: `predict_to_hdf5\(model, x, ") as error:
        predict_to_hdf5(*given, verbose=0)
    assert len(str(error.value)) < 250
    assert not path.exists()


def test_a_single_callback(model, x, path):
    """One callback need not be in a list."""
    monitor = PredictionMonitor()
    predict_to_hdf5(model, x, path, verbose=0, callbacks=monitor).close()
    assert monitor.rows == ROWS
