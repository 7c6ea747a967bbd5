import numpy as np
import pytest

from kerasext.report.labels import label_name, row_text
from kerasext.storage import ClassNames

NAMES = ClassNames(["cat", "dog", ""])


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (1, "dog"),
        (2, "(empty name)"),
        (3, "3"),
        (-1, "no label"),
        (-2, "-2"),
        ("emu", "emu"),
        (0.123456789, "0.123457"),
        ("x" * 100, "x" * 80 + "…"),
    ],
)
def test_label_name(label, expected):
    """A label has its name, its number where it has none, and never that of another class."""
    assert label_name(label, NAMES) == expected


def test_without_names():
    """Without names of classes labels are numbers."""
    assert label_name(1, None) == "1"


@pytest.mark.parametrize(
    ("values", "are_indicators", "expected"),
    [
        (np.int32(1), False, "dog"),
        ([0, 1], False, "cat, dog"),
        ([0, 1], True, "dog"),
        ([1, -1], True, "cat, no label"),
        ([0, 0], True, "none"),
        ([], False, "none"),
        ([[0], [1]], False, "cat, dog"),
        ([0] * 10, False, "cat, " * 7 + "cat and 2 more"),
    ],
)
def test_row_text(values, are_indicators, expected):
    """All labels of a row are in its text, up to a number."""
    assert row_text(values, NAMES, are_indicators=are_indicators) == expected
