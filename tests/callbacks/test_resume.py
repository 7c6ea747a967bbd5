"""`mode="resume"` ends in the file of an uninterrupted run, computing only what is missing."""

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import HDF5PredictionWriter
from kerasext.models import ClassifierModel
from kerasext.storage import PredictionFileWriter


class StopsAfter(keras.callbacks.Callback):
    """Raises after a number of steps, as a user's Ctrl-C may."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_predict_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def compiled():
    """The model of `classifier`, which is compiled once, and its first weights."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(4, activation="softmax")(inputs)
    model = ClassifierModel(inputs, outputs, class_names=["ant", "bee", "cat", "doe"], name="zoo")
    return model, model.get_weights()


@pytest.fixture
def classifier(compiled):
    """A functional softmax classifier of four classes; tests may change its weights only."""
    model, weights = compiled
    model.set_weights(weights)
    return model


@pytest.fixture
def counted(on_host):
    """A classifier that counts the batches it computes, and the list that it adds them to."""
    inputs = keras.Input((8,))
    model = ClassifierModel(inputs, keras.layers.Dense(4, activation="softmax")(inputs))
    count = []

    class Counts(ClassifierModel):
        def postprocess(self, y_pred):
            outputs = super().postprocess(y_pred)
            confidence = on_host(lambda: count.append(1), outputs["confidence"])
            return {**outputs, "confidence": confidence}

    return Counts(model.input, model.output), count


def predict(model, rows, path, *others, batch_size=8, **options):
    """Predicts with a writer that resumes."""
    writer = HDF5PredictionWriter(path, mode="resume", accumulate=False, **options)
    with writer:
        model.predict(rows, batch_size=batch_size, verbose=0, callbacks=[writer, *others])
    return writer


def content(path):
    """The outputs of a complete file."""
    with PredictionFile(path) as predictions:
        assert predictions.complete
        return {name: output[:] for name, output in predictions.items()}


def assert_same(found, expected):
    """Two files hold the same, bit for bit."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


STEPS_PER_EXECUTION = [
    1,
    pytest.param(
        3, marks=pytest.mark.backends("tensorflow", "jax", reason="Keras refuses it on torch")
    ),
]


@pytest.mark.parametrize("steps_per_execution", STEPS_PER_EXECUTION)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_goes_on_at_the_first_missing_row(steps, steps_per_execution, counted, rows, tmp_path):
    """Committed steps but the last are not computed again, and the result is the same."""
    model, count = counted
    model.compile(steps_per_execution=steps_per_execution)
    predict(model, rows, tmp_path / "whole.h5")
    with pytest.raises(KeyboardInterrupt):
        predict(model, rows, tmp_path / "p.h5", StopsAfter(steps))
    with PredictionFile(tmp_path / "p.h5") as predictions:
        done = predictions.rows
        assert done == min(steps * steps_per_execution * 8, 70)
    count.clear()
    predict(model, rows, tmp_path / "p.h5")
    assert_same(content(tmp_path / "p.h5"), content(tmp_path / "whole.h5"))
    assert len(count) == 9 - (steps - 1) * steps_per_execution


def cut(path, rows):
    """Makes an interrupted file of the first rows of a complete one, at any row."""
    with PredictionFile(path) as whole:
        step = {name: output[:rows] for name, output in whole.items()}
        attributes = whole.origin
    path = path.with_name("cut.h5")
    writer = PredictionFileWriter(path, mode="w", attributes=attributes)
    writer.append(step)
    writer.close()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 8, 70])
@pytest.mark.parametrize("done", [0, 1, 7, 8, 9, 63, 64, 69, 70])
def test_any_row_may_be_the_last_one(done, batch_size, classifier, rows, tmp_path):
    """A file that ends at any row, within a batch too, is finished bit for bit."""
    path = tmp_path / "whole.h5"
    predict(classifier, rows, path, batch_size=batch_size)
    interrupted = cut(path, done)
    predict(classifier, rows, interrupted, batch_size=batch_size)
    assert_same(content(interrupted), content(path))


def test_another_cut_is_equal_within_tolerance(classifier, rows, tmp_path):
    """With another batch size the file is finished too, and equal as floats are."""
    path = tmp_path / "whole.h5"
    predict(classifier, rows, path, batch_size=8)
    interrupted = cut(path, 29)
    predict(classifier, rows, interrupted, batch_size=11)
    found, expected = content(interrupted), content(path)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, of generators
def test_data_that_can_only_be_read(classifier, rows, tmp_path):
    """A generator is read from its beginning, and its known batches are not computed."""

    def batches():
        for start in range(0, 70, 10):
            yield (rows[start : start + 10],)

    path = tmp_path / "whole.h5"
    predict(classifier, rows, path, batch_size=10)
    interrupted = cut(path, 33)
    predict(classifier, batches(), interrupted, batch_size=None)
    assert_same(content(interrupted), content(path))


def test_a_missing_file_is_begun(classifier, rows, path):
    """On a missing file "resume" begins one."""
    predict(classifier, rows, path)
    assert len(content(path)["labels"]) == 70


def test_an_interrupted_addition_is_finished(classifier, rows, path):
    """Resuming an interrupted "a" keeps the earlier calls' rows and goes on with its own."""
    classifier.predict(rows[:20], verbose=0, callbacks=[HDF5PredictionWriter(path)])
    adds = HDF5PredictionWriter(path, mode="a")
    with pytest.raises(KeyboardInterrupt), adds:
        classifier.predict(rows, batch_size=8, verbose=0, callbacks=[adds, StopsAfter(3)])
    predict(classifier, rows, path)
    expected = classifier.predict(rows, batch_size=8, verbose=0)["labels"]
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.first_row) == (90, 20)
        np.testing.assert_array_equal(predictions["labels"][20:], expected)


@pytest.fixture
def interrupted(classifier, rows, tmp_path):
    """A file of 29 of the 70 rows."""
    predict(classifier, rows, tmp_path / "whole.h5")
    return cut(tmp_path / "whole.h5", 29)


def refuse(message, interrupted, *args, **options):
    """Resuming is refused, and the file keeps its rows."""
    with pytest.raises(ValueError, match=message):
        predict(*args, **options)
    with PredictionFile(interrupted) as predictions:
        assert (predictions.rows, predictions.complete) == (29, False)


def test_another_model_is_refused(interrupted, classifier, rows):
    """Other weights are refused by their fingerprint, before anything is written."""
    before = interrupted.read_bytes()
    classifier.set_weights([weight + 1e-3 for weight in classifier.get_weights()])
    refuse("weights and settings", interrupted, classifier, rows, interrupted)
    assert interrupted.read_bytes() == before


def test_the_same_model_by_another_name_goes_on(interrupted, classifier, rows):
    """A model that was built again under names of Keras's own making is the same model."""
    inputs = keras.Input((8,))
    outputs = keras.layers.Dense(4, activation="softmax")(inputs)
    twin = ClassifierModel(inputs, outputs, class_names=classifier.class_names)
    twin.set_weights(classifier.get_weights())
    predict(twin, rows, interrupted)
    assert len(content(interrupted)["labels"]) == 70


def test_other_data_are_refused(interrupted, classifier, rows):
    """Other rows, or the same in another order, show in the last committed batch."""
    refuse("same order", interrupted, classifier, rows[::-1], interrupted)


def test_too_few_data_are_refused(interrupted, classifier, rows):
    """Data that end before the committed rows do are an error."""
    refuse("with 29 in the file", interrupted, classifier, rows[:20], interrupted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ["labels"]}, "must have the outputs"),
        ({"dtypes": {"probabilities": "float16"}}, "'probabilities'.*float32.*float16"),
    ],
)
def test_other_outputs_are_refused(options, message, interrupted, classifier, rows):
    """Other outputs or dtypes are refused before anything is written."""
    before = interrupted.read_bytes()
    refuse(message, interrupted, classifier, rows, interrupted, **options)
    assert interrupted.read_bytes() == before


def test_accumulating_is_refused(path):
    """`predict` can't return rows that it does not compute."""
    with pytest.raises(ValueError, match="leave out `accumulate`"):
        HDF5PredictionWriter(path, mode="resume", accumulate=True)


@pytest.mark.parametrize(("mode", "accumulates"), [("w", True), ("resume", False)])
def test_the_default_of_accumulate(mode, accumulates, path, classifier, rows):
    """`predict` returns what Keras returns, and nothing under "resume"."""
    returned = classifier.predict(
        rows, verbose=0, callbacks=[HDF5PredictionWriter(path, mode=mode)]
    )
    assert bool(returned) is accumulates
    with PredictionFile(path) as predictions:
        assert predictions.rows == len(rows)


def test_a_second_callback_sees_every_row(interrupted, classifier, rows, tmp_path):
    """A writer that resumes beside one that begins leaves it every row."""
    resumes = HDF5PredictionWriter(interrupted, mode="resume", accumulate=False)
    begins = HDF5PredictionWriter(tmp_path / "new.h5", accumulate=False)
    classifier.predict(rows, batch_size=8, verbose=0, callbacks=[resumes, begins])
    assert_same(content(interrupted), content(tmp_path / "whole.h5"))
    assert_same(content(tmp_path / "new.h5"), content(tmp_path / "whole.h5"))


# A complete file


def unknown_length(rows):
    """The rows in batches, of whose number Keras knows nothing."""
    for start in range(0, len(rows), 8):
        yield (rows[start : start + 8],)


IGNORED = "ignore:Your input ran out of data:UserWarning"  # Keras, of generators


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize("source", [lambda rows: rows, unknown_length])
@pytest.mark.parametrize("steps_per_execution", STEPS_PER_EXECUTION)
def test_a_complete_file_is_compared(
    steps_per_execution, source, counted, rows, path, capfd, caplog
):
    """Its first and last step are computed again, no other one, and the log alone says so."""
    model, count = counted
    model.compile(steps_per_execution=steps_per_execution)
    predict(model, rows, path)
    before = path.read_bytes()
    count.clear()
    data = source(rows)
    with caplog.at_level("INFO", "kerasext"):
        predict(model, data, path, batch_size=8 if data is rows else None)
    assert len(count) == 2 * steps_per_execution  # of 9 batches the last three make a step
    assert path.read_bytes() == before
    assert capfd.readouterr().out == ""
    (record,) = [record for record in caplog.records if record.name == "kerasext"]
    assert record.levelname == "INFO"
    assert f"{path} is complete" in record.message


def test_a_complete_file_is_told_of(classifier, rows, path, capsys):
    """With `verbose=1` a line says that there was nothing to do."""
    predict(classifier, rows, path)
    predict(classifier, rows, path, verbose=1)
    assert capsys.readouterr().out == (
        f"{path} is complete: its first and last step were computed again and are the same.\n"
    )


@pytest.mark.parametrize("size", [1, 7, 30, 70, 200])
def test_a_complete_file_and_another_cut(size, classifier, rows, path):
    """Steps of any size are compared with the rows that they have, and one step may have all."""
    predict(classifier, rows, path)
    before = path.read_bytes()
    predict(classifier, rows, path, batch_size=size)
    changed = rows.copy()
    for row in (0, 69):
        changed[row] += 1
        with pytest.raises(ValueError, match="same order"):
            predict(classifier, changed, path, batch_size=size)
        changed[row] = rows[row]
    assert path.read_bytes() == before


IDS = np.arange(70) + 2**40
OTHERS = {
    "more rows": (lambda rows: np.concatenate([rows, rows[:1]]), {}, "at least 71 rows"),
    "fewer rows": (lambda rows: rows[:-1], {}, "69 rows, with 70 in the last `predict`"),
    "a step fewer": (lambda rows: rows[:64], {}, "64 rows, with 70 in the last `predict`"),
    "other first rows": (lambda rows: rows + (np.arange(70) < 1)[:, None], {}, "before row 8"),
    "other last rows": (lambda rows: rows + (np.arange(70) > 68)[:, None], {}, "before row 70"),
    "another id": (None, {"ids": IDS + (np.arange(70) == 33)}, "the id 1099511627809 in row 33"),
    "more ids": (None, {"ids": np.arange(71) + 2**40}, "71 for 70 rows"),
    "more ids of an iterator": (None, {"ids": lambda: iter(range(2**40, 2**40 + 71))}, "more than"),
    "fewer ids": (None, {"ids": IDS[:60]}, "60 for at least 64 rows"),
    "text for ids": (None, {"ids": list(map(str, IDS))}, "the id 1099511627776 in row 0"),
    "other targets": (None, {"targets": np.arange(70) + 1}, "'targets'"),
    "no targets": (None, {"targets": False}, "must have the columns"),
    "other outputs": (None, {"outputs": ["labels"]}, "must have the outputs"),
    "other dtypes": (None, {"dtypes": {"probabilities": "float16"}}, "float32.*float16"),
    "ragged": (None, {"ragged": ["probabilities"]}, "with rows of one shape"),
}


@pytest.mark.filterwarnings(IGNORED)
@pytest.mark.parametrize(
    ("other", "known_length"),
    [
        *((other, True) for other in OTHERS),
        # An unknown number of rows matters only where rows or ids are counted.
        *((other, False) for other in OTHERS if OTHERS[other][0] or "id" in other),
    ],
)
def test_a_complete_file_of_other_data(other, known_length, classifier, rows, path):
    """Whatever differs raises, in all data but rows in the middle, and the file stays as it is."""
    options = {"ids": IDS, "targets": np.arange(70)}
    predict(classifier, rows, path, **options)
    before = path.read_bytes()
    change, changed, message = OTHERS[other]
    changed = {name: v() if callable(v) else v for name, v in changed.items()}
    other_rows = rows if change is None else change(rows)
    if change is not None:  # as many as there are rows
        changed = {"ids": np.arange(len(other_rows)) + 2**40}
        changed["targets"] = np.arange(len(other_rows))
    data = other_rows if known_length else unknown_length(other_rows)
    size = 8 if known_length else None
    with pytest.raises(ValueError, match=message):
        predict(classifier, data, path, batch_size=size, **{**options, **changed})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    predict(classifier, rows, path, **options)


def test_a_complete_file_of_an_addition(classifier, rows, path):
    """Of rows that were added later those of the last call are compared."""
    predict(classifier, rows[:20], path)
    adds = HDF5PredictionWriter(path, mode="a", accumulate=False)
    classifier.predict(rows[20:], batch_size=8, verbose=0, callbacks=[adds])
    before = path.read_bytes()
    predict(classifier, rows[20:], path)
    for other in (rows, rows[:20], rows[:50]):
        with pytest.raises(ValueError, match="needs the same"):
            predict(classifier, other, path)
    assert path.read_bytes() == before


KEEPS = {
    "some": lambda step: ~(step["confidence"] >= 0.5),
    "none": lambda step: step["confidence"] > 2,
    "all": lambda step: step["confidence"] < 2,
    "not the first": lambda step: step["ids"] > 2**40 + 20,
    "not the last": lambda step: step["ids"] < 2**40 + 20,
}


@pytest.mark.parametrize("kept", KEEPS)
def test_a_complete_file_of_some_rows(kept, classifier, rows, path):
    """Of rows that `keep` chose those of the two steps are compared, and their numbers."""
    options = {"ids": IDS, "keep": KEEPS[kept]}
    predict(classifier, rows, path, **options)
    before = path.read_bytes()
    for size in (8, 70):
        predict(classifier, rows, path, batch_size=size, **options)
    step = {"confidence": classifier.predict(rows, verbose=0)["confidence"], "ids": IDS}
    for name, keep in KEEPS.items():
        ends = np.r_[0:8, 64:70]
        if np.array_equal(keep(step)[ends], KEEPS[kept](step)[ends]):
            continue
        with pytest.raises(ValueError, match=r"same `keep`|same order"):
            predict(classifier, rows, path, batch_size=8, **{**options, "keep": keep})
        assert path.read_bytes() == before, name
    with pytest.raises(ValueError, match="69 rows"):
        predict(classifier, rows[:69], path, **{**options, "ids": IDS[:69]})


def test_ids_of_a_key_are_compared(structure_model, rows, path):
    """Ids that come with the batches are compared, too, also of steps that are not computed."""
    model = structure_model(lambda x: {"first": x["image"][:, 0]})
    model({"image": rows[:2]})
    data = {"image": rows, "id": IDS}
    predict(model, data, path, ids="id")
    predict(model, data, path, ids="id")
    other = {"image": rows, "id": IDS + (np.arange(70) == 33)}
    with pytest.raises(ValueError, match="the id 1099511627809 in row 33"):
        predict(model, other, path, ids="id")


@pytest.mark.filterwarnings(IGNORED)
def test_a_complete_ragged_file(structure_model, rows, path):
    """Rows that differ in shape are compared, their shapes and values."""
    model = structure_model(lambda x: {"tokens": x * 2})
    batches = [rows[:10, :3], rows[10:40, :5], rows[40:, :2]]
    options = {"ragged": ["tokens"], "batch_size": None}

    def data(*steps):
        yield from ((step,) for step in steps)

    predict(model, data(*batches), path, **options)
    before = path.read_bytes()
    predict(model, data(*batches), path, **options)
    for number, other in ((0, batches[0][:, :2]), (2, batches[2] + 1), (2, batches[2][:, :1])):
        steps = [*batches]
        steps[number] = other
        with pytest.raises(ValueError, match="'tokens'"):
            predict(model, data(*steps), path, **options)
    assert path.read_bytes() == before


def test_a_complete_file_of_another_model_is_refused(classifier, rows, path):
    """Of a file that another model has written nothing is computed."""
    predict(classifier, rows, path)
    before = path.read_bytes()
    classifier.set_weights([weight + 1e-3 for weight in classifier.get_weights()])
    with pytest.raises(ValueError, match="weights and settings"):
        predict(classifier, rows, path)
    assert path.read_bytes() == before


def test_a_complete_file_beside_another_callback(classifier, rows, path, tmp_path):
    """A writer with little to do does not keep another one from its rows."""
    predict(classifier, rows, path)
    complete = HDF5PredictionWriter(path, mode="resume", accumulate=False)
    begins = HDF5PredictionWriter(tmp_path / "new.h5", accumulate=False)
    classifier.predict(rows, batch_size=8, verbose=0, callbacks=[complete, begins])
    assert_same(content(tmp_path / "new.h5"), content(path))


@pytest.mark.filterwarnings(IGNORED)
def test_no_rows_for_a_complete_file(classifier, rows, path):
    """Data without a row are not the data of a file with rows."""
    predict(classifier, rows, path)
    with pytest.raises(ValueError, match="0 rows, with 70 in the last"):
        predict(classifier, rows[:0], path)


def test_a_call_that_is_stopped(classifier, rows, path, caplog):
    """A user's `stop_predicting` is no difference, but what was not compared is said."""

    class Stops(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = True

    predict(classifier, rows, path)
    with caplog.at_level("INFO", "kerasext"):
        predict(classifier, rows, path, Stops())
    assert "stopped after 8 of 70 rows" in caplog.records[0].message


class Named:
    """Ids that come one by one, so that nobody knows the longest one, which is that of row 60."""

    def __iter__(self):
        return ("ü" * 80 if row == 60 else f"row {row}" for row in range(70))


@pytest.mark.parametrize("width", [None, "S160"])
@pytest.mark.parametrize("job", [False, True], ids=["predict", "predict_to_hdf5"])
def test_ids_that_turn_out_longer(counted, rows, path, job, width):
    """An id too long for its column ends the run with its width, and "resume" computes the rest."""
    model, count = counted

    def run(mode, **options):
        if job:
            predict_to_hdf5(
                model, rows, path, batch_size=8, ids=Named(), mode=mode, verbose=0, **options
            ).close()
            return
        writer = HDF5PredictionWriter(path, mode=mode, accumulate=False, ids=Named(), **options)
        with writer:
            model.predict(rows, batch_size=8, verbose=0, callbacks=[writer])

    with pytest.raises(ValueError, match=r"`dtypes=\{'ids': 'S160'\}`.*mode='resume'"):
        run("x")
    with h5py.File(path) as file:
        assert (file["_kerasext/record"]["rows"], file["ids"].dtype) == (56, "S64")
    count.clear()
    run("resume", dtypes={"ids": width} if width else None)
    assert len(count) <= 3 + job  # one batch again; a job traces its model first
    found = content(path)
    assert found.pop("ids").tolist() == list(Named())
    assert_same(found, model.predict(rows, batch_size=8, verbose=0))
    with h5py.File(path) as file:
        assert file["ids"].dtype == (width or "S320")
