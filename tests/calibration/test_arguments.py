"""Checks of probabilities and targets, which all fits have in common."""

import numpy as np
import pytest

from kerasext.calibration.arguments import checked_rows, row_blocks

P = np.full((6, 4), 0.25, "f4")
TARGETS = np.arange(6) % 4


def refused(message, *, probabilities=P, targets=TARGETS, task="classifier"):
    """Checks that rows raise an error."""
    with pytest.raises(ValueError, match=message):
        checked_rows(probabilities, targets, task)


@pytest.mark.parametrize("dtype", ["f2", "u1", "i8", "c8", "U1"])
def test_dtypes_of_probabilities(dtype):
    """Reduced precision distorts the fit, and integers are no probabilities."""
    refused("`probabilities` must be float32 or float64", probabilities=P.astype(dtype))


@pytest.mark.parametrize("dtype", ["?", "i1", "u8"])
def test_dtypes_of_targets(dtype):
    """Any integers and bools will do."""
    p, targets = checked_rows(P[:, :2] * 2, (TARGETS % 2).astype(dtype), "binary")
    assert p.shape == (6, 2)
    assert targets.tolist() == [0, 1] * 3


def test_targets():
    """Floats, names, other numbers of rows and other classes are refused."""
    refused("of an integer dtype", targets=TARGETS.astype("f4"))
    refused("of an integer dtype", targets=TARGETS.astype(str))
    refused(r"must have the shape \(6,\)", targets=TARGETS[:5])
    refused(r"must have the shape \(6,\)", targets=np.eye(4, dtype=int)[TARGETS])
    refused("from 0 to 3; .* numbers from 1 to 4", targets=TARGETS + 1)
    refused("from 0 to 3; .* numbers from -1 to 2", targets=TARGETS - 1)


@pytest.mark.parametrize(
    ("task", "shape", "message"),
    [
        ("classifier", (6,), r"\(rows, ..., classes\)"),
        ("classifier", (6, 1), "two classes or more"),
        ("binary", (6, 1), "with the column of class 0 first"),
        ("binary", (6, 3), "with the column of class 0 first"),
        ("multilabel", (6,), r"\(rows, ..., labels\)"),
    ],
)
def test_shapes(task, shape, message):
    """Classes are on the last axis, as many as the task has."""
    refused(message, probabilities=np.full(shape, 0.5, "f4"), task=task)


def test_values():
    """Logits, sums other than 1, no rows at all and NaN alone are refused."""
    refused(r"must be in \[0, 1\]; apply a softmax", probabilities=4 * P * [[1, 0, -1, 0]])
    refused(r"must be in \[0, 1\]", probabilities=8 * P)
    refused("must sum to 1", probabilities=P / 2)
    refused("must have at least one row", probabilities=P[:0], targets=TARGETS[:0])
    refused("must not all be NaN", probabilities=P * np.nan)


def test_nan_and_rounding():
    """Rows with NaN, and sums that are off by rounding, are allowed."""
    p = P * np.float32(1.0001)
    p[0, 1] = np.nan
    assert checked_rows(p, TARGETS, "classifier")[0] is p


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (10, 3), (3, 2**21), (2**21, 1), (0, 5)])
def test_blocks(rows, size):
    """Blocks follow each other, have a million numbers at most, and at least a row."""
    blocks = list(row_blocks(rows, size))
    assert [row for block in blocks for row in (block.start, block.stop)][1:-1:2] == [
        block.start for block in blocks[1:]
    ]
    assert sum(block.stop - block.start for block in blocks) == rows
    assert all(1 <= block.stop - block.start <= max(2**20 // size, 1) for block in blocks)
