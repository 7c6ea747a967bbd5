import collections
import importlib

import keras
import ml_dtypes
import numpy as np
import pytest

from kerasext.callbacks.step_outputs import by_name, check_probabilities, choose, to_numpy

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


DTYPES = ["bool", "uint8", "int8", "int32", "float16", "bfloat16", "float32", "complex64"]
DTYPES += ["float8_e4m3fn", "float8_e5m2"]
if keras.backend.backend() != "jax":  # which has them with `jax_enable_x64` only
    DTYPES += ["int64", "float64", "complex128"]


def tensor_of(array):
    """A tensor of the backend, past `keras.ops`, which knows not all dtypes."""
    if keras.backend.backend() != "torch":
        return keras.ops.convert_to_tensor(array)
    torch = importlib.import_module("torch")
    if array.dtype.isbuiltin == 1:
        return torch.as_tensor(array)
    return torch.as_tensor(array.view(f"u{array.itemsize}")).view(getattr(torch, array.dtype.name))


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), ()])
@pytest.mark.parametrize("dtype", DTYPES)
def test_to_numpy_keeps_dtype_and_values(dtype, shape):
    """Values reach the storage in the dtype that the model computed them in."""
    count = int(np.prod(shape))
    expected = np.arange(count).astype(keras.backend.standardize_dtype(dtype)).reshape(shape)
    array = to_numpy(tensor_of(expected))
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


@pytest.mark.backends("torch", reason="no other backend has tensors with gradients or views")
def test_to_numpy_of_what_only_torch_has():
    """A tensor with a gradient, a transposed or a conjugated one are values like any other."""
    x = tensor_of(np.arange(6, dtype="float32").reshape(2, 3)).requires_grad_()
    np.testing.assert_array_equal(to_numpy(x * 2), np.arange(6).reshape(2, 3) * 2)
    transposed = to_numpy(tensor_of(np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)).T)
    np.testing.assert_array_equal(transposed, np.arange(6).reshape(2, 3).T)
    conjugated = tensor_of(np.array([1 + 2j], dtype="complex64")).conj()
    np.testing.assert_array_equal(to_numpy(conjugated), [1 - 2j])


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
