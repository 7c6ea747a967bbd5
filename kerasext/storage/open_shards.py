"""The files that an index is of: looked at anew each time they are opened, and few open at once."""

from __future__ import annotations

import contextlib
import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasext.storage.open_file import OpenFile
from kerasext.storage.row_runs import RowRuns

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

_MOST_OPEN = 32  # each keeps a chunk of every output that was read from it
_MOST_SHOWN = 10


def check_name(name: str) -> None:
    """Raises `ValueError` unless a name can only be that of a file in the folder."""
    if not name or name in {".", ".."} or set(name) & {"/", "\\", "\0"}:
        raise ValueError(f"{name!r} is not the name of a file beside the index")


def open_shard(path: Path) -> OpenFile:
    """Opens a complete prediction file that is no link to another place.

    Raises:
        ValueError: If it is missing, something else, incomplete, or damaged.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise ValueError("it is missing") from None
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder, a link or a device, and must be a file in this place")
    file = OpenFile(path)
    if not file.is_complete:
        rows = int(file.record["rows"])
        file.close()
        raise ValueError(f"it is unfinished, with {rows} rows; mode='resume' finishes it")
    return file


def facts_of(file: OpenFile) -> tuple[int, int, int]:
    """Rows, bytes, and the checksum of the record, which has the time of the last commit."""
    size = file.path.stat().st_size
    return int(file.record["rows"]), size, int(file.record["checksum"])


def check_open_files(shards: int, path: Path) -> None:
    """Raises `ValueError` if this process may not have all shards open at once, as HDF5 has."""
    if resource is None:
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    free = most - len(list(Path("/dev/fd").iterdir()))
    if most != resource.RLIM_INFINITY and shards > free:
        raise ValueError(
            "A process must be able to open all shards of an index at once, for HDF5 reads fill "
            "values where it is not; raise the limit with `ulimit -n`, or copy the rows to one "
            f"file with `kerasext.shards.merge_shards`. Received: path={str(path)!r} of {shards} "
            f"shards, with {max(free, 0)} more files to open at most"
        )


def listed(problems: Sequence[str]) -> str:
    """The first problems of many, as one text."""
    more = len(problems) - _MOST_SHOWN
    return "; ".join(problems[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def changed(problems: Sequence[str], folder: Path) -> ValueError:
    """The error for shards that are not those that an index was made of."""
    return ValueError(
        "The shards of an index must stay as they were when it was made; put them back, or make "
        "the index anew with `kerasext.shards.index_shards`. "
        f"Received: in {str(folder)!r} {listed(problems)}"
    )


class OpenShards:
    """Prediction files in one folder, by number.

    Args:
        folder: Path of the folder.
        names: Sequence of their names.
        facts: Array of shape `(shards, 3)`, what `facts_of` is to say of each.
    """

    def __init__(self, folder: Path, names: Sequence[str], facts: np.ndarray) -> None:
        self.names = names
        self._folder = folder
        self._facts = facts
        self._open: OrderedDict[int, OpenFile] = OrderedDict()

    def __getitem__(self, number: int) -> OpenFile:
        """Opens a shard, or returns it if it is open.

        Raises:
            ValueError: If it is missing, changed or unreadable, naming it.
        """
        file = self._open.get(number)
        if file is None:
            path = self._folder / self.names[number]
            try:
                file = self._opened(path, number)
            except (OSError, ValueError) as error:
                raise changed([f"{path.name!r}: {error}"], self._folder) from error
            self._open[number] = file
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return file

    def check(self, look: Callable[[OpenFile], None]) -> None:
        """Opens all shards, and looks at each.

        Args:
            look: Callable that raises `ValueError` if something is wrong with a shard.

        Raises:
            ValueError: If shards are missing, changed or unreadable, naming them.
        """
        problems = []
        for number, name in enumerate(self.names):
            try:
                file = self._opened(self._folder / name, number)
                with contextlib.closing(file):
                    look(file)
            except (OSError, ValueError) as error:
                problems.append(f"{name!r}: {error}")
        if problems:
            raise changed(problems, self._folder)

    def _opened(self, path: Path, number: int) -> OpenFile:
        file = open_shard(path)
        found, expected = facts_of(file), tuple(self._facts[number].tolist())
        if found != expected:
            file.close()
            raise ValueError(
                "it has changed: rows, bytes and checksum of the record are "
                f"{found}, and were {expected}"
            )
        return file

    def close(self) -> None:
        """Closes the files; safe to call again."""
        while self._open:
            self._open.popitem()[1].close()


class ShardedRows:
    """An output whose rows are in several files, read as an h5py dataset is.

    HDF5 would read fill values for what it does not find, and dies of a virtual dataset in a file
    that a Python object gives it.

    Args:
        dataset: The h5py dataset of the index, whose attributes, dtype and row shape hold.
        name: String. The output.
        shards: `OpenShards`.
        runs: `RowRuns`.
        chunk_rows: Int. Rows that are read at once where single ones are wanted.
    """

    def __init__(
        self,
        dataset: h5py.Dataset,
        name: str,
        shards: OpenShards,
        runs: RowRuns,
        chunk_rows: int,
    ) -> None:
        self.name = name
        self.attrs = dataset.attrs
        self.dtype = dataset.dtype
        self.shape: tuple[int, ...] = (runs.rows, *dataset.shape[1:])
        self.chunks = (chunk_rows, *self.shape[1:])
        self._shards = shards
        self._runs = runs

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        wanted = range(*rows.indices(self.shape[0]))
        values = None
        for shard, part, places in self._runs.pieces(wanted):
            found = self._shards[shard].read(self.name, (part, *rest))
            if values is None:
                dtype = np.dtype(self.dtype.str)
                if len(wanted) == len(found) and found.dtype == dtype:
                    return found
                values = np.empty((len(wanted), *found.shape[1:]), dtype)
            values[places] = found
        if values is None:
            return self._shards[0].read(self.name, (slice(0, 0), *rest)).astype(self.dtype.str)
        return values
