import io
import re
import threading
import time

import numpy as np
import pytest
from rich.console import Console

from kerasext.cli import progress
from kerasext.cli.file_state import file_state
from kerasext.cli.progress import progress_bar
from kerasext.storage import PredictionFileWriter

MOST_SECONDS = 30


@pytest.fixture
def screen(monkeypatch):
    """A terminal, and what stands on it."""
    monkeypatch.setattr(progress, "_SECONDS", 0.01)
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def wait_for(console, pattern):
    """Waits until something is shown."""
    until = time.monotonic() + MOST_SECONDS
    while not re.search(pattern, console.file.getvalue()):
        assert time.monotonic() < until, console.file.getvalue()[-300:]
        time.sleep(0.01)


def test_rows_of_a_file(screen, path):
    """The bar begins with the rows that are there, and shows each commit, rows/s and time left."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.zeros(30, "i4")})
    writer.commit()
    with progress_bar(path, 90, screen, lambda: True):
        wait_for(screen, r"30/90")
        for shown in (50, 70):  # the speed is that between two commits
            writer.append({"labels": np.zeros(20, "i4")})
            writer.commit()
            wait_for(screen, rf"{shown}/90")
        wait_for(screen, r"70/90.*[1-9][\d,]* rows/s.*0:0\d:\d\d")
        writer.append({"labels": np.zeros(20, "i4")})
        writer.finish()
    assert "90/90" in screen.file.getvalue()


def test_file_that_is_not_there_yet(screen, path):
    """It waits for the file, and not for one that is going to be replaced."""
    old = PredictionFileWriter(path)
    old.append({"labels": np.zeros(7, "i4")})
    old.finish()
    before = file_state(path)
    looks = threading.Semaphore(0)

    def is_ours():
        looks.release()
        return file_state(path).identity != before.identity

    with progress_bar(path, 50, screen, is_ours):
        for _ in range(3):
            assert looks.acquire(timeout=MOST_SECONDS)
        assert "7/50" not in screen.file.getvalue()
        writer = PredictionFileWriter(path, mode="w")
        writer.append({"labels": np.zeros(50, "i4")})
        writer.finish()
    assert "50/50" in screen.file.getvalue()
    assert "7/50" not in screen.file.getvalue()


def test_error_in_the_work(screen, path):
    """The bar goes with what it shows, whatever ends that."""
    with pytest.raises(KeyboardInterrupt), progress_bar(path, 50, screen, lambda: True):
        raise KeyboardInterrupt


def test_file_state(path):
    """Rows and completeness of a prediction file; of anything else only which file it is."""
    assert file_state(path) == (None, 0, False)
    path.write_text("something else")
    identity = (path.stat().st_dev, path.stat().st_ino)
    assert file_state(path) == (identity, 0, False)
    path.unlink()
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.zeros(7, "i4")})
    writer.commit()
    assert file_state(path)[1:] == (7, False)
    writer.finish()
    assert file_state(path)[1:] == (7, True)
