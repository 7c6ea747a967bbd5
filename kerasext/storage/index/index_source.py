"""An index of several prediction files, which reads as one file."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasext.storage.columns.class_names import ClassNames
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.format.layout import (
    IDS,
    INDEX_FORMAT,
    PLAIN_OUTPUTS,
    SHARD_FACTS,
    SHARD_NAMES,
    SHARD_OUTPUTS,
    SHARD_RUNS,
    SHARD_WIDEST,
    VIRTUAL_FORMAT,
    check_names,
    columns_of,
)
from kerasext.storage.format.sealed_table import read_table, read_texts
from kerasext.storage.index.row_order import RowOrder
from kerasext.storage.index.sharded_columns import ShardedRows, check_fits
from kerasext.storage.index.shards import (
    ShardFacts,
    Shards,
    check_shard_name,
    open_shard,
)
from kerasext.storage.reading.attributes import read_attributes
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.file_view import FileView
from kerasext.storage.reading.source import DenseColumn, RaggedColumn, Source

_BLOCK_ROWS = 65536


def open_source(path: Path) -> Source:
    """Opens a prediction file, or an index and the files that it names.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: As of `FileSource`; or if files of the index are missing, changed or unreadable.
    """
    file = FileSource(path, may_be_index=True, is_watched=True)
    return IndexSource(file) if file.is_index else file


def is_index(path: Path) -> bool:
    """Whether a file is an index of others, or a file of virtual datasets beside one.

    Whatever has become of those others.
    """
    return _format_of(path) in {INDEX_FORMAT, VIRTUAL_FORMAT}


def is_virtual_file(path: Path) -> bool:
    """Whether a file has the virtual datasets that stand beside an index, for other tools."""
    return _format_of(path) == VIRTUAL_FORMAT


def _format_of(path: Path) -> str | None:
    try:
        with contextlib.closing(FileView(path)) as view, h5py.File(view, "r") as file:
            found = read_attributes(file, ["format"], view.size).get("format")
    except (OSError, RuntimeError, ValueError, TypeError, LookupError):
        return None
    return found if isinstance(found, str) else None


class IndexSource:
    """The rows of several files in one order: a `Source`.

    The index has the order of the rows, their ids and the attributes; outputs come from the shards.
    That these are the files that it was made of is checked when it is opened, and again when one of
    them is opened. No other file is ever opened for it.

    Args:
        file: `FileSource` of the index, which then belongs to this object.

    Raises:
        ValueError: If the index is damaged, or shards are missing, changed or unreadable.
    """

    def __init__(self, file: FileSource) -> None:
        self.path: Path = file.path
        self.state: CallState = file.state
        self._file = file
        self._columns: dict[str, DenseColumn | RaggedColumn] = {}
        try:
            with naming_damage(file.path, "the list of its shards"):
                shards, order = self._read_shards()
                self._rows = ShardedRows(self.path, shards, order)
                self._widest = self._read_outputs()
            shards.check()
        except BaseException:
            file.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path: another process opens the files for itself."""
        self.check_open()
        return open_source, (self.path.absolute(),)

    @property
    def shard_names(self) -> list[str]:
        """Names of the shards."""
        return list(self._rows.shards.names)

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order."""
        return list(self._widest)

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self._file.is_open

    @property
    def side_columns(self) -> frozenset[str]:
        """See `Source`."""
        with naming_damage(self.path, "attributes"):
            return columns_of(self.output_names, self.attribute(PLAIN_OUTPUTS))

    def column(self, name: str) -> DenseColumn | RaggedColumn:
        """See `Source`.

        Raises:
            ValueError: If a file was closed, or the output is damaged or gone.
        """
        with self._rows.lock:
            self.check_open()
            if name not in self._columns:
                has_rows = name in self._file.output_names
                self._columns[name] = self._file.column(name) if has_rows else self._sharded(name)
            return self._columns[name]

    def attribute(self, name: str) -> Any:
        """See `Source`."""
        return self._file.attribute(name)

    def attributes(self, *names: str) -> dict[str, Any]:
        """See `Source`."""
        return self._file.attributes(*names)

    def class_names(self) -> dict[str, ClassNames]:
        """See `Source`: those of the first shard, which are the same in all."""
        with self._rows.lock:
            self.check_open()
            return self._rows.shards[0].class_names()

    def refresh(self) -> bool:
        """See `Source`. An index never grows."""
        self.check_open()
        return False

    def has_new_state(self) -> bool:
        """See `Source`."""
        return False

    def check_open(self) -> None:
        """See `Source`."""
        self._file.check_open()

    def close(self) -> None:
        """Closes the index and the shards; safe to call again."""
        self._rows.close()
        self._file.close()

    def find_damage(self) -> str | None:
        """See `Source`.

        Raises:
            ValueError: If rows can't be read, or a shard is damaged, naming it.
        """
        with self._rows.lock:
            self.check_open()
            self._rows.shards.check(functools.partial(self._check_outputs, with_rows=True))
            if IDS in self._file.output_names and not self._has_ids_of_shards():
                return f"the rows of {IDS!r} are not those that were written"
            return self._file.find_damage()

    def check_shards(self) -> None:
        """Opens all shards, and looks for the outputs.

        Raises:
            ValueError: If one is missing, changed, damaged or without them, naming it.
        """
        with self._rows.lock:
            self.check_open()
            self._rows.shards.check(self._check_outputs)

    def _sharded(self, name: str) -> DenseColumn | RaggedColumn:
        return self._rows.column(self._spec(name))

    def _spec(self, name: str) -> DenseSpec | RaggedSpec:
        """The spec of an output, as wide as the widest text."""
        return self._rows.shards[self._widest[name]].column(name).spec

    def _read_table(self, path: str) -> np.ndarray:
        return read_table(self._file.h5file, path, self._file.size)

    def _read_shards(self) -> tuple[Shards, RowOrder]:
        names = read_texts(self._file.h5file, SHARD_NAMES, self._file.size)
        for name in names:
            check_shard_name(name)
        facts, runs = self._read_table(SHARD_FACTS), self._read_table(SHARD_RUNS)
        is_int = facts.dtype == runs.dtype == np.int64
        shapes = (facts.shape, runs.shape[1:])
        if not is_int or shapes != ((len(names), len(ShardFacts._fields)), (3,)):
            raise ValueError("it has not the shape and types of one")
        shard, first, rows = runs.T
        if (
            not 0 < len(names) == len(set(names))
            or (shard < 0).any()
            or (shard >= len(names)).any()
            or (first < 0).any()
            or (facts < 0).any()
            or (rows <= 0).any()
            or (rows > facts[shard, 0] - first).any()
            or rows.sum(dtype=np.float64) >= 2.0**62  # int64 overflows
            or rows.sum() != self.state.rows
        ):
            raise ValueError("it has not the rows of the index")
        shards = Shards(
            self.path.absolute().parent, names, [ShardFacts(*some) for some in facts.tolist()]
        )
        return shards, RowOrder(runs)

    def _read_outputs(self) -> dict[str, int]:
        """The names of the outputs, with the number of a shard that has the widest text of each."""
        names = read_texts(self._file.h5file, SHARD_OUTPUTS, self._file.size)
        check_names(names)
        widest = self._read_table(SHARD_WIDEST)
        if widest.shape != (len(names),) or widest.dtype != np.int64:
            raise ValueError("it has not the outputs of the index")
        if ((widest < 0) | (widest >= len(self.shard_names))).any():
            raise ValueError("it has not the shards of the outputs")
        return dict(zip(names, widest.tolist(), strict=True))

    def _check_outputs(self, path: Path, *, with_rows: bool = False) -> None:
        with contextlib.closing(open_shard(path)) as shard:
            for name in self.output_names:
                check_fits(self._spec(name), shard.column(name))
            damage = shard.find_damage() if with_rows else None
        if damage is not None:
            raise ValueError(damage)

    def _has_ids_of_shards(self) -> bool:
        own = self._file.dense_column(IDS)
        stored = self._rows.column(own.spec)
        blocks = (
            (start, min(start + _BLOCK_ROWS, own.rows)) for start in range(0, own.rows, _BLOCK_ROWS)
        )
        return all(np.array_equal(own.read_rows(*rows), stored.read_rows(*rows)) for rows in blocks)
