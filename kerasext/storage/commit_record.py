"""The record of what is committed: written last of all, and past HDF5."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import h5py
import numpy as np

from kerasext.storage import hard_links
from kerasext.storage.durable import write_at
from kerasext.storage.layout import RECORD, RECORD_DTYPE

_CAN_BYPASS = hasattr(os, "pwrite")  # not on Windows


def find(file: h5py.File) -> h5py.Dataset:
    """The dataset of the record.

    Raises:
        ValueError: If there is no such record in the file.
    """
    node = hard_links.find(file, RECORD)
    if not isinstance(node, h5py.Dataset) or (node.dtype, node.shape) != (RECORD_DTYPE, ()):
        raise ValueError(f"no record of commits at {RECORD!r}")
    if not 0 < (node.id.get_offset() or 0) < 2**63:
        raise ValueError(f"no data in the record of commits at {RECORD!r}")
    return node


def with_checksum(record: np.ndarray) -> np.ndarray:
    """The record with the checksum of its other fields."""
    sealed = record.copy()
    sealed["checksum"] = _checksum(record.tobytes())
    return sealed


def parse(content: bytes) -> np.ndarray:
    """The record, of shape `()`, that its bytes are.

    Raises:
        ValueError: If they are none.
    """
    if len(content) < RECORD_DTYPE.itemsize:
        raise ValueError("it ends before the record of commits")
    record = np.frombuffer(content, RECORD_DTYPE).reshape(())
    times = [float(record[name]) for name in ("ended", "seconds", "stalled_seconds")]
    if record["checksum"] != _checksum(content) or not (
        0 <= record["first_row"] <= record["rows"]
        and 0 <= record["first_data_row"] <= record["data_rows"]
        and record["rows"] <= record["data_rows"]
        and 0 <= record["complete"] <= 1
        and 0 <= record["closed"] <= 1
        and record["bytes"] >= 0
        and record["batch_size"] >= 0
        and all(0 <= seconds < float("inf") for seconds in times)
    ):
        raise ValueError(f"the record of commits is {record}")
    return record


def _checksum(content: bytes) -> int:
    return zlib.crc32(content[: RECORD_DTYPE.fields["checksum"][1]])  # type: ignore[index]


class CommitRecord:
    """The record of a file that is open for writing.

    Written by one system call within one page of the file, so that a kill leaves the old record or
    the new one; through HDF5 it would cost 60 times as much and come in an order of HDF5's own.

    Args:
        file: An open h5py file.
    """

    def __init__(self, file: h5py.File) -> None:
        self._h5ds = find(file)
        self._fd: int = file.id.get_vfd_handle()
        self._offset: int = self._h5ds.id.get_offset()

    def write(self, record: np.ndarray) -> None:
        """Replaces the record, its checksum being added."""
        record = with_checksum(record)
        if _CAN_BYPASS:
            write_at(self._fd, record.tobytes(), self._offset)
        else:  # it may be older than the rows, never newer
            self._h5ds[()] = record
            self._h5ds.file.flush()

    def sync(self) -> None:
        """Waits until the disk has what was written."""
        os.fsync(self._fd)

    def check_in_place(self, path: Path) -> None:
        """Raises `FileNotFoundError` if the path leads to this file no more."""
        try:
            in_place = os.path.samestat(path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            in_place = False
        if not in_place:
            raise FileNotFoundError(
                "The file must stay where it is while it is written; move it back, or predict "
                f"again. Received: path={str(path)!r}, which leads to another file, or to none"
            )
