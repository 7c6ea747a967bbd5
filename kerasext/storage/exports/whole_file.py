"""Files that appear under their name when they are whole."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, source: Path) -> Iterator[BinaryIO]:
    """Opens a file to write, which replaces the one at a path at the end.

    After an error that one stays as it was.

    Args:
        path: String or path-like. The file.
        source: Path. The file that is read, which must be another one.

    Yields:
        The file, open for writing.

    Raises:
        FileNotFoundError: If the folder of `path` does not exist.
        IsADirectoryError: If `path` is a folder.
        ValueError: If `path` is the file that is read.
    """
    target = _target(path, source)
    unfinished = target.with_name(f".{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            yield file
            # Else a loss of power may leave the new name without what it names.
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _target(path: str | os.PathLike[str], source: Path) -> Path:
    # Through a link the file it leads to is written.
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"`path` must not be a folder. Received: path={os.fspath(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"The folder of `path` must exist; make it first. Received: path={os.fspath(path)!r}"
        )
    if target.exists() and target.samefile(source):
        raise ValueError(
            "`path` must not be the file that is read; choose another one. "
            f"Received: path={os.fspath(path)!r}"
        )
    return target
