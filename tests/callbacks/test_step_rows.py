"""`keep` stores some of the rows, and which they are."""

import importlib
import threading

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel

ROWS = 70
DATA = np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")
IDS = np.arange(ROWS) + 2**40
TARGETS = np.arange(ROWS) % 4


def make_model():
    """A classifier of four classes."""
    inputs = keras.Input((8,))
    return ClassifierModel(inputs, keras.layers.Dense(4, activation="softmax")(inputs))


@pytest.fixture(scope="module")
def model():
    """Such a classifier, which is compiled once."""
    keras.utils.set_random_seed(0)
    return make_model()


def unsure(step):
    """The rows below the confidence that about half of them have."""
    return ~(step["confidence"] >= 0.5)


def predict(model, path, *others, mode="w", data=DATA, keep=unsure, **options):
    """Predicts with a writer that keeps some rows."""
    writer = HDF5PredictionWriter(path, mode=mode, accumulate=False, keep=keep, **options)
    with writer:
        model.predict(data, batch_size=8, verbose=0, callbacks=[*others, writer])
    return writer


def content(path):
    """Every dataset of a complete file, read with plain h5py."""
    with h5py.File(path) as file:
        assert file["_kerasext/record"]["complete"] == 1
        return {name: file[name][:] for name in file if isinstance(file[name], h5py.Dataset)}


@pytest.mark.parametrize(
    "steps_per_execution",
    [
        1,
        pytest.param(3, marks=pytest.mark.backends("tensorflow", "jax", reason="torch has none")),
    ],
)
def test_the_rows_that_are_kept(steps_per_execution, path):
    """The file has the kept rows of every output and column, in order, and their numbers."""
    model = make_model()
    model.compile(steps_per_execution=steps_per_execution)
    plain = model.predict(DATA, batch_size=8, verbose=0)
    predict(model, path, ids=IDS, targets=TARGETS)
    rows = np.flatnonzero(plain["confidence"] < 0.5)
    assert 10 < len(rows) < 60
    stored = content(path)
    np.testing.assert_array_equal(stored["row"], rows)
    np.testing.assert_array_equal(stored["ids"], IDS[rows])
    np.testing.assert_array_equal(stored["targets"], TARGETS[rows])
    for name, array in plain.items():
        np.testing.assert_array_equal(stored[name], array[rows])


def test_what_it_is_given(model, path):
    """It sees all outputs of a step, ids and targets as arrays, also what is not stored."""
    seen = []

    def keep(step):
        seen.append({name: (type(array), array.shape) for name, array in step.items()})
        return step["labels"] != step["targets"]

    predict(model, path, keep=keep, targets=TARGETS, ids=IDS, outputs=["labels"])
    names = {"confidence", "ids", "labels", "probabilities", "targets"}
    assert all(set(step) == names for step in seen)
    assert seen[0]["probabilities"] == (np.ndarray, (8, 4))
    stored = content(path)
    assert "confidence" not in stored
    assert (stored["labels"] != stored["targets"]).all()


def test_text_that_it_is_given(model, path):
    """Ids and targets that are text are `str`, as `PredictionFile` returns them."""
    ids = [f"straße-{number}" for number in range(ROWS)]
    targets = ["cat", "dog"] * (ROWS // 2)
    seen = []

    def keep(step):
        seen.append((step["ids"].dtype.kind, step["targets"].dtype.kind))
        return np.isin(step["ids"], ids[3:5]) & (step["targets"] == "dog")

    predict(model, path, keep=keep, ids=ids, targets=targets)
    assert set(seen) == {("U", "U")}
    with PredictionFile(path) as predictions:
        assert predictions["ids"][:].tolist() == ids[3:4]


@pytest.mark.parametrize("kept", [0, 1, ROWS])
def test_none_or_one_or_all(kept, model, path):
    """A file of no row, or of one, is complete like any other."""
    last = IDS[-kept:] if kept else []
    writer = predict(model, path, keep=lambda step: np.isin(step["ids"], last), ids=IDS)
    assert len(content(path)["row"]) == kept
    assert writer.health["rows"] == kept
    with PredictionFile(path) as predictions:
        assert predictions["row"][:].tolist() == list(range(ROWS - kept, ROWS))
        predictions.verify()


class StopsAfter(keras.callbacks.Callback):
    """Raises after a number of steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_predict_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


KEEPS = {
    "half": unsure,
    "none in the middle": lambda step: (step["ids"] < 2**40 + 20) | (step["ids"] > 2**40 + 60),
    "none at first": lambda step: step["ids"] > 2**40 + 60,
    "none": lambda step: step["ids"] < 0,
    "all": lambda step: step["ids"] > 0,
}


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
@pytest.mark.parametrize("keep", KEEPS)
def test_resume(keep, steps, model, path, tmp_path):
    """An interrupted call goes on with the rows that were not yet predicted, kept or not."""
    options = {"keep": KEEPS[keep], "ids": IDS, "targets": TARGETS}
    predict(model, tmp_path / "whole.h5", **options)
    with pytest.raises(KeyboardInterrupt):
        predict(model, path, StopsAfter(steps), **options)
    with h5py.File(path) as file:
        assert file["_kerasext/record"]["data_rows"] == steps * 8
    predict(model, path, mode="resume", **options)
    found, whole = content(path), content(tmp_path / "whole.h5")
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_resume_compares(model, path):
    """Another choice of rows in the last step that is there, or other ids, are refused."""
    with pytest.raises(KeyboardInterrupt):
        predict(model, path, StopsAfter(5), ids=IDS)
    with pytest.raises(ValueError, match=r"other values of output 'row'|same data"):
        predict(model, path, mode="resume", ids=IDS, keep=lambda step: step["confidence"] > 0.5)
    other = IDS.copy()
    with h5py.File(path) as file:
        other[file["row"][0]] = 0
    with pytest.raises(ValueError, match="same data in the same order"):
        predict(model, path, mode="resume", ids=other)
    with pytest.raises(ValueError, match=r"Stored: \['ids', 'row'\]"):
        predict(model, path, mode="resume", ids=IDS, keep=None)
    predict(model, path, mode="resume", ids=IDS)


def test_more_rows(model, path, tmp_path):
    """Rows added by `mode="a"` count on from those of the data before, also after a resume."""
    predict(model, tmp_path / "whole.h5", data=DATA[:64])
    predict(model, path, data=DATA[:24])
    with pytest.raises(KeyboardInterrupt):
        predict(model, path, StopsAfter(2), data=DATA[24:64], mode="a")
    predict(model, path, data=DATA[24:64], mode="resume")
    found, whole = content(path), content(tmp_path / "whole.h5")
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.mark.parametrize("interrupted", [False, True])
def test_jobs(interrupted, model, path):
    """`predict_to_hdf5` keeps the same rows, and goes on from the right one."""
    options = {"ids": IDS, "targets": TARGETS, "keep": unsure, "verbose": 0}
    if interrupted:
        with pytest.raises(KeyboardInterrupt):
            predict_to_hdf5(model, DATA, path, callbacks=[StopsAfter(4)], batch_size=8, **options)
    with predict_to_hdf5(model, DATA, path, mode="resume", batch_size=8, **options) as predictions:
        rows = predictions["row"][:]
        np.testing.assert_array_equal(predictions["ids"], IDS[rows])
    expected = model.predict(DATA, batch_size=8, verbose=0)["confidence"] < 0.5
    np.testing.assert_array_equal(rows, np.flatnonzero(expected))


@pytest.mark.backends("tensorflow", reason="only it has ragged tensors")
def test_ragged_outputs(structure_model, path):
    """Rows of different shapes are kept or not as others are."""
    tf = importlib.import_module("tensorflow")
    lengths = np.arange(ROWS) % 5
    model = structure_model(
        lambda x: {
            "tokens": tf.RaggedTensor.from_tensor(x, lengths=tf.cast(x[:, 0], tf.int64)),
            "length": x[:, 0],
        }
    )
    data = np.repeat(lengths[:, None], 5, axis=1).astype("float32")
    keep = lambda step: step["length"] == 3  # noqa: E731
    predict(model, path, data=data, keep=keep, ragged=["tokens"])
    with PredictionFile(path) as predictions:
        assert predictions["row"][:].tolist() == list(range(3, ROWS, 5))
        assert {len(row) for row in predictions["tokens"]} == {3}


@pytest.mark.parametrize(
    "keep",
    [
        lambda step: step["confidence"],
        lambda step: np.flatnonzero(step["confidence"] < 0.5),
        lambda _: True,
        lambda step: step["probabilities"] > 0.5,
        lambda _: None,
        lambda step: (step["confidence"] < 0.5)[:-1],
    ],
    ids=["numbers", "indices", "one", "a matrix", "nothing", "too few"],
)
def test_no_boolean_for_each_row(keep, model, path):
    """Anything else than one boolean per row ends `predict` before a file is made."""
    with pytest.raises(ValueError, match="`keep` must return one boolean"):
        predict(model, path, keep=keep)
    assert not path.exists()


def test_an_error_in_it(model, path):
    """What it raises at a later step ends `predict`, and the rows before are safe."""

    def keep(step):
        if 2**40 + 40 in step["ids"]:
            raise RuntimeError("no")
        return step["ids"] > 0

    with pytest.raises(RuntimeError, match="no"):
        predict(model, path, keep=keep, ids=IDS)
    with PredictionFile(path) as predictions:
        assert predictions["row"][:].tolist() == list(range(40))
        assert not predictions.complete


def test_must_be_callable(path):
    """A mask, which would have to be known before, is refused at once."""
    with pytest.raises(TypeError, match="`keep` must be a callable"):
        HDF5PredictionWriter(path, keep=[True])


def test_bounded_memory_when_nothing_is_kept_at_first(model, path):
    """What waits counts by what was predicted, not by what will be kept of it."""
    writer = HDF5PredictionWriter(
        path, accumulate=False, keep=lambda step: step["ids"] < 0, ids=IDS, queue_bytes=0
    )
    waiting = []

    class Looks(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            queue = writer._run._background
            waiting.append(queue._bytes_queued - queue._bytes_written)

    with writer:
        model.predict(DATA, batch_size=8, verbose=0, callbacks=[writer, Looks()])
    step_bytes = 8 * (4 * 4 + 4 + 4 + 8)
    assert max(waiting[1:]) <= step_bytes
    assert writer._run is None


@pytest.mark.parametrize("mode", ["w", "resume"])
def test_it_is_called_once_for_each_step_by_the_thread_that_writes(mode, model, path):
    """Every step is chosen from once, the first one too, and never by the thread that predicts."""
    calls, threads = [], set()

    def keep(step):
        calls.append(int(step["ids"][0] - IDS[0]))
        threads.add(threading.get_ident())
        return unsure(step)

    if mode == "resume":
        with pytest.raises(KeyboardInterrupt):
            predict(model, path, StopsAfter(3), ids=IDS)
    predict(model, path, mode=mode, keep=keep, ids=IDS)
    assert calls == list(range(16 if mode == "resume" else 0, ROWS, 8))
    assert threading.get_ident() not in threads
    assert len(threads) == 1
    calls.clear()
    predict(model, path, mode="resume", keep=keep, ids=IDS)  # which compares the ends
    assert calls == [0, 64]
    assert threading.get_ident() not in threads


def test_its_error_in_the_first_step_comes_at_once(model, path):
    """What `keep` raises of the first step ends `predict` before another step is computed."""
    steps = []

    class Counts(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            steps.append(batch)

    def keep(step):
        raise KeyError("conf")

    with pytest.raises(KeyError, match="conf"):
        predict(model, path, Counts(), keep=keep)
    assert steps == [0]
    assert not path.exists()


def test_rows_without_a_confidence(model, path):
    """What the documentation recommends keeps rows with NaN, whose confidence is NaN."""
    data = DATA.copy()
    data[[3, 69]] = np.nan
    predict(model, path, data=data, keep=lambda step: ~(step["confidence"] >= 0.0))
    np.testing.assert_array_equal(content(path)["row"], [3, 69])


def test_a_name_that_keep_is_not_given(model, path):
    """The error for a wrong key in `keep` lists the right names."""
    with pytest.raises(
        KeyError, match=r"the arrays \['confidence', 'ids', .*'labels'.*\['label'\]"
    ):
        predict(model, path, ids=IDS, keep=lambda step: step["label"] == 0)
    assert not path.exists()
    predict(model, path, keep=lambda step: step.get("ids", step["labels"]) >= 0)
