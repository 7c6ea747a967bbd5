import importlib

import keras
import ml_dtypes
import numpy as np
import pytest

from kerasext.keras_internals import to_numpy

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
