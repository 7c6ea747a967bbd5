"""Writes that survive a loss of power."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def write_at(fd: int, content: bytes, offset: int) -> None:
    """Writes all bytes at a place of a file; one call of the system may write fewer.

    Raises:
        OSError: If the disk is full, or fails otherwise.
    """
    left = memoryview(content)
    while left:
        written = os.pwrite(fd, left, offset)
        if not written:
            raise OSError(f"the system wrote none of {len(left)} bytes at byte {offset}")
        left, offset = left[written:], offset + written


def sync_file(path: Path) -> None:
    """Waits until the disk has the content of a file."""
    # Windows syncs only what is open for writing. A file may have no permission for that.
    _sync(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Waits until the disk has the names of the files in a folder, as after a rename."""
    if sys.platform != "win32":  # which opens no folders
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
