"""Which file is at a path, and how much of it is safe."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kerasext.storage import PredictionFile


class FileState(NamedTuple):
    """Which file is at a path, how many rows are safe in it, and whether that is all."""

    identity: tuple[int, int] | None
    rows: int
    complete: bool


def file_state(path: Path) -> FileState:
    """The state of a file; a missing file has no rows."""
    try:
        status = path.stat()
        with PredictionFile(path) as predictions:
            rows, complete = predictions.rows, predictions.complete
    except (OSError, ValueError, ImportError):
        return FileState(_identity(path), 0, False)
    return FileState((status.st_dev, status.st_ino), rows, complete)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
