"""`mode="resume"` ends in the file of an uninterrupted run, computing only what is missing."""

import keras
import numpy as np
import pytest

from kerasext import PredictionFile
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


def test_a_complete_file_is_left_alone(classifier, rows, path, capsys):
    """On a complete file nothing is computed or changed, and a line says so."""
    predict(classifier, rows, path)
    before = path.read_bytes()
    predict(classifier, rows, path)
    assert path.read_bytes() == before
    assert "complete: nothing was predicted" in capsys.readouterr().out


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
        ({"outputs": ["labels"]}, "only for the outputs"),
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
    with pytest.raises(ValueError, match="accumulate=False"):
        HDF5PredictionWriter(path, mode="resume")


def test_a_complete_file_of_another_model_is_refused(classifier, rows, path):
    """Nothing to do is not said of a file that another model has written."""
    predict(classifier, rows, path)
    before = path.read_bytes()
    classifier.set_weights([weight + 1e-3 for weight in classifier.get_weights()])
    with pytest.raises(ValueError, match="weights and settings"):
        predict(classifier, rows, path)
    assert path.read_bytes() == before


def test_a_complete_file_beside_another_callback(classifier, rows, path, tmp_path):
    """A writer with nothing to do does not keep another one from its rows."""
    predict(classifier, rows, path)
    complete = HDF5PredictionWriter(path, mode="resume", accumulate=False)
    begins = HDF5PredictionWriter(tmp_path / "new.h5", accumulate=False)
    classifier.predict(rows, batch_size=8, verbose=0, callbacks=[complete, begins])
    assert_same(content(tmp_path / "new.h5"), content(path))


def test_a_second_callback_sees_every_row(interrupted, classifier, rows, tmp_path):
    """A writer that resumes beside one that begins leaves it every row."""
    resumes = HDF5PredictionWriter(interrupted, mode="resume", accumulate=False)
    begins = HDF5PredictionWriter(tmp_path / "new.h5", accumulate=False)
    classifier.predict(rows, batch_size=8, verbose=0, callbacks=[resumes, begins])
    assert_same(content(interrupted), content(tmp_path / "whole.h5"))
    assert_same(content(tmp_path / "new.h5"), content(tmp_path / "whole.h5"))
