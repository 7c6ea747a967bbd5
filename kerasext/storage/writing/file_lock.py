"""One writer at a time: a lock file beside the file, which goes with the process."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import warnings
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no `flock`
    fcntl = None  # type: ignore[assignment]

LOCK_SUFFIX = ".lock"

# Lustre without `-o flock` raises the first, NFS without its lock daemon the second, some FUSE file
# systems the third. The last is ENOTSUPP of the Linux kernel, which has no name in `errno`.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, 524}
_PAUSE = 0.01  # seconds between two looks at a holder that is closing


class _Holder:
    """The holder of a lock in this process."""

    is_closing = False


# The process is part of the key, because a forked one inherits the dictionary and holds no lock.
_holders: dict[tuple[int, Path], _Holder] = {}


class FileLock:
    """An exclusive lock on a path, taken on construction; the death of the process releases it.

    HDF5's own lock would not do: HDF5 removes it from a file that is written in SWMR mode.

    On a file system without locks, and on Windows, only a second writer in this process is noticed,
    and a warning says so. If the environment variable `HDF5_USE_FILE_LOCKING` is `FALSE`, there is
    no warning, and a failure to lock raises no error.

    Args:
        path: Path of the file to lock. The lock file has the same name with `.lock` appended.

    Raises:
        BlockingIOError: If another writer, in this process or another, holds the lock.
        OSError: If the lock can't be taken for another reason.
        PermissionError: If the folder is not writable.
    """

    _fd = -1

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + LOCK_SUFFIX)
        self._key = (os.getpid(), self._path)
        self._holder = _Holder()
        self._claim_in_process(path)
        try:
            self._lock_file(path)
        except BaseException:
            del _holders[self._key]
            raise

    def expect_release(self) -> None:
        """Announces that another thread is about to release it; the next writer waits for that."""
        self._holder.is_closing = True

    def release(self) -> None:
        """Removes the lock and its file; safe to call again."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if self._is_locked:
                self._remove()  # before it is unlocked: afterwards it may be another one's
                # A forked child shares the open file: closing alone would leave the lock with it.
                fcntl.flock(fd, fcntl.LOCK_UN)
                os.close(fd)
            else:
                os.close(fd)
                self._remove()  # Windows removes no open file
        finally:
            del _holders[self._key]

    def _claim_in_process(self, path: Path) -> None:
        """Makes this the one holder in the process; waits for another one that is closing."""
        while (other := _holders.setdefault(self._key, self._holder)) is not self._holder:
            if not other.is_closing:
                raise BlockingIOError(
                    "Only one writer at a time may write a prediction file; close the other one, "
                    "which a `with` statement does, or choose another path. "
                    f"Received: path={str(path)!r}, held by this process"
                )
            time.sleep(_PAUSE)

    def _lock_file(self, path: Path) -> None:
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise type(error)(
                    "The folder of `path` must be writable, for the file and for its lock. "
                    f"Received: path={str(path)!r} ({error.strerror})"
                ) from error
            try:
                self._is_locked = _try_flock(fd, path)
                if self._is_current(fd):
                    break
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
        self._fd = fd
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())

    def _is_current(self, fd: int) -> bool:
        # The last holder may have removed the file between our opening and locking it.
        try:
            return os.path.samestat(self._path.stat(), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _remove(self) -> None:
        with contextlib.suppress(OSError):  # the folder itself may be gone by now
            self._path.unlink()

    def __del__(self) -> None:
        # A writer was dropped without `close`. In a forked process the lock is the parent's.
        if self._fd >= 0 and os.getpid() == self._key[0]:
            self.release()


def _try_flock(fd: int, path: Path) -> bool:
    """Locks an open file; returns `False`, with a warning, if the file system has no locks."""
    is_asked_for = os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() not in {"FALSE", "0"}
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError as error:
        holder = os.pread(fd, 32, 0).decode(errors="replace") or "unknown"
        raise BlockingIOError(
            "Only one writer at a time may write a prediction file; wait for the other one or "
            f"choose another path. Received: path={str(path)!r}, held by process {holder}"
        ) from error
    except OSError as error:
        if is_asked_for and error.errno not in _NO_LOCKS:
            raise OSError(
                error.errno,
                "The file must be locked while it is written; set the environment variable "
                "HDF5_USE_FILE_LOCKING=FALSE to write it without a lock. "
                f"Received: path={str(path)!r}, {error}",
            ) from error
    if is_asked_for:
        warnings.warn(
            "The file system has no locks, so that another process that writes to the same file "
            "would not be noticed; set the environment variable HDF5_USE_FILE_LOCKING=FALSE if "
            f"there is none. Received: path={str(path)!r}",
            stacklevel=5,
        )
    return False
