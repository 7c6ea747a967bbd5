"""A kill at any moment leaves a file that opens, with every committed row, and is resumed."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
from kill_harness import LAYOUTS, Server, kill_and_resume

KILLS = 34  # of each layout
INTERVALS = [0.005, 0.02, 0.01, 0.005, 0.02, 0.05, 0.01]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Forks processes that know NumPy and this storage, and no Keras."""
    with Server("write", tmp_path_factory.mktemp("report")) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "commit_interval"), list(zip(LAYOUTS, INTERVALS, strict=True)))
def test_no_committed_row_is_lost(layout, commit_interval, server, tmp_path):
    """Killed again and again, a file always opens with the rows that were committed, all right.

    Going on from them it ends like one that was never interrupted, and nothing lies beside it.
    """
    outcome = kill_and_resume(
        server,
        tmp_path,
        LAYOUTS[layout].content(),
        kills=KILLS,
        seed=len(layout),
        layout=layout,
        commit_interval=commit_interval,
    )
    assert outcome.kills >= KILLS
    assert outcome.is_good, outcome


@pytest.mark.slow
def test_moments_before_the_first_row(server, tmp_path):
    """A kill while the file is made leaves none or an empty one, and the next writer makes it."""
    layout = "many outputs of tiny rows"
    for number in range(20):
        path = tmp_path / str(number) / "p.h5"
        path.parent.mkdir()
        server.run(path, kill_after=number * 5e-4, layout=layout, rows=500, commit_interval=0.05)
        if path.exists():
            with PredictionFile(path) as predictions:
                assert sorted(predictions) == sorted(LAYOUTS[layout].content())
        assert server.run(path, layout=layout, rows=500) == 0
        assert os.listdir(path.parent) == ["p.h5"]
        with PredictionFile(path) as predictions:
            np.testing.assert_array_equal(predictions["number"][:], np.arange(500))


def wait_for(condition):
    """Waits until something is so, and fails if it never comes."""
    last = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < last, "it never came"
        time.sleep(0.001)


KILLED_AT_THE_CLOSE = """
    import os, signal, sys
    import h5py, numpy as np
    from kerasext.storage import PredictionFileWriter

    writer = PredictionFileWriter(sys.argv[1], mode=sys.argv[2])
    writer.append({"labels": np.arange(10)})
    h5py.File.close = lambda file: os.kill(os.getpid(), signal.SIGKILL)
    getattr(writer, sys.argv[3])()
"""


def killed_at_the_close(path, mode, end):
    """A process writes ten rows and is killed when it would close the file."""
    command = [sys.executable, "-c", textwrap.dedent(KILLED_AT_THE_CLOSE), path, mode, end]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


def test_resuming_a_complete_file_that_was_not_closed(path):
    """Killed between the last commit and the close: after "resume" every HDF5 tool opens it."""
    killed_at_the_close(path, "x", "finish")
    writer = PredictionFileWriter(path, mode="resume")
    assert writer.is_complete
    writer.close()
    assert os.listdir(path.parent) == [path.name]
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["labels"], np.arange(10))


@pytest.mark.parametrize("end", ["finish", "close"])
def test_adding_to_a_file_that_was_not_closed(end, path):
    """After a kill at the close, rows are added by the mode that fits, after those of before."""
    killed_at_the_close(path, "x", end)
    writer = PredictionFileWriter(path, mode={"finish": "a", "close": "resume"}[end])
    writer.append({"labels": np.arange(10, 15)})
    writer.finish()
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["labels"], np.arange(15))


@pytest.mark.parametrize("compression", [None, "gzip", "zstd", "blosc2", "bitshuffle"])
def test_a_torn_write_of_the_last_chunk(compression, path):
    """A kill halfway in the write of a chunk leaves the rows that the chunk had, all readable.

    A write of many pages can stop after any of them, long before the row count is written.
    """
    row = np.arange(4000)
    values = (row[:, None] * np.arange(1, 21) * 2654435761 % 2**31).astype("i4")
    writer = PredictionFileWriter(path, compression=compression)
    images = []
    for end in (1000, 4000):
        writer.append({"a": values[writer.rows : end]})
        writer.commit()
        images.append(path.read_bytes())
        with h5py.File(path, "r", swmr=True, locking=False) as file:
            assert file["a"].chunks[0] > 4000, "both commits are of one chunk"
            place = file["a"].id.get_chunk_info(0)
    writer.close()
    old, new = images
    torn_path = path.with_name("torn.h5")
    for torn_at in np.linspace(0, place.size, 9).astype(int)[1:]:
        end = (place.byte_offset + torn_at) // 4096 * 4096
        torn = bytearray(old)
        torn[place.byte_offset : end] = new[place.byte_offset : end]
        torn_path.write_bytes(torn)
        with PredictionFile(torn_path) as predictions:
            assert predictions.rows == 1000
            np.testing.assert_array_equal(predictions["a"][:], values[:1000])


def test_a_live_writer_is_left_alone(server, path, tmp_path):
    """What looks like the file of a killed writer is refused while its writer lives."""
    looks = tmp_path / "looks"
    looks.touch()
    options = {"layout": "strings", "rows": 2000, "looks": str(looks)}
    server.start(path, commit_interval=0.005, waits=True, **options)
    wait_for(lambda: server.reported[0])
    with pytest.raises(BlockingIOError, match="held by process"):
        PredictionFileWriter(path, mode="resume")
    looks.write_bytes(bytes(100))
    assert server.wait() == 0
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (2000, True)
