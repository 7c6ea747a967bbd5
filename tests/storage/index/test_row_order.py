import numpy as np
import pytest

from kerasext.storage.index.row_order import RowOrder

RUNS = np.array([[1, 5, 3], [0, 0, 1], [0, 7, 6], [2, 0, 2], [1, 1, 2]])
ROWS = [(shard, first + n) for shard, first, count in RUNS.tolist() for n in range(count)]


def rows_of(pieces, count):
    """The rows that the pieces have, each in its place."""
    found = [None] * count
    shards = []
    for shard, rows, places in pieces:
        of_shard = np.arange(20)[rows].tolist()
        targets = np.arange(count)[places].tolist()
        assert len(of_shard) == len(targets) > 0
        for row, place in zip(of_shard, targets, strict=True):
            found[place] = (shard, row)
        shards.append(shard)
    assert len(shards) == len(set(shards))
    return found


def test_pieces():
    """Every range is cut into one piece for each file that has rows of it, each in its place."""
    order = RowOrder(RUNS)
    assert order.rows == len(ROWS)
    for start in range(len(ROWS) + 1):
        for stop in range(start, len(ROWS) + 1):
            assert rows_of(order.pieces(start, stop), stop - start) == ROWS[start:stop]


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of(seed):
    """Rows in any order, also several times, are found in their files."""
    index = np.random.default_rng(seed).integers(0, len(ROWS), seed * 7)
    found = rows_of(RowOrder(RUNS).pieces_of(index), len(index))
    assert found == [ROWS[row] for row in index]


def test_a_run_is_a_slice():
    """Rows that follow each other in a file are one slice, which is read at once."""
    (piece,) = RowOrder(RUNS).pieces(5, 9)
    assert piece == (0, slice(8, 12), slice(0, 4))


def test_no_rows():
    """There may be none."""
    order = RowOrder(np.zeros((0, 3), np.int64))
    assert order.rows == 0
    assert not list(order.pieces(0, 0))
    assert not list(order.pieces_of(np.zeros(0, np.int64)))
