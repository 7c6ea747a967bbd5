import collections

import ml_dtypes
import numpy as np
import pytest

from kerasext.callbacks.step_outputs import by_name, check_probabilities, choose

Pair = collections.namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (1, {"predictions": 1}),
        ({"b": 1, "a": 2}, {"b": 1, "a": 2}),
        ([1, 2], {"0": 1, "1": 2}),
        ((1, {"x": 2}), {"0": 1, "1/x": 2}),
        ({"a": {"p": 1}, "b": {"p": 2}}, {"a/p": 1, "b/p": 2}),
        ({"a": [1, {"b": (2, 3)}]}, {"a/0": 1, "a/1/b/0": 2, "a/1/b/1": 3}),
        (Pair(1, 2), {"0": 1, "1": 2}),
        ({"a/b": 1}, {"a/b": 1}),
        ({1: 1}, {"1": 1}),
    ],
)
def test_names_are_places_in_the_structure(structure, names):
    """An output is named by its keys and positions, so equal inner keys don't collide."""
    assert by_name(structure) == names


@pytest.mark.parametrize("structure", [{"a/b": 1, "a": {"b": 2}}, {"a": {1: 1, "1": 2}}])
def test_two_outputs_of_one_name_are_refused(structure):
    """Two outputs that would share a dataset are refused by name."""
    with pytest.raises(ValueError, match=r"same path.*Received: name='a/"):
        by_name(structure)


def test_choose_takes_outputs_and_groups():
    """`outputs` may name single outputs and whole groups; `None` keeps all."""
    named = {"a/p": 1, "a/q": 2, "ab": 3, "b": 4}
    assert choose(named, None) == named
    assert choose(named, ("a", "b")) == {"a/p": 1, "a/q": 2, "b": 4}
    assert choose(named, ("a/q",)) == {"a/q": 2}


def test_choose_refuses_what_is_not_there():
    """An output that the model does not have is refused, and those that it has are listed."""
    message = r"`outputs` must name outputs of the model, or groups of them; "
    with pytest.raises(ValueError, match=message + r"they are \['a/p', 'b'\]. Received: 'x'"):
        choose({"a/p": 1, "b": 2}, ("b", "x"))
    with pytest.raises(ValueError, match=message + "the nearest is 'labels'. Received: 'label'"):
        choose({"labels": 1, "b": 2}, ("label",))


GOOD = np.array([[0.25, 0.75], [1.0, 0.0], [np.nan, np.nan]])


@pytest.mark.parametrize("task", ["classifier", "binary", "multilabel", None])
@pytest.mark.parametrize("dtype", ["float32", "float64", ml_dtypes.bfloat16])
def test_probabilities_pass(task, dtype):
    """Rows that are probabilities pass, and so do those with NaN, of any float type."""
    check_probabilities({"head/probabilities": GOOD.astype(dtype)}, task)


def test_logits_are_refused_where_a_mixin_declares_probabilities():
    """Rows that don't sum to 1 are refused with the remedy."""
    with pytest.raises(ValueError, match=r"sum to 1; pass `from_logits=True`"):
        check_probabilities({"probabilities": np.array([[0.5, 0.5], [0.6, 0.6]])}, "classifier")


@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_multi_label_probabilities_must_be_in_the_unit_interval(value):
    """Each label's probability is on its own, in [0, 1]."""
    check_probabilities({"probabilities": np.array([[0.9, 0.9]])}, "multilabel")
    with pytest.raises(ValueError, match=r"must be in \[0, 1\];"):
        check_probabilities({"probabilities": np.array([[0.9, value]])}, "multilabel")


def test_probabilities_by_head():
    """Of heads with tasks of their own each is checked by its own task, others are not."""
    tasks = {"a": "multilabel", "b": "classifier", "c": "regressor", "d": None, "x/e": "classifier"}
    rows = np.array([[0.9, 0.9]])
    for head in ("a", "c", "d", "unknown"):
        check_probabilities({f"{head}/probabilities": rows}, tasks)
    for head in ("b", "x/e"):
        with pytest.raises(ValueError, match=rf"sum to 1; .*`tasks=\{{'{head}': None\}}`"):
            check_probabilities({f"{head}/probabilities": rows}, tasks)
    check_probabilities({"probabilities": rows}, "regressor")


def test_plain_models_may_yield_anything():
    """Without a mixin an output called `probabilities` means what its model says."""
    check_probabilities({"probabilities": np.array([[7.0, 9.0]])}, None)


def test_no_rows_are_no_wrong_rows():
    """A first step without rows passes."""
    check_probabilities({"probabilities": np.zeros((0, 3))}, "classifier")
