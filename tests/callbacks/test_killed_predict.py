"""A `predict` that is killed at any moment is finished by `mode="resume"`, to the last bit."""

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


@pytest.fixture(scope="module")
def uninterrupted(server, tmp_path_factory):
    """The outputs of a run that nobody killed."""
    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    server.run(path, pace=0)
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (Predictions.ROWS, True)
        return {name: output[:] for name, output in predictions.items()}


def test_the_same_file_to_the_last_bit(server, uninterrupted, tmp_path):
    """However often it is killed, no committed row is lost, and the end is the same file."""
    outcome = kill_and_resume(
        server, tmp_path, uninterrupted, kills=KILLS, seed=3, span=Predictions.SPAN
    )
    assert outcome.kills >= KILLS, outcome
    assert outcome.is_good, outcome


def test_the_values_are_not_all_the_same(uninterrupted):
    """A comparison of these outputs can tell one row from another."""
    assert len(np.unique(uninterrupted["probabilities"], axis=0)) == Predictions.ROWS
