import json

import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.callbacks import reference_figures
from kerasext.callbacks.reference_figures import read_figures
from kerasext.storage import PredictionFileWriter

OPTIONS = {"head": "", "bins": 10, "threshold": 0.5, "task": None}


def write(path, outputs, *, ragged=False, task=None):
    """Writes a complete file of one step."""
    attributes = {} if task is None else {"prediction_metadata": json.dumps({"task": task})}
    writer = PredictionFileWriter(path, ragged=ragged, attributes=attributes)
    writer.append(outputs)
    writer.finish()


@pytest.fixture
def outputs():
    """Labels and confidences of 1,000 rows."""
    random = np.random.default_rng(0)
    return {
        "labels": random.integers(-1, 4, 1000).astype("int32"),
        "confidence": random.random(1000).astype("float32"),
    }


def test_all_rows_are_read_some_at_a_time(path, outputs, monkeypatch):
    """In parts, from a path or an open file, which stays open."""
    monkeypatch.setattr(reference_figures, "_ROWS_AT_ONCE", 300)
    write(path, outputs)
    with PredictionFile(path) as file:
        of_file, of_path = read_figures(file, **OPTIONS), read_figures(path, **OPTIONS)
        np.testing.assert_array_equal(file["labels"], outputs["labels"])
    expected, _ = np.histogram(outputs["confidence"], 10, (0, 1))
    for figures in (of_file, of_path):
        assert figures.rows == 1000
        np.testing.assert_array_equal(figures.confidence_counts, expected)
        np.testing.assert_array_equal(figures.label_counts[0], np.bincount(outputs["labels"] + 1))


def test_a_head_and_its_indicators(path):
    """Outputs of a head, multi-label ones by label."""
    labels = np.int32([[1, 0], [1, 1]])
    write(path, {"a/labels": labels, "a/confidence": np.ones((2, 2))}, task="multilabel")
    figures = read_figures(path, **{**OPTIONS, "head": "a", "task": "multilabel"})
    np.testing.assert_array_equal(figures.class_shares, [1, 0.5])


def test_rows_of_different_shapes(path):
    """Outputs that were stored flat are counted position by position."""
    labels = np.arange(6, dtype="int32").reshape(2, 3)
    write(path, {"labels": labels, "confidence": labels / 6}, ragged=True)
    figures = read_figures(path, **OPTIONS)
    assert (figures.rows, figures.classes) == (2, 6)


@pytest.mark.parametrize(
    ("changes", "received"),
    [
        ({"head": "a"}, r"1000 rows of \['confidence', 'labels'\]"),
        ({"task": "binary"}, "of the task None"),
    ],
)
def test_what_can_not_be_compared_is_refused(path, outputs, changes, received):
    """Other outputs, or another task, are an error that says what there is."""
    write(path, outputs)
    with pytest.raises(ValueError, match=f"`reference` must have rows of.*{received}"):
        read_figures(path, **{**OPTIONS, **changes})


def test_a_file_that_is_not_there(path):
    """The error is that of opening it."""
    with pytest.raises(FileNotFoundError):
        read_figures(path, **OPTIONS)
