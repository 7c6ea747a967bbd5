"""A file that an index is of, from which rows are read as soon as it is known to be that file."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.format import links
from kerasext.storage.format.commit_record import RECORD_DTYPE, CallState
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.reading.dataset_checks import CheckedDatasets
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.file_view import FileView
from kerasext.storage.reading.raw_rows import RawRows, is_raw


class ShardFacts(NamedTuple):
    """What tells a complete prediction file from others.

    Args:
        rows: Int.
        bytes: Int. Size of the file.
        checksum: Int. That of its record, which has the time of the last commit.
        record: Int. The byte at which the record begins.
    """

    rows: int
    bytes: int
    checksum: int
    record: int


def check_is_file(path: Path) -> None:
    """Raises `ValueError` unless there is a file, which is no link to another place."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        raise ValueError("it is missing") from None
    if not stat.S_ISREG(mode):
        raise ValueError("it is a folder, a link or a device, and must be a file in this place")


def open_shard(path: Path) -> FileSource:
    """Opens a complete prediction file that is no link to another place.

    Raises:
        ValueError: If it is missing, something else, incomplete, or damaged.
    """
    check_is_file(path)
    file = FileSource(path)
    if not file.is_complete:
        rows = file.state.rows
        file.close()
        raise ValueError(f"it is unfinished, with {rows} rows; mode='resume' finishes it")
    return file


def facts_of(file: FileSource) -> ShardFacts:
    """The facts of a complete file."""
    rows, checksum = file.state.rows, file.state.checksum
    return ShardFacts(rows, file.path.stat().st_size, checksum, file.record_offset)


def view_of(path: Path, facts: ShardFacts) -> FileView:
    """Opens the file of which these are the facts.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is missing, or another file.
    """
    check_is_file(path)
    view = FileView(path)
    try:
        _check_facts(view, facts)
    except ValueError as error:
        view.close()
        raise ValueError(f"it has changed: {error}") from error
    return view


def _check_facts(view: FileView, facts: ShardFacts) -> None:
    state = CallState.parse(view.read_at(facts.record, RECORD_DTYPE.itemsize))
    found = (state.rows, view.size, state.checksum)
    if found != facts[:3] or not state.complete:
        raise ValueError(f"rows, bytes and checksum are {found}, and were {tuple(facts[:3])}")


class ShardFile:
    """A file of which an index has the facts; only what is read of it is looked at.

    Args:
        path: Path of the file.
        facts: `ShardFacts`.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is missing, or another file.
    """

    def __init__(self, path: Path, facts: ShardFacts) -> None:
        self._path = path
        self._facts = facts
        self._datasets: dict[str, h5py.Dataset] = {}
        self._raw: dict[str, RawRows] = {}
        self._view = view_of(path, facts)
        try:
            with naming_damage(path):
                self._file = h5py.File(self._view, "r")
        except BaseException:
            self._view.close()
            raise

    def check(self, spec: DenseSpec) -> None:
        """Raises `ValueError` if it has no such output, or can't have all rows of it."""
        with self._reading(spec):
            pass

    def read(self, spec: DenseSpec, key: Any) -> np.ndarray:
        """Reads from an output.

        Args:
            spec: `DenseSpec` of the output, which may have wider text.
            key: What h5py takes as an index.

        Raises:
            ValueError: If it has no such output, or is damaged where the rows are.
        """
        with self._reading(spec) as dataset:
            values: np.ndarray = dataset[key]
        return values

    def read_into(self, target: np.ndarray, spec: DenseSpec, rows: slice) -> None:
        """Reads whole rows that follow each other, of an output of numbers, into an array."""
        with self._reading(spec) as dataset:
            raw = self._raw.get(spec.name)
            if raw is not None:
                raw.read_into(target, rows.start)
            elif len(target) < dataset.chunks[0]:
                target[...] = dataset[rows]
            else:  # which is far slower for few rows
                dataset.read_direct(target, rows)

    @contextlib.contextmanager
    def _reading(self, spec: DenseSpec) -> Iterator[h5py.Dataset]:
        if spec.name not in self._datasets:
            with naming_damage(self._path, f"output {spec.name!r}"):
                dataset = self._datasets[spec.name] = self._find(spec)
                if is_raw(dataset):
                    self._raw[spec.name] = RawRows(dataset, self._view)
        try:
            yield self._datasets[spec.name]
        except (OSError, RuntimeError):  # other errors are about the key
            with naming_damage(self._path, f"output {spec.name!r}"):
                raise

    def close(self) -> None:
        """Closes the file; safe to call again."""
        self._datasets, self._raw = {}, {}
        # HDF5 can fail to drop damaged metadata: of no consequence, for nothing was written.
        with contextlib.suppress(OSError, RuntimeError):
            self._file.close()
        self._view.close()

    def _find(self, spec: DenseSpec) -> h5py.Dataset:
        dataset = links.find(self._file, spec.name)
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError("there is none")
        CheckedDatasets().add(spec.name, dataset, self._facts.rows, self._facts.bytes)
        found = DenseSpec.of_dataset(dataset)
        if not spec.can_hold(found):
            raise ValueError(f"it has rows of shape {found.row_shape}, dtype {found.stored_as}")
        return dataset
