"""The file of a writer from its first step to its end, whatever goes wrong between."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format import superblock
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.writing.file_maker import FileMaker
from kerasext.storage.writing.resume import PresentFile
from kerasext.storage.writing.swmr_file import SwmrFile

_ERRORS_OF_THE_PATH = (BlockingIOError, FileExistsError, FileNotFoundError, PermissionError)


@dataclass
class CallerFacts:
    """What the thread that predicts knows, and may set at any time.

    It is apart from `CallState` because the thread that writes replaces that as a whole.

    Args:
        batch_size: Int. Rows of the batches that are predicted, 0 if unknown.
        stalled_seconds: Float. Seconds that the caller waited for the disk.
        why_values_differ: String. Why the same model may predict other values of known rows, quoted
            in the error if they differ.
    """

    batch_size: int = 0
    stalled_seconds: float = 0.0
    why_values_differ: str = ""


class WriteSession:
    """Opens the file at the first rows, commits them, and closes it.

    After an error of HDF5 or the operating system the file is given up: it keeps what was committed
    and is not written any more. After any other interruption of `append`, such as Ctrl-C, it
    takes no more rows, but those before can still be committed.

    Args:
        path: Path of the file, whose lock the caller holds.
        maker: `FileMaker` for the path.
        present: `PresentFile` to add rows to, `None` to make a new file.
        state: `CallState` to begin with.
        fsync: Bool or `None`; see `PredictionFileWriter`.

    Attributes:
        state: `CallState` with all rows that were appended. Its times are those of the last commit.
        caller: `CallerFacts`, which a commit stores.
        specs: Dict from output name to the spec in the open file; empty before.
        stage: String. `"writing"` if it takes rows; `"opening"` or `"torn"` if it was interrupted
            while it opened the file or appended; `"failed"` after an error; `"ended"`.
    """

    def __init__(
        self,
        path: Path,
        maker: FileMaker,
        present: PresentFile | None,
        *,
        state: CallState,
        fsync: bool | None,
    ) -> None:
        self._path, self._maker, self._present, self._fsync = path, maker, present, fsync
        # Replaced as a whole: Ctrl-C between two assignments would part the numbers.
        self.state = self._committed = state
        self.caller = CallerFacts(state.batch_size, state.stalled_seconds)
        self.stage: Literal["opening", "writing", "torn", "failed", "ended"] = "writing"
        self._file: SwmrFile | None = None
        self.specs: dict[str, Spec] = {}
        self._seconds_before = state.seconds
        self._began = 0.0

    def append(
        self,
        specs: Mapping[str, Spec],
        arrays: Mapping[str, Any],
        *,
        rows: int,
        data_rows: int,
        unchecked_resumes: int = 0,
    ) -> None:
        """Adds the rows of a step; makes or opens the file before, or rewrites it for wider text.

        Args:
            specs: The specs of all outputs.
            arrays: Mapping from output name to rows as they are stored.
            rows: Int. The number of rows.
            data_rows: Int. Rows of the data that these were kept of.
            unchecked_resumes: Int. 1 if known rows before them were not compared.

        Raises:
            OSError: If the disk is full, or fails otherwise.
        """
        with self._giving_up_on_error():
            file = self._file or self._open(specs)
            if specs != self.specs:
                file = self._widen(file, specs)
            state = self.state
            self.stage = "torn"  # until every output has the rows, whatever interrupts us
            file.append(arrays)
            self.state = state._replace(
                rows=state.rows + rows,
                data_rows=state.data_rows + data_rows,
                bytes=state.bytes + sum(array.nbytes for array in arrays.values()),
                unchecked_resumes=state.unchecked_resumes + unchecked_resumes,
            )
            self.stage = "writing"

    def commit(self) -> None:
        """Commits rows that were appended since the last commit, if there are any.

        Raises:
            OSError: If the disk is full, or fails otherwise.
        """
        if self._file is not None and self.stage == "writing" and self.state != self._committed:
            with self._giving_up_on_error():
                self._commit(self._file)

    def close(self, *, complete: bool) -> None:
        """Commits every row and closes the file; safe to call again.

        Args:
            complete: Bool. Whether the file is complete then.

        Raises:
            OSError: If the disk is full, or fails otherwise.
        """
        try:
            if self._file is not None and self.stage in {"writing", "torn"}:
                with self._giving_up_on_error():
                    self._commit(self._file, closing=True, complete=complete)
        finally:
            # A handle that has failed may fail to close too, and its error was raised before.
            ignored = (OSError, RuntimeError) if self.stage == "failed" else ()
            try:
                with contextlib.suppress(*ignored):
                    if self._file is not None:
                        self._file.close(sync=self._fsync is not None)
            finally:
                self._file = None
                self.stage = "ended"

    def _open(self, specs: Mapping[str, Spec]) -> SwmrFile:
        self.stage = "opening"
        self._began = time.monotonic()
        if self._present is None:
            self._file = self._maker.create(specs)
            self._write_state(self._file)
        elif self._present.is_writable and not self._present.is_narrower_than(specs):
            superblock.repair(self._path, self._present.end)
            self._reopen(specs)
        else:
            self._maker.rewrite(specs, self._stamped())
            self._reopen(specs)
        return self._opened(specs)

    def _widen(self, file: SwmrFile, specs: Mapping[str, Spec]) -> SwmrFile:
        """Replaces the open file by one with wider text, and opens that."""
        self._commit(file, closing=True)
        self.stage = "opening"
        file.close(sync=self._fsync is not None)
        self._file = None
        self._maker.rewrite(specs, self._stamped())
        self._reopen(specs)
        return self._opened(specs)

    def _reopen(self, specs: Mapping[str, Spec]) -> None:
        self._file = SwmrFile(self._path, specs, self.state.rows)
        self._write_state(self._file)
        if self._fsync is not None:
            # Before the first row: the file must not pass for one that was closed.
            self._file.sync()

    def _opened(self, specs: Mapping[str, Spec]) -> SwmrFile:
        assert self._file is not None
        self.specs = dict(specs)
        self.stage = "writing"
        return self._file

    def _commit(self, file: SwmrFile, *, closing: bool = False, complete: bool = False) -> None:
        sync = bool(self._fsync) or (closing and self._fsync is not None)
        # The rows, then the record: what it counts must be there.
        file.write_rows(self.state.rows, last=complete, trim=complete or self.stage == "torn")
        if sync:
            file.sync()
        self._write_state(file, complete=complete, closed=closing and sync)
        if sync:
            file.sync()

    def _write_state(self, file: SwmrFile, *, complete: bool = False, closed: bool = False) -> None:
        state = self._stamped()
        file.write_state(state._replace(complete=complete, closed=closed))
        self.state = self._committed = state

    def _stamped(self) -> CallState:
        return self.state._replace(
            ended=time.time(),
            seconds=self._seconds_before + time.monotonic() - self._began,
            stalled_seconds=self.caller.stalled_seconds,
            batch_size=self.caller.batch_size,
        )

    @contextlib.contextmanager
    def _giving_up_on_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # h5py has both for a full disk
            # HDF5 1.14 may now report success for chunks that it never indexes: no more of this
            # handle.
            self.stage = "failed"
            if isinstance(error, _ERRORS_OF_THE_PATH) and error.errno is None:
                raise  # by a check of ours, which says what to do
            kind = type(error) if isinstance(error, OSError) else OSError
            rows = self._committed.rows
            found = f"{rows} rows are committed, and mode='resume' continues after them"
            raise kind(
                getattr(error, "errno", None) or errno.EIO,
                f"Writing failed; {found if rows else 'no rows are committed'}. "
                f"Received: path={os.fspath(self._path)!r}, {error}",
            ) from error
