"""The shards of an index: opened on demand, few at a time, each checked when it is opened."""

from __future__ import annotations

import errno
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kerasext.storage.format.commit_record import RECORD_DTYPE, CallState
from kerasext.storage.format.damage import DamagedFileError
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.file_view import FileView

_MOST_OPEN = 128  # each keeps a chunk of every output that was read from it
_MOST_SHOWN = 10


class ShardFacts(NamedTuple):
    """What tells a complete prediction file from others.

    Args:
        rows: Int. Its rows.
        bytes: Int. Size of the file.
        checksum: Int. That of its commit record, which has the time of the last commit.
        record: Int. The byte at which the record begins.
    """

    rows: int
    bytes: int
    checksum: int
    record: int


class Shards:
    """Several prediction files of one folder.

    Args:
        folder: Path of the folder.
        names: Sequence of strings, the names of the files.
        facts: Sequence of `ShardFacts`, what they must be.
    """

    def __init__(self, folder: Path, names: Sequence[str], facts: Sequence[ShardFacts]) -> None:
        self.folder, self.names, self.facts = folder, names, facts
        self._open: OrderedDict[int, FileSource] = OrderedDict()

    def __reduce__(self) -> tuple[Any, ...]:
        return Shards, (self.folder.absolute(), self.names, self.facts)

    def __getitem__(self, number: int) -> FileSource:
        """Opens a shard, or returns it if it is open.

        Raises:
            ValueError: If it is missing, changed or unreadable, naming it.
        """
        while number not in self._open:
            path, facts = self.folder / self.names[number], self.facts[number]
            try:
                view = view_of(path, facts)
                self._open[number] = FileSource(path, view, record_offset=facts.record)
            except (OSError, ValueError) as error:
                # The process may have fewer files open than there are to be here.
                if getattr(error, "errno", None) != errno.EMFILE or not self._open:
                    raise _changed([f"{path.name!r}: {error}"], self.folder) from error
                self._open.popitem(last=False)[1].close()
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]

    def check(self, look: Callable[[Path], None] | None = None) -> None:
        """Checks that all shards are there and unchanged.

        Args:
            look: Callable that takes the path of one, and raises `OSError` or `ValueError` if
                something else is wrong with it. Defaults to `None`.

        Raises:
            ValueError: If something is wrong, naming the shards.
        """
        self.close()  # the process may have no more files open than there are here
        problems = []
        for name, facts in zip(self.names, self.facts, strict=True):
            try:
                view_of(self.folder / name, facts).close()
                if look is not None:
                    look(self.folder / name)
            except (OSError, ValueError) as error:
                problems.append(f"{name!r}: {error}")
        if problems:
            raise _changed(problems, self.folder)

    def close(self) -> None:
        """Closes the files; safe to call again."""
        while self._open:
            self._open.popitem()[1].close()


def open_shard(path: Path) -> FileSource:
    """Opens a complete prediction file that is no link to another place.

    Raises:
        ValueError: If it is missing, something else, incomplete, or damaged.
    """
    _check_is_file(path)
    file = FileSource(path)
    if not file.state.complete:
        file.close()
        raise ValueError(
            f"it is unfinished, with {file.state.rows} rows; mode='resume' finishes it"
        )
    return file


def facts_of(file: FileSource) -> ShardFacts:
    """The facts of a complete file."""
    return ShardFacts(file.state.rows, file.size, file.state.checksum, file.record_offset)


def view_of(path: Path, facts: ShardFacts) -> FileView:
    """Opens a file if it is the one that has these facts.

    Raises:
        OSError: If it can't be opened.
        ValueError: If it is missing or another one.
    """
    _check_is_file(path)
    view = FileView(path)
    try:
        _check_unchanged(view, facts)
    except BaseException:
        view.close()
        raise
    return view


def check_shard_name(name: str) -> None:
    """Raises `ValueError` unless a name can only be that of a file in the folder."""
    is_plain = name not in {"", ".", ".."} and not set(name) & {"/", "\\", "\0"}
    if not is_plain or Path(name).name != name:  # on Windows "c:name" is in another folder
        raise ValueError(f"{name!r} is not the name of a file beside the index")


def first_problems(problems: Sequence[str]) -> str:
    """The first problems of many, as one text."""
    more = len(problems) - _MOST_SHOWN
    return "; ".join(problems[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _check_unchanged(view: FileView, facts: ShardFacts) -> None:
    try:
        state = CallState.parse(view.read_at(facts.record, RECORD_DTYPE.itemsize))
    except ValueError as error:
        raise ValueError(f"it has changed: {error}") from error
    found = (state.rows, view.size, state.checksum)
    if found != facts[:3] or not state.complete:
        raise ValueError(
            f"it has changed: rows, bytes and checksum are {found}, and were {tuple(facts[:3])}"
        )


def _check_is_file(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise ValueError("it is missing") from None
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder, a link or a device, and must be a file in this place")


def _changed(problems: Sequence[str], folder: Path) -> DamagedFileError:
    """The error for shards that are not those that an index was made of."""
    return DamagedFileError(
        "The shards of an index must stay as they were when it was made; put them back, or predict "
        "them again and make the index anew with `kerasext.shards.index_shards`. "
        f"Received: folder={str(folder)!r}, in which {first_problems(problems)}"
    )
