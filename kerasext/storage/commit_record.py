"""The record of what is committed: written last of all, and past HDF5."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np

from kerasext.storage.layout import RECORD, RECORD_DTYPE

_CAN_BYPASS = hasattr(os, "pwrite")  # not on Windows


class CommitRecord:
    """The record of an open file.

    Written by one system call within one page of the file, so that a kill leaves the old record or
    the new one; through HDF5 it would cost 60 times as much and come in an order of HDF5's own.
    Read in the same way, for HDF5 would show its own copy.

    Args:
        file: An open h5py file.

    Raises:
        ValueError: If there is no such record in it.
    """

    def __init__(self, file: h5py.File) -> None:
        dataset = file.get(RECORD)
        if not isinstance(dataset, h5py.Dataset) or (dataset.dtype, dataset.shape) != (
            RECORD_DTYPE,
            (),
        ):
            raise ValueError(f"no record of commits at {RECORD!r}")
        self._h5ds = dataset
        self._fd: int = file.id.get_vfd_handle()
        self._offset: int | None = dataset.id.get_offset()
        if self._offset is None:
            raise ValueError(f"no data in the record of commits at {RECORD!r}")

    def read(self) -> np.ndarray:
        """The record, of shape `()`."""
        if not _CAN_BYPASS:
            self._h5ds.refresh()
            return np.asarray(self._h5ds[()])
        content = os.pread(self._fd, RECORD_DTYPE.itemsize, self._offset or 0)
        if len(content) < RECORD_DTYPE.itemsize:
            raise ValueError("it ends before the record of commits")
        return np.frombuffer(content, RECORD_DTYPE).reshape(())

    def write(self, record: np.ndarray) -> None:
        """Replaces the record."""
        if _CAN_BYPASS:
            os.pwrite(self._fd, record.tobytes(), self._offset or 0)
        else:  # it may be older than the rows, never newer
            self._h5ds[()] = record
            self._h5ds.file.flush()

    def sync(self) -> None:
        """Asks the operating system to put the file on the disk itself."""
        os.fsync(self._fd)

    def check_in_place(self, path: Path) -> None:
        """Raises `FileNotFoundError` if the path leads to this file no more."""
        try:
            in_place = os.path.samestat(path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            in_place = False
        if not in_place:
            raise FileNotFoundError(
                f"The file must stay where it is while it is written. Received: path={str(path)!r}"
            )
