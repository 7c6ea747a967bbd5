"""Reading beside a writer: what changes meanwhile is read again, and failures change nothing."""

import os
import warnings

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFile, PredictionFileWriter
from kerasext.storage.format import superblock
from kerasext.storage.reading.file_source import FileSource


def write(path, rows, **options):
    """A writer with so many committed rows."""
    writer = PredictionFileWriter(path, expected_rows=20, **options)
    for start in range(0, rows, 100):
        row = np.arange(start, min(start + 100, rows))
        writer.append({"x": row, "p": (row[:, None] + np.arange(8)).astype("f4")})
        writer.commit()
    return writer


def add(writer, rows=100):
    """Adds rows and commits them."""
    row = np.arange(writer.rows, writer.rows + rows)
    writer.append({"x": row, "p": (row[:, None] + np.arange(8)).astype("f4")})
    writer.commit()


def test_a_refresh_that_fails_changes_nothing(path, monkeypatch):
    """A reader whose refresh failed reads what it had, and refreshes when that is possible."""
    writer = write(path, 300)
    reader = PredictionFile(path)
    output = reader["x"]
    add(writer)
    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "_check_is_whole", lambda _: 1 / 0)
        for _ in range(2):
            with pytest.raises(ValueError, match="damaged"):
                reader.refresh()
            assert reader.rows == 300
            np.testing.assert_array_equal(reader["x"][:], np.arange(300))
            np.testing.assert_array_equal(output[:], np.arange(300))
            assert "300 rows" in repr(reader)
    reader.refresh()
    assert reader.rows == 400
    np.testing.assert_array_equal(reader["x"][:], np.arange(400))
    np.testing.assert_array_equal(output[:], np.arange(300))
    writer.close()
    reader.close()


def test_a_refreshed_reader_keeps_one_file_open(path):
    """What a refresh replaces is closed; one that fails leaves nothing open either."""
    writer = write(path, 100)
    reader = PredictionFile(path)

    def open_files():
        return sum(
            os.path.realpath(f"/proc/self/fd/{fd}") == str(path)
            for fd in os.listdir("/proc/self/fd")
        )

    before = open_files()
    for _ in range(20):
        add(writer)
        reader.refresh()
    assert open_files() == before
    writer.close()
    reader.close()
    assert open_files() == 0


def test_a_refresh_reads_the_same_file(path):
    """A reader stays with its file when another one takes the name."""
    writer = write(path, 100)
    reader = PredictionFile(path)
    add(writer)
    writer.close()
    write(path, 300, mode="w").finish()
    reader.refresh()
    assert reader.rows == 200
    reader.close()


@pytest.mark.parametrize("method", ["_read_state", "_load"])
def test_a_file_that_ends_while_it_is_read(method, path, monkeypatch):
    """A read that met the writer's last write is repeated, though the writer is gone by then."""
    writer = write(path, 300)
    reader = PredictionFile(path)
    if method == "_load":  # the read itself, below the repetition
        dataset_type, name = h5py.Dataset, "__getitem__"
    else:
        dataset_type, name = FileSource, method
    real = getattr(dataset_type, name)
    calls = []

    def half_read(self, *args):
        calls.append(self)
        if len(calls) == 1:
            writer.finish()
            raise (OSError if method == "_load" else ValueError)("half of a write was read")
        return real(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(dataset_type, name, half_read)
        if method == "_load":
            np.testing.assert_array_equal(reader["x"][:], np.arange(300))
        reader.refresh()
    assert len(calls) > 1
    assert reader.complete
    reader.close()


def test_a_file_that_is_resumed_while_it_is_opened(path, monkeypatch):
    """A file is opened again if a resuming writer had cleared the last one's mark meanwhile."""
    killed = path.with_name("killed.h5")
    writer = write(path, 300)
    killed.write_bytes(path.read_bytes())
    writer.close()
    find = FileSource._check_format
    calls = []

    def while_resumed(self):
        calls.append(self)
        if len(calls) == 1:
            resumed = PredictionFileWriter(killed, mode="resume", expected_rows=20)
            add(resumed)
            resumed.finish()
            raise ValueError("half of a write was read")
        return find(self)

    superblock.repair(killed)  # as the writer does just before it opens the file
    monkeypatch.setattr(FileSource, "_check_format", while_resumed)
    with PredictionFile(killed) as reader:
        assert (reader.rows, reader.complete) == (400, True)


def test_a_view_that_was_opened_before_the_file_grew(path):
    """A file that is not marked may be resumed: what comes after its end is readable."""
    write(path, 300).close()
    reader = PredictionFile(path)
    resumed = PredictionFileWriter(path, mode="resume", expected_rows=20)
    add(resumed, 3000)
    reader.refresh()
    np.testing.assert_array_equal(reader["x"][:], np.arange(3300))
    resumed.close()
    reader.close()


def damaged_copy(path, name, entry):
    """A copy of a file that has a writer, with bytes of an entry changed."""
    copy = path.with_name("killed.h5")
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r", swmr=True, locking=False) as file:
        dataset = file[name]
        length = dataset.chunks[0]
        at = (entry - entry % length,) + (0,) * (dataset.ndim - 1)
        place = dataset.id.get_chunk_info_by_coord(at).byte_offset
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    content = bytearray(copy.read_bytes())
    content[place + entry % length * row_bytes] ^= 1
    copy.write_bytes(content)
    return copy


@pytest.mark.parametrize(("name", "entry"), [("p", 600), ("p", 1400), ("x", 1400)])
def test_damage_in_a_file_that_was_not_closed(name, entry, path):
    """A reader that meets rows which match no checksum warns once, and goes on."""
    writer = write(path, 1500)
    copy = damaged_copy(path, name, entry)
    writer.close()
    with PredictionFile(copy) as reader:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reader["p"][:500]
        with pytest.warns(UserWarning, match="was not closed.*mode='resume' predicts"):
            reader[name][entry]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(reader["p"][:]) == len(reader["x"][:]) == 1500


@pytest.mark.parametrize("end", ["kill", "close", "finish"])
def test_no_alarm_for_whole_files(end, path, recwarn):
    """Whole files give no warning, however they ended and however they are read."""
    writer = write(path, 1500)
    copy = path.with_name("copy.h5")
    if end != "kill":
        getattr(writer, end)()
    copy.write_bytes(path.read_bytes())
    with PredictionFile(copy) as reader:
        reader["p"][3], reader["p"][[700, 1]], reader["p"][::-3], reader["x"][1500:], reader["x"][:]
        list(reader.iter_batches(300))
    writer.close()
    assert not list(recwarn)


def test_no_alarm_beside_a_writer(path, recwarn):
    """Rows that come while a file is read give no warning."""
    writer = write(path, 100)
    with PredictionFile(path) as reader:
        for _ in range(20):
            add(writer)
            reader["p"][:], reader["x"][:]
            reader.refresh()
            reader["p"][-50:], reader["x"][:]
    writer.close()
    assert not list(recwarn)
