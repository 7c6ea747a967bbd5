"""A prediction file that is open for reading, and trusted no further than it was checked."""

from __future__ import annotations

import atexit
import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from kerasext.storage.columns.class_names import ClassNames
from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.format import commit_record, links, sealed_table, superblock
from kerasext.storage.format.checksums import CHUNK_DTYPE
from kerasext.storage.format.commit_record import RECORD_DTYPE, CallState
from kerasext.storage.format.damage import DamagedFileError, naming_damage
from kerasext.storage.format.layout import (
    CLASS_NAMES,
    CLASS_OUTPUTS,
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    INDEX_FORMAT,
    OUTPUTS,
    PLAIN_OUTPUTS,
    SUMS,
    VIRTUAL_FORMAT,
    columns_of,
)
from kerasext.storage.reading import verification
from kerasext.storage.reading.attributes import read_attribute, read_attributes
from kerasext.storage.reading.dataset_checks import check_dataset, end_of_chunks, end_of_entries
from kerasext.storage.reading.file_columns import FileColumn, FileRaggedColumn, open_column
from kerasext.storage.reading.file_view import FileView
from kerasext.storage.reading.verification import DamageWatch

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
    """The checked content of a prediction file: a `Source`.

    Nothing is read or allocated for what only claims to be large, no link is followed to another
    file, and no type is read but numbers and text of a fixed width. Outputs are opened and checked
    when they are first asked for.

    Args:
        path: Path of the file.
        view: `FileView` of it, which then belongs to this object. Defaults to `None`: a new one.
        record_offset: Int. The byte at which the commit record begins, if that is known because the
            file was checked before. Defaults to `None`.
        may_be_index: Bool. Whether it may be an index, of which this is only the file itself.
            Defaults to `False`.
        is_watched: Bool. Whether a `DamageWatch` warns of damaged rows. Defaults to `False`.

    Attributes:
        path: The path.
        state: `CallState` of the last commit. `refresh` replaces it.
        record_offset: Int. The byte at which the commit record begins.
        watch: `DamageWatch`, or `None`.
        is_index: Bool. Whether rows are in the files of an index.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no prediction file, damaged, or of another version.
    """

    def __init__(
        self,
        path: Path,
        view: FileView | None = None,
        *,
        record_offset: int | None = None,
        may_be_index: bool = False,
        is_watched: bool = False,
    ) -> None:
        self.path = path
        self.watch = DamageWatch(self) if is_watched else None
        self._lock = threading.RLock()
        self._may_be_index = may_be_index
        self._h5file: h5py.File | None = None
        self._columns: dict[str, FileColumn | FileRaggedColumn] = {}
        self.record_offset = record_offset or 0
        self.is_index = False
        with _naming_what_is_no_hdf5(path):
            self._view = FileView(path) if view is None else view
        _open_files.add(self)
        try:
            self._retrying(self._open)
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path: another process opens the file for itself."""
        self.check_open()
        opened = functools.partial(
            FileSource, may_be_index=self._may_be_index, is_watched=self.watch is not None
        )
        return opened, (self.path.absolute(),)

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self._h5file is not None

    @property
    def h5file(self) -> Any:
        """The h5py file."""
        self.check_open()
        return self._h5file

    @property
    def size(self) -> int:
        """Bytes of the file now."""
        return self._view.size

    @functools.cached_property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order."""
        with self._lock, naming_damage(self.path, "the list of outputs"):
            return sealed_table.read_texts(self.h5file, OUTPUTS, self.size)

    @property
    def side_columns(self) -> frozenset[str]:
        """See `Source`."""
        with naming_damage(self.path, "attributes"):
            return columns_of(self.output_names, self.attribute(PLAIN_OUTPUTS))

    def column(self, name: str) -> FileColumn | FileRaggedColumn:
        """See `Source`.

        Raises:
            ValueError: If the file was closed, or the output is damaged or gone.
        """
        with self._lock:
            self.check_open()
            if name not in self._columns:
                self._columns[name] = self._retrying(lambda: open_column(self, name))
            return self._columns[name]

    def dense_columns(self) -> Iterator[FileColumn]:
        """The datasets of all outputs."""
        for name in self.output_names:
            column = self.column(name)
            if isinstance(column, FileColumn):
                yield column
            else:
                yield column.values
                yield column.row_splits
                if column.row_shapes is not None:
                    yield column.row_shapes

    def read(self, column: FileColumn, key: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Reads from a dataset; see `DenseColumn.read`.

        Args:
            column: `FileColumn`.
            key: The key.
            out: Array to read into, contiguous and of the shape of the rows, if the key is a slice
                with the step 1; text may be wider in it. Defaults to `None`: a new one.
        """

        def attempt() -> np.ndarray:
            if not column.h5ds:  # the file was opened anew since
                column.h5ds = self.open_dataset(column.spec.name, column.rows)[1]
            # Other errors than these two are about the key.
            try:
                if out is None:
                    values: np.ndarray = column.h5ds[key]
                else:
                    values = out
                    _read_into(out, column.h5ds, key.start)
            except (OSError, RuntimeError):
                with naming_damage(self.path, f"output {column.spec.name!r}"):
                    raise
            return values

        with self._lock:
            self.check_open()
            return self._retrying(attempt)

    def open_dataset(
        self, path: str, length: int, found: Any = None
    ) -> tuple[DenseSpec, h5py.Dataset]:
        """Opens a dataset once it is checked.

        Args:
            path: String. The path of the dataset.
            length: Int. Committed entries.
            found: What `links.find` has found there. Defaults to `None`: it is looked for.

        Raises:
            ValueError: If it is not there, or can't be what it claims.
        """
        with self._lock, naming_damage(self.path, f"output {path!r}"):
            dataset = links.find(self.h5file, path) if found is None else found
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{path!r} is gone")
            check_dataset(dataset, length, self.size)
            return DenseSpec.of_dataset(dataset), dataset

    def checksums(self, path: str, chunks: int) -> np.ndarray:
        """The stored checksums of the first chunks of a dataset, or fewer if no more are stored.

        Raises:
            ValueError: If they are not of the kind that is written.
        """
        with self._lock, naming_damage(self.path, f"checksums of {path!r}"):
            node = links.find(self.h5file, f"{SUMS}/{path}")
            if not isinstance(node, h5py.Dataset):
                return np.empty(0, CHUNK_DTYPE)
            check_dataset(node, 0, self.size)
            if node.dtype != CHUNK_DTYPE or node.ndim != 1:
                raise ValueError(f"they must be of dtype {CHUNK_DTYPE} and have one axis")
            count = min(chunks, len(node))
            check_dataset(node, count, self.size)
            stored: np.ndarray = node[:count]
            return stored

    def attribute(self, name: str, *, of: str = "/") -> Any:
        """An attribute of a dataset or group, or of the file itself; see `read_attribute`."""
        with self._lock:
            node = self.h5file["/"] if of == "/" else links.find(self.h5file, of)
            if node is None:
                raise ValueError(f"{of!r} is gone")
            return read_attribute(node, name, self.size)

    def attributes(self, *names: str) -> dict[str, Any]:
        """The attributes of the file, all or some; those of other types are left out."""
        with self._lock, naming_damage(self.path, "attributes"):
            root = self.h5file["/"]  # a file would look for it at each attribute
            return read_attributes(root, names or tuple(root.attrs), self.size)

    def class_names(self) -> dict[str, ClassNames]:
        """See `Source`."""
        self.check_open()
        found = {}
        for name in self.output_names:
            head, _, last = name.rpartition("/")
            if last in CLASS_OUTPUTS:
                with naming_damage(self.path, f"class names of {name!r}"):
                    names = self.attribute(CLASS_NAMES, of=name)
                    if names is not None:
                        found[head] = ClassNames.of_attribute(names)
        return found

    def refresh(self) -> bool:
        """See `Source`.

        Raises:
            ValueError: If the file is damaged now. This object then stays as it was.
        """
        with self._lock:
            self.check_open()
            if not self.has_new_state():
                return False
            self._exchange_with(
                FileSource(self.path, self._view.again(), may_be_index=self._may_be_index)
            )
            return True

    def has_new_state(self) -> bool:
        """See `Source`. What was read since may have changed while it was read."""
        with self._lock, naming_damage(self.path):
            return self._retrying(self._read_state) != self.state

    def find_damage(self) -> str | None:
        """See `Source`.

        Raises:
            ValueError: If rows can't be read, or checksums are not of the kind that is written.
        """
        with self._lock:
            self.check_open()
            return verification.find_damage(self)

    def end_of_chunks(self) -> int:
        """Reads the whole index of chunks of all datasets; returns the byte where the last ends.

        Raises:
            ValueError: If it is damaged somewhere.
        """
        ends = [0]
        for column in self.dense_columns():
            sums = links.find(self.h5file, f"{SUMS}/{column.spec.name}")
            for dataset in (column.h5ds, sums):
                if isinstance(dataset, h5py.Dataset):
                    with self._lock, naming_damage(self.path, "index of chunks"):
                        ends.append(end_of_chunks(dataset))
        return max(ends)

    def check_open(self) -> None:
        """See `Source`."""
        if self._h5file is None:
            raise ValueError(
                f"The file was closed; open it again. Received: path={str(self.path)!r}"
            )

    def close(self) -> None:
        """Closes the file; safe to call again."""
        with self._lock:
            self._close_hdf5()
            self._view.close()

    def _open(self) -> None:
        self._close_hdf5()
        self._view.look()
        with _naming_what_is_no_hdf5(self.path):
            self._h5file = h5py.File(self._view, "r")
        if not self.record_offset:
            self._check_format()
        with naming_damage(self.path):
            if not self.record_offset:
                self.record_offset = commit_record.find(self._h5file).id.get_offset()
            # Before the datasets, which are opened after it: they have the rows that it counts.
            self.state = self._read_state()
            self._check_is_whole()

    def _check_is_whole(self) -> None:
        """Raises `ValueError` if the file ends before its rows.

        A disk that is full in a write leaves the file short of its end, with the rows that were
        committed. A broken copy leaves it without them.
        """
        if not self._view.is_cut_short:
            return
        end = 0 if self.state.complete else self.size
        for column in self.dense_columns():
            if end_of_entries(column.h5ds, column.rows) > end:
                raise ValueError(f"it was cut short, and rows of {column.spec.name!r} are missing")

    def _exchange_with(self, other: FileSource) -> None:
        """Takes the content of another one, which is closed with the content of this one."""
        mine, others = (
            {name: value for name, value in vars(file).items() if name not in {"_lock", "watch"}}
            for file in (self, other)
        )
        vars(self).update(others)
        self._columns = {}  # which belong to the other object
        vars(other).update(mine)
        other.close()

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

    def _close_hdf5(self) -> None:
        file, self._h5file = self._h5file, None
        self._columns = {}
        if file is not None:
            # HDF5 can fail to drop damaged metadata: of no consequence, for nothing was written.
            with contextlib.suppress(OSError, RuntimeError):
                file.close()

    def _read_state(self) -> CallState:
        return CallState.parse(self._view.read_at(self.record_offset, RECORD_DTYPE.itemsize))

    def _check_format(self) -> None:
        found = self.attributes("format", "format_version", INDEX)
        name, version = found.get("format"), found.get("format_version", 0)
        received = f"Received: path={str(self.path)!r}"
        if isinstance(name, str) and name == VIRTUAL_FORMAT:
            raise ValueError(
                "A file of virtual datasets is for other tools, because HDF5 reads fill values "
                f"for shards that are missing; open the index {found.get(INDEX)!r} beside it. "
                f"{received}"
            )
        if isinstance(name, str) and name == INDEX_FORMAT and not self._may_be_index:
            raise ValueError(
                "The file must have its rows itself, and this is an index of other files; make a "
                f"file with `kerasext.shards.merge_shards`. {received}"
            )
        if not isinstance(name, str) or name not in {FORMAT, INDEX_FORMAT}:
            raise ValueError(f"The file must be a prediction file of kerasext. {received}")
        self.is_index = name == INDEX_FORMAT
        if np.ndim(version) or version != FORMAT_VERSION:
            is_newer = not np.ndim(version) and version > FORMAT_VERSION
            remedy = "install a newer kerasext" if is_newer else "predict again"
            raise ValueError(
                f"The file must be of format version {FORMAT_VERSION}; {remedy}. "
                f"{received} of version {version}"
            )


def _read_into(out: np.ndarray, dataset: h5py.Dataset, start: int) -> None:
    """Reads rows from one on; `Dataset.read_direct` does it in twice the time."""
    space = dataset.id.get_space()
    space.select_hyperslab((start, *(0,) * (out.ndim - 1)), out.shape)
    dataset.id.read(h5py.h5s.create_simple(out.shape), space, out)


@contextlib.contextmanager
def _naming_what_is_no_hdf5(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There must be a file to read. Received: path={str(path)!r}"
        ) from None
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
