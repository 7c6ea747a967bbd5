import numpy as np
import pytest

from kerasext.report.row_tally import BINS, RowTally
from kerasext.storage import PredictionFile, PredictionFileWriter


@pytest.fixture
def tally(path, monkeypatch):
    """Reads columns in blocks of a few rows."""
    monkeypatch.setattr("kerasext.evaluation.counts._BLOCK_BYTES", 64)

    def read(least, **columns):
        writer = PredictionFileWriter(path)
        writer.append(columns)
        writer.finish()
        writer.close()
        with PredictionFile(path) as predictions:
            return RowTally(predictions, predictions.head(), least)

    return read


def test_blocks_make_no_difference(tally):
    """Counts, histogram, mean and ranks are those of all rows at once."""
    random = np.random.default_rng(0)
    labels = random.integers(-1, 5, 300).astype("i4")
    confidence = random.random(300).astype("f4")
    confidence[[5, 250]] = np.nan
    found = tally(10, labels=labels, confidence=confidence)
    values, counts = np.unique(labels, return_counts=True)
    assert found.counts == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert found.labels == 300
    known = confidence[~np.isnan(confidence)]
    np.testing.assert_array_equal(found.histogram, np.histogram(known, BINS, (0, 1))[0])
    assert found.mean_confidence == pytest.approx(known.mean(dtype="f8"))
    assert (found.confidences, found.unsure) == (298, 2)
    order = np.argsort(np.where(np.isnan(confidence), -1, confidence), kind="stable")[:10]
    np.testing.assert_array_equal(found.least_confident, order)
    np.testing.assert_array_equal(found.least_confidence, confidence[order])


def test_equals_come_in_the_order_of_rows(tally):
    """Of equally confident rows the earlier ones are taken, across blocks too."""
    found = tally(3, confidence=np.full(100, 0.5, "f4"))
    assert found.least_confident.tolist() == [0, 1, 2]


def test_more_than_there_are(tally):
    """Asking for more rows than there are gives all, asking for none gives none."""
    assert tally(9, confidence=np.array([0.2, 0.1])).least_confident.tolist() == [1, 0]


def test_none(tally):
    """No row is found where none is asked for."""
    assert tally(0, confidence=np.array([0.2, 0.1])).least_confident.size == 0


def test_confidences_that_are_none(tally):
    """Numbers beyond [0, 1] are counted apart."""
    found = tally(1, confidence=np.array([-0.5, 0, 1, 2, np.inf]))
    assert (found.confidences, found.unsure, found.histogram.sum()) == (2, 3, 2)


def test_integers_are_no_confidence(tally):
    """Columns of other dtypes than labels and confidences have are left alone."""
    found = tally(1, labels=np.zeros(3), confidence=np.zeros(3, "i4"))
    assert (found.has_labels, found.has_confidence, found.labels) == (False, False, 0)
