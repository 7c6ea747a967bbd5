import re
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

BACKEND = keras.backend.backend()
FOLDER = Path(__file__).parents[1] / "examples"
ABOUT_TENSORFLOW = pytest.mark.backends(
    "tensorflow", reason="the example measures `tf.function` too"
)
EXAMPLES = [
    pytest.param(path, marks=ABOUT_TENSORFLOW if path.stem == "which_predict" else [], id=path.stem)
    for path in sorted(FOLDER.glob("*.py"))
    if path.stem != "quickstart"
]

pytestmark = pytest.mark.slow


def run(example, *arguments, folder):
    """Runs an example as a user would, in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", example, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, tmp_path):
    """Every example ends well without a warning, prints shapes, and leaves nothing behind."""
    ended = run(example, folder=tmp_path)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    assert re.search(r"\(\d+,", ended.stdout), "no shape of an output was printed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.backends("jax", "torch", reason="there it runs")
def test_example_for_another_backend(tmp_path):
    """The example that is about TensorFlow says so elsewhere, at once."""
    ended = run(FOLDER / "which_predict.py", folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "This example is about TensorFlow; run it with KERAS_BACKEND=tensorflow. "
        f"Received: KERAS_BACKEND={BACKEND}"
    )


def test_quickstart_writes_the_test_part_to_the_path_given(tmp_path):
    """The quickstart's file holds all held-out digits in order, and the accuracy that it prints."""
    path = tmp_path / "mine.h5"
    ended = run(FOLDER / "quickstart.py", "mine.h5", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    assert f"File: {path.resolve()}" in ended.stdout
    assert ended.stderr == ""
    written = {other.name for other in tmp_path.iterdir()}
    assert written == {"mine.h5", "mine.keras", "mine.npy"}
    digits = load_digits(return_X_y=True)
    test_digits = train_test_split(*digits, test_size=0.2, random_state=0)[3]
    with h5py.File(path, "r") as file:
        record = file["_kerasext/record"][()]
        assert (record["rows"], record["complete"]) == (len(test_digits), 1)
        assert file["probabilities"].shape == (len(test_digits), 10)
        assert file["confidence"].shape == (len(test_digits),)
        accuracy = np.mean(file["labels"][:] == test_digits)
    assert accuracy > 0.95
    printed = re.search(r"Accuracy: ([\d.]+)", ended.stdout)
    assert float(printed[1]) == pytest.approx(accuracy, abs=1e-4)
