"""A prediction file that is open for reading, and trusted no further than it was checked."""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from kerasext.storage.format import commit_record, links, superblock
from kerasext.storage.format.checksums import RowChecksums, checksum, file_checksum
from kerasext.storage.format.commit_record import RECORD_DTYPE, CallState
from kerasext.storage.format.damage import DamagedFileError, naming_damage
from kerasext.storage.format.layout import (
    FORMAT,
    FORMAT_VERSION,
    PLAIN_OUTPUTS,
    SHARDS,
    SUMS,
    columns_of,
)
from kerasext.storage.reading import dataset_checks as checked_datasets
from kerasext.storage.reading.dataset_checks import CheckedDatasets
from kerasext.storage.reading.file_view import FileView
from kerasext.storage.reading.stored_checksums import StoredChecksums

# A read that meets a write may see half of it, and is repeated.
_ATTEMPTS = 5
_PAUSE = 0.01
_T = TypeVar("_T")

_open_files: weakref.WeakSet[FileSource] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # HDF5 closes what is left after Python has gone, and would call the view then.
    for file in list(_open_files):
        file.close()


class FileSource:
    """The checked content of a prediction file.

    Nothing is read or allocated for what only claims to be large, no link is followed to another
    file, and no type is read but numbers and text of a fixed width.

    Args:
        path: Path of the file.
        view: `FileView` of it, which then belongs to this object. Defaults to `None`: a new one.

    Attributes:
        path: The path.
        state: `CallState` of the last commit.
        outputs: List of the names of the outputs.
        datasets: Dict from path to h5py dataset. `refresh` replaces them, and those below.
        lengths: Dict from path to the number of entries that are committed.
        ragged: Dict from the name of each output whose rows differ in shape to its group.
        scales: Dict from path to the step between two numbers, or `None`: see `fixed_point`.
        record_offset: Int. The byte at which the record begins.
        is_index: Bool. Whether its rows are in other files.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no prediction file, damaged, or of another version; or if it is an
            index of others, see `IndexSource`.
    """

    reads_indexes = False
    """Whether it may be an index of others."""

    _stay = frozenset({"_lock"})
    """Attributes that a refresh leaves as they are."""

    def __init__(self, path: Path, view: FileView | None = None) -> None:
        if view is None and not path.exists():
            raise FileNotFoundError(f"There must be a file to read. Received: path={str(path)!r}")
        self.path = path
        self._lock = threading.RLock()
        with _naming_what_is_no_hdf5(path):
            self._view = FileView(path) if view is None else view
        self._h5file: h5py.File | None = None
        self.is_index = False
        self.record_offset = 0
        self._take(CheckedDatasets())
        _open_files.add(self)
        try:
            self._retrying(self._open)
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple[type[FileSource], tuple[Path]]:
        """Pickles the path: another process opens the file for itself."""
        self.check_open()
        return type(self), (self.path.absolute(),)

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self._h5file is not None

    @property
    def is_complete(self) -> bool:
        """Whether the predict call that wrote it came to its end."""
        return self.state.complete

    @property
    def columns(self) -> frozenset[str]:
        """Which of `ids`, `targets` and `row` stand beside the outputs, and are none themselves."""
        return columns_of(self.outputs, self.attributes(PLAIN_OUTPUTS).get(PLAIN_OUTPUTS))

    @property
    def was_closed(self) -> bool:
        """Whether its writer has closed it; a live or killed one, or a loss of power, has not."""
        return self.state.closed

    def refresh(self) -> bool:
        """Looks for what was committed since; returns whether there is anything.

        Raises:
            ValueError: If the file is damaged now. This object then stays as it was.
        """
        with self._lock:
            self.check_open()
            with naming_damage(self.path):
                state = self._retrying(self._read_state)
            if state == self.state:
                return False
            self._exchange_with(type(self)(self.path, self._view.again()))
            return True

    def _exchange_with(self, other: FileSource) -> None:
        """Takes the content of another one, which is closed with the content of this one."""
        mine, others = (
            {name: value for name, value in vars(file).items() if name not in self._stay}
            for file in (self, other)
        )
        vars(self).update(others)
        vars(other).update(mine)
        other.close()

    def read(self, name: str, key: Any) -> np.ndarray:
        """Reads from an output.

        Args:
            name: String. The output, or dataset of one whose rows differ in shape.
            key: What h5py takes as an index.

        Raises:
            ValueError: If the file was closed, or is damaged where the rows are.
        """
        return self._load(name, key)

    def _load(self, name: str, key: Any) -> np.ndarray:
        def attempt() -> np.ndarray:
            # Other errors than these two are about the key.
            try:
                values: np.ndarray = self.datasets[name][key]
            except (OSError, RuntimeError):
                with naming_damage(self.path, f"output {name!r}"):
                    raise
            return values

        with self._lock:
            self.check_open()
            return self._retrying(attempt)

    def attribute(self, name: str, *, of: str = "/", default: Any = None) -> Any:
        """An attribute of numbers or text, of an output or of the file itself.

        Raises:
            ValueError: If it is of another type, or longer than the file.
        """
        with self._lock:
            self.check_open()
            node = self._root if of == "/" else {**self.datasets, **self.ragged}[of]
            if name not in node.attrs:
                return default
            if not self._is_plain(node, name):
                raise ValueError(
                    f"attribute {name!r} must have numbers or text of a fixed width, and is of "
                    f"type {node.attrs.get_id(name).dtype}"
                )
            value = node.attrs[name]
        return value.decode() if isinstance(value, bytes) else value

    def attributes(self, *names: str) -> dict[str, Any]:
        """The attributes of the file itself, all or some; those of other types are left out."""
        found = {}
        with self._lock:
            self.check_open()
            with naming_damage(self.path, "attributes"):
                attributes = self._root.attrs
                wanted = names or tuple(attributes)
            for name in wanted:
                with naming_damage(self.path, f"attribute {name!r}"):
                    if name in attributes and self._is_plain(self._root, name):
                        found[name] = self.attribute(name)
        return found

    def find_damage(self) -> str | None:
        """Reads all rows and compares them with the checksums; returns what is wrong, if anything.

        Raises:
            ValueError: If rows can't be read, or checksums are not of the kind that is written.
        """
        with self._lock:
            self.check_open()
            with naming_damage(self.path, "checksums"):
                gone = sorted(self._checksums.names() - self.datasets.keys())
            if gone:
                return f"output {gone[0]!r} is gone, and its checksums are there"
            for name in self.datasets:
                if not self.matches_checksums(name):
                    return f"the rows of {name!r} are not those that were written"
            if not self.matches_rows_checksum():
                return "rows of the last commit are not those that were written"
            return None

    def matches_checksums(self, name: str) -> bool:
        """Reads a dataset and compares it with the checksums of its chunks.

        The rows after its last full chunk have one only if the file is complete; they are covered
        by `matches_rows_checksum`.
        """
        with self._lock:
            self.check_open()
            rows, length = self.lengths[name], self.datasets[name].chunks[0]
            chunks = math.ceil(rows / length) if self.is_complete else rows // length
            return all(self.matching_chunks(name, range(chunks)))

    def matching_chunks(self, name: str, chunks: range) -> Iterator[bool]:
        """Whether each of some chunks of a dataset matches its checksum."""
        rows, length = self.lengths[name], self.datasets[name].chunks[0]
        with naming_damage(self.path, f"checksums of {name!r}"):
            stored = self._checksums.of(name, chunks.stop)
        for number in chunks:
            end = min((number + 1) * length, rows)
            found = checksum(self._load(name, slice(number * length, end)))
            yield number < len(stored) and found == stored[number]

    def matches_rows_checksum(self) -> bool:
        """Whether the commit record matches the rows after the full chunks of all datasets.

        It covers the checksums of the full chunks, too, and with them all rows.
        """
        with self._lock:
            self.check_open()
            try:
                return self._rows_checksum() == self.state.rows_checksum
            except ValueError:  # something can't be read
                return False

    def _rows_checksum(self) -> int:
        found = {}
        with naming_damage(self.path, "checksums"):
            names = self._checksums.names()
        for name in names:
            dataset = self.datasets.get(name)
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{name!r} has checksums and is no output")
            found[name] = RowChecksums(0, 0)
            if not self.state.rows:
                continue
            rows, length = self.lengths[name], dataset.chunks[0]
            with naming_damage(self.path, f"checksums of {name!r}"):
                stored = self._checksums.of(name, rows // length)
            rest = self._load(name, slice(rows - rows % length, rows))
            found[name] = RowChecksums(checksum(stored), checksum(rest))
        return file_checksum(found)

    def has_new_record(self) -> bool:
        """Whether the writer has committed, or begun anew, since the file was opened or refreshed.

        Then what was read since may have changed while it was read.
        """
        with self._lock, naming_damage(self.path):
            return self._retrying(self._read_state) != self.state

    def end_of_chunks(self) -> int:
        """Reads the whole index of chunks of all datasets; returns the byte where the last ends.

        Raises:
            ValueError: If it is damaged somewhere.
        """
        with self._lock, naming_damage(self.path, "index of chunks"):
            self.check_open()
            sums = [links.find(self._root, f"{SUMS}/{name}") for name in self.datasets]
            datasets = [
                node for node in (*self.datasets.values(), *sums) if isinstance(node, h5py.Dataset)
            ]
            return max(map(checked_datasets.end_of_chunks, datasets), default=0)

    @property
    def _checksums(self) -> StoredChecksums:
        return StoredChecksums(self._root, self._view.size)

    def check_open(self) -> None:
        """Raises `ValueError` if it was closed."""
        if self._h5file is None:
            raise ValueError(
                f"The file was closed; open it again. Received: path={str(self.path)!r}"
            )

    def close(self) -> None:
        """Closes the file; safe to call again."""
        with self._lock:
            self._close_hdf5()
            self._view.close()

    @property
    def _root(self) -> Any:
        return self._h5file

    def _retrying(self, action: Callable[[], _T]) -> _T:
        for attempt in range(1, _ATTEMPTS + 1):
            # Before it is read: afterwards a writer may have finished, and the mark be gone.
            before = self._view.state()
            try:
                return action()
            except ValueError:
                is_written = before.is_marked or self._view.state() != before
                if attempt == _ATTEMPTS or not is_written:
                    raise
            time.sleep(_PAUSE)
        raise AssertionError

    def _open(self) -> None:
        self._close_hdf5()
        self._view.look()
        with _naming_what_is_no_hdf5(self.path):
            self._h5file = h5py.File(self._view, "r")
        self._check_format()
        self._check_kind()
        with naming_damage(self.path):
            self.record_offset = commit_record.find(self._h5file).id.get_offset()
            # Before the datasets, which are loaded after it: they have the rows that it counts.
            self.state = self._read_state()
            rows, size = self.state.rows, self._view.size
            found = checked_datasets.find(self._h5file, rows, size, is_index=self.is_index)
            # A disk that is full in a write leaves the file short of its end, with the rows that
            # were committed; so does a broken copy, without them.
            if self._view.is_cut_short:
                found.check_chunks(0 if self.is_complete else size)
            self._take(found)

    def _check_kind(self) -> None:
        with naming_damage(self.path):
            self.is_index = links.find(self._root, SHARDS) is not None
        if self.is_index and not self.reads_indexes:
            raise ValueError(
                "The file must have its rows itself, and this is an index of other files; make one "
                f"with `kerasext.shards.merge_shards`. Received: path={str(self.path)!r}"
            )

    def _close_hdf5(self) -> None:
        file, self._h5file = self._h5file, None
        self._take(CheckedDatasets())
        if file is not None:
            # HDF5 can fail to drop damaged metadata: of no consequence, for nothing was written.
            with contextlib.suppress(OSError, RuntimeError):
                file.close()

    def _take(self, found: CheckedDatasets) -> None:
        self.outputs, self.datasets = found.outputs, found.datasets
        self.lengths, self.ragged, self.scales = found.lengths, found.ragged, found.scales

    def _read_state(self) -> CallState:
        return CallState.parse(self._view.read_at(self.record_offset, RECORD_DTYPE.itemsize))

    def _check_format(self) -> None:
        found = self.attributes("format", "format_version")
        name, version = found.get("format"), found.get("format_version", 0)
        if not isinstance(name, str) or name != FORMAT:
            raise ValueError(
                f"The file must be a prediction file of kerasext. Received: path={str(self.path)!r}"
            )
        if np.ndim(version) or version != FORMAT_VERSION:
            is_newer = not np.ndim(version) and version > FORMAT_VERSION
            remedy = "install a newer kerasext" if is_newer else "predict again"
            raise ValueError(
                f"The file must be of format version {FORMAT_VERSION}; {remedy}. "
                f"Received: path={str(self.path)!r} of version {version}"
            )

    def _is_plain(self, node: h5py.HLObject, name: str) -> bool:
        attribute = node.attrs.get_id(name)
        dtype, shape = attribute.dtype, attribute.shape  # None for one that has no value
        return (
            dtype.kind in "biufcS"
            and shape is not None
            and dtype.itemsize * math.prod(shape) <= self._view.size
        )


@contextlib.contextmanager
def _naming_what_is_no_hdf5(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        kind = DamagedFileError if _begins_as_hdf5(path) else ValueError
        raise kind(
            f"The file must be HDF5, and whole. Received: path={str(path)!r} ({error})"
        ) from error


def _begins_as_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(superblock.SIGNATURE)) == superblock.SIGNATURE
    except OSError:
        return False
