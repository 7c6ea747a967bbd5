"""A reader sees the rows of a file that another process writes: all of them, once, never wrong."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kerasext.storage import BackgroundWriter, PredictionFile, PredictionFileWriter, RaggedRows

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
from kill_harness import LAYOUTS, STEPS_PER_LOOK, Server

THOUSANDS = [
    "many small chunks",
    *(
        pytest.param(layout, marks=pytest.mark.slow)
        for layout in ("strings", "many outputs of tiny rows", "rows of any shape")
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Forks a process that writes while this one reads."""
    with Server("write", tmp_path_factory.mktemp("report")) as server:
        yield server


@pytest.fixture
def looks(tmp_path):
    """What the writer waits for: a file that is made longer with each look at its rows."""
    path = tmp_path / "looks"
    path.touch()
    return path


def look(looks):
    """Tells the writer that somebody has looked."""
    with looks.open("ab") as file:
        file.write(b".")


def wait_for(condition, seconds=60):
    """Waits until something is so, and fails if it never comes."""
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last, "it never came"
        time.sleep(0.001)


def assert_rows(found, layout, start, end):
    """Arrays are the rows from `start` to `end` of a layout."""
    expected = LAYOUTS[layout].outputs(np.arange(start, end))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        stored = found[name]
        if isinstance(array, RaggedRows):
            for row, right in zip(stored, array, strict=True):
                np.testing.assert_array_equal(row, right, strict=True)
            continue
        if stored.dtype.kind == "U":
            stored = np.char.encode(stored, "utf-8").astype(array.dtype)
        np.testing.assert_array_equal(stored, array, strict=True, err_msg=f"{name}, row {start}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_row_once_and_in_order(layout, server, path, looks):
    """`follow` yields what is written, from the first row on, until the file is complete."""
    server.start(path, layout=layout, commit_interval=0.01, looks=str(looks))
    wait_for(path.exists)
    rows = batches = 0
    with PredictionFile(path) as predictions:
        for batch in predictions.follow(timeout=60):
            size = len(next(iter(batch.values())))
            assert_rows(batch, layout, rows, rows + size)
            rows += size
            batches += 1
            look(looks)
        assert predictions.complete
    assert server.wait() == 0
    assert rows == LAYOUTS[layout].rows
    assert batches > LAYOUTS[layout].rows // LAYOUTS[layout].step // STEPS_PER_LOOK


@pytest.mark.parametrize("layout", THOUSANDS)
def test_thousands_of_commits(layout, server, path, looks):
    """A reader that refreshes all the while sees right rows only, in every commit that it meets."""
    rows = 1000 * (LAYOUTS[layout].step // 2)
    options = {"commit_interval": 0.001, "waits": True, "looks": str(looks)}
    server.start(path, layout=layout, rows=rows, **options)
    wait_for(path.exists)
    seen = {0}
    with PredictionFile(path) as predictions:
        while not predictions.complete:
            before = predictions.rows
            predictions.refresh()
            now = predictions.rows
            assert now >= before
            start = max(now - 500, 0)
            batch = {name: output[start:] for name, output in predictions.items()}
            assert_rows(batch, layout, start, now)
            seen.add(now)
            look(looks)
        batch = {name: output[:] for name, output in predictions.items()}
        assert_rows(batch, layout, 0, rows)
    assert server.wait() == 0
    assert server.reported[1] > 900, "commits"
    assert len(seen) > 20


@pytest.mark.slow
def test_a_killed_writer(server, path):
    """With `timeout` it ends after the writer was killed, having yielded every committed row."""
    server.start(path, layout="many small chunks", kill_at=5000, commit_interval=0.005)
    wait_for(path.exists)
    rows = 0
    with PredictionFile(path) as predictions:
        for batch in predictions.follow(timeout=1):
            size = len(batch["b"])
            assert_rows(batch, "many small chunks", rows, rows + size)
            rows += size
        assert not predictions.complete
        assert predictions.rows == rows
    assert server.wait() == -9
    assert rows >= server.reported[0] >= 5000


@pytest.mark.slow
def test_through_a_kill_and_resume(server, path):
    """A reader that stays sees the rows of the writer that goes on, in the same file."""
    layout = "many small chunks"
    server.start(path, kill_at=5000, layout=layout, commit_interval=0.005)
    wait_for(path.exists)
    rows = 0
    with PredictionFile(path) as predictions:
        assert server.wait() == -9
        server.start(path, layout=layout, commit_interval=0.005)
        for batch in predictions.follow(timeout=60):
            size = len(batch["b"])
            assert_rows(batch, layout, rows, rows + size)
            rows += size
        assert predictions.complete
    assert server.wait() == 0
    assert rows == LAYOUTS[layout].rows


def test_a_complete_file(server, path):
    """On a complete file `refresh` changes nothing and `follow` yields its rows and ends."""
    server.run(path, layout="strings", rows=1000)
    before = path.read_bytes()
    with PredictionFile(path) as predictions:
        output = predictions["labels"]
        for _ in range(3):
            predictions.refresh()
        assert (predictions.rows, predictions.complete) == (1000, True)
        assert predictions["labels"] is output
        (batch,) = predictions.follow()
        assert_rows(batch, "strings", 0, 1000)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_long_files_come_in_batches(server, path):
    """`follow` never holds more than a batch of a file that is there already."""
    server.run(path, layout="many outputs of tiny rows", rows=200_000, commit_interval=1)
    with PredictionFile(path) as predictions:
        sizes = [len(batch["number"]) for batch in predictions.follow()]
    assert sum(sizes) == 200_000
    assert max(sizes) <= 65_536


def test_outputs_taken_before_keep_their_rows(server, path, looks):
    """An output that was taken before a refresh has the rows that it had."""
    options = {"layout": "many small chunks", "commit_interval": 0.005}
    server.start(path, looks=str(looks), **options)
    wait_for(path.exists)
    with PredictionFile(path) as predictions:
        wait_for(lambda: predictions.refresh() or predictions.rows)
        output, rows = predictions["b"], predictions.rows
        looks.write_bytes(bytes(1000))
        wait_for(lambda: predictions.refresh() or predictions.rows > rows)
        assert len(output) == len(output[:]) == rows
        np.testing.assert_array_equal(output[-1], rows - 1)
        assert len(predictions["b"]) > rows
    assert server.wait() == 0


def test_a_closed_file_is_not_followed(server, path):
    """After `close` both say that the file was closed."""
    server.run(path, layout="strings", rows=100)
    predictions = PredictionFile(path)
    predictions.close()
    with pytest.raises(ValueError, match="was closed"):
        predictions.refresh()
    with pytest.raises(ValueError, match="was closed"):
        next(predictions.follow())


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_readers_in_the_process_that_writes(compression, path):
    """Readers that come, stay and go in threads beside the writer see right rows only."""
    layout = LAYOUTS["many small chunks"]
    writer = BackgroundWriter(
        PredictionFileWriter(path, compression=compression),
        to_arrays=layout.outputs,
        queue_bytes=2**20,
        commit_interval=0.002,
    )
    writer.append(np.arange(64), 64)
    seen = set()
    looked = threading.Condition()

    def read(stays):
        predictions = PredictionFile(path)
        while not predictions.complete:
            if not stays:
                predictions.close()
                predictions = PredictionFile(path)
            predictions.refresh()
            now = predictions.rows
            start = max(now - 500, 0)
            batch = {name: output[start:] for name, output in predictions.items()}
            assert_rows(batch, "many small chunks", start, now)
            with looked:
                seen.add(now)
                looked.notify()
        batch = {name: output[:] for name, output in predictions.items()}
        assert_rows(batch, "many small chunks", 0, layout.rows)
        predictions.close()

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read, stays) for stays in (True, True, False)]
        for start in range(64, layout.rows, 64):
            rows = np.arange(start, min(start + 64, layout.rows))
            writer.append(rows, len(rows))
            with looked:  # ten steps after what was seen last
                assert looked.wait_for(lambda: max(seen, default=0) > start - 640, 60)  # noqa: B023
        writer.finish()
        for reader in readers:
            reader.result()
    assert len(seen) > 20
