import json

import pyarrow as pa
import pytest

from kerasext.ray.model_column import description_of, model_column

ONE, OTHER = (json.dumps({"attributes": {"model_fingerprint": name}}) for name in "ab")


def test_it_stays_with_its_rows():
    """Slices, filters, orders and joins of blocks keep the description, however Arrow has it."""
    column = pa.chunked_array([model_column(ONE, 5), model_column(ONE, 3)])
    for same in (column, column.slice(4, 2), column.take([7, 0]), column.cast(pa.string())):
        assert description_of(same) == json.loads(ONE)


def test_a_name_that_keras_made():
    """The same model under another automatic name, as of another process, is the same model."""
    attributes = {"model_fingerprint": "a", "model_name": "functional_1"}
    other = json.dumps({"attributes": attributes})
    column = pa.chunked_array([model_column(ONE, 5), model_column(other, 3)])
    assert description_of(column)["attributes"]["model_fingerprint"] == "a"


def test_rows_of_two_models():
    """Rows of two models are refused, with their fingerprints."""
    column = pa.chunked_array([model_column(ONE, 5), model_column(OTHER, 3)])
    with pytest.raises(ValueError, match=r"one model.*'a', 'b'"):
        description_of(column)
