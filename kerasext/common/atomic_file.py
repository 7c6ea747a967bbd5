"""Files that appear under their name when they are whole."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kerasext.common.durable import replace_durably


def check_replaceable(path: Path) -> None:
    """Checks that a new file may take the place of what is at a path.

    Raises:
        ValueError: If that is something else than a regular file, such as a device or a pipe.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(
                "`path` must be a regular file, or one that does not exist yet; choose another "
                f"path. Received: path={str(path)!r}, which is {stat.filemode(mode)}"
            )


def take_permissions(part: Path, path: Path) -> None:
    """Gives a file the permissions of the one that it is to replace, if there is one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(status.st_mode)
    if part.stat().st_gid != status.st_gid:
        try:
            os.chown(part, -1, status.st_gid)
        except OSError:
            mode &= ~stat.S_IRWXG  # which would be those of another group
    with contextlib.suppress(OSError):  # of a file system without permissions
        part.chmod(mode)


def file_made_from(source: Path, path: str | os.PathLike[str]) -> Path:
    """Where to write what is made from a prediction file, links resolved.

    Args:
        source: Path of the prediction file.
        path: String or path-like. The file to write.

    Raises:
        FileNotFoundError: If the folder of `path` does not exist.
        IsADirectoryError: If `path` is a folder.
        ValueError: If `path` is the prediction file, or no regular file.
    """
    # Through a link the file it leads to is written.
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"`path` must not be a folder. Received: path={os.fspath(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"The folder of `path` must exist; make it first. Received: path={os.fspath(path)!r}"
        )
    check_replaceable(target)
    if target.exists() and target.samefile(source):
        raise ValueError(
            "`path` must not be the file that is read; choose another one. "
            f"Received: path={os.fspath(path)!r}"
        )
    return target


@contextlib.contextmanager
def renamed_when_written(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that gets its name, and replaces one that is there, if nothing is raised.

    Args:
        path: Path. Its name.

    Yields:
        The file, open for writing bytes.
    """
    unfinished = path.with_name(f".{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            take_permissions(unfinished, path)
            yield file
            # Else a loss of power may leave the new name without what it names.
            file.flush()
            os.fsync(file.fileno())
        replace_durably(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
