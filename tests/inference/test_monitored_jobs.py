"""A monitor in `predict_to_hdf5`: its figures are of the job, however many calls it takes."""

import re

import keras
import numpy as np
import pytest

from kerasext import PredictionFile, predict_to_hdf5
from kerasext.callbacks import PredictionMonitor
from kerasext.inference import batch_size_trials
from kerasext.models import ClassifierModel


@pytest.fixture
def model():
    """A classifier of four classes."""
    inputs = keras.Input((8,))
    return ClassifierModel(inputs, keras.layers.Dense(4, activation="softmax")(inputs))


def assert_counted(monitor, path, first_row=0):
    """The figures are those of the rows in the file."""
    with PredictionFile(path) as file:
        labels, confidence = file["labels"][first_row:], file["confidence"][first_row:]
    assert monitor.rows == len(labels)
    np.testing.assert_allclose(monitor.class_shares, np.bincount(labels, minlength=4) / len(labels))
    expected, _ = np.histogram(confidence, 20, (0, 1))
    np.testing.assert_array_equal(monitor.confidence_histogram[0], expected)


def test_all_calls_of_a_job_are_counted_once(model, rows, path, monkeypatch):
    """The rows on which a batch size is found, too; used again it begins anew."""
    many = np.tile(rows, (200, 1))
    tried = []
    run = batch_size_trials.Trials.run

    def always(trials, goes_on):
        run(trials, lambda _: True)
        tried.extend(trials.trials)

    monkeypatch.setattr(batch_size_trials.Trials, "run", always)
    monitor = PredictionMonitor()
    for mode in ("x", "w"):
        predict_to_hdf5(
            model, many, path, mode=mode, verbose=0, callbacks=[monitor], batch_size="auto"
        ).close()
        assert_counted(monitor, path)
    assert len(tried) > 1


class Limited(ClassifierModel):
    """Runs out of memory of large batches, from the third on."""

    sizes = ()

    def predict_step(self, *args):
        rows = keras.tree.flatten(args[-1])[0]
        self.sizes = (*self.sizes, len(rows))
        if len(rows) > 8 and len(self.sizes) > 2:
            raise MemoryError("no memory")
        return super().predict_step(*args)


def test_rows_of_batches_that_were_too_large(model, rows, path):
    """Rows that are predicted again after a lack of memory are counted once."""
    limited = Limited(model.input, model.output)
    limited.compile(run_eagerly=True)
    monitor = PredictionMonitor()
    predict_to_hdf5(limited, rows, path, batch_size=16, verbose=0, callbacks=[monitor]).close()
    assert limited.sizes[:4] == (16, 16, 16, 8)
    assert_counted(monitor, path)


def test_a_job_that_was_interrupted(model, rows, path):
    """Rows that are not predicted again are counted apart, and all of them in a complete file."""

    class Interrupts(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            if batch == 5:
                raise KeyboardInterrupt

    monitor = PredictionMonitor()
    options = {"batch_size": 8, "mode": "resume", "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        predict_to_hdf5(model, rows, path, callbacks=[Interrupts(), monitor], **options)
    assert_counted(monitor, path)
    before = monitor.rows
    predict_to_hdf5(model, rows, path, callbacks=[monitor], **options).close()
    assert monitor.rows_skipped == (before - 1) // 8 * 8 > 0
    assert_counted(monitor, path, monitor.rows_skipped)
    predict_to_hdf5(model, rows, path, callbacks=[monitor], **options).close()
    assert (monitor.rows, monitor.rows_skipped) == (8 + 6, 56)  # the first and the last batch


def test_a_job_that_is_stopped(model, rows, path):
    """All rows in the file are counted."""

    class Stops(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = True

    monitor = PredictionMonitor()
    options = {"batch_size": 8, "verbose": 0}
    predict_to_hdf5(model, rows, path, callbacks=[monitor, Stops()], **options).close()
    assert_counted(monitor, path)
    assert monitor.rows < 70


def test_the_bar(model, rows, path, capsys):
    """Keras's progress bar counts rows of the job, without those that are skipped."""
    options = {"batch_size": 8, "verbose": 0, "mode": "resume"}
    predict_to_hdf5(model, rows, path, callbacks=[PredictionMonitor(verbose=2)], **options).close()
    assert re.match(r"70/70 .*/row - rows_per_second: ", capsys.readouterr().out)
    predict_to_hdf5(model, rows, path, callbacks=[PredictionMonitor(verbose=2)], **options).close()
    assert re.match(r"14/14 .*/row.* - rows_skipped: 56\.0", capsys.readouterr().out)


def test_data_that_is_no_array(model, rows, path):
    """What goes to `predict` as it is, is monitored there."""

    def batches():
        for start in range(0, 70, 10):
            yield (rows[start : start + 10],)

    monitor = PredictionMonitor()
    predict_to_hdf5(model, batches(), path, steps=7, verbose=0, callbacks=[monitor]).close()
    assert_counted(monitor, path)
