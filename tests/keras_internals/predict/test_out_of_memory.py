import keras
import numpy as np
import pytest

from kerasext.keras_internals import is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """Stands for torch's."""


class XlaRuntimeError(RuntimeError):
    """Stands for XLA's."""


def test_numpy():
    """An array that no memory holds."""
    with pytest.raises(MemoryError) as caught:
        np.ones(2**45)
    assert is_out_of_memory(caught.value)


# TensorFlow waits ten seconds for memory before it gives up.
@pytest.mark.parametrize(
    "_", [pytest.param(None, marks=[pytest.mark.slow] * (keras.backend.backend() == "tensorflow"))]
)
def test_backend(_):
    """What the backend raises for a tensor that no memory holds, at once or when it is read."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        keras.ops.convert_to_numpy(keras.ops.zeros((2**45,)) + 1)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutOfMemoryError("CUDA out of memory"), True),
        (XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"), True),
        (XlaRuntimeError("INVALID_ARGUMENT: no"), False),
        (ValueError("a shape"), False),
        (KeyboardInterrupt("RESOURCE_EXHAUSTED"), False),
        (OSError(28, "No space left on device"), False),
    ],
    ids=repr,
)
def test_other_errors(error, expected):
    """Those of torch and XLA are told by name and text; a full disk is none."""
    assert is_out_of_memory(error) is expected
