"""The files that an index is of: looked at anew each time they are opened, and few open at once."""

from __future__ import annotations

import errno
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.rows_per_chunk import rows_per_chunk
from kerasext.storage.format.damage import DamagedFileError
from kerasext.storage.reading.row_order import RowOrder
from kerasext.storage.reading.shard_file import ShardFacts, ShardFile

_MOST_OPEN = 128  # each keeps a chunk of every output that was read from it
_MOST_SHOWN = 10


class _Closable(Protocol):
    def close(self) -> None: ...


_File = TypeVar("_File", bound=_Closable)


def check_name(name: str) -> None:
    """Raises `ValueError` unless a name can only be that of a file in the folder."""
    if not name or name in {".", ".."} or set(name) & {"/", "\\", "\0"}:
        raise ValueError(f"{name!r} is not the name of a file beside the index")


def checksum(tables: Iterable[np.ndarray]) -> int:
    """The CRC-32 of the tables of an index, of which one changed number leads to other rows."""
    return zlib.crc32(
        b"".join(table.astype(table.dtype.newbyteorder("<")).tobytes() for table in tables)
    )


def listed(problems: Sequence[str]) -> str:
    """The first problems of many, as one text."""
    more = len(problems) - _MOST_SHOWN
    return "; ".join(problems[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _changed(problems: Sequence[str], folder: Path) -> DamagedFileError:
    """The error for shards that are not those that an index was made of."""
    return DamagedFileError(
        "The shards of an index must stay as they were when it was made; put them back, or make "
        "the index anew with `kerasext.shards.index_shards`. "
        f"Received: in {str(folder)!r} {listed(problems)}"
    )


class Shards(Generic[_File]):
    """Prediction files in one folder, by number.

    Args:
        folder: Path of the folder.
        names: Sequence of their names.
        facts: Sequence of the `ShardFacts` of each.
        opener: Callable from path and facts to a file, with `close`.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        facts: Sequence[ShardFacts],
        opener: Callable[[Path, ShardFacts], _File],
    ) -> None:
        self.names, self.facts = names, facts
        self._folder = folder
        self._opener = opener
        self._open: OrderedDict[int, _File] = OrderedDict()

    def __getitem__(self, number: int) -> _File:
        """Opens a shard, or returns it if it is open.

        Raises:
            ValueError: If it is missing, changed or unreadable, naming it.
        """
        while number not in self._open:
            name = self.names[number]
            try:
                self._open[number] = self._opener(self._folder / name, self.facts[number])
            except (OSError, ValueError) as error:
                # The process may have fewer files open than there are to be here.
                if getattr(error, "errno", None) != errno.EMFILE or not self._open:
                    raise _changed([f"{name!r}: {error}"], self._folder) from error
                self._open.popitem(last=False)[1].close()
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(number)
        return self._open[number]

    def check(self, look: Callable[[Path, ShardFacts], None]) -> None:
        """Looks at all shards.

        Args:
            look: Callable that raises `OSError` or `ValueError` if something is wrong with one.

        Raises:
            ValueError: If it does so, naming the shards.
        """
        problems = []
        for name, facts in zip(self.names, self.facts, strict=True):
            try:
                look(self._folder / name, facts)
            except (OSError, ValueError) as error:
                problems.append(f"{name!r}: {error}")
        if problems:
            raise _changed(problems, self._folder)

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
        shards: `Shards` of `ShardFile`.
        runs: `RowOrder`.
    """

    def __init__(self, dataset: h5py.Dataset, shards: Shards[ShardFile], runs: RowOrder) -> None:
        self.spec = DenseSpec.of_dataset(dataset)
        self.name, self.attrs, self.dtype = dataset.name, dataset.attrs, dataset.dtype
        self.shape: tuple[int, ...] = (runs.rows, *dataset.shape[1:])
        self.chunks = (rows_per_chunk(self.spec, runs.rows), *dataset.shape[1:])
        self._shards = shards
        self._bytes = sum(facts.bytes for facts in shards.facts)
        self._runs = runs

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        wanted = range(*rows.indices(self.shape[0]))
        pieces = list(self._runs.pieces(wanted))
        if len(wanted) * self.spec.row_bytes > self._bytes:
            # Compressed; or a claim, for which no memory is asked before each shard makes it, too.
            for shard in {piece.shard for piece in pieces}:
                self._shards[shard].check(self.spec)
        if not rest and wanted.step == 1 and self.spec.dtype.kind != "S":
            values = np.empty((len(wanted), *self.shape[1:]), self.spec.dtype)
            for shard, part, places in pieces:
                self._shards[shard].read_into(values[places], self.spec, part)
            return values
        if len(pieces) == 1:
            shard, part, _ = pieces[0]
            found = self._shards[shard].read(self.spec, (part, *rest))
            return found.astype(self.spec.dtype, copy=False)
        none = self._shards[0].read(self.spec, (slice(0, 0), *rest))
        values = np.empty((len(wanted), *none.shape[1:]), self.spec.dtype)
        for shard, part, places in pieces:
            values[places] = self._shards[shard].read(self.spec, (part, *rest))
        return values
