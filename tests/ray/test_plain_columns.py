import numpy as np
import pyarrow as pa
import pytest
from ray.data.block import BlockAccessor

from kerasext.ray.plain_columns import plain, text_bytes

TEXT = ["a", "bé", "x" * 80]


def dictionary(values):
    """The values as an Arrow dictionary."""
    return pa.array(values).dictionary_encode()


@pytest.mark.parametrize(
    ("column", "width", "per_row"),
    [
        (pa.array(TEXT), 80, 80),
        (pa.array(TEXT, pa.large_string()), 80, 80),
        (pa.array(TEXT, pa.string_view()), 80, 80),
        (pa.array([t.encode() for t in TEXT], pa.binary_view()), 80, 80),
        (pa.array([b"12345", b"123  ", b"     "], pa.binary(5)), 5, 5),
        (dictionary(TEXT), 80, 80),
        (pa.array([[t, "c"] for t in TEXT]), 80, 160),
        (pa.array([[["", t]] for t in TEXT], pa.list_(pa.list_(pa.large_string(), 2), 1)), 80, 160),
        (pa.array(["", "", ""]), 1, 1),
    ],
    ids=["string", "large", "view", "bytes", "fixed", "dictionary", "list", "nested", "empty"],
)
def test_text(column, width, per_row):
    """Text of any Arrow type is what it says, and as wide as its longest value, in bytes."""
    table = plain(pa.table({"x": column}))
    assert table["x"].to_pylist() == column.to_pylist()
    assert not pa.types.is_dictionary(table["x"].type)
    assert text_bytes(table) == {"x": (width, per_row)}


def test_the_rest():
    """Numbers, booleans, lists of them and tensors of Ray stay as they are; they are no text."""
    tensors = BlockAccessor.batch_to_arrow_block({"t": np.ones((2, 3, 4), "float32")})
    table = pa.table(
        {
            "i": pa.array([1, 2], pa.uint64()),
            "f": pa.array([1, 2], pa.float16()),
            "b": [True, False],
            "l": pa.array([[1, 2], [3, 4]]),
            "t": tensors["t"],
        }
    )
    assert plain(table).equals(table)
    assert text_bytes(table) == {}


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None]),
        pa.array([[1, None], [3, 4]]),
        pa.array([[1, None], [3, 4]], pa.list_(pa.int64(), 2)),
        pa.array([[[1.0], None], [[2.0], [3.0]]]),
        pa.array([["a"], [None]]),
        pa.DictionaryArray.from_arrays([0, 1], [5, None]),
        dictionary(["a", None]),
    ],
    ids=["number", "list", "fixed", "nested", "text", "dictionary", "index"],
)
def test_missing_values(column):
    """A missing value is named by its column, wherever it is: NumPy would make NaN of it."""
    with pytest.raises(ValueError, match="no value in some rows of 'x'"):
        plain(pa.table({"y": [1, 2], "x": column}))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2], pa.timestamp("us")),
        pa.array([1, 2], pa.date32()),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())),
        pa.array([1, 2], pa.duration("s")),
    ],
    ids=["timestamp", "date", "struct", "map", "duration"],
)
def test_other_types(column):
    """What a file has no type for is refused by its column and type, with what to do."""
    with pytest.raises(TypeError, match=r"'x' must be of numbers.*in a function before.*type="):
        plain(pa.table({"x": column}))
