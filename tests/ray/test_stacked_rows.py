import numpy as np
import pyarrow as pa
import pytest
from ray.data.block import BlockAccessor

from kerasext.ray.stacked_rows import stacked


def column(values, kind=None):
    """What Ray makes of a column of a Parquet file."""
    return BlockAccessor.for_block(pa.table({"x": pa.array(values, kind)})).to_numpy("x")


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2), (1, 2, 1), (5, 0)])
def test_lists(shape):
    """Lists of one length, nested or not, are an array of their dtype."""
    kind = pa.float32()
    for _ in shape[1:]:
        kind = pa.list_(kind)
    values = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    found = stacked("x", column(values.tolist(), kind))
    np.testing.assert_array_equal(found, values)
    assert found.dtype == (np.float32 if values.size else found.dtype)


@pytest.mark.parametrize("values", [[1, 2], ["a", "b"], [True], [b"a"]])
def test_the_rest(values):
    """Numbers and strings stay as they are."""
    rows = column(values)
    assert stacked("x", rows) is rows


def test_rows_of_different_shapes():
    """Rows of different shapes are refused by the name of the column, with the shapes."""
    with pytest.raises(ValueError, match=r"'x' must have one shape.*\(1,\), \(2,\)"):
        stacked("x", column([[1.0], [2.0, 3.0]]))
