import itertools

import numpy as np
import pytest

from kerasext.storage import RaggedRows


def ragged(lengths, *inner, dtype="f4"):
    """Rows of these lengths, whose values all differ."""
    shapes = np.array([(length, *inner) for length in lengths], np.int64).reshape(
        -1, 1 + len(inner)
    )
    return RaggedRows(np.arange(shapes.prod(axis=1).sum()).astype(dtype), shapes)


def assert_rows(rows, expected):
    """The rows are those of a list of arrays."""
    for row, right in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row, right, strict=True)


def test_rows_come_in_order_and_in_shape():
    """Each row is as many values as its shape has, in C order, and may have none."""
    rows = ragged([2, 0, 1], 3)
    assert (rows.shape, rows.axes, rows.dtype) == ((3, None, None), 2, np.float32)
    np.testing.assert_array_equal(rows.row_splits, [0, 6, 6, 9])
    values = np.arange(9, dtype="f4")
    assert_rows(
        rows, [values[:6].reshape(2, 3), values[:0].reshape(0, 3), values[6:].reshape(1, 3)]
    )


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2), (3, 0), (0, 4), (0, 0), (1, 2, 0, 3)])
def test_dense_rows(shape):
    """The rows of a dense array, of any layout in memory, are its rows."""
    array = np.arange(np.prod(shape)).reshape(shape)
    assert_rows(RaggedRows.of(array), list(array))
    assert_rows(RaggedRows.of(np.asfortranarray(array)), list(array))


@pytest.mark.parametrize("rows", [slice(None), slice(1, 3), slice(0, 0), slice(3, 9), slice(2, 1)])
def test_a_slice(rows):
    """A slice has the rows that a list has there."""
    whole = ragged([2, 0, 1, 4], 2)
    assert_rows(whole[rows], list(whole)[rows])


def test_concatenation():
    """Rows of dense and ragged parts follow each other."""
    parts = [ragged([2, 0]), np.arange(6, dtype="f4").reshape(2, 3), ragged([]), ragged([1])]
    assert_rows(RaggedRows.concatenate(parts), [row for part in parts for row in part])


def test_concatenation_of_other_dtypes_is_refused():
    """No value is cast without a word."""
    with pytest.raises(TypeError, match="cast"):
        RaggedRows.concatenate([ragged([1]), ragged([1], dtype="f8")])


def test_concatenation_of_other_axes_is_refused():
    """Rows of a vector and of a matrix are not joined."""
    with pytest.raises(ValueError, match="dimension"):
        RaggedRows.concatenate([ragged([1]), ragged([1], 2)])


def test_bytes_are_those_in_the_file():
    """Values, an offset per row, and the shapes where they are stored."""
    assert ragged([2, 0, 1]).nbytes == 3 * 4 + 3 * 8
    assert ragged([2, 0, 1], 5).nbytes == 15 * 4 + 3 * 8 + 6 * 8


@pytest.mark.parametrize(
    ("values", "shapes"),
    [
        (np.zeros(3), np.array([[2]])),
        (np.zeros(3), np.array([[4], [-1]])),
        (np.zeros((3, 1)), np.array([[3]])),
        (np.zeros(3), np.array([3])),
        (np.zeros(3), np.array([[3.0]])),
    ],
)
def test_shapes_that_do_not_fit_are_refused(values, shapes):
    """What would tear rows apart is an error where it is made."""
    with pytest.raises(ValueError, match="shapes of all numbers"):
        RaggedRows(values, shapes)


def test_they_are_no_array():
    """NumPy does not make an array of arrays of it."""
    with pytest.raises(TypeError, match="no array"):
        np.asarray(ragged([1, 2]))


def test_axis_splits():
    """Along each axis the splits cut the lists of the next one, and at last the values."""
    shapes = [(2, 3), (0, 4), (1, 0), (3, 1)]
    rows = RaggedRows(np.arange(9), np.array(shapes, np.int64))
    lists = rows.values.tolist()
    for splits in reversed(rows.axis_splits()):
        assert splits.dtype == np.int64
        lists = [lists[start:stop] for start, stop in itertools.pairwise(splits)]
    assert lists == [row.tolist() for row in rows]
