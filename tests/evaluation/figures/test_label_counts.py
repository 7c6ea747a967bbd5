import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, multilabel_confusion_matrix

from kerasext.evaluation.figures.label_counts import ClassCounts, IndicatorCounts

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("classes", [None, 12])
@pytest.mark.parametrize("shape", [(400,), (40, 10), (10, 5, 8)])
def test_classes(classes, shape):
    """Counts are scikit-learn's, whether the number of classes is known or shows by and by."""
    truth, labels = np.sort(RNG.integers(0, 12, (2, *shape)), axis=1)
    counts = ClassCounts(classes)
    for some in range(0, len(truth), 7):
        counts.add(truth[some : some + 7], labels[some : some + 7])
    np.testing.assert_array_equal(counts.matrix, confusion_matrix(truth.ravel(), labels.ravel()))


def test_classes_that_never_occur():
    """Classes that are known have a place."""
    counts = ClassCounts(4)
    counts.add(np.array([1, 2]), np.array([1, -1]))
    np.testing.assert_array_equal(counts.matrix, np.diag([0, 1, 0, 0]))


@pytest.mark.parametrize("wrong", ["labels", "targets"])
def test_no_class(wrong):
    """A number that is none of the classes is told with what has it."""
    values = [np.array([0, 3]), np.array([0, 2])]
    truth, labels = values if wrong == "targets" else values[::-1]
    with pytest.raises(ValueError, match=f"The {wrong} must be less than 3.* Received: 3"):
        ClassCounts(3).add(truth, labels)


def test_too_many_classes():
    """Numbers that are no classes, such as times, don't fill the memory."""
    with pytest.raises(ValueError, match=r"at most 32768 classes.* Received: 1763719001 classes"):
        ClassCounts(None).add(np.array([1763719000]), np.array([0]))


@pytest.mark.parametrize("shape", [(300, 4), (60, 5, 4)])
def test_indicators(shape):
    """Counts of several labels a row are scikit-learn's."""
    truth, labels = RNG.integers(0, 2, (2, *shape))
    counts = IndicatorCounts(4)
    for some in range(0, len(truth), 7):
        counts.add(truth[some : some + 7], labels[some : some + 7])
    expected = multilabel_confusion_matrix(truth.reshape(-1, 4), labels.reshape(-1, 4))
    np.testing.assert_array_equal(counts.matrix, expected)


@pytest.mark.parametrize("wrong", ["labels", "targets"])
def test_no_indicator(wrong):
    """An indicator that is neither 0 nor 1 is told with what has it."""
    values = [np.array([[0, 2]]), np.array([[0, 1]])]
    truth, labels = values if wrong == "targets" else values[::-1]
    with pytest.raises(ValueError, match=f"0 or 1 each, the {wrong} too.* Received: 2"):
        IndicatorCounts(2).add(truth, labels)
