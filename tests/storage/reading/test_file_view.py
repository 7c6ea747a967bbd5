import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter
from kerasext.storage.reading.file_view import FileView


@pytest.fixture
def writer(path):
    """A writer with 1,000 committed rows, and its file marked as being written."""
    writer = PredictionFileWriter(path)
    writer.append({"x": np.arange(1000.0)})
    writer.commit()
    yield writer
    writer.close()


def test_a_marked_file_opens(writer, path):
    """What plain h5py refuses while it is written, it reads through a view."""
    with pytest.raises(OSError, match="open file"):
        h5py.File(path)
    view = FileView(path)
    assert view.state().is_marked
    with h5py.File(view, "r") as file:
        np.testing.assert_array_equal(file["x"][:1000], np.arange(1000))
    view.close()


def test_views_share_nothing(writer, path):
    """A file that was opened later knows of more rows, and the earlier one still of its own."""
    views = [FileView(path)]
    with h5py.File(views[0], "r") as first:
        assert first["x"].shape == (1000,)
        writer.append({"x": np.arange(1000.0, 300_000)})
        writer.commit()
        views.append(FileView(path))
        with h5py.File(views[1], "r") as second:
            np.testing.assert_array_equal(second["x"][:300_000], np.arange(300_000))
        assert first["x"].shape == (1000,)
        np.testing.assert_array_equal(first["x"][:], np.arange(1000))
    for view in views:
        view.close()


def test_nothing_is_written(writer, path):
    """Reading through a view changes no byte, though the view shows others than there are."""
    before = path.read_bytes()
    view = FileView(path)
    with h5py.File(view, "r"):
        view.seek(0)
        head = bytearray(48)
        view.readinto(head)
        assert bytes(head) != before[:48]
        assert not view.writable()
    view.close()
    assert path.read_bytes() == before


@pytest.mark.parametrize(("start", "size"), [(0, 10), (7, 3), (95, 5), (98, 10), (0, 200)])
def test_bytes_of_a_foreign_file(path, start, size):
    """What is no HDF5 shows as it is, with zeros where a read goes over its end."""
    content = bytes(range(1, 101))
    path.write_bytes(content)
    with FileView(path) as view:
        state = view.state()
        assert (state.is_marked, view.is_cut_short, state.size) == (False, False, 100)
        assert view.seek(start) == view.tell() == start
        buffer = bytearray(b"x" * size)
        assert view.readinto(buffer) == size
        assert buffer == content[start : start + size].ljust(size, b"\0")
        assert view.read_at(start, size) == content[start : start + size]


@pytest.mark.parametrize("start", [100, 1000, 2**63])
def test_beyond_the_end(path, start):
    """A read that begins beyond the end is an error that says where the file ends."""
    path.write_bytes(bytes(100))
    with FileView(path) as view:
        view.seek(start)
        with pytest.raises(OSError, match=f"ends before byte {start}"):
            view.readinto(bytearray(10))


def test_a_file_that_was_cut(writer, path):
    """A file that is shorter than its superblock says shows as cut short."""
    writer.finish()
    whole = path.read_bytes()
    with FileView(path) as view:
        assert not view.is_cut_short
    path.write_bytes(whole[:-4096])
    with FileView(path) as view:
        assert (view.is_cut_short, view.state().is_marked) == (True, False)
