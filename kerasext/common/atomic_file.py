"""Files that appear under their name when they are complete."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kerasext.common.durable import sync_file, sync_folder


@contextlib.contextmanager
def atomic_path(path: Path, *, hidden: Path | None = None, durable: bool = True) -> Iterator[Path]:
    """Makes an empty hidden file beside a path, and renames it to the path on success.

    The file that it replaces stays until then, and hands down its permissions. After an error the
    hidden file is removed.

    Args:
        path: Path of the file, without symbolic links.
        hidden: Path of the hidden file, in the same folder. What a killed process has left there
            is replaced, so the caller must hold a lock. Defaults to `None`: a name that no other
            process uses.
        durable: Bool. Whether the content and the name survive a loss of power after this returns.
            Defaults to `True`.

    Yields:
        Path of the hidden file, to be written and closed in the `with` block.

    Example:

    ```python
    with atomic_path(target) as hidden:
        hidden.write_text("all or nothing")
    ```
    """
    is_fixed = hidden is not None
    hidden = path.with_name(f".{uuid.uuid4().hex}.unfinished") if hidden is None else hidden
    try:
        if is_fixed:
            hidden.unlink(missing_ok=True)
        hidden.touch(exist_ok=False)
        # Not even the hidden file may be read by others. We ourselves must be able to write it.
        _copy_permissions(path, hidden, extra=stat.S_IWUSR)
        yield hidden
        _copy_permissions(path, hidden)
        if durable:
            sync_file(hidden)  # else a loss of power may leave the new name without its content
        hidden.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a hidden file for writing bytes, and renames it to a path on success.

    Args:
        path: Path of the file, without symbolic links; see `atomic_path`.

    Yields:
        The open file.
    """
    with atomic_path(path) as hidden, hidden.open("wb") as file:
        yield file


def check_replaceable(path: Path) -> None:
    """Checks that a new file may replace whatever is at a path.

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


def export_target(source: Path, path: str | os.PathLike[str]) -> Path:
    """Checks the path of a file that is made from a prediction file; returns it without links.

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


def _copy_permissions(source: Path, target: Path, *, extra: int = 0) -> None:
    """Gives a file the permissions and the group of another one, if that exists."""
    try:
        status = source.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(status.st_mode) | extra
    if target.stat().st_gid != status.st_gid:
        try:
            os.chown(target, -1, status.st_gid)
        except OSError:
            mode &= ~stat.S_IRWXG  # which would be those of another group
    with contextlib.suppress(OSError):  # of a file system without permissions
        target.chmod(mode)
