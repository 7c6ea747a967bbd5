"""What the tests share: a seed, rows to predict, a path to write to."""

import os
import signal
import sys

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# What a shell starts in the background, as CI may be, ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before the fixtures of a module are made
def pytest_runtest_setup(item):
    """Skips what only other backends have; a test so marked has loaded Keras."""
    mark = item.get_closest_marker("backends")
    if mark and sys.modules["keras"].backend.backend() not in mark.args:
        pytest.skip(f"only on {' and '.join(mark.args)}: {mark.kwargs['reason']}")


@pytest.fixture(autouse=True)
def _seed():
    """Gives every test the same initial weights; Keras is seeded only where it is loaded."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture
def rows():
    """70 rows of 8 features, float32: with batches of 23 the last batch has one row."""
    return np.random.default_rng(0).normal(size=(70, 8)).astype("float32")


@pytest.fixture
def path(tmp_path):
    """Where a prediction file may be written."""
    return tmp_path / "predictions.h5"
