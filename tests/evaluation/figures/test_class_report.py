import numpy as np
import pytest
from sklearn.metrics import classification_report, confusion_matrix, multilabel_confusion_matrix

from kerasext.evaluation.figures.class_report import class_report

RNG = np.random.default_rng(0)


def assert_equal(report, expected, names):
    """All scores of the classes, and both averages, are scikit-learn's."""
    assert list(report) == [*names, "macro avg", "weighted avg"]
    for name, scores in report.items():
        assert scores == pytest.approx(expected[name], rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("most", [0, 1])
def test_as_in_scikit_learn(classes, most):
    """The report is scikit-learn's, also of classes that never occur."""
    truth, labels = RNG.integers(0, classes - most, (2, 300))
    names = [f"größe {number}" for number in range(classes)]
    expected = classification_report(
        truth,
        labels,
        labels=range(classes),
        target_names=names,
        output_dict=True,
        zero_division=0,
    )
    matrix = confusion_matrix(truth, labels, labels=range(classes))
    assert_equal(class_report(names, matrix), expected, names)


def test_of_several_labels():
    """So it is of several labels a row, one of which is never there."""
    truth, labels = (RNG.random((2, 300, 4)) < [0.1, 0.5, 0.9, 0]).astype(int)
    expected = classification_report(
        truth, labels, target_names=list("abcd"), output_dict=True, zero_division=0
    )
    report = class_report(list("abcd"), multilabel_confusion_matrix(truth, labels))
    assert_equal(report, expected, "abcd")


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["cat", "dog", "cat"], ["cat (0)", "dog", "cat (2)"]),
        (["a", "a", "a (1)"], ["a (0)", "a (1) (1)", "a (1)"]),
        (["macro avg", "", "weighted avg"], ["macro avg (0)", "", "weighted avg (2)"]),
    ],
)
def test_names_that_are_not_alone(names, keys):
    """No class is lost because of its name."""
    report = class_report(names, np.diag([1, 2, 3]))
    assert list(report) == [*keys, "macro avg", "weighted avg"]
    assert [report[key]["support"] for key in keys] == [1, 2, 3]
    assert report["macro avg"]["support"] == 6
