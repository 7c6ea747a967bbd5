"""The files that this process is writing.

HDF5 shares what it knows of a file between all who have it open in one process. A reader beside the
writer has been seen to break it: `H5Dwrite_chunk` fails, or the process dies (HDF5 1.14.6).
"""

import os
from pathlib import Path

_written_here: set[Path] = set()


def add(path: Path) -> None:
    """Remembers that this process begins to write a file."""
    _written_here.add(path)


def discard(path: Path) -> None:
    """Forgets a file that was closed."""
    _written_here.discard(path)


def check_elsewhere(path: Path) -> None:
    """Raises `BlockingIOError` if this process is writing the file."""
    if Path(os.path.realpath(path)) in _written_here:
        raise BlockingIOError(
            "A process can't read a prediction file while it writes it; read it from another "
            f"process, or when it was closed. Received: path={str(path)!r}"
        )
