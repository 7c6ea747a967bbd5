import os
from pathlib import Path

import numpy as np
import pytest

from kerasext.storage.columns.ids import to_ids

BIG = 2**40 + 1


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([3, 1, BIG], np.int64),
        ((3, 1), np.int64),
        (np.array([3, BIG]), np.int64),
        (np.array([3, 1], np.uint8), np.uint8),
        (np.array([1, 2**64 - 1], np.uint64), np.uint64),
        ([np.int32(1), 2], np.int64),
        (np.array([1, BIG], object), np.int64),
        ([2**63, 1], np.uint64),
    ],
    ids=str,
)
def test_integers(values, dtype):
    """Integers keep their value and, where they have one, their dtype."""
    ids = to_ids(values)
    assert ids.dtype == dtype
    assert ids.tolist() == list(values)


@pytest.mark.parametrize("make", [list, tuple, np.array, lambda v: np.array(v, object)])
def test_strings(make):
    """Strings become UTF-8 as wide as the longest, from whatever has them."""
    ids = to_ids(make(["a", "größe"]))
    assert ids.dtype == "S7"
    assert ids.tolist() == [b"a", "größe".encode()]


def test_names_of_files_that_are_not_utf8():
    """Bytes of a file's name that are not UTF-8 are escaped, as Python has them and as they are."""
    names = [b"caf\xe9.jpg", "größe.jpg".encode(), b"plain.jpg"]
    expected = [rb"caf\xe9.jpg", "größe.jpg".encode(), b"plain.jpg"]
    assert to_ids([os.fsdecode(name) for name in names]).tolist() == expected
    assert to_ids(names).tolist() == expected
    assert to_ids(np.array(names)).tolist() == expected
    with pytest.raises(ValueError, match="must be UTF-8"):
        to_ids(["\ud800"])


def test_one_column():
    """Ids of shape `(rows, 1)`, as data of Keras often has them, are taken as `(rows,)`."""
    assert to_ids(np.array([[3], [4]])).tolist() == [3, 4]


@pytest.mark.parametrize(
    "values",
    [
        [1.5, 2.0],
        np.array([1.0]),
        [True, False],
        np.array([True]),
        [None],
        ["a", None],
        ["a", 1],
        [1, "a"],
        [1, True],
        [2**64],
        [2**63, -1],
        [["a"], ["b"]],
        np.array([1], "m8[D]"),
        [Path("a"), 1],
    ],
    ids=str,
)
def test_what_is_no_id(values):
    """Anything else, a mixture, and integers of more than 64 bits are refused by their types."""
    with pytest.raises(TypeError, match=r"must be .*integers.*Received"):
        to_ids(values)


@pytest.mark.parametrize("shape", [(), (2, 2), (1, 1, 1)])
def test_other_shapes(shape):
    """Ids that are not one for each row are refused by their shape."""
    with pytest.raises(ValueError, match="one integer or string for each row"):
        to_ids(np.zeros(shape, int))
