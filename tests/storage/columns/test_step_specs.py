import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter, RaggedRows
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.columns.step_specs import check_ragged, specs_of

STEP = {
    "n": np.zeros(2),
    "x": np.zeros((2, 3)),
    "a/x": np.zeros((2, 3, 4), "i4"),
    "a/n": np.zeros(2),
}
RAGGED = RaggedRows(np.zeros(3), np.array([[1], [2]]))


def ragged_in(ragged, step=STEP):
    """The outputs that are stored flat."""
    specs = specs_of(step, dtypes={}, ragged=check_ragged(ragged))
    assert specs.keys() == step.keys()
    assert {type(spec) for spec in specs.values()} <= {DenseSpec, RaggedSpec}
    return {name for name, spec in specs.items() if isinstance(spec, RaggedSpec)}


@pytest.mark.parametrize(
    ("ragged", "names"),
    [
        (False, set()),
        (True, {"x", "a/x"}),
        ([], set()),
        (["x"], {"x"}),
        (("a",), {"a/x"}),
        ({"a/x", "x"}, {"x", "a/x"}),
        (["n"], set()),
        (iter(["x"]), {"x"}),
    ],
    ids=["none", "all", "no names", "one", "a group", "a set", "no axis", "an iterator"],
)
def test_which_outputs_are_stored_flat(ragged, names):
    """All whose rows have an axis, or those that are named, alone or by their group."""
    assert ragged_in(ragged) == names


@pytest.mark.parametrize("ragged", ["x", None, 1, [1], b"x"], ids=repr)
def test_what_ragged_can_not_be(ragged, path):
    """Neither a bool nor names: a TypeError when the writer is made."""
    with pytest.raises(TypeError, match=r"a bool or a list of names.*Received: ragged="):
        PredictionFileWriter(path, ragged=ragged)


def test_unknown_names_are_refused():
    """A name that is no output's is refused, and those that are there are listed."""
    message = "`ragged` must name outputs that are written, or groups of them; they are "
    with pytest.raises(ValueError, match=rf"{message}\['a/n', 'a/x', 'n', 'x'\]. Received: 'y'"):
        ragged_in(["x", "y"])


def test_the_nearest_name_is_suggested():
    """For a group or output in `ragged`, and for an output in `dtypes`, where no group will do."""
    step = {"head/tokens": STEP["x"], "labels": STEP["n"]}
    with pytest.raises(
        ValueError, match=r"`ragged` must .*the nearest is 'head'. Received: 'haed'"
    ):
        ragged_in(["haed"], step)
    with pytest.raises(ValueError, match=r"the nearest is 'head/tokens'. Received: 'head/token'"):
        ragged_in(["head/token"], step)
    for name, nearest in {"label": "labels", "head/tokns": "head/tokens"}.items():
        message = f"`dtypes` must name outputs that are written; the nearest is '{nearest}'. "
        with pytest.raises(ValueError, match=f"{message}Received: '{name}'"):
            specs_of(step, dtypes={name: "f4"}, ragged=False)
    with pytest.raises(ValueError, match=r"they are \['head/tokens', 'labels'\]. Received: 'head'"):
        specs_of(step, dtypes={"head": "f4"}, ragged=False)


def test_ragged_rows_must_be_asked_for():
    """Rows of different shapes are refused with what to pass."""
    assert ragged_in(True, {"r": RAGGED}) == {"r"}
    with pytest.raises(TypeError, match=r"'r' must be a dense array; pass `ragged=\['r'\]`"):
        ragged_in(False, {"r": RAGGED})


def test_a_later_step_of_ragged_rows(path):
    """Also where the first step was dense."""
    writer = PredictionFileWriter(path)
    writer.append({"r": np.zeros((2, 3))})
    with pytest.raises(TypeError, match=r"pass `ragged=\['r'\]`"):
        writer.append({"r": RAGGED})
    writer.close()


def test_a_changed_shape_names_the_remedy(path):
    """Where another length is all that is wrong, the error says how to store it."""
    writer = PredictionFileWriter(path)
    writer.append({"x": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"every step; pass `ragged=\['x'\]`.*shape=\(2, 4\)"):
        writer.append({"x": np.zeros((2, 4))})
    with pytest.raises(ValueError, match=r"every step. First step"):
        writer.append({"x": np.zeros((2, 4, 1))})
    writer.close()


def test_rows_of_too_many_axes():
    """More axes than HDF5 has are refused where NumPy has them."""
    rows = RaggedRows(np.zeros(2), np.ones((2, 32), np.int64))
    with pytest.raises(ValueError, match="'r' must have 1 to 31 axes"):
        ragged_in(True, {"r": rows})


@pytest.mark.parametrize("dtype", ["f8", "u1"])
@pytest.mark.parametrize("expected_rows", [None, 10, 10**9])
def test_chunks(dtype, expected_rows):
    """Chunks of values are sized by the first step: small for few rows, few for very many."""
    rows = RaggedRows(np.zeros(100, dtype), np.array([[40], [60]]))
    spec = RaggedSpec.of_rows("x", rows)
    values, splits = spec.columns(expected_rows)
    assert (values.spec.name, splits.spec.name) == ("x/values", "x/row_splits")
    assert values.expected_length == (None if expected_rows is None else 100 * expected_rows)
    assert (splits.expected_length, splits.length) == (expected_rows, 1)
