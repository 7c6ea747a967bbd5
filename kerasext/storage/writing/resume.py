"""What is in a file that rows are to be added to."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format.layout import ROW
from kerasext.storage.reading.file_columns import FileColumn, FileRaggedColumn
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.verification import end_of_chunks, sound_rows

FINGERPRINT = "model_fingerprint"

_BLOCK_ROWS = 1024  # of different shapes


class PresentFile:
    """The outputs of a file, and how far the call came that wrote it.

    Args:
        path: Path of the file.

    Attributes:
        rows: Int. Committed rows that match their checksums, as far as `sound_rows` compares them.
        lost_rows: Int. Committed rows after them.
        first_row: Int. Row at which the rows of its last predict call begin.
        data_rows: Int. Rows of the data that were predicted for all of its rows.
        first_data_row: Int. How many of them in calls before the last one.
        is_complete: Bool. Whether that call came to its end, and no row is lost.
        bytes: Int. Bytes of the rows of that call.
        batch_size: Int. Rows of its batches, 0 if unknown.
        unchecked_resumes: Int. How often a call went on without comparing values.
        seconds: Float. Time that it took.
        stalled_seconds: Float. Of it, how long the model waited for the disk.
        is_writable: Bool. Whether the whole index of chunks can be read. After a loss of power the
            part for rows that were not committed can be half written, and HDF5 can't go on.
        end: Int. The byte at which what the file refers to ends, if it is writable.
        text_dtypes: Dict from name to dtype of what has strings, whose width is to stay.

    Raises:
        ValueError: If it is no prediction file; or damaged, but for rows of its last predict call.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # This reader never waits. A writer reads damaged metadata again and again, for hours, if
        # HDF5 is not told otherwise.
        self.end, self.is_writable = 0, True
        with contextlib.closing(FileSource(path)) as file:
            try:
                self.end = end_of_chunks(file)
            except ValueError:
                self.is_writable = False
        # Opened anew: HDF5 crashes if it reads on after it met a damaged index.
        with contextlib.closing(FileSource(path)) as file:
            self.rows = sound_rows(file)
            self.lost_rows = file.state.rows - self.rows
            self.first_row = file.state.first_row
            self.data_rows = file.state.data_rows
            self.first_data_row = file.state.first_data_row
            self.is_complete = file.state.complete and not self.lost_rows
            self.bytes = file.state.bytes
            self.batch_size = file.state.batch_size
            self.unchecked_resumes = file.state.unchecked_resumes
            self.seconds = file.state.seconds
            self.stalled_seconds = file.state.stalled_seconds
            if self.lost_rows:
                self._leave_out_lost_rows(file)
            self._columns = file.side_columns
            self._fingerprint = file.attribute(FINGERPRINT)
            self._specs: dict[str, Spec] = {
                name: file.column(name).spec for name in file.output_names
            }

        self.text_dtypes = {
            name: spec.text_dtype
            for name, spec in self._specs.items()
            if spec.text_dtype is not None
        }

    def _leave_out_lost_rows(self, file: FileSource) -> None:
        if self.rows < self.first_row:
            raise ValueError(
                "The rows of earlier `predict` calls must be whole, for only those of the last one "
                "can be predicted again; pass mode='w' to predict all of them. "
                f"Received: path={str(self._path)!r}, in which rows after row {self.rows} do not "
                f"match their checksums, and the last call began at row {self.first_row}"
            )
        rows = self.rows - self.first_row
        self.bytes = self.bytes * rows // (rows + self.lost_rows)
        self.data_rows = self.first_data_row + rows
        if rows and ROW in file.side_columns:  # not all rows of the data were kept
            self.data_rows = int(file.dense_column(ROW).read_rows(self.rows - 1, self.rows)[0]) + 1

    def check_columns(self, names: Collection[str]) -> None:
        """Raises `ValueError` if rows with other columns beside their outputs are to be added."""
        if self._columns != set(names):
            raise ValueError(
                "Rows can be added only with the columns that the file has beside its outputs, "
                "which `ids`, `targets` and `keep` (for `row`) make; write to another file. "
                f"Stored: {sorted(self._columns)}. Received: {sorted(names)}"
            )

    def check_specs(self, specs: Mapping[str, Spec]) -> None:
        """Raises `ValueError` if rows of other outputs, shapes or dtypes are to be added.

        Text may get wider.
        """
        if self._specs.keys() != specs.keys():
            raise ValueError(
                "Rows can be added only for the outputs that the file has; write to another file. "
                f"Stored: {sorted(self._specs)}. Received: {sorted(specs)}"
            )
        for name, spec in specs.items():
            self._check_same_kind(name, spec)
            stored: Any = self._specs[name]
            stored.check_same(spec, self._path)

    def is_narrower_than(self, specs: Mapping[str, Spec]) -> bool:
        """Whether text is to get wider than it is in the file."""
        return any(specs[name].text_dtype != dtype for name, dtype in self.text_dtypes.items())

    def _check_same_kind(self, name: str, spec: Spec) -> None:
        if type(self._specs[name]) is type(spec):
            return
        rows, given = "of one shape; take it out of `ragged`", "in `ragged`"
        if isinstance(spec, DenseSpec):
            rows, given = f"of different shapes; pass `ragged=[{name!r}]`", "not in `ragged`"
        raise ValueError(
            f"Output {name!r} must be stored as {self._path} has it, with rows {rows}. "
            f"Received: {name!r} {given}"
        )

    def check_fingerprint(self, given: object) -> None:
        """Raises `ValueError` if rows of another model are to be added."""
        if given != self._fingerprint:
            raise ValueError(
                "`mode='resume'` goes on with the weights and settings that the file was begun "
                "with; pass mode='w' to predict again with others. "
                f"Stored: {FINGERPRINT}={self._fingerprint!r}. Received: {given!r}"
            )


def stored_rows(
    column: FileColumn | FileRaggedColumn, rows: int
) -> Iterator[np.ndarray | RaggedRows]:
    """The first rows of an output in blocks, as they are stored."""
    length = column.chunk_rows if isinstance(column, FileColumn) else _BLOCK_ROWS
    for start in range(0, rows, length):
        yield column.read_rows(start, min(start + length, rows))
