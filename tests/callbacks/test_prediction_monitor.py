import re

import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import HDF5PredictionWriter, PredictionMonitor, prediction_monitor
from kerasext.evaluation import compare
from kerasext.models import BinaryClassifierModel, ClassifierModel, MultiLabelClassifierModel

BACKEND = keras.backend.backend()


def predict(model, rows, *callbacks, batch_size=8):
    """Predicts in batches of 8: of 70 rows the last one has 6."""
    return model.predict(rows, batch_size=batch_size, verbose=0, callbacks=list(callbacks))


def assert_counted(monitor, outputs, *, classes=4):
    """The figures are those of what `predict` returned."""
    labels, confidence = outputs["labels"], outputs["confidence"]
    assert monitor.rows == len(labels)
    assert monitor.unlabelled == np.sum(labels == -1)
    shares = monitor.class_shares
    found = list(shares.values()) if isinstance(shares, dict) else shares
    counts = np.bincount(labels[labels >= 0], minlength=classes)
    np.testing.assert_allclose(found, counts / counts.sum())
    counts, edges = monitor.confidence_histogram
    expected, expected_edges = np.histogram(confidence, monitor.bins, (0, 1))
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_allclose(edges, expected_edges)
    below = np.mean(confidence[~np.isnan(confidence)] < monitor.threshold)
    assert monitor.share_below_threshold == pytest.approx(below)
    assert monitor.rows_per_second > 0


def test_alone_it_changes_nothing(classifier, rows):
    """`predict` returns what it does without, and the figures are of all its rows."""
    rows[3, 0] = np.nan
    plain = predict(classifier, rows)
    monitor = PredictionMonitor(bins=7, threshold=0.6)
    result = predict(classifier, rows, monitor)
    for name, array in plain.items():
        np.testing.assert_array_equal(result[name], array)
    assert_counted(monitor, plain)
    assert list(monitor.class_shares) == ["ant", "bee", "cat", "doe"]
    assert monitor.unlabelled == 1
    assert monitor.rows_skipped == 0


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("accumulate", [True, False])
def test_beside_the_writer(classifier, rows, path, is_first, accumulate, assert_file_equals):
    """In either order: the writer decides what `predict` keeps, and the file has everything."""
    plain = predict(classifier, rows)
    monitor = PredictionMonitor()
    writer = HDF5PredictionWriter(path, accumulate=accumulate)
    callbacks = [monitor, writer] if is_first else [writer, monitor]
    result = predict(classifier, rows, *callbacks)
    assert len(result) == (3 if accumulate else 0)
    assert_file_equals(path, plain)
    assert_counted(monitor, plain)


@pytest.mark.backends("tensorflow", "jax", reason="torch has no `steps_per_execution`")
def test_several_batches_a_step(classifier, rows):
    """The rows of a step are all counted."""
    classifier.compile(steps_per_execution=3)
    monitor = PredictionMonitor()
    assert_counted(monitor, predict(classifier, rows, monitor))


@pytest.mark.parametrize("count", [1, 8, 9])
def test_one_row(classifier, rows, count):
    """A call, or a last batch, of one row."""
    monitor = PredictionMonitor()
    assert_counted(monitor, predict(classifier, rows[:count], monitor))


def test_a_head_of_several(rows):
    """Its outputs only, by its own names of classes."""
    inputs = keras.Input((8,))
    heads = {
        name: keras.layers.Dense(units, activation="softmax")(inputs)
        for name, units in (("a", 2), ("b", 4))
    }
    model = ClassifierModel(inputs, heads, class_names={"b": list("wxyz")})
    first, second = PredictionMonitor(head="a"), PredictionMonitor(head="b")
    result = predict(model, rows, first, second)
    assert_counted(first, result["a"], classes=2)
    assert_counted(second, result["b"])
    assert isinstance(first.class_shares, np.ndarray)
    assert list(second.class_shares) == list("wxyz")


def test_multi_label_and_binary(rows):
    """Each label has a share of its own; a binary model has two classes."""
    inputs = keras.Input((8,))
    model = MultiLabelClassifierModel(inputs, keras.layers.Dense(3, "sigmoid")(inputs))
    monitor = PredictionMonitor()
    result = predict(model, rows, monitor)
    np.testing.assert_allclose(monitor.class_shares, result["labels"].mean(0))
    assert monitor.confidence_histogram[0].sum() == 210
    model = BinaryClassifierModel(inputs, keras.layers.Dense(1, activation="sigmoid")(inputs))
    assert_counted(monitor, predict(model, rows, monitor), classes=2)


def test_tokens(structure_model, rows):
    """A model without a mixin, whose outputs have further axes and say nothing of classes."""
    model = structure_model(
        lambda x: {"labels": keras.ops.cast(x > 0, "int32"), "confidence": keras.ops.abs(x) / 9}
    )
    monitor = PredictionMonitor()
    predict(model, rows, monitor)
    np.testing.assert_allclose(monitor.class_shares, [np.mean(rows <= 0), np.mean(rows > 0)])
    assert monitor.rows == 70


@pytest.mark.backends("torch", reason="tensors of the others do not change")
def test_a_buffer_that_each_step_overwrites(structure_model, rows):
    """What a step returned is counted, and not what its tensors are later."""
    buffer = keras.ops.zeros((7,), "int32")

    def function(x):
        buffer[:] = (x[:, 0] > 0).int()
        return {"labels": buffer, "confidence": keras.ops.abs(x[:, 0]) / 9}

    monitor = PredictionMonitor()
    predict(structure_model(function), rows, monitor, batch_size=7)
    assert monitor.class_shares[1] == pytest.approx(np.mean(rows[:, 0] > 0))


@pytest.mark.parametrize("head", ["", "a"])
def test_outputs_that_are_not_there(structure_model, rows, head):
    """The error names those that are; `predict` works afterwards."""
    model = structure_model(lambda x: {"labels": x, "a": {"confidence": x}})
    message = r"must yield `labels` and `confidence`.*\['a/confidence', 'labels'\]"
    with pytest.raises(ValueError, match=message):
        predict(model, rows, PredictionMonitor(head=head))
    assert len(predict(model, rows)["labels"]) == 70


class Fails(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_predict_batch_begin(self, batch, logs=None):
        if batch == 4:
            raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_after_an_error_it_is_used_again(classifier, rows, error):
    """The figures until then can be asked for; the next `predict` begins anew."""
    plain = predict(classifier, rows)
    monitor = PredictionMonitor()
    with pytest.raises(type(error)):
        predict(classifier, rows, monitor, Fails(error))
    monitor.close()
    assert_counted(monitor, {name: array[:32] for name, array in plain.items()})
    for count in (70, 20):
        assert_counted(monitor, predict(classifier, rows[:count], monitor))


def test_an_error_in_the_model(structure_model, rows, on_host):
    """It reaches the caller, the rows before are counted, and the model predicts again."""
    steps = []

    def fails():
        steps.append(1)
        if len(steps) == 5:
            raise RuntimeError("no")

    model = structure_model(
        lambda x: {
            "labels": keras.ops.cast(on_host(fails, x)[:, 0] > 0, "int32"),
            "confidence": x[:, 0] * 0,
        }
    )
    monitor = PredictionMonitor()
    with pytest.raises(Exception, match="no"):  # JAX and TensorFlow have errors of their own
        predict(model, rows, monitor)
    assert monitor.rows <= 32
    steps.clear()
    steps.extend(range(9))
    predict(model, rows, monitor)
    assert monitor.rows == 70


def test_stopping(classifier, rows):
    """`stop_predicting` ends it like an end: all computed rows are counted."""

    class Stops(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = batch >= 3

    monitor = PredictionMonitor()
    result = predict(classifier, rows, monitor, Stops())
    assert_counted(monitor, result)
    assert monitor.rows < 70


def test_resume_computes_nothing_for_it(classifier, rows, path, assert_file_equals):
    """The writer skips what it has, which the monitor counts apart; alone nothing is skipped."""
    plain = predict(classifier, rows)
    writer = HDF5PredictionWriter(path, mode="resume", accumulate=False)
    with pytest.raises(KeyboardInterrupt), writer:
        predict(classifier, rows, writer, Fails(KeyboardInterrupt()))
    with PredictionFile(path) as file:
        known = file.rows
    monitor = PredictionMonitor()
    assert predict(classifier, rows, monitor, writer) == {}
    assert_file_equals(path, plain)
    assert monitor.rows_skipped == (known - 1) // 8 * 8 > 0
    skipped = monitor.rows_skipped
    assert_counted(monitor, {name: array[skipped:] for name, array in plain.items()})
    predict(classifier, rows, monitor, writer)  # of a complete file the ends are computed
    assert (monitor.rows, monitor.rows_skipped) == (8 + 6, 56)


@pytest.mark.parametrize("head", ["", "a"])
def test_it_can_be_compared(head, structure_model, rows, path):
    """Its figures are those of the file that a writer stores beside it."""

    def outputs(x):
        labels = keras.ops.cast(x > 0, "int32")
        named = {"labels": labels, "confidence": keras.ops.abs(x) / 9}
        return {head: named} if head else named

    monitor, model = PredictionMonitor(head=head), structure_model(outputs)
    predict(model, rows, monitor, HDF5PredictionWriter(path))
    same = compare(path, monitor, head=head)
    assert (same.rows, same.labels, same.confidence) == ((70, 70), 0, 0)
    predict(model, rows + 3, monitor)
    assert compare(path, monitor, head=head).labels > 0.25


def test_it_can_be_compared_by_class(classifier, rows, path):
    """The task, the classes and their names are those of a file."""
    monitor = PredictionMonitor()
    predict(classifier, rows, monitor, HDF5PredictionWriter(path))
    assert compare(monitor, path).class_shares == (monitor.class_shares, monitor.class_shares)


def test_the_log(classifier, rows, tmp_path):
    """All numbers, under the name of the head, are in the folder at the end."""
    tensorflow = pytest.importorskip("tensorflow")
    monitor = PredictionMonitor(log_dir=tmp_path / "log")
    predict(classifier, rows, monitor)
    found = {}
    for file in (tmp_path / "log").iterdir():
        for record in tensorflow.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tensorflow.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                found[value.tag] = tensorflow.make_ndarray(value.tensor)
    assert event.step == 70
    assert found["share_below_threshold"] == pytest.approx(monitor.share_below_threshold)
    assert found["class_shares/bee"] == pytest.approx(monitor.class_shares["bee"])
    np.testing.assert_array_equal(found["confidence"][:, 2], monitor.confidence_histogram[0])


def test_the_log_and_the_bar_while_it_runs(classifier, rows, tmp_path, monkeypatch):
    """Both are updated from time to time, one step late."""
    monkeypatch.setattr(prediction_monitor, "_SECONDS_BETWEEN_UPDATES", 0)
    logged, shown = [], []
    monkeypatch.setattr(
        prediction_monitor.FiguresLog, "write", lambda _, step, *__: logged.append(step)
    )
    monkeypatch.setattr(
        keras.utils.Progbar, "update", lambda bar, done, *_, **__: shown.append((done, bar.target))
    )
    predict(classifier, rows, PredictionMonitor(verbose=1, log_dir=tmp_path))
    assert logged == [*range(0, 65, 8), 70]
    assert shown == [(step, 9) for step in (*range(1, 10), 9)]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_the_bar(classifier, rows, capsys):
    """It is Keras's, and shows how fast and how confident the model is."""
    predict(classifier, rows, PredictionMonitor(verbose=2))
    line = r"9/9 - \d+s - \S+/step - rows_per_second: \d+\.\d+ - share_below_threshold: \d\.\d+\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    batches = ((rows[start : start + 10],) for start in range(0, 70, 10))
    classifier.predict(batches, verbose=0, callbacks=[PredictionMonitor(verbose=1)])
    assert "7/7" in capsys.readouterr().out  # of a generator the number is known at the end
    predict(classifier, rows, PredictionMonitor())
    assert capsys.readouterr() == ("", "")


def test_memory_is_constant(structure_model, rows):
    """Only the outputs of the last step wait to be counted, and no others."""
    wide = keras.ops.ones((1, 2**20), "int32")
    model = structure_model(
        lambda x: {
            "labels": keras.ops.cast(x[:, :1] > 9, "int32") * wide,
            "confidence": keras.ops.abs(x[:, :1]) / 9,
            "more": x,
        }
    )
    waiting = []

    class Looks(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            waiting.append(monitor._waiting)

    monitor = PredictionMonitor()
    predict(model, rows[:12], monitor, Looks(), batch_size=1)
    assert all(step.keys() == {"labels", "confidence"} for step in waiting)
    assert all(step["labels"].shape[0] == 1 for step in waiting)


def test_a_step_that_was_not_seen_is_an_error(classifier, rows):
    """Another callback that predicts between the monitor and the step."""

    class Predicts(keras.callbacks.Callback):
        def on_predict_batch_begin(self, batch, logs=None):
            self.model.predict_on_batch(rows)

    with pytest.raises(RuntimeError, match="could not see"):
        predict(classifier, rows, PredictionMonitor(), Predicts())
    monitor = PredictionMonitor()
    assert_counted(monitor, predict(classifier, rows, Predicts(), monitor))


def test_before_any_predict():
    """There are no rows, and nothing fails."""
    monitor = PredictionMonitor()
    assert (monitor.rows, monitor.rows_per_second) == (0, 0)
    assert len(monitor.class_shares) == 0
    assert np.isnan(monitor.share_below_threshold)
    monitor.close()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"head": 0}, TypeError),
        ({"threshold": 1.5}, ValueError),
        ({"bins": 1}, ValueError),
    ],
)
def test_arguments(options, error):
    """What is out of range is refused by name."""
    with pytest.raises(error, match=f"`{next(iter(options))}` must be"):
        PredictionMonitor(**options)
