"""What else is at a path, or beside it, is left alone, and an error says what to do."""

import errno
import os
import stat

import h5py
import numpy as np
import pytest

from kerasext.common.atomic_file import atomic_file, export_target
from kerasext.shards import index_shards
from kerasext.storage import PredictionFile, PredictionFileWriter


def write(path, *, stop=10, **options):
    """Adds the rows until `stop`, and finishes the file."""
    writer = PredictionFileWriter(path, **options)
    writer.append({"labels": np.arange(writer.rows, stop)})
    writer.finish()


def rows_of(path):
    """The rows of a file, by plain h5py."""
    with h5py.File(path) as file:
        return file["labels"][:].tolist()


def test_a_part_of_somebody_else(path):
    """A file of the user's whose name ends in .part is not touched."""
    part = path.with_name(path.name + ".part")
    part.write_text("a download")
    write(path)
    assert (part.read_text(), rows_of(path)) == ("a download", list(range(10)))


@pytest.fixture(params=["pipe", "link to a pipe", "device"])
def node(request, tmp_path):
    """Something that is no regular file."""
    node = tmp_path / "node"
    os.mkfifo(node)
    if request.param == "device":
        node.unlink()
        try:
            os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes devices")
    if request.param == "link to a pipe":
        (tmp_path / "link").symlink_to(node)
        return tmp_path / "link"
    return node


@pytest.mark.parametrize("mode", ["x", "w", "a", "resume"])
def test_what_is_no_file_is_not_replaced(node, mode):
    """A pipe or a device is neither read nor replaced by a file."""
    before = os.lstat(node)[:2], sorted(os.listdir(node.parent))
    with pytest.raises(ValueError, match="must be a regular file"):
        PredictionFileWriter(node, mode=mode)
    assert (os.lstat(node)[:2], sorted(os.listdir(node.parent))) == before


def test_exports_replace_files_only(node, path):
    """Nor is it replaced by what is made from a prediction file."""
    write(path)
    with pytest.raises(ValueError, match="must be a regular file"):
        export_target(path, node)


def test_permissions_of_an_index_stay(path):
    """An index that is made anew has the permissions of the old one."""
    write(path)
    index = index_shards(path.parent)
    index.chmod(0o600)
    index_shards(path.parent)
    assert stat.S_IMODE(index.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_permissions_stay(path, tmp_path, mode):
    """A file that replaces another one has its permissions, whatever they are for new files."""
    write(path)
    path.chmod(mode)
    export = tmp_path / "export.csv"
    export.touch(mode)
    export.chmod(mode)
    seen = []
    old = os.umask(0o022)
    try:
        write(path, mode="w")
        with atomic_file(export):
            seen = [file.stat().st_mode for file in tmp_path.iterdir() if file != path]
    finally:
        os.umask(old)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {mode}
    assert set(map(stat.S_IMODE, seen)) == {mode}, "not even while it is written"


def test_permissions_stay_when_text_gets_wider(path):
    """So has a file that "resume" rewrites."""
    writer = PredictionFileWriter(path)
    writer.append({"ids": np.array(["a"])})
    writer.close()
    path.chmod(0o600)
    writer = PredictionFileWriter(path, mode="resume", dtypes={"ids": "S99"})
    writer.append({"ids": np.array(["b"])})
    writer.finish()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with PredictionFile(path) as predictions:
        assert predictions["ids"].dtype == "U99"


def test_a_name_that_somebody_else_has_taken(path):
    """A file that appears before the first step is not replaced, nor is "resume" recommended."""
    writer = PredictionFileWriter(path)
    path.write_text("somebody else's")
    with pytest.raises(FileExistsError, match="`mode='x'` writes a new file") as caught:
        writer.append({"labels": np.arange(3)})
    assert "resume" not in str(caught.value)
    writer.close()
    assert path.read_text() == "somebody else's"


@pytest.mark.parametrize("other", [False, True])
def test_a_file_that_is_gone(path, other):
    """A file that was taken away can't be resumed, and the error does not say so."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.arange(3)})
    path.rename(path.with_name("moved.h5"))
    if other:
        path.write_text("somebody else's")
    with pytest.raises(FileNotFoundError, match="move it back, or predict again") as caught:
        writer.commit()
    assert "resume" not in str(caught.value)
    writer.close()
    path.with_name("moved.h5").replace(path)
    write(path, mode="resume")
    assert rows_of(path) == list(range(10))


def test_nothing_to_resume(path, monkeypatch):
    """A disk that is full at the first step has left no rows to resume."""

    def fail(part, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", fail)
    writer = PredictionFileWriter(path)
    with pytest.raises(OSError, match="no rows are committed") as caught:
        writer.append({"labels": np.arange(3)})
    assert "mode=" not in str(caught.value)
    writer.close()
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("mode", ["a", "resume"])
def test_a_file_that_h5py_has_open(path, mode):
    """The error names what is in the way; when that is closed, the file can be written."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.arange(4)})
    (writer.finish if mode == "a" else writer.close)()
    with h5py.File(path), pytest.raises(BlockingIOError, match=r"close the `h5py\.File`"):
        write(path, mode=mode)
    with PredictionFile(path) as predictions:
        write(path, mode=mode)
        predictions.refresh()
        assert predictions.rows == 10
    assert rows_of(path) == list(range(10))
