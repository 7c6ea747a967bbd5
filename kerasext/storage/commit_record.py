"""The record of what is committed: written last of all, and past HDF5."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
        dataset: Any = file
        for name in RECORD.split("/"):  # not through links, which lead to other files
            found = isinstance(dataset, h5py.Group) and name in dataset
            link = dataset.get(name, getlink=True) if found else None
            dataset = dataset[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(dataset, h5py.Dataset) or (dataset.dtype, dataset.shape) != (
            RECORD_DTYPE,
            (),
        ):
            raise ValueError(f"no record of commits at {RECORD!r}")
        self._h5ds = dataset
        self._fd: int = file.id.get_vfd_handle()
        self._offset: int | None = dataset.id.get_offset()
        if self._offset is None or self._offset >= 2**63:
            raise ValueError(f"no data in the record of commits at {RECORD!r}")

    def read(self) -> np.ndarray:
        """The record, of shape `()`.

        Raises:
            ValueError: If it is not there, or what is there can't be one.
        """
        if _CAN_BYPASS:
            content = os.pread(self._fd, RECORD_DTYPE.itemsize, self._offset or 0)
            if len(content) < RECORD_DTYPE.itemsize:
                raise ValueError("it ends before the record of commits")
            record = np.frombuffer(content, RECORD_DTYPE).reshape(())
        else:
            self._h5ds.refresh()
            record = np.asarray(self._h5ds[()])
        times = [float(record[name]) for name in ("ended", "seconds", "stalled_seconds")]
        if not (
            0 <= record["first_row"] <= record["rows"]
            and 0 <= record["complete"] <= 1
            and record["bytes"] >= 0
            and all(0 <= seconds < float("inf") for seconds in times)
        ):
            raise ValueError(f"the record of commits is {record}")
        return record

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
