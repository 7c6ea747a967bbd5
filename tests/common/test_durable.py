"""What must survive a loss of power: the order of writes, syncs and renames."""

import contextlib
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from kerasext.common.atomic_file import atomic_file
from kerasext.common.durable import write_at
from kerasext.shards import index_shards
from kerasext.storage import PredictionFile, PredictionFileWriter


@pytest.fixture
def events(monkeypatch):
    """Calls of the system, in order: "write" for the record, "sync", "sync folder", "rename"."""
    found = []
    pwrite, fsync, replace = os.pwrite, os.fsync, Path.replace

    def record(name, call):
        def recording(*args):
            result = call(*args)
            is_folder = name == "sync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            found.append("sync folder" if is_folder else name)
            return result

        return recording

    monkeypatch.setattr(os, "pwrite", record("write", pwrite))
    monkeypatch.setattr(os, "fsync", record("sync", fsync))
    monkeypatch.setattr(Path, "replace", record("rename", replace))
    return found


STEP = {"x": np.arange(5)}
NEW = ["sync", "rename", "sync folder", "write"]
COMMIT = ["sync", "write", "sync"]


def test_every_commit_is_synced(events, path):
    """With fsync=True the record is synced as well as the rows, which come before it."""
    writer = PredictionFileWriter(path, fsync=True)
    for _ in range(3):
        writer.append(STEP)
        writer.commit()
    assert events == NEW + 3 * COMMIT
    writer.close()


@pytest.mark.parametrize("end", ["finish", "close"])
def test_the_end_is_synced(end, events, path):
    """What the end writes is on the disk when it returns, what HDF5 writes last as well."""
    writer = PredictionFileWriter(path)
    writer.append(STEP)
    writer.commit()
    assert events == [*NEW, "write"]
    events.clear()
    getattr(writer, end)()
    assert events == [*COMMIT, "sync"]


@pytest.mark.parametrize("mode", ["a", "resume"])
def test_an_open_file_says_so_before_its_first_row(mode, events, path):
    """The disk knows that a file is open for writing again before there is another row in it."""
    writer = PredictionFileWriter(path)
    writer.append(STEP)
    (writer.finish if mode == "a" else writer.close)()
    events.clear()
    writer = PredictionFileWriter(path, mode=mode)
    writer.append(STEP)
    assert events == ["write", "sync"]
    with PredictionFile(path) as predictions:
        assert not predictions.complete
        assert not predictions._source.state.closed
    writer.close()
    with PredictionFile(path) as predictions:
        assert predictions._source.state.closed


def test_files_that_can_be_made_again(events, path):
    """With fsync=None nothing waits for the disk, and the file does not say that it was closed."""
    writer = PredictionFileWriter(path, fsync=None)
    writer.append(STEP)
    writer.finish()
    assert events == ["rename", "write", "write"]
    with PredictionFile(path) as predictions:
        assert predictions.complete
        assert not predictions._source.state.closed


def test_other_files_are_synced_under_their_names(events, path, tmp_path):
    """Exports and indexes are synced, renamed, and their folders synced."""
    with atomic_file(path.with_suffix(".csv")) as file:
        file.write(b"1")
    assert events == ["sync", "rename", "sync folder"]
    writer = PredictionFileWriter(path)
    writer.append(STEP)
    writer.finish()
    path.with_suffix(".csv").unlink()
    events.clear()
    index_shards(tmp_path)
    assert events == ["sync", "rename", "sync folder"]


@pytest.mark.parametrize("most", [1, 3, 100])
def test_short_writes_go_on(most, monkeypatch, path):
    """A call that writes fewer bytes than it was given is followed by others for the rest."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:most], at))
    writer = PredictionFileWriter(path)
    writer.append(STEP)
    writer.finish()
    with PredictionFile(path) as predictions:
        assert (predictions.rows, predictions.complete) == (5, True)
        predictions.verify()


def test_writes_of_nothing_are_an_error(monkeypatch, path):
    """A call that writes nothing does not hang a writer, which tells that writing failed."""
    writer = PredictionFileWriter(path)
    writer.append(STEP)
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(OSError, match=r"Writing failed.*wrote none of"):
        writer.commit()
    with contextlib.suppress(OSError):
        writer.close()


def test_write_at(path):
    """Bytes come to their place; none are written for none."""
    path.write_bytes(b"abcdef")
    with path.open("r+b") as file:
        write_at(file.fileno(), b"xy", 2)
        write_at(file.fileno(), b"", 5)
    assert path.read_bytes() == b"abxyef"
