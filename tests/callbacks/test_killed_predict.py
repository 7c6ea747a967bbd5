"""A `predict` or a job that is killed at any moment is finished by `mode="resume"`, bit for bit."""

import sys
from pathlib import Path

import numpy as np
import pytest

from kerasext import PredictionFile

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from kill_harness import Predictions, Server, kill_and_resume

KILLS = 24

pytestmark = [
    pytest.mark.slow,
    pytest.mark.backends("tensorflow", reason="kills are many, and of the same storage"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Forks processes that have imported Keras and not yet used it."""
    with Server("predict", tmp_path_factory.mktemp("report")) as server:
        yield server


@pytest.fixture(scope="module", params=[False, True], ids=["predict", "predict_to_hdf5"])
def as_job(request):
    """Whether `predict_to_hdf5` is killed, and not `predict` with a writer."""
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(server, as_job, tmp_path_factory):
    """The outputs of a run that nobody killed."""
    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    server.run(path, as_job=as_job, pace=0)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (Predictions.ROWS, True)
        return {name: output[:] for name, output in predictions.items()}


def test_the_same_file_to_the_last_bit(server, as_job, uninterrupted, tmp_path):
    """However often it is killed, no committed row is lost, and the end is the same file."""
    outcome = kill_and_resume(
        server,
        tmp_path,
        uninterrupted,
        kills=KILLS // 2,
        seed=3,
        span=Predictions.SPAN,
        as_job=as_job,
    )
    assert outcome.kills >= KILLS // 2, outcome
    assert outcome.is_good, outcome


def test_the_values_are_not_all_the_same(uninterrupted):
    """A comparison of these outputs can tell one row from another."""
    assert len(np.unique(uninterrupted["probabilities"], axis=0)) == Predictions.ROWS
