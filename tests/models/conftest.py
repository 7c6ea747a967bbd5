"""How a float64 model comes to float64 on each backend."""

import keras
import pytest


@pytest.fixture
def x64():
    """Lets JAX have float64, which it makes float32 of unless it is told; others have it anyway."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax  # noqa: PLC0415 - only where it is the backend

    with jax.enable_x64(True):
        yield


@pytest.fixture
def policy(request):
    """The dtype policy that a test names, on a backend that has its types."""
    if request.param == "float64":
        request.getfixturevalue("x64")
    return request.param
