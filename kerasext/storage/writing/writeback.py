"""Letting the disk begin before anybody waits for it."""

import ctypes
import sys

_START = 2  # SYNC_FILE_RANGE_WRITE of Linux

# Python has no function for it. Other systems are left to begin when they please.
_sync_file_range = (
    getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None
)


def start_writeback(fd: int) -> None:
    """Has the operating system send what was written to the disk, and does not wait for it.

    Left to itself it would gather for half a minute what `fsync` then waits for at once.

    Args:
        fd: Int. Descriptor of the file.
    """
    if _sync_file_range is not None:  # a hint: what goes wrong, `fsync` will tell
        _sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _START)
