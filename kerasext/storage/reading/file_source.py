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
from kerasext.storage.format import commit_record, links, sealed_table
from kerasext.storage.format.commit_record import RECORD_DTYPE, CallState
from kerasext.storage.format.damage import naming_damage
from kerasext.storage.format.layout import (
    CLASS_NAMES,
    CLASS_OUTPUTS,
    INDEX_FORMAT,
    OUTPUTS,
    PLAIN_OUTPUTS,
    columns_of,
    head_and_output,
)
from kerasext.storage.reading import verification
from kerasext.storage.reading.attributes import read_attribute, read_attributes
from kerasext.storage.reading.dataset_checks import check_dataset, end_of_entries
from kerasext.storage.reading.file_columns import FileColumn, FileRaggedColumn, open_column
from kerasext.storage.reading.file_format import (
    FORMAT_ATTRIBUTES,
    check_format,
    naming_what_is_no_hdf5,
)
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
        may_be_index: Bool. Whether it may be an index. This object then reads the file of the index
            alone, without the shards. Defaults to `False`.
        is_watched: Bool. Whether a `DamageWatch` warns of damaged rows. Defaults to `False`.

    Attributes:
        path: The path.
        lock: Lock that a thread holds while it reads.
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
        self.lock = threading.RLock()
        self._may_be_index = may_be_index
        self._h5file: h5py.File | None = None
        self._columns: dict[str, FileColumn | FileRaggedColumn] = {}
        self.record_offset = record_offset or 0
        self.is_index = False
        with naming_what_is_no_hdf5(path):
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
        with self.lock, naming_damage(self.path, "the list of outputs"):
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
        with self.lock:
            self.check_open()
            if name not in self._columns:
                self._columns[name] = self._retrying(lambda: open_column(self, name))
            return self._columns[name]

    def dense_column(self, name: str) -> FileColumn:
        """An output whose rows have one shape.

        Raises:
            ValueError: As of `column`; or if its rows differ in shape.
        """
        column = self.column(name)
        with naming_damage(self.path, f"output {name!r}"):
            if not isinstance(column, FileColumn):
                raise ValueError("its rows must have one shape")
        return column

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

        with self.lock:
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
        with self.lock, naming_damage(self.path, f"output {path!r}"):
            dataset = links.find(self.h5file, path) if found is None else found
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{path!r} is gone")
            check_dataset(dataset, length, self.size)
            return DenseSpec.of_dataset(dataset), dataset

    def attribute(self, name: str, *, of: str = "/") -> Any:
        """An attribute of a dataset or group, or of the file itself; see `read_attribute`."""
        with self.lock:
            node = self.h5file["/"] if of == "/" else links.find(self.h5file, of)
            if node is None:
                raise ValueError(f"{of!r} is gone")
            return read_attribute(node, name, self.size)

    def attributes(self, *names: str) -> dict[str, Any]:
        """The attributes of the file, all or some; those of other types are left out."""
        with self.lock, naming_damage(self.path, "attributes"):
            root = self.h5file["/"]  # a file would look for it at each attribute
            return read_attributes(root, names or tuple(root.attrs), self.size)

    def class_names(self) -> dict[str, ClassNames]:
        """See `Source`."""
        self.check_open()
        found = {}
        for name in self.output_names:
            head, last = head_and_output(name)
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
        with self.lock:
            self.check_open()
            if not self.has_new_state():
                return False
            self._exchange_with(
                FileSource(self.path, self._view.again(), may_be_index=self._may_be_index)
            )
            return True

    def has_new_state(self) -> bool:
        """See `Source`. What was read since may have changed while it was read."""
        with self.lock, naming_damage(self.path):
            return self._retrying(self._read_state) != self.state

    def find_damage(self) -> str | None:
        """See `Source`.

        Raises:
            ValueError: If rows can't be read, or checksums are not of the kind that is written.
        """
        with self.lock:
            self.check_open()
            return verification.find_damage(self)

    def check_open(self) -> None:
        """See `Source`."""
        if self._h5file is None:
            raise ValueError(
                f"The file was closed; open it again. Received: path={str(self.path)!r}"
            )

    def close(self) -> None:
        """Closes the file; safe to call again."""
        with self.lock:
            self._close_hdf5()
            self._view.close()

    def _open(self) -> None:
        self._close_hdf5()
        self._view.look()
        with naming_what_is_no_hdf5(self.path):
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
            {name: value for name, value in vars(file).items() if name not in {"lock", "watch"}}
            for file in (self, other)
        )
        vars(self).update(others)
        self._columns = {}  # which belong to the other object
        vars(other).update(mine)
        other.close()

    def _retrying(self, action: Callable[[], _T]) -> _T:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return action()
            except ValueError:
                # As it was before: a writer may have finished meanwhile, and the mark be gone.
                before = self._view.state_before
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
        found = check_format(self.path, self.attributes(*FORMAT_ATTRIBUTES))
        self.is_index = found == INDEX_FORMAT
        if self.is_index and not self._may_be_index:
            raise ValueError(
                "The file must have its rows itself, and this is an index of other files; make a "
                "file with `kerasext.shards.merge_shards`. "
                f"Received: path={str(self.path)!r}"
            )


def _read_into(out: np.ndarray, dataset: h5py.Dataset, start: int) -> None:
    """Reads rows from one on; `Dataset.read_direct` does it in twice the time."""
    space = dataset.id.get_space()
    space.select_hyperslab((start, *(0,) * (out.ndim - 1)), out.shape)
    dataset.id.read(h5py.h5s.create_simple(out.shape), space, out)
