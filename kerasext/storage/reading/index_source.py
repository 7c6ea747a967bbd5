"""A prediction file, or an index of several, that is open for reading."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.format import links
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.format.layout import IDS, MOST_RUNS, SHARD_CHECKSUM, SHARD_TABLES, SHARDS
from kerasext.storage.reading.dataset_checks import CheckedDatasets
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.file_view import FileView
from kerasext.storage.reading.index_heaps import check_heaps
from kerasext.storage.reading.row_order import RowOrder
from kerasext.storage.reading.shard_file import ShardFacts, ShardFile, open_shard, view_of
from kerasext.storage.reading.shards import ShardedRows, Shards, check_name, checksum

_BLOCK_ROWS = 65536


class IndexSource(FileSource):
    """The checked content of a prediction file, or of the files that an index names.

    Whether those are the ones that it was made of is looked at when it is opened. No file is opened
    for it but those, and only beside it.

    Args:
        path: Path of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As of `FileSource`; or if files of the index are missing, changed or unreadable.
    """

    reads_indexes = True
    _stay = FileSource._stay | {"_has_warned", "_looked_at"}

    def __init__(self, path: Path, view: FileView | None = None) -> None:
        self._shards: Shards[ShardFile] | None = None
        self._tables: list[np.ndarray] = []
        self._shard_ids: ShardedRows | None = None
        self._has_warned = False
        self._looked_at: set[tuple[str, int]] = set()  # chunks of a file that was not closed
        super().__init__(path, view)

    def read(self, name: str, key: Any) -> np.ndarray:
        """As of `FileSource`; warns once if rows of a file that was not closed are damaged."""
        with self._lock:
            values = super().read(name, key)
            if not (self.was_closed or self.is_index or self._has_warned):
                rows = key[0] if isinstance(key, tuple) else key
                if self._is_damaged(name, range(*rows.indices(self.lengths[name]))):
                    self._has_warned = True
                    warnings.warn(
                        f"The file was not closed, as after a loss of power, and rows of {name!r} "
                        "do not match their checksums; mode='resume' predicts them again. "
                        f"Received: path={str(self.path)!r}",
                        stacklevel=5,
                    )
        return values

    def _is_damaged(self, name: str, rows: range) -> bool:
        """Whether chunks that have some of these rows, and were not looked at, are damaged."""
        if not rows:
            return False
        length = self.datasets[name].chunks[0]
        full = self.lengths[name] // length
        for number in range(rows[0] // length, rows[-1] // length + 1):
            # The last chunk is looked at once, together with those of all outputs.
            key = (name, number) if number < full else ("", 0)
            if key in self._looked_at:
                continue
            is_sound = (
                self._matches(name, number) if number < full else self.matches_rows_checksum()
            )
            if not is_sound:
                # A writer that resumes may be replacing the rows.
                return not self.has_new_record()
            self._looked_at.add(key)
        return False

    def _matches(self, name: str, chunk: int) -> bool:
        try:
            return next(self.matching_chunks(name, range(chunk, chunk + 1)))
        except ValueError:  # its checksum can't be read
            return False

    def find_damage(self) -> str | None:
        """As of `FileSource`, of all shards as well.

        Raises:
            ValueError: As of `FileSource`; or if a shard is damaged, naming it.
        """
        with self._lock:
            self.check_open()
            if self._shards is not None:
                self._shards.check(self._check_rows)
                if self._shard_ids is not None and not self._has_ids_of_shards():
                    return f"the rows of {IDS!r} are not those that were written"
            return super().find_damage()

    def matches_checksums(self, name: str) -> bool:
        """As of `FileSource`; rows of shards are compared by `find_damage` only."""
        return isinstance(self.datasets[name], ShardedRows) or super().matches_checksums(name)

    def close(self) -> None:
        """Closes the file and those of the index; safe to call again."""
        with self._lock:
            super().close()
            if self._shards is not None:
                self._shards.close()

    def _open(self) -> None:
        if self._shards is not None:
            self._shards.close()
        super()._open()
        if not self.is_index:
            return
        with naming_damage(self.path, "the list of its shards"):
            names, facts, runs = self._parse_tables()
            self._shards = Shards(self.path.absolute().parent, names, facts, ShardFile)
        self._shards.check(lambda path, facts: view_of(path, facts).close())
        for name, dataset in self.datasets.items():
            rows = ShardedRows(dataset, self._shards, runs)
            if dataset.is_virtual:
                self.datasets[name] = rows
            elif name == IDS:
                self._shard_ids = rows

    def _check_kind(self) -> None:
        super()._check_kind()
        if self.is_index:
            with naming_damage(self.path, "the list of its shards"):
                self._tables = self._read_tables()

    def _read_tables(self) -> list[np.ndarray]:
        *tables, heaps = (self._read_table(path) for path in SHARD_TABLES)
        group: Any = links.find(self._root, SHARDS)
        if not (
            SHARD_CHECKSUM in group.attrs
            and self._is_plain(group, SHARD_CHECKSUM)
            and np.array_equal(group.attrs[SHARD_CHECKSUM], checksum([*tables, heaps]))
        ):
            raise ValueError("it is not what was written")
        check_heaps(self._view, heaps)
        return tables

    def _parse_tables(self) -> tuple[list[str], list[ShardFacts], RowOrder]:
        names, facts, runs = self._tables
        texts = (
            [name.decode() for name in names.ravel().tolist()] if names.dtype.kind == "S" else []
        )
        for text in texts:
            check_name(text)
        is_int = facts.dtype == runs.dtype == np.int64
        if not (
            is_int
            and 0 < len(texts) == len(set(texts))
            and facts.shape == (len(texts), len(ShardFacts._fields))
            and runs.shape[1:] == (3,)
        ):
            raise ValueError("it has not the shape and types of one")
        shard, first, rows = runs.T
        if (
            (shard < 0).any()
            or (shard >= len(texts)).any()
            or (first < 0).any()
            or (facts < 0).any()
            or (rows <= 0).any()
            or (rows > facts[shard, 0] - first).any()
            or sum(rows.tolist()) != self.state.rows
        ):
            raise ValueError("it has not the rows of the index")
        return texts, [ShardFacts(*some) for some in facts.tolist()], RowOrder(runs)

    def _read_table(self, path: str) -> np.ndarray:
        dataset = links.find(self._root, path)
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
            raise ValueError(f"{path!r} must be a dataset")
        CheckedDatasets().add(path, dataset, len(dataset), self._view.size)
        if dataset.size > 4 * MOST_RUNS or dataset.dtype.itemsize > 255:
            raise ValueError(f"{path!r} of shape {dataset.shape} is too large")
        table: np.ndarray = dataset[:]
        return table

    @property
    def shard_names(self) -> list[str]:
        """Names of the shards of an index."""
        return [] if self._shards is None else list(self._shards.names)

    def check_shards(self) -> None:
        """Opens all shards of an index, and looks for the outputs.

        Raises:
            ValueError: If one is missing, changed, damaged or without them, naming it.
        """
        with self._lock:
            self.check_open()
            if self._shards is not None:
                self._shards.check(self._check_outputs)

    def _check_outputs(self, path: Path, _: ShardFacts) -> None:
        with contextlib.closing(open_shard(path)) as shard:
            for name, dataset in self.datasets.items():
                if name not in shard.datasets or name in shard.ragged:
                    raise ValueError(f"it has no output {name!r}")
                theirs = DenseSpec.of_dataset(shard.datasets[name])
                if not DenseSpec.of_dataset(dataset).can_hold(theirs):
                    raise ValueError(
                        f"its output {name!r} has rows of shape {theirs.row_shape}, dtype "
                        f"{theirs.stored_as}"
                    )

    def _check_rows(self, path: Path, _: ShardFacts) -> None:
        with contextlib.closing(open_shard(path)) as shard:
            for name in self.datasets:
                if name not in shard.datasets:
                    raise ValueError(f"it has no output {name!r}")
            damage = shard.find_damage()
        if damage is not None:
            raise ValueError(damage)

    def _has_ids_of_shards(self) -> bool:
        stored: Any = self._shard_ids
        blocks = (slice(at, at + _BLOCK_ROWS) for at in range(0, stored.shape[0], _BLOCK_ROWS))
        return all(np.array_equal(self.read(IDS, rows), stored[rows]) for rows in blocks)


def is_index(path: Path) -> bool:
    """Whether a file is an index of others, whatever has become of those."""
    try:
        with contextlib.closing(FileView(path)) as view, h5py.File(view, "r") as file:
            return links.find(file, SHARDS) is not None
    except (OSError, RuntimeError, ValueError, TypeError, LookupError):
        return False
