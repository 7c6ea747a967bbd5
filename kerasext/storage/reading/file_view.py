"""A file as HDF5 is to see it when it reads."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, NamedTuple

from kerasext.storage.format import superblock

_FAR = 2**62  # an end that no file reaches while it is open


class FileState(NamedTuple):
    """What a writer changes.

    Args:
        is_marked: Bool. Whether a writer has the file open, or had when it was killed.
        size: Int. Bytes.
        changed: Int. When it was last changed, in nanoseconds.
    """

    is_marked: bool
    size: int
    changed: int


class FileView(io.RawIOBase):
    """What h5py reads from, in place of a path: a file object that changes nothing.

    If h5py is given a path instead, HDF5 (1.10 to 2.0) gets in the way of readers and writers of
    one process:

    - All handles of a file share their caches, so a reader sees stale data (HDFGroup/hdf5#6374).
    - A file that is open for reading can't be opened for writing (HDFGroup/hdf5#1978).
    - A file that a writer has marked can only be opened in SWMR mode, also after a kill.
    - Bytes beyond the end of the file read as zeros.

    Behind a view, each handle stands alone, a marked file looks as if it was closed, and reading
    beyond the end raises an error.

    Args:
        path: Path of the file, or a descriptor of it, which the view then owns.

    Attributes:
        is_cut_short: Bool. Whether the file is shorter than it says.
        state_before: `FileState` at the last `look`.

    Raises:
        OSError: If the file can't be opened.
    """

    def __init__(self, path: Path | int) -> None:
        self._file: Any
        if isinstance(path, int):
            self._file = os.fdopen(path, "rb", buffering=0)
        else:
            self._file = path.open("rb", buffering=0)
        self._position = 0
        self.look()

    @property
    def size(self) -> int:
        """Bytes of the file now."""
        return os.fstat(self._file.fileno()).st_size

    def look(self) -> None:
        """Looks at the state of the file anew, for an h5py file that is opened after it."""
        self.state_before = self.state()
        block = superblock.parse(self.read_at(0, superblock.SIZE))
        size = self.size
        self.is_cut_short = block is not None and size < block.end
        # Even a file without a mark may grow: a writer that resumes clears the mark of the last one
        # before it sets its own.
        self._end = size if block is None else _FAR
        self._head = b"" if block is None else block.closed(self._end)

    def again(self) -> FileView:
        """Another view of the same file, whatever its path leads to by now."""
        return FileView(os.dup(self._file.fileno()))

    def state(self) -> FileState:
        """Looks at what tells whether a writer is at work."""
        block = superblock.parse(self.read_at(0, superblock.SIZE))
        status = os.fstat(self._file.fileno())
        is_marked = block is not None and block.is_marked
        return FileState(is_marked, status.st_size, status.st_mtime_ns)

    def read_at(self, offset: int, size: int) -> bytes:
        """So many bytes of the file itself, or fewer at its end."""
        content = bytearray(size)
        return bytes(content[: self._fill(memoryview(content), offset)])

    def close(self) -> None:
        """Closes the file; safe to call again."""
        super().close()
        self._file.close()

    # What h5py asks for, always with its lock held.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place of the file."""
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def readinto(self, target: Any) -> int:
        """Fills the buffer with what stands at the place, and zeros where the file ends in it.

        Raises:
            OSError: If the file ends before.
        """
        buffer, start = memoryview(target), self._position
        count = self._fill(buffer, start) if start < self.size else 0
        if not count and buffer.nbytes:
            raise OSError(f"it ends before byte {start}")
        buffer[count:] = bytes(len(buffer) - count)
        head = self._head[start : start + len(buffer)]
        buffer[: len(head)] = head
        return len(buffer)

    def _fill(self, buffer: memoryview, offset: int) -> int:
        filled = 0
        while filled < len(buffer):  # one call reads 2 GiB at most
            count = _read_at(self._file.fileno(), buffer[filled:], offset + filled)
            if not count:
                break
            filled += count
        return filled


def _read_at(fd: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):  # a forked process shares the position that a file has of its own
        return os.preadv(fd, [buffer], offset)
    os.lseek(fd, offset, os.SEEK_SET)
    content = os.read(fd, len(buffer))
    buffer[: len(content)] = content
    return len(content)
