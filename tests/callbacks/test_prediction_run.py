"""One run by itself: what it is told, and what its file then says."""

import gc
import time

import h5py
import keras
import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import CheckedOptions, PredictionRun, RowColumns


@pytest.fixture
def model():
    """A model of one output."""
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


@pytest.fixture
def begin(model, path):
    """Begins a run."""

    def begin(*, ids=None, targets=False, mode="x", **sizes):
        options = CheckedOptions(mode=mode, ids=ids, targets=targets)
        return PredictionRun(path, model, options, RowColumns(ids, targets), **sizes)

    return begin


def step(first_row, rows=4):
    """Outputs that say which row they are of."""
    return keras.ops.convert_to_tensor(np.arange(first_row, first_row + rows, dtype="float32"))


def content(path):
    """What plain h5py finds: the rows, and whether there are all."""
    with h5py.File(path) as file:
        record = file["_kerasext/record"][()]
        return file["predictions"][: record["rows"]].tolist(), bool(record["complete"])


@pytest.mark.parametrize(
    ("sizes", "is_whole", "complete"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"rows": 8}, False, True),
        ({"rows": 9}, True, False),
        ({"batches": 2}, False, True),
        ({"batches": 3}, True, False),
    ],
)
def test_when_a_run_is_complete(begin, path, sizes, is_whole, complete):
    """By the number of batches or of rows if it is known, else by whoever drives it."""
    run = begin(**sizes)
    for first_row in (0, 4):
        run.on_step_outputs(step(first_row), 4, ["a batch"] if "batches" in sizes else ())
    said = run.end(is_whole=is_whole)
    assert f"{path}: 8 rows" in said
    assert content(path) == (list(range(8)), complete)
    assert run.health["rows"] == 8


def test_a_run_without_a_step(begin, path):
    """It has no outputs, and so no file."""
    with pytest.raises(ValueError, match="at least one row"):
        begin().end()
    assert not list(path.parent.iterdir())


def test_a_run_that_is_closed(begin, path):
    """Without an end the file is incomplete; to close it again does nothing."""
    run = begin(rows=4)
    run.on_step_outputs(step(0), 4)
    assert not run.is_closed
    run.close()
    run.close()
    assert run.is_closed
    assert content(path) == ([0, 1, 2, 3], False)


def test_a_run_that_nobody_keeps(begin, path):
    """Its thread writes what there is, and closes the file."""
    run = begin()
    run.on_step_outputs(step(0), 4)
    del run
    gc.collect()
    for _ in range(100):
        with PredictionFile(path) as predictions:
            if predictions.rows == 4:
                break
        time.sleep(0.05)
    assert content(path) == ([0, 1, 2, 3], False)
    begin(mode="w").close()  # which waits until the file is free


def test_resumed_rows_are_skipped_or_compared(begin, path):
    """Rows before the last known one need not be computed; the last is compared."""
    run = begin(ids=np.arange(12), rows=12)
    run.on_step_outputs(step(0), 4)
    run.on_step_outputs(step(4), 4)
    run.close()
    run = begin(ids=np.arange(12), rows=12, mode="resume")
    assert (run.rows_known, run.rows_seen, run.is_complete) == (8, 0, False)
    assert not run.on_step_begin(4, ())
    run.on_step_skipped(4)
    assert run.on_step_begin(4, ())
    with pytest.raises(ValueError, match="same data"):
        run.on_step_outputs(step(5), 4)
    run.close()
    run = begin(ids=np.arange(12), rows=12, mode="resume")
    run.on_step_skipped(4)
    run.on_step_outputs(step(4), 4)
    run.on_step_outputs(step(8), 4)
    run.end()
    assert content(path) == (list(range(12)), True)


def test_other_ids_of_skipped_rows(begin):
    """Ids of rows that are not computed are compared, too."""
    run = begin(ids=np.arange(8))
    run.on_step_outputs(step(0), 4)
    run.on_step_outputs(step(4), 4)
    run.close()
    run = begin(ids=np.arange(8)[::-1], mode="resume")
    with pytest.raises(ValueError, match="Stored: the id 0 in row 0"):
        run.on_step_skipped(4)
    run.close()
