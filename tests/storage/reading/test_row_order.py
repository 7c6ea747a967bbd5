import numpy as np
import pytest

from kerasext.storage.reading.row_order import RowOrder

RUNS = np.array([[1, 5, 3], [0, 0, 1], [0, 7, 6], [2, 0, 2]])


@pytest.mark.parametrize("step", [1, 2, 3, 5, 50])
def test_pieces(step):
    """Every range is cut into pieces that have each wanted row once, in its place."""
    rows = [(shard, first + n) for shard, first, count in RUNS.tolist() for n in range(count)]
    runs = RowOrder(RUNS)
    assert runs.rows == len(rows)
    for start in range(len(rows) + 1):
        for stop in range(start, len(rows) + 1):
            wanted = range(start, stop, step)
            found = [None] * len(wanted)
            for shard, part, places in runs.pieces(wanted):
                of_shard = range(20)[part]
                assert len(range(len(found))[places]) == len(of_shard) > 0
                found[places] = [(shard, row) for row in of_shard]
            assert found == [rows[row] for row in wanted]


def test_no_rows():
    """There may be none."""
    runs = RowOrder(np.zeros((0, 3), np.int64))
    assert runs.rows == 0
    assert not list(runs.pieces(range(0)))
