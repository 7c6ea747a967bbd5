import os
import signal
import subprocess
import sys

import pytest

from kerasext.storage import PredictionFileWriter
from kerasext.storage.file_lock import FileLock

HOLD = """
import sys
from pathlib import Path
from kerasext.storage.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from kerasext.storage.file_lock import FileLock
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
    """A locked file can't be locked again, and the error names this process and the file."""
    lock = FileLock(path)
    with pytest.raises(BlockingIOError, match=f"{path.name}.*held by process {os.getpid()}$"):
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
    with pytest.raises(BlockingIOError, match=f"held by process {os.getpid()}$"):
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
