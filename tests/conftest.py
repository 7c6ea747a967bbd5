"""What the tests share: a seed, rows to predict, a path to write to."""

import gc
import os
import signal
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
import pytest
from keras_process import KerasServer

# No test here cuts the power: waiting for the disk, thousands of times, would show nothing.
os.fsync = os.fdatasync = lambda fd: (os.fstat(fd), None)[1]

# What a shell starts in the background, as CI may be, ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Lets `tf.data` tune no pipeline, if TensorFlow is what the tests have loaded.

    In TensorFlow 2.21 each iterator has a thread for that, which now and then sleeps through the
    end of its iterator: whoever deletes it then waits, for half a minute or longer.
    """
    gc.freeze()  # spares the collector the half a million objects of what was imported
    if "tensorflow" not in sys.modules:
        return
    data = sys.modules["tensorflow"].data
    iterate = data.Dataset.__iter__

    def iterate_untuned(dataset):
        options = data.Options()
        options.autotune.enabled = False
        return iterate(dataset.with_options(options))

    data.Dataset.__iter__ = iterate_untuned


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


@pytest.fixture(scope="session")
def keras_server():
    """Runs scripts in processes of their own, in which Keras is imported already."""
    with KerasServer() as server:
        yield server


@pytest.fixture
def rows():
    """70 rows of 8 features, float32: with batches of 23 the last batch has one row."""
    return np.random.default_rng(0).normal(size=(70, 8)).astype("float32")


@pytest.fixture
def path(tmp_path):
    """Where a prediction file may be written."""
    return tmp_path / "predictions.h5"
