import errno
import fcntl
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from kerasext.storage import PredictionFileWriter
from kerasext.storage.writing import file_lock
from kerasext.storage.writing.file_lock import FileLock

HOLD = """
import sys
from pathlib import Path
from kerasext.storage.writing.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""
FORK = """
import os, sys
from pathlib import Path
from kerasext.storage.writing.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
if not os.fork():
    del lock
    os._exit(0)
os.wait()
print("locked", flush=True)
sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from kerasext.storage.writing.file_lock import FileLock
counter = Path(sys.argv[1])
left = 300
while left:
    try:
        lock = FileLock(counter)
    except BlockingIOError:
        continue
    counter.write_text(str(int(counter.read_text()) + 1))
    lock.release()
    left -= 1
"""


def start(code, path):
    """Another process that runs the code."""
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def holder(path):
    """Another process that holds the lock."""
    with start(HOLD, path) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_second_lock_in_this_process(path):
    """A locked file can't be locked again, and the error names the file and says "this process"."""
    lock = FileLock(path)
    with pytest.raises(BlockingIOError, match=f"{path.name}.*held by this process$"):
        FileLock(path)
    lock.release()


def test_second_lock_in_another_process(path, holder):
    """A file that another process has locked can't be locked, and the error names that process."""
    with pytest.raises(BlockingIOError, match=f"held by process {holder.pid}$"):
        FileLock(path)


def test_refusal_leaves_the_lock(path, holder):
    """However often a second writer is refused, the first keeps its lock."""
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            FileLock(path)
    assert holder.poll() is None


def test_release(path):
    """A released lock leaves nothing behind and can be taken again."""
    for _ in range(3):
        lock = FileLock(path)
        lock.release()
        assert list(path.parent.iterdir()) == []


def test_release_again(path):
    """A second release does nothing, least of all to the lock that another one took since."""
    first = FileLock(path)
    first.release()
    second = FileLock(path)
    first.release()
    with pytest.raises(BlockingIOError):
        FileLock(path)
    second.release()


def test_release_after_the_folder_is_gone(tmp_path):
    """Deleting the folder meanwhile doesn't keep a writer from ending."""
    folder = tmp_path / "job"
    folder.mkdir()
    lock = FileLock(folder / "a.h5")
    (folder / "a.h5.lock").unlink()
    folder.rmdir()
    assert lock.release() is None


def test_files_have_locks_of_their_own(tmp_path):
    """Two files in one folder can be written at once."""
    locks = [FileLock(tmp_path / name) for name in ("a.h5", "b.h5")]
    for lock in locks:
        lock.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_lock_of_a_killed_process(path, holder, end):
    """The lock of a process that was killed is no obstacle."""
    holder.send_signal(end)
    holder.wait()
    FileLock(path).release()
    assert list(path.parent.iterdir()) == []


def test_only_one_at_a_time(path):
    """Among processes that compete for a lock only one has it at any moment."""
    path.write_text("0")
    processes = [start(COUNT, path) for _ in range(3)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert path.read_text() == "900"


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_second_writer_in_this_process(path, mode):
    """A second writer is refused from the first moment on, before there is a file."""
    writer = PredictionFileWriter(path)
    with pytest.raises(BlockingIOError, match=r"held by this process$"):
        PredictionFileWriter(path, mode=mode)
    writer.close()
    PredictionFileWriter(path, mode=mode).close()


@pytest.mark.parametrize("mode", ["x", "w", "a"])
def test_second_writer_in_another_process(path, holder, mode):
    """A writer in another process is refused and changes nothing in the folder."""
    before = sorted(path.parent.iterdir())
    with pytest.raises(BlockingIOError, match=f"held by process {holder.pid}$"):
        PredictionFileWriter(path, mode=mode)
    assert sorted(path.parent.iterdir()) == before


def test_second_writer_through_a_link(path, tmp_path):
    """A file has one lock, whatever links and relative paths lead to it."""
    (tmp_path / "folder").symlink_to(tmp_path)
    link = tmp_path / "link.h5"
    link.symlink_to(path.name)
    writer = PredictionFileWriter(path)
    for other in (link, tmp_path / "folder" / path.name, tmp_path / "folder" / ".." / path):
        with pytest.raises(BlockingIOError):
            PredictionFileWriter(other)
    writer.close()


def test_refused_arguments_leave_no_lock(path):
    """A writer that could not be made locks nothing and leaves nothing behind."""
    path.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="must be HDF5"):
        PredictionFileWriter(path, mode="a")
    with pytest.raises(FileExistsError):
        PredictionFileWriter(path)
    assert list(path.parent.iterdir()) == [path]
    PredictionFileWriter(path, mode="w").close()


def without_locks(monkeypatch, number):
    """Locking fails as on a file system with this error; 0 is Windows, which has no `flock`."""

    def flock(fd, operation):
        raise OSError(number, os.strerror(number))

    fake = SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr(file_lock, "fcntl", fake if number else None)


def write(path):
    """Writes a complete file."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.arange(3)})
    writer.finish()
    assert os.listdir(path.parent) == [path.name]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["labels"], np.arange(3))


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524, 0])
def test_file_system_without_locks(path, monkeypatch, number):
    """Without locks a file is written all the same, and one warning says what that means."""
    without_locks(monkeypatch, number)
    with pytest.warns(UserWarning, match="another process.*would not be noticed") as warned:
        write(path)
    assert [str(path) in str(warning.message) for warning in warned] == [True]
    assert warned[0].filename == __file__


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EIO, 0])
@pytest.mark.parametrize("value", ["FALSE", "0"])
def test_locking_that_is_not_asked_for(path, monkeypatch, number, value):
    """HDF5's own variable switches off the warning, and the error where locking fails."""
    without_locks(monkeypatch, number)
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", value)
    write(path)


def test_locking_that_fails(path, monkeypatch):
    """Another error of locking names the file, and the variable that helps."""
    without_locks(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=f"HDF5_USE_FILE_LOCKING=FALSE.*{path.name}") as caught:
        PredictionFileWriter(path)
    assert caught.value.errno == errno.EIO


def test_second_writer_without_locks(path, monkeypatch):
    """A second writer in the same process is refused even where the file system has no locks."""
    without_locks(monkeypatch, errno.ENOSYS)
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
    lock = FileLock(path)
    with pytest.raises(BlockingIOError, match=r"held by this process$"):
        FileLock(path)
    lock.release()


def test_variable_leaves_locks_that_work(path, holder, monkeypatch):
    """A lock that another process holds is minded, whatever the variable says."""
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
    with pytest.raises(BlockingIOError, match=f"held by process {holder.pid}$"):
        FileLock(path)


def test_a_dropped_writer_holds_no_lock(path):
    """A writer that nobody holds any more is no obstacle for the next one."""
    writer = PredictionFileWriter(path)
    writer.append({"labels": np.arange(3)})
    del writer
    PredictionFileWriter(path, mode="resume").close()


def test_a_forked_process_leaves_the_lock(path):
    """A forked process that drops its copy of a lock does not take it from its parent."""
    with start(FORK, path) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError, match=f"held by process {process.pid}$"):
            FileLock(path)
        process.kill()


def test_a_lock_that_is_about_to_be_released(path, monkeypatch):
    """A writer waits for one that another thread is closing, and for no other."""
    first = FileLock(path)
    first.expect_release()
    monkeypatch.setattr(file_lock.time, "sleep", lambda _: first.release())
    FileLock(path).release()
