"""A prediction file that is open for writing while others read it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from h5py._objects import with_phil

from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format.checksums import RowChecksums, file_checksum
from kerasext.storage.format.commit_record import CallState, CommitRecord
from kerasext.storage.format.layout import SUMS
from kerasext.storage.writing.chunk_writer import ChunkWriter
from kerasext.storage.writing.ragged_writer import RaggedWriter


class SwmrFile:
    """The h5py file of a writer, with a writer for each output and the commit record.

    HDF5 calls this mode SWMR: single writer, multiple readers. A commit is `write_rows`, then
    `write_state`: rows that the record counts must be in the file. If the rows must survive a loss
    of power, call `sync` after each of the two.

    Args:
        path: Path of the file.
        specs: Mapping from name to spec, of all outputs of the file.
        rows: Int. Rows that stay; what follows them is overwritten.

    Attributes:
        path: Path of the file. Set it anew after the file was renamed.

    Raises:
        BlockingIOError: If h5py has the file open in this process.
        OSError: If HDF5 can't open it.
    """

    def __init__(self, path: Path, specs: Mapping[str, Spec], rows: int) -> None:
        self.path = path
        self._specs = specs
        self._h5file: h5py.File = None
        try:
            self._open(rows)
        except BaseException:
            self.close()
            raise

    def append(self, step: Mapping[str, np.ndarray | RaggedRows]) -> None:
        """Adds the rows of a step, as they are stored, to some outputs or all."""
        for name, rows in step.items():
            self._columns[name].append(rows)  # type: ignore[arg-type]

    def write_rows(self, rows: int, *, last: bool = False, trim: bool = False) -> None:
        """Hands the first rows of all outputs to the operating system.

        Args:
            rows: Int. The number of rows: all that were appended, or all but those of a step that
                was interrupted.
            last: Bool. Whether no more rows will come, so that the last chunks may be compressed.
            trim: Bool. Whether to remove rows after them. The outputs are then opened anew.

        Raises:
            FileNotFoundError: If the path no longer leads to this file.
        """
        self._record.check_in_place(self.path)
        for column in self._columns.values():
            column.commit(rows, last=last)
        self._h5file.flush()  # HDF5 keeps its metadata in memory until then
        if trim and any(column.exceeds(rows) for column in self._columns.values()):
            self._h5file.close()
            self._open(rows)
            for column in self._columns.values():
                column.trim(rows)
            self._h5file.flush()

    def write_state(self, state: CallState) -> None:
        """Replaces the commit record; fills in the checksum of the rows that it counts."""
        checksums: dict[str, RowChecksums] = {}
        for column in self._columns.values():
            checksums |= column.checksums(state.rows)
        if not state.rows:
            checksums = dict.fromkeys(checksums, RowChecksums(0, 0))
        self._record.write(state._replace(rows_checksum=file_checksum(checksums)))

    def sync(self) -> None:
        """Waits until the disk has what was written."""
        self._record.sync()

    def close(self, *, sync: bool = False) -> None:
        """Closes the file, which clears HDF5's marks of a writer; safe to call again.

        Args:
            sync: Bool. Whether to wait until the disk has that, too. Defaults to `False`.
        """
        h5file = self._h5file
        if not h5file:  # closed, or `write_rows` was interrupted before it could open it anew
            return
        if not sync:
            h5file.close()
            return
        fd = os.dup(h5file.id.get_vfd_handle())
        try:
            h5file.close()
            os.fsync(fd)
        finally:
            os.close(fd)

    def _open(self, rows: int) -> None:
        self._h5file = _open_swmr(self.path)
        self._record = CommitRecord(self._h5file)
        self._columns: dict[str, ChunkWriter | RaggedWriter] = {
            name: (
                RaggedWriter(self._h5file, name, rows)
                if isinstance(spec, RaggedSpec)
                else ChunkWriter(self._h5file[name], rows, self._h5file[f"{SUMS}/{name}"])
            )
            for name, spec in self._specs.items()
        }


def _open_swmr(path: Path) -> h5py.File:
    """Opens a file in SWMR mode from the start, for which h5py's `File` has no argument."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_file_locking(False, True)
    # No cache of chunks: each is written once, and a write that returns was made.
    unused, slots, _bytes, preemption = access.get_cache()
    access.set_cache(unused, slots, 0, preemption)
    # ctypes takes no lock of h5py's, and two threads at once corrupt HDF5's memory.
    with_phil(_read_metadata_once)(access)
    flags = h5py.h5f.ACC_RDWR | h5py.h5f.ACC_SWMR_WRITE
    try:
        return h5py.File(h5py.h5f.open(os.fsencode(path), flags, access))
    except OSError as error:
        if "already open" not in str(error):
            raise
        raise BlockingIOError(
            "h5py must not have the file open in this process while it is written; close the "
            f"`h5py.File`, or read with `PredictionFile`. Received: path={str(path)!r}"
        ) from error


def _read_metadata_once(access: h5py.h5p.PropFAID) -> None:
    """Makes HDF5 raise an error for damaged metadata at once.

    In SWMR mode HDF5 (since 1.10) reads it up to 100 times and doubles the pause each time, which
    takes hours. That is meant for readers beside a writer, and nobody else writes to this file.
    h5py 3.14 has no method for `H5Pset_metadata_read_attempts`.
    """
    with contextlib.suppress(OSError, AttributeError):  # where the libraries can't be searched
        set_attempts = ctypes.CDLL(h5py.h5f.__file__).H5Pset_metadata_read_attempts
        set_attempts(ctypes.c_int64(access.id), ctypes.c_uint(1))
