import dataclasses

import numpy as np
import pytest

from kerasext.evaluation import evaluate
from kerasext.report.evaluation_sections import evaluated
from kerasext.report.markup import document
from kerasext.storage import PredictionFile, PredictionFileWriter


@pytest.fixture
def shown(path):
    """The part of the page for a matrix."""
    writer = PredictionFileWriter(path)
    zeros = np.zeros(4, "i4")
    writer.append({"labels": zeros, "confidence": zeros.astype("f4"), "targets": zeros})
    writer.finish()
    writer.close()
    with PredictionFile(path) as predictions:
        result = evaluate(predictions)

    def part(matrix):
        changed = dataclasses.replace(result, confusion_matrix=np.array(matrix))
        return document("", "", evaluated(changed, None)).decode()

    return part


def test_cells_are_shaded_by_their_share(shown):
    """A cell is as strong as its share of the target's rows; light text stands on strong ones."""
    page = shown([[3, 1], [0, 0]])
    assert '<td class="number strong" style="--share:0.750">3</td>' in page
    assert '<td class="number" style="--share:0.250">1</td>' in page
    assert page.count('<td class="number none" style="--share:0.000">0</td>') == 2


@pytest.mark.parametrize(("classes", "is_matrix"), [(30, True), (31, False)])
def test_larger_matrices_become_pairs(shown, classes, is_matrix):
    """A matrix of up to 30 classes is shown whole, of a larger one the most confused pairs."""
    matrix = np.eye(classes, dtype=int) * 10
    matrix[3, 4], matrix[5, 1] = 5, 7
    page = shown(matrix)
    assert ("Confusion matrix:" in page) is is_matrix
    rows = ["<td>5</td><td>1</td>", "<td>3</td><td>4</td>"]
    assert [row in page for row in rows] == [not is_matrix] * 2
    if not is_matrix:
        assert page.index(rows[0]) < page.index(rows[1])
        assert '<td class="number">7</td><td class="number">41.2%</td>' in page
        assert "These 2 pairs have 12 of 12 errors." in page


def test_many_labels(shown):
    """Of more than 30 labels those with the most errors are shown, and the page says so."""
    matrices = np.zeros((40, 2, 2), int)
    matrices[:, 0, 1] = np.arange(40)
    page = shown(matrices)
    assert "These are the 30 with the most errors of 40." in page
    assert "<td>39</td>" in page
    assert "<td>9</td>" not in page


def test_nothing_of_nothing(shown):
    """The precision of a label that is never predicted is none."""
    page = shown([[[4, 0], [0, 0]]])
    assert page.count('<td class="number">none</td>') == 2
