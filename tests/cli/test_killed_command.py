"""`kerasext predict` that is killed is finished by `--resume`, and nobody can tell."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.cli.image_folder import find_images

MOST_SECONDS = 120

# Kills itself when the images after the first `at` are asked for and some rows are committed.
KILLED = """
import os, signal, sys, time
from pathlib import Path
from kerasext.cli import main
from kerasext.cli.image_folder import ImageFolder
from kerasext.cli.progress import file_state

at, out, *arguments = sys.argv[1:]
read = ImageFolder.__getitem__

def read_or_die(self, rows):
    if rows.start >= int(at):
        while not file_state(Path(out)).rows:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, rows)

ImageFolder.__getitem__ = read_or_die
main(["predict", *arguments, "-o", out])
"""


def run(*arguments):
    """Runs a fresh interpreter."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=MOST_SECONDS
    )


def assert_same_files(first, second):
    """Compares all outputs and ids of two complete files, to the last bit."""
    with PredictionFile(first) as one, PredictionFile(second) as other:
        assert one.complete
        assert other.complete
        assert set(one) == set(other) == {"probabilities", "labels", "confidence", "ids"}
        for name, output in one.items():
            np.testing.assert_array_equal(output[:], other[name][:], err_msg=name)
        # Else a comparison could not tell one row from another.
        assert len(np.unique(one["probabilities"][:], axis=0)) > 0.9 * one.rows
        assert len(set(one["ids"][:])) == one.rows


@pytest.mark.backends("tensorflow", reason="what is killed is the same everywhere")
def test_killed_and_resumed(kerasext, tmp_path, folder, save_model):
    """60 images, killed when some of them are committed."""
    save_model(tmp_path / "model.keras", (256, 256, 3))
    arguments = [tmp_path / "model.keras", folder, "--batch-size", 4]
    killed, whole = tmp_path / "killed.h5", tmp_path / "whole.h5"
    process = run("-c", KILLED, 32, killed, *arguments)
    assert process.returncode == -signal.SIGKILL, process.stderr
    with PredictionFile(killed) as predictions:
        assert 0 < predictions.rows <= 32
        assert not predictions.complete
    code, _, err = kerasext("predict", *arguments, "-o", killed, "--resume")
    assert code == 0, err
    assert "60 rows, in " in err
    assert kerasext("predict", *arguments, "-o", whole)[0] == 0
    assert_same_files(killed, whole)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, write_images, save_model):
    """Arguments that predict 4,000 images, and the file of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("thousands")
    write_images(folder / "photos", 4000)
    save_model(folder / "model.keras", (128, 128, 3))
    arguments = [folder / "model.keras", folder / "photos", "--batch-size", 32]
    process = run("-m", "kerasext", "predict", *arguments, "-o", folder / "whole.h5")
    assert process.returncode == 0, process.stderr
    with PredictionFile(folder / "whole.h5") as predictions:
        assert predictions["ids"][:].tolist() == find_images(folder / "photos")
    return arguments, folder / "whole.h5"


@pytest.mark.slow
@pytest.mark.backends("tensorflow", reason="what is killed is the same everywhere")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_thousands_of_images(tmp_path, uninterrupted, end):
    """4,000 images, killed or interrupted half-way by another process, as people do."""
    arguments, whole = uninterrupted
    killed = tmp_path / "killed.h5"
    command = [sys.executable, "-m", "kerasext", "predict", *map(str, arguments), "-o", str(killed)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + MOST_SECONDS
        while not (killed.exists() and committed(killed) >= 1000):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < until
            time.sleep(0.01)
        os.kill(process.pid, end)
        _, err = process.communicate(timeout=MOST_SECONDS)
    rows = committed(killed)
    assert 1000 <= rows < 4000
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert f"{rows:,} rows are safe in {killed}.\nTo go on: kerasext predict " in err
    else:
        assert process.returncode == -signal.SIGKILL
    process = run(*command[1:], "--resume")
    assert process.returncode == 0, process.stderr
    assert_same_files(killed, whole)


def committed(path):
    """The rows that are committed in a file."""
    with PredictionFile(path) as predictions:
        return predictions.rows
