"""`kerasext predict` that is killed is finished by `--resume`, and nobody can tell."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from kerasext import PredictionFile
from kerasext.inference import ImageFolder

MOST_SECONDS = 120

# Runs a command that stops when the images from `at` on are asked for and some rows are committed.
# Then it kills itself, or says so and waits for the Ctrl-C of another process.
STOPPED = """
import os, signal, sys, time
from pathlib import Path
from kerasext.cli import main
from kerasext.inference import ImageFolder
from kerasext.cli.file_state import file_state

end, at, out, *arguments = sys.argv[1:]
read = ImageFolder.__getitem__
signals, wakeup = os.pipe()
os.set_blocking(wakeup, False)
signal.set_wakeup_fd(wakeup)  # tells another thread of a signal at once
stopped = []

def read_or_stop(self, rows):
    if rows.start >= int(at) and not stopped:
        while not file_state(Path(out)).rows:
            time.sleep(0.01)
        if end == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        stopped.append(rows)
        print("stopped", file=sys.__stdout__, flush=True)  # the command redirects the other
        os.read(signals, 1)
    return read(self, rows)

signal.signal(signal.SIGINT, signal.default_int_handler)
ImageFolder.__getitem__ = read_or_stop
sys.exit(main(["predict", *arguments, "-o", out]))
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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, write_images, save_model):
    """Arguments that predict 400 images, and the file of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("hundreds")
    write_images(folder / "photos", 400)
    save_model(folder / "model.keras", (128, 128, 3))
    arguments = [folder / "model.keras", folder / "photos", "--batch-size", 32]
    process = run("-m", "kerasext", "predict", *arguments, "-o", folder / "whole.h5")
    assert process.returncode == 0, process.stderr
    with PredictionFile(folder / "whole.h5") as predictions:
        assert (
            predictions["ids"][:].tolist()
            == ImageFolder(folder / "photos", image_size=(8, 8)).paths
        )
    return arguments, folder / "whole.h5"


@pytest.mark.slow
@pytest.mark.backends("tensorflow", reason="what is killed is the same everywhere")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_stopped_and_resumed(tmp_path, uninterrupted, end):
    """Killed or interrupted by Ctrl-C half-way, as people do, and gone on with by `--resume`."""
    arguments, whole = uninterrupted
    stopped = tmp_path / "stopped.h5"
    command = [sys.executable, "-c", STOPPED, end.name, "200", stopped, *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*map(str, command)], text=True, **pipes) as process:
        if end == signal.SIGINT:
            assert process.stdout.readline() == "stopped\n"
            process.send_signal(end)
        _, err = process.communicate(timeout=MOST_SECONDS)
    with PredictionFile(stopped) as predictions:
        rows = predictions.rows
        assert not predictions.complete
    assert 0 < rows < 400
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert f"{rows:,} rows are safe in {stopped}.\nTo go on: kerasext predict " in err
    else:
        assert process.returncode == -signal.SIGKILL, err
    process = run("-m", "kerasext", "predict", *arguments, "-o", stopped, "--resume")
    assert process.returncode == 0, process.stderr
    assert "400 rows, in " in process.stderr
    assert_same_files(stopped, whole)
