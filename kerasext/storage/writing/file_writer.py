"""Writing a prediction file: made at the first step, appended to, committed, closed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.step_specs import Ragged, check_ragged
from kerasext.storage.format import superblock
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.format.layout import IDS
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.writing.compression import Compression, check_compression
from kerasext.storage.writing.empty_file import ClassNamesByHead
from kerasext.storage.writing.file_lock import FileLock
from kerasext.storage.writing.file_maker import FileMaker, Mode
from kerasext.storage.writing.repeated_rows import CompleteFileCheck, check_repeated_rows
from kerasext.storage.writing.resume import FINGERPRINT, open_present_file
from kerasext.storage.writing.skipped_ids import SkippedIds
from kerasext.storage.writing.step_preparer import StepPreparer
from kerasext.storage.writing.write_session import WriteSession

if TYPE_CHECKING:
    from numpy.typing import DTypeLike


class PredictionFileWriter:
    """Appends the outputs of prediction steps to one HDF5 file.

    The path is checked and locked at once. The file appears under its name at the first step, when
    the outputs are known; until then an old file of that name stays as it is.

    Args:
        path: String or path-like. The file.
        mode: String. `"x"` for a new file that must not exist, `"w"` to replace one, `"a"` to add
            rows after those of a complete file, `"resume"` to continue an incomplete one. All but
            `"x"` make the file if it is missing.
        dtypes: Mapping from output name to the dtype it is stored as. Others keep their own. Text
            in a present file can get wider: the file is rewritten, and keeps its rows. Under
            `"resume"` a longer string widens it without being asked, to twice what it needs,
            unless its width is given here.
        attributes: Mapping from name to string or number. Attributes of the root of a new file.
        class_names: Sequence of strings, the names of the classes, or a mapping from head to such a
            sequence. Stored with the `labels`, `probabilities` and `top_k_labels` of the head.
        expected_rows: Int. Rows that the file will hold, if known; sizes the chunks.
        compression: As `check_compression` takes it; outputs that a mapping leaves out are not
            compressed. Defaults to `"auto"`: gzip for all but floats.
        ragged: As `check_ragged` takes it: outputs whose rows may differ in shape, but not in the
            number of axes. Defaults to `False`, for none.
        fsync: Bool. Whether every commit waits until the disk has the rows, so that they survive a
            loss of power. `finish` and `close` always do, unless it is `None`, for a file that can
            be made again. Defaults to `False`.
        resume_check: Bool. Whether known rows are compared with those in the file. If not, the file
            counts it. Defaults to `True`.

    Attributes:
        path: Path of the file, links resolved.
        caller: `CallerFacts`. What the thread that predicts knows, such as `batch_size`; stored
            with each commit.

    Raises:
        FileExistsError: If the file exists under `mode="x"`.
        FileNotFoundError: If its folder does not exist.
        IsADirectoryError: If the path is a folder.
        PermissionError: If the folder, or the file, is not writable.
        BlockingIOError: If another live writer has the file.
        ValueError: If the mode is unknown, the path leads to a device or a pipe, or the file under
            `mode="a"` is incomplete or not a prediction file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "x",
        dtypes: Mapping[str, DTypeLike] | None = None,
        attributes: Mapping[str, str | float] | None = None,
        class_names: ClassNamesByHead | None = None,
        expected_rows: int | None = None,
        compression: Compression | Mapping[str, Compression] = "auto",
        ragged: Ragged = False,
        fsync: bool | None = False,
        resume_check: bool = True,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"`mode` must be one of {get_args(Mode)}. Received: mode={mode!r}")
        # Through a link the file it leads to is written, and two links to one file share a lock.
        self.path = Path(os.path.realpath(path))
        self._mode = mode
        self._resume_check = resume_check
        self._process = os.getpid()
        compression, ragged = check_compression(compression), check_ragged(ragged)
        self._maker = FileMaker(
            self.path, mode=mode, compression=compression, durable=fsync is not None
        )
        self.set_description(attributes or {}, class_names, expected_rows)
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"The folder of `path` must exist; create it. Received: path={str(self.path)!r}"
            )
        self._lock = FileLock(self.path)
        try:
            self._maker.check_target(
                "pass mode='resume' to finish the present one, mode='a' to add rows to it, or "
                "mode='w' to replace it"
            )
            self._present = open_present_file(self.path, mode)
            state = CallState() if self._present is None else self._present.next_state(mode)
            self._complete_file: CompleteFileCheck | None = None
            if mode == "resume" and self._present is not None and self._present.state.complete:
                # Its writer may have been killed in its last moment.
                superblock.repair(self.path, self._present.end)
                self._complete_file = CompleteFileCheck(self.path, state)
            self._session = WriteSession(
                self.path, self._maker, self._present, state=state, fsync=fsync
            )
            self.caller = self._session.caller
            self._preparer = StepPreparer(
                dtypes or {},
                ragged=ragged,
                compression=compression,
                present=self._present,
                may_widen=mode == "resume",
            )
        except BaseException:
            self._lock.release()
            raise

    @property
    def rows(self) -> int:
        """Rows that were appended, those of earlier calls included."""
        return self._session.state.rows

    @property
    def state(self) -> CallState:
        """The state of this call with all appended rows; its times are those of the last commit."""
        return self._session.state

    @property
    def is_complete(self) -> bool:
        """Whether `"resume"` has found a complete file; then `append` only compares."""
        return self._complete_file is not None

    def declare_columns(self, names: Collection[str], id_width: int | None) -> None:
        """Says which columns the steps will have beside their outputs.

        Without this call `ids`, `targets` and `row` in a step are columns. After it only those in
        `names` are; the others are outputs of the model.

        Args:
            names: Those of `ids`, `targets` and `row`.
            id_width: Int. Bytes of the longest id, `None` if that is unknown or ids are numbers.

        Raises:
            ValueError: If a present file has other columns, or ids are too long for the dtype that
                was asked for, or under `"a"` for the file.
        """
        self._maker.side_columns = frozenset(names)
        if id_width is not None:
            self._preparer.reserve_id_width(id_width)
        if self._present is not None:
            self._present.check_columns(names)

    def skipped_ids(self) -> SkippedIds | None:
        """Opens the ids of the interrupted call, to compare those of skipped rows with.

        Returns:
            `SkippedIds`, to be closed by the caller; `None` if nothing is resumed or the file has
            no ids.
        """
        columns = self._maker.side_columns or ()
        if self._mode != "resume" or self._present is None or IDS not in columns:
            return None
        return SkippedIds(self.path, self.rows)

    def set_description(
        self,
        attributes: Mapping[str, str | float],
        class_names: ClassNamesByHead | None,
        expected_rows: int | None = None,
    ) -> None:
        """Sets what may be unknown until the model has been built; see the class for the arguments.

        Call it before the first `append`.
        """
        self._maker.attributes = dict(attributes)
        self._maker.class_names = class_names
        self._maker.expected_rows = expected_rows

    def check_fingerprint(self) -> None:
        """Checks that the attributes are of the model that an interrupted file was begun with.

        Raises:
            ValueError: If they are not.
        """
        if self._mode == "resume" and self._present is not None:
            self._present.check_fingerprint(self._maker.attributes.get(FINGERPRINT))

    def resumed_attribute(self, name: str) -> object:
        """What an interrupted file has under an attribute; `None` if it has none, or is new."""
        if self._mode != "resume" or self._present is None:
            return None
        return self._present.attributes.get(name)

    def append(
        self,
        step: Mapping[str, np.ndarray | RaggedRows],
        *,
        known: int = 0,
        data_rows: int | None = None,
    ) -> None:
        """Adds the rows of one step to every output; none if anything about the step is wrong.

        A file that was complete before stays as it is: the first step that is appended is compared
        with the first rows of its last call, any other one with the last rows.

        Args:
            step: Mapping from output name to an array of shape `(rows, ...)`, or `RaggedRows`. The
                names `ids`, `targets`, `targets/...` and `row` are those of columns that stand
                beside the outputs.
            known: Int. How many rows at the beginning of the first step are in the file already, as
                its last ones: they are compared with those instead of added.
            data_rows: Int. Rows of the data that these were kept of. Defaults to `None`: as many
                as are added.

        Raises:
            ValueError: If names, shapes, dtypes or numbers of rows are not those of the first step
                or of the file, or a value does not fit into the dtype it is stored as. If known
                rows differ from those in the file. If the writer was closed, or an earlier step
                failed halfway.
            TypeError: If HDF5 has no type for an output, or its rows differ in shape and it is not
                in `ragged`.
            OSError: If the disk is full, or fails otherwise. The rows of the last commit are safe,
                and nothing more can be written with this object.
        """
        session = self._session
        if session.stage != "writing":
            raise ValueError(
                "The writer must be open and without an error; make another one. "
                f"Received: a step after it was closed or failed, path={str(self.path)!r}"
            )
        specs = session.specs
        if not specs:
            specs = self._preparer.first_specs(step)
            self.check_fingerprint()
        specs, arrays = self._preparer.prepare(step, specs)
        rows = len(next(iter(arrays.values())))
        if self._complete_file is not None:
            session.specs = specs
            data_rows = rows if data_rows is None else data_rows
            self._complete_file.check(arrays, data_rows, self.caller.why_values_differ)
            return
        if known and self._resume_check:
            first = {name: array[:known] for name, array in arrays.items()}
            with contextlib.closing(FileSource(self.path)) as present:
                check_repeated_rows(present, first, self.rows, self.caller.why_values_differ)
        session.append(
            specs,
            {name: array[known:] for name, array in arrays.items()} if known else arrays,
            rows=rows - known,
            data_rows=rows - known if data_rows is None else data_rows,
            unchecked_resumes=int(known > 0 and not self._resume_check),
        )

    def commit(self) -> None:
        """Makes the rows appended so far safe from a kill, and visible to readers.

        With `fsync=True` they are safe from a loss of power as well.

        Raises:
            OSError: If the disk is full, or fails otherwise; see `append`.
        """
        self._session.commit()

    def finish(self) -> None:
        """Commits every row, marks the file as complete and closes it.

        Does nothing after `close` or an earlier `finish`.

        Raises:
            OSError: If the disk is full, or fails otherwise, now or in an earlier call; see
                `append`. The file is closed and stays incomplete.
            ValueError: If an earlier step failed halfway otherwise, with the same consequence.
        """
        stage = self._session.stage
        self._close(complete=stage == "writing")
        if stage in {"opening", "torn", "failed"}:
            kind = OSError if stage == "failed" else ValueError
            raise kind(
                "A file can be finished only if every step was written; see the error that was "
                f"raised before. Received: a step that failed, path={str(self.path)!r}"
            )

    def close(self) -> None:
        """Commits every row and closes the file, which then says that it is incomplete.

        Does nothing after `finish` or an earlier `close`.
        """
        self._close(complete=False)

    def expect_release(self) -> None:
        """Announces that another thread is about to close this; the next writer waits for it."""
        self._lock.expect_release()

    def _close(self, *, complete: bool) -> None:
        if os.getpid() != self._process:
            return  # a forked worker has a copy of this object, and no business with the file
        try:
            self._session.close(complete=complete)
        finally:
            self._lock.release()
