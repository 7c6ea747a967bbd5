"""The file that rows are added to, under the modes "a" and "resume"."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.format.layout import ROW
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.reading.verification import end_of_chunks, sound_rows

FINGERPRINT = "model_fingerprint"


class PresentFile:
    """What a file has that rows are to be added to.

    Args:
        path: Path of the file.

    Attributes:
        state: `CallState` of the last commit, without the rows that are lost.
        lost_rows: Int. Committed rows after those, which do not match their checksums, as far as
            `sound_rows` compares them.
        is_writable: Bool. Whether HDF5 can go on with the file. After a loss of power the index of
            chunks can be half written in its part for rows that were not committed.
        end: Int. The byte where the content of the file ends, if it is writable.
        attributes: Dict of the attributes of the file.
        text_dtypes: Dict from name to stored dtype, of outputs and columns of strings.

    Raises:
        ValueError: If it is no prediction file; or damaged, but for rows of its last predict call.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # By a reader, which never waits for damaged metadata to become valid, as a writer does.
        self.end, self.is_writable = 0, True
        with contextlib.closing(FileSource(path)) as file:
            try:
                self.end = end_of_chunks(file)
            except ValueError:
                self.is_writable = False
        # Opened anew: HDF5 1.14 crashes if it reads on after it has met a damaged index.
        with contextlib.closing(FileSource(path)) as file:
            rows = sound_rows(file)
            self.lost_rows = file.state.rows - rows
            self.state = self._without_lost_rows(file, rows) if self.lost_rows else file.state
            self._side_columns = file.side_columns
            self.attributes = file.attributes()
            self._specs: dict[str, Spec] = {
                name: file.column(name).spec for name in file.output_names
            }
        self.text_dtypes = {
            name: spec.text_dtype
            for name, spec in self._specs.items()
            if spec.text_dtype is not None
        }

    def next_state(self, mode: str) -> CallState:
        """Returns the state that a call begins with.

        Args:
            mode: String. `"a"` begins a call of its own after the rows of the file, `"resume"` goes
                on with the call that wrote it.
        """
        present = self.state
        if mode == "resume":
            return present._replace(complete=False, closed=False)
        return CallState(
            rows=present.rows,
            first_row=present.rows,
            data_rows=present.data_rows,
            first_data_row=present.data_rows,
            unchecked_resumes=present.unchecked_resumes,
        )

    def check_columns(self, names: Collection[str]) -> None:
        """Raises `ValueError` if rows with other columns beside their outputs are to be added."""
        if self._side_columns != set(names):
            raise ValueError(
                "Rows must have the columns of the file beside their outputs; pass the same `ids`, "
                "`targets` and `keep` as in the first run. "
                f"Stored: {sorted(self._side_columns)}. Received: {sorted(names)}"
            )

    def check_specs(self, specs: Mapping[str, Spec]) -> None:
        """Raises `ValueError` if rows of other outputs, shapes or dtypes are to be added.

        Text may get wider.
        """
        if self._specs.keys() != specs.keys():
            raise ValueError(
                "Rows must have the outputs of the file; pass the same `outputs`, or write to "
                "another file. "
                f"Stored: {sorted(self._specs)}. Received: {sorted(specs)}"
            )
        for name, spec in specs.items():
            self._check_same_kind(name, spec)
            stored: Any = self._specs[name]
            stored.check_same(spec, self._path)

    def check_fingerprint(self, given: object) -> None:
        """Raises `ValueError` if rows of another model are to be added."""
        stored = self.attributes.get(FINGERPRINT)
        if given != stored:
            raise ValueError(
                "`mode='resume'` needs the same weights and settings as the first run; pass "
                "mode='w' to start over with others. "
                f"Stored: {FINGERPRINT}={stored!r}. Received: {given!r}"
            )

    def is_narrower_than(self, specs: Mapping[str, Spec]) -> bool:
        """Whether text is to get wider than it is in the file."""
        return any(specs[name].text_dtype != dtype for name, dtype in self.text_dtypes.items())

    def _without_lost_rows(self, file: FileSource, rows: int) -> CallState:
        state = file.state
        if rows < state.first_row:
            raise ValueError(
                "The rows of earlier `predict` calls must be whole, for only those of the last one "
                "can be predicted again; pass mode='w' to predict all of them. "
                f"Received: path={str(self._path)!r}, in which rows after row {rows} do not match "
                f"their checksums, and the last call began at row {state.first_row}"
            )
        left, before = rows - state.first_row, state.rows - state.first_row
        data_rows = state.first_data_row + left
        if left and ROW in file.side_columns:  # not all rows of the data were kept
            data_rows = int(file.dense_column(ROW).read_rows(rows - 1, rows)[0]) + 1
        return state._replace(
            rows=rows,
            data_rows=data_rows,
            bytes=state.bytes * left // before,
            complete=False,
        )

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


def open_present_file(path: Path, mode: str) -> PresentFile | None:
    """Reads the file that rows are to be added to, and checks that the mode allows it.

    Warns under `"resume"` if committed rows are lost.

    Args:
        path: Path of the file.
        mode: String. The mode of the writer.

    Returns:
        The file; `None` if there is none, or the mode makes a new one.

    Raises:
        ValueError: If the file is damaged or incomplete under `"a"`; see `PresentFile`, too.
    """
    if mode not in {"a", "resume"} or not path.exists():
        return None
    present = PresentFile(path)
    rows = present.state.rows
    if present.lost_rows:
        of_all = f"{present.lost_rows} of its {rows + present.lost_rows} rows"
        if mode == "a":
            raise ValueError(
                "`mode='a'` adds rows to a file that is whole; pass mode='resume' with the data of "
                f"its last `predict` call to predict {present.lost_rows} rows again. "
                f"Received: path={str(path)!r}, in which {of_all} do not match their checksums"
            )
        warnings.warn(
            f"The file is damaged, as after a loss of power: {of_all} do not match their "
            f"checksums. mode='resume' goes on from row {rows}. Received: path={str(path)!r}",
            stacklevel=3,  # whoever makes the writer
        )
    if mode == "a" and not present.state.complete:
        raise ValueError(
            "`mode='a'` adds rows to a complete file, and this one was interrupted; pass "
            "mode='resume' with the same data to finish it. "
            f"Received: path={str(path)!r} with {rows} rows"
        )
    return present
