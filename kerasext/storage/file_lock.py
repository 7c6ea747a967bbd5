"""One writer at a time: a lock beside the file, held by a live process only."""

import contextlib
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no flock: there a second writer is not refused
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """An exclusive lock on `path`, taken on construction and gone with the process.

    HDF5's own lock won't do: a writer that others may read beside (SWMR) holds none.

    Args:
        path: Path of the file to lock; the lock is `path` with `.lock` appended.

    Raises:
        BlockingIOError: If another writer, in this process or another, holds the lock.
        PermissionError: If the folder is not writable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        while True:
            try:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise type(error)(
                    "The folder of `path` must be writable, for the file and for its lock. "
                    f"Received: path={str(path)!r} ({error.strerror})"
                ) from error
            try:
                self._take(path)
                if self._is_current():
                    break
            except BaseException:
                os.close(self._fd)
                raise
            os.close(self._fd)
        os.ftruncate(self._fd, 0)
        os.write(self._fd, str(os.getpid()).encode())

    def _take(self, path: Path) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._fd, 32, 0).decode(errors="replace") or "unknown"
            raise BlockingIOError(
                "Only one writer at a time may write a prediction file; wait for the other one or "
                f"choose another path. Received: path={str(path)!r}, held by process {holder}"
            ) from error

    def _is_current(self) -> bool:
        # The last holder may have removed the file between our opening and locking it.
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Removes the lock and its file; safe to call again."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):  # the folder itself may be gone by now
            self._path.unlink()
        if fcntl is not None:
            # A forked child shares the open file: closing alone would leave the lock with it.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1
