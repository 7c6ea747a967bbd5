"""The commit record, which is written after everything else, and without HDF5."""

from __future__ import annotations

import builtins
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from kerasext.common import write_at
from kerasext.storage.format import links
from kerasext.storage.format.layout import RECORD

_CAN_BYPASS = hasattr(os, "pwrite")  # not on Windows

_INTS = ("rows", "first_row", "data_rows", "first_data_row", "complete", "closed")
RECORD_DTYPE = np.dtype(
    [
        *((name, "<i8") for name in _INTS),
        ("ended", "<f8"),
        ("bytes", "<i8"),
        ("seconds", "<f8"),
        ("stalled_seconds", "<f8"),
        ("batch_size", "<i8"),
        ("unchecked_resumes", "<i8"),
        ("rows_checksum", "<u4"),
        ("checksum", "<u4"),  # CRC-32 of all before it
    ]
)
"""The record in the file: the fields of `CallState`, and a checksum."""
_CHECKED_BYTES: int = RECORD_DTYPE.fields["checksum"][1]  # type: ignore[index]


class CallState(NamedTuple):
    """The state of a predict call at its last commit, as the commit record has it.

    Args:
        rows: Int. Committed rows of the file.
        first_row: Int. Row at which the rows of the call begin.
        data_rows: Int. Rows of the data that were predicted: more than `rows` if not all are kept.
        first_data_row: Int. How many of them in calls before this one.
        complete: Bool. Whether the call ended and all its rows are committed.
        closed: Bool. Whether the writer closed the file after all rows were on the disk.
        ended: Float. Time of the commit, in seconds since 1970-01-01 UTC.
        bytes: Int. Bytes of the rows of the call, before compression.
        seconds: Float. Duration of the call, the time before it was resumed included.
        stalled_seconds: Float. How long of it the model waited for the disk.
        batch_size: Int. Rows of a batch, 0 if unknown.
        unchecked_resumes: Int. How often the call was resumed without comparing values.
        rows_checksum: Int. CRC-32 that covers all rows: see `checksums.file_checksum`.
    """

    rows: int = 0
    first_row: int = 0
    data_rows: int = 0
    first_data_row: int = 0
    complete: bool = False
    closed: bool = False
    ended: float = 0.0
    bytes: int = 0
    seconds: float = 0.0
    stalled_seconds: float = 0.0
    batch_size: int = 0
    unchecked_resumes: int = 0
    rows_checksum: int = 0

    @classmethod
    def parse(cls, content: builtins.bytes) -> CallState:
        """Reads the bytes of a record.

        Raises:
            ValueError: If they are no record, or its checksum does not match.
        """
        if len(content) < RECORD_DTYPE.itemsize:
            raise ValueError("it ends before the record of commits")
        content = content[: RECORD_DTYPE.itemsize]
        record = np.frombuffer(content, RECORD_DTYPE)[0]
        *fields, _ = record.item()
        state = cls(*fields)
        state = state._replace(complete=bool(state.complete), closed=bool(state.closed))
        # Compared in full, not by the checksum only: a flag could be another number than 0 and 1.
        if state.to_record().tobytes() != content or not state._is_possible():
            raise ValueError(f"the record of commits is {record}")
        return state

    def to_record(self) -> np.ndarray:
        """The record with its checksum, an array of shape `()`."""
        record = np.array((*self, 0), RECORD_DTYPE)
        record["checksum"] = zlib.crc32(record.tobytes()[:_CHECKED_BYTES])
        return record

    @property
    def checksum(self) -> int:
        """CRC-32 of the record, which tells one commit from another."""
        return int(self.to_record()["checksum"])

    @property
    def health(self) -> dict[str, float]:
        """Rows, bytes and times of the call."""
        predicted = self.data_rows - self.first_data_row
        return {
            "rows": self.rows - self.first_row,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "stalled_seconds": self.stalled_seconds,
            "rows_per_second": predicted / self.seconds if self.seconds else 0.0,
        }

    def _is_possible(self) -> bool:
        return (
            0 <= self.first_row <= self.rows <= self.data_rows
            and 0 <= self.first_data_row <= self.data_rows
            and min(self.bytes, self.batch_size) >= 0
            and all(
                0 <= seconds < float("inf")
                for seconds in (self.ended, self.seconds, self.stalled_seconds)
            )
        )


def find(file: h5py.File) -> h5py.Dataset:
    """The dataset of the record.

    Raises:
        ValueError: If there is no such record in the file.
    """
    node = links.find(file, RECORD)
    if (
        not isinstance(node, h5py.Dataset)
        or node.shape != ()
        or node.id.get_type().get_size() != RECORD_DTYPE.itemsize
    ):
        raise ValueError(f"no record of commits at {RECORD!r}")
    if not 0 < (node.id.get_offset() or 0) < 2**63:
        raise ValueError(f"no data in the record of commits at {RECORD!r}")
    return node


class CommitRecord:
    """The record of a file that is open for writing.

    Written by one system call within one page of the file, so that a kill leaves the old record or
    the new one; through HDF5 it would cost 60 times as much and come in an order of HDF5's own.
    The dataset is made before SWMR mode begins, because readers of HDF5 1.14.4 and later can't read
    one that was made in it (HDFGroup/hdf5#5251).

    Args:
        file: An open h5py file.
    """

    def __init__(self, file: h5py.File) -> None:
        self._h5ds = find(file)
        self._fd: int = file.id.get_vfd_handle()
        self._offset: int = self._h5ds.id.get_offset()

    def write(self, state: CallState) -> None:
        """Replaces the record."""
        record = state.to_record()
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
