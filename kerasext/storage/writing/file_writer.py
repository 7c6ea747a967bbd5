"""Writing a prediction file: made at the first step, appended to, committed, closed."""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import errno
import os
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import h5py
import numpy as np
from h5py._objects import with_phil

from kerasext.common import atomic_path, check_replaceable
from kerasext.storage.columns.dense_spec import TextTooLongError
from kerasext.storage.columns.ragged_rows import RaggedRows
from kerasext.storage.columns.ragged_spec import RaggedSpec
from kerasext.storage.columns.step_specs import Ragged, Spec, check_ragged, specs_of
from kerasext.storage.format import superblock
from kerasext.storage.format.checksums import RowChecksums, file_checksum
from kerasext.storage.format.commit_record import CallState, CommitRecord
from kerasext.storage.format.layout import IDS, PLAIN_OUTPUTS, ROW, SUMS, plain_outputs
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.writing import new_file
from kerasext.storage.writing.chunk_writer import ChunkWriter
from kerasext.storage.writing.compression import (
    Compression,
    check_compressed_outputs,
    check_compression,
)
from kerasext.storage.writing.file_lock import FileLock
from kerasext.storage.writing.overlap import SortedRows, check_overlap
from kerasext.storage.writing.ragged_writer import RaggedWriter
from kerasext.storage.writing.resume import (
    FINGERPRINT,
    PresentFile,
    stored_class_names,
    stored_rows,
)
from kerasext.storage.writing.skipped_ids import SkippedIds

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Mode = Literal["x", "w", "a", "resume"]

_OF_THE_PATH = (BlockingIOError, FileExistsError, FileNotFoundError, PermissionError)


class PredictionFileWriter:
    """Appends the outputs of prediction steps to one HDF5 file.

    The path is checked and locked at once; the file appears under its name at the first step, when
    the outputs are known. Until then an old file under that name stays as it is.

    Args:
        path: String or path-like. The file.
        mode: `"x"` for a new file that must not exist, `"w"` to replace one, `"a"` to add rows
            after those of a complete file, `"resume"` to go on with an incomplete one. All but
            `"x"` make the file where it is missing.
        dtypes: Mapping from output name to the dtype it is stored as. Others keep their own. Text
            in a file that is there can get wider: the file is rewritten, and keeps its rows. Under
            `"resume"` it does so by itself if a longer string comes, to twice what that needs,
            unless its width is given here.
        attributes: Mapping from name to string or number. Attributes of the file, written when it
            is made; like `class_names` it can be set until the first `append`.
        class_names: Sequence of strings, the names of the classes, or a mapping from head to such a
            sequence. Kept on the `labels`, `probabilities` and `top_k_labels` of the head.
        expected_rows: Int. Rows that the file will hold, if known; sizes the chunks. Can be set
            until the first `append`, too.
        compression: As `check_compression` takes it; outputs that a mapping leaves out are not
            compressed. Defaults to `"auto"`: gzip for all but floats.
        ragged: As `check_ragged` takes it: outputs whose rows may differ in shape, but not in the
            number of axes. Defaults to `False`, for none.
        fsync: Bool. Whether every commit waits until the disk has the rows, so that they survive a
            loss of power. `finish` and `close` always do, unless it is `None`, for a file that can
            be made again. Defaults to `False`.

    Attributes:
        path: Path of the file, links resolved.
        first_row: Int. Row at which the rows of this call begin; under `"resume"` that of the call
            that was interrupted.
        first_data_row: Int. How many of `data_rows` were in calls before this one.
        batch_size: Int. Rows of the batches that are predicted, 0 if unknown; kept in the file.
        compares_values: Bool. Whether known rows are compared with those in the file, which counts
            in the file if they are not. Can be set until the first `append`.
        why_others: String. Why the same model may predict other values of known rows, for errors;
            `""` if nothing is known.
        is_complete: Bool. Whether the file was complete before, under `"resume"`: then `append`
            adds nothing, but compares.
        bytes: Int. Bytes of the rows that were appended, before compression.
        seconds: Float. Time since the first `append`, and that before the call was interrupted.
        stalled_seconds: Float. Time that callers waited; kept in the file, set by who knows.

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
        class_names: new_file.ClassNamesByHead | None = None,
        expected_rows: int | None = None,
        compression: Compression | Mapping[str, Compression] = "auto",
        ragged: Ragged = False,
        fsync: bool | None = False,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"`mode` must be one of {get_args(Mode)}. Received: mode={mode!r}")
        # Through a link the file it leads to is written, and two links to one file share a lock.
        self.path = Path(os.path.realpath(path))
        # Together: an interruption between two assignments would part them.
        self._counted = self._committed = (0, 0)  # rows, and rows of the data
        self.first_row = self.first_data_row = self.bytes = 0
        self.seconds = self.stalled_seconds = 0.0
        self.is_complete = False
        self.attributes = dict(attributes or {})
        self.class_names = class_names
        self.expected_rows = expected_rows
        self.batch_size = 0
        self.compares_values = True
        self.why_others = ""
        self._unchecked_resumes = 0
        self._mode = mode
        self._dtypes = dict(dtypes or {})
        self._compression = check_compression(compression)
        self._ragged = check_ragged(ragged)
        self._fsync = fsync
        self._file: h5py.File | None = None
        self._seconds_before = 0.0
        self._specs: dict[str, Spec] = {}
        self._column_names: frozenset[str] | None = None
        self._is_compared = False  # the first step of a complete file
        self._columns: dict[str, Any] = {}  # `ChunkWriter`, or a `RaggedWriter`
        self._state: Literal["opening", "writing", "torn", "failed", "ended"] = "writing"
        self._process = os.getpid()
        if not self.path.parent.is_dir():
            raise FileNotFoundError(
                f"The folder of `path` must exist; create it. Received: path={str(self.path)!r}"
            )
        self._lock = FileLock(self.path)
        try:
            self._check_target(
                "pass mode='resume' to finish the present one, mode='a' to add rows to it, or "
                "mode='w' to replace it"
            )
            self._present = self._read_present()
        except BaseException:
            self._lock.release()
            raise

    @property
    def rows(self) -> int:
        """Rows that were appended, those of earlier calls included."""
        return self._counted[0]

    @property
    def data_rows(self) -> int:
        """Rows of the data that were predicted for them: more where not all are kept."""
        return self._counted[1]

    @property
    def health(self) -> dict[str, float]:
        """Rows, bytes and seconds of this call, also those before it was interrupted."""
        return self._call_state().health

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
            known: Int. How many rows at the beginning of the step are in the file already, as its
                last ones: they are compared with those instead of added.
            data_rows: Int. Rows of the data that these were kept of. Defaults to `None`, for as
                many as are added.

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
        if self._state != "writing":
            raise ValueError(
                "The writer must be open and without an error; make another one. "
                f"Received: a step after it was closed or failed, path={str(self.path)!r}"
            )
        specs: Mapping[str, Spec] = self._specs or self._describe(step)
        if step.keys() != specs.keys():
            raise ValueError(
                "Every step must have the same outputs. "
                f"First step: {sorted(specs)}. Received: {sorted(step)}"
            )
        specs, arrays = self._prepare(step, specs)
        lengths = {name: len(array) for name, array in arrays.items()}
        rows = next(iter(lengths.values()))
        if any(length != rows for length in lengths.values()):
            raise ValueError(
                f"All outputs of a step must have the same number of rows. Received: rows={lengths}"
            )
        if self.is_complete:
            self._specs = dict(specs)
            self._compare(arrays, rows if data_rows is None else data_rows)
            return
        with self._abandoning_on_error():
            file = self._file or self._open(specs)
            if specs != self._specs:
                file = self._widen(specs)
            if known:
                first = {name: array[:known] for name, array in arrays.items()}
                if self.compares_values:
                    check_overlap(file, first, self.rows, self.why_others)
                else:
                    self._unchecked_resumes += 1
                arrays = {name: array[known:] for name, array in arrays.items()}
            self._state = "torn"  # until every output has the rows, whatever interrupts us
            for name, array in arrays.items():
                self._columns[name].append(array)
            added = rows - known
            self._counted = (
                self.rows + added,
                self.data_rows + (added if data_rows is None else data_rows),
            )
            self.bytes += sum(array.nbytes for array in arrays.values())
            self._state = "writing"

    def _prepare(
        self, step: Mapping[str, np.ndarray | RaggedRows], specs: Mapping[str, Spec]
    ) -> tuple[Mapping[str, Spec], dict[str, Any]]:
        """Returns the specs, under "resume" widened for longer text, and the rows as stored."""
        while True:
            try:
                return specs, {name: spec.prepare(step[name]) for name, spec in specs.items()}
            except TextTooLongError as error:
                if self._mode != "resume" or error.output in self._dtypes:
                    raise
                # Twice as wide: a longer string may follow, and this takes as long as the file is.
                spec = specs[error.output].widened(2 * error.width)
                specs = {**specs, error.output: spec}

    def _compare(self, arrays: Mapping[str, Any], data_rows: int) -> None:
        """Compares the rows of a step with those that the file has of the same rows of the data."""
        rows = len(next(iter(arrays.values())))
        is_first, self._is_compared = not self._is_compared, True
        after = self.first_row + rows if is_first else self.rows
        with contextlib.closing(FileSource(self.path)) as file:
            if ROW in file.columns:  # so that `keep` left as many of them
                data_row = self.first_data_row if is_first else self.data_rows - data_rows
                numbers = SortedRows(file, self.first_row, self.rows)
                kept = bisect.bisect_left(numbers, data_row + data_rows)
                kept -= bisect.bisect_left(numbers, data_row)
                if kept != rows:
                    raise ValueError(
                        "`mode='resume'` goes on with the same `keep`; pass mode='w' to predict "
                        f"again. Stored: {kept} of {data_rows} rows from row {data_row} of the "
                        f"data on. Received: {rows} of them"
                    )
            check_overlap({**file.datasets, **file.ragged}, arrays, after, self.why_others)

    def commit(self) -> None:
        """Makes the rows appended so far safe from a kill, and visible to readers.

        With `fsync=True` they are safe from a loss of power as well.

        Raises:
            OSError: If the disk is full, or fails otherwise; see `append`.
        """
        is_new = self._counted != self._committed
        if self._file is not None and self._state == "writing" and is_new:
            with self._abandoning_on_error():
                self._commit()

    def finish(self) -> None:
        """Commits every row, marks the file as complete and closes it.

        Does nothing after `close` or an earlier `finish`.

        Raises:
            OSError: If the disk is full, or fails otherwise, now or in an earlier call; see
                `append`. The file is closed and stays incomplete.
            ValueError: If an earlier step failed halfway otherwise, with the same consequence.
        """
        state = self._state
        self._close(complete=state == "writing")
        if state in {"opening", "torn", "failed"}:
            kind = OSError if state == "failed" else ValueError
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
        """Says that another thread is about to close it, for which the next writer is to wait."""
        self._lock.expect_release()

    def _check_target(self, remedy: str) -> None:
        received = f"Received: path={str(self.path)!r}"
        if self.path.is_dir():
            raise IsADirectoryError(f"`path` must be a file, not a folder. {received}")
        check_replaceable(self.path)
        if self.path.exists():
            if self._mode == "x":
                raise FileExistsError(f"`mode='x'` writes a new file; {remedy}. {received}")
            if not os.access(self.path, os.W_OK):
                raise PermissionError(f"The file must be writable. {received}")

    def _read_present(self) -> PresentFile | None:
        if self._mode not in {"a", "resume"} or not self.path.exists():
            return None
        present = PresentFile(self.path)
        if present.lost_rows:
            self._tell_of_lost_rows(present)
        self.first_row, self.first_data_row = present.rows, present.data_rows
        self._counted = self._committed = (present.rows, present.data_rows)
        self._unchecked_resumes = present.unchecked_resumes
        if self._mode == "resume":
            self.first_row = present.first_row
            self.first_data_row = present.first_data_row
            self.is_complete = present.is_complete
            self.bytes = present.bytes
            self.batch_size = present.batch_size
            self.stalled_seconds = present.stalled_seconds
            self._seconds_before = present.seconds
        elif not present.is_complete:
            raise ValueError(
                "`mode='a'` adds rows to a complete file, and this one was interrupted; pass "
                "mode='resume' with the same data to finish it. "
                f"Received: path={str(self.path)!r} with {present.rows} rows"
            )
        if self.is_complete:
            # Its writer may have been killed in its last moment.
            superblock.repair(self.path, present.end)
        return present

    def _tell_of_lost_rows(self, present: PresentFile) -> None:
        rows = present.rows + present.lost_rows
        found = f"{present.lost_rows} of its {rows} rows do not match their checksums"
        if self._mode == "a":
            raise ValueError(
                "`mode='a'` adds rows to a file that is whole; pass mode='resume' with the data of "
                f"its last `predict` call to predict {present.lost_rows} rows again. "
                f"Received: path={str(self.path)!r}, in which {found}"
            )
        warnings.warn(
            f"The file is damaged, as after a loss of power: {found}. mode='resume' goes on from "
            f"row {present.rows}. Received: path={str(self.path)!r}",
            stacklevel=4,
        )

    def begin_columns(self, names: Collection[str], id_width: int | None) -> SkippedIds | None:
        """Checks the columns that the steps will have beside their outputs.

        Before this call `ids`, `targets` and `row` in a step are columns. After it only those in
        `names` are; the others are outputs.

        Args:
            names: Those of `ids`, `targets` and `row`.
            id_width: Int. Bytes of the longest id, `None` if that is unknown or ids are numbers.

        Returns:
            The ids of the call that was interrupted, for the steps before the first one to be
            compared with; `None` if there are none.

        Raises:
            ValueError: If a file that is there has others, or ids are too long for the dtype that
                was asked for, or under `"a"` for the file.
        """
        self._column_names = frozenset(names)
        widths = self._present.text_dtypes if self._present is not None else {}
        dtype = np.dtype(self._dtypes.get(IDS, widths.get(IDS, np.void)))
        if dtype.kind == "S" and id_width is not None and id_width > dtype.itemsize:
            if self._mode != "resume" or IDS in self._dtypes:
                raise TextTooLongError(IDS, id_width, dtype)
            self._dtypes[IDS] = np.dtype(f"S{id_width}")
        if self._present is None:
            return None
        self._present.check_columns(names)
        return SkippedIds(self.path, self.rows) if self._mode == "resume" and IDS in names else None

    def check_fingerprint(self) -> None:
        """Checks that `attributes` are of the model that an interrupted file was begun with.

        Raises:
            ValueError: If they are not.
        """
        if self._mode == "resume" and self._present is not None:
            self._present.check_fingerprint(self.attributes.get(FINGERPRINT))

    def _describe(self, step: Mapping[str, np.ndarray | RaggedRows]) -> dict[str, Spec]:
        dtypes = self._dtypes
        if self._present is not None:
            widths = self._present.text_dtypes.items()
            dtypes = {**{name: dtype for name, dtype in widths if name in step}, **dtypes}
        specs = specs_of(step, dtypes=dtypes, ragged=self._ragged)
        check_compressed_outputs(specs, self._compression)
        if self._present is not None:
            self._present.check_specs(specs)
            self.check_fingerprint()
        return specs

    def _open(self, specs: Mapping[str, Spec]) -> h5py.File:
        self._state = "opening"
        self._began = time.monotonic()
        if self._present is None:
            self._create(specs)
            self._write_record()
        else:
            if self._present.is_writable and not self._present.is_narrower_than(specs):
                superblock.repair(self.path, self._present.end)
            else:
                self._rewrite(specs)
            self._reopen(specs)
        file = self._file
        assert file is not None
        self._specs = dict(specs)
        self._state = "writing"
        return file

    def _reopen(self, specs: Mapping[str, Spec]) -> None:
        self._file = _open_swmr(self.path)
        self._begin(self._file, specs, self.rows)
        self._write_record()
        if self._fsync is not None:
            # Before the first row: the file must not pass for one that was closed.
            self._record.sync()

    def _widen(self, specs: Mapping[str, Spec]) -> h5py.File:
        """Replaces the open file by one with wider text, and continues in that."""
        self._commit(closing=True)
        self._state = "opening"
        self._close_hdf5()
        self._file = None
        self._rewrite(specs)
        self._reopen(specs)
        self._specs = dict(specs)
        self._state = "writing"
        assert self._file is not None
        return self._file

    def _create(self, specs: Mapping[str, Spec]) -> None:
        with self._new_file(specs) as part:
            # Before it has its name: who opened it unmarked would not see it grow.
            self._file = _open_swmr(part)
            self._begin(self._file, specs, 0)

    def _rewrite(self, specs: Mapping[str, Spec]) -> None:
        """Replaces the file by a new one with the committed rows.

        The new one gets its name when it is whole, so that a kill leaves one of the two.
        """
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(contextlib.closing(FileSource(self.path)))
            if source.was_closed and source.state.rows == self.rows:
                # Only its last rows were compared with their checksums when it was opened. The new
                # file gets new ones, which would hide damage.
                self._check_undamaged(source)
            self.attributes |= source.attributes()
            self.class_names = stored_class_names(source)
            part = stack.enter_context(self._new_file(specs))
            file = stack.enter_context(contextlib.closing(_open_swmr(part)))
            self._begin(file, specs, 0)
            for name, column in self._columns.items():
                dtype = specs[name].text_dtype
                for rows in stored_rows(source, name, self.rows):
                    column.append(rows if dtype is None else rows.astype(dtype))
                column.commit(self.rows)
            file.flush()
            self._write_record()

    def _check_undamaged(self, source: FileSource) -> None:
        damage = source.find_damage()
        if damage is not None:
            raise ValueError(
                f"The file must be whole to be rewritten with wider text; pass mode='w' to predict "
                f"again. Received: path={str(self.path)!r}, in which {damage}"
            )

    @contextlib.contextmanager
    def _new_file(self, specs: Mapping[str, Spec]) -> Iterator[Path]:
        """A file without rows, which gets its name when the block ends without an error."""
        attributes = self.attributes
        if self._column_names is not None and (plain := plain_outputs(specs, self._column_names)):
            attributes = {**attributes, PLAIN_OUTPUTS: plain}
        content = new_file.image(
            specs,
            expected_rows=self.expected_rows,
            attributes=attributes,
            class_names=self.class_names,
            compression=self._compression,
        )
        # Only a killed writer of this file, whose lock this one has, can have left another.
        part = self.path.with_name(f".{self.path.name}.part")
        with atomic_path(self.path, hidden=part, durable=self._fsync is not None):
            part.write_bytes(content)
            yield part
            # Others than us don't mind our lock.
            self._check_target("somebody else has made one meanwhile, so choose another path")

    def _begin(self, file: h5py.File, specs: Mapping[str, Spec], rows: int) -> None:
        self._record = CommitRecord(file)
        self._columns = {
            name: (
                RaggedWriter(file, name, rows)
                if isinstance(spec, RaggedSpec)
                else ChunkWriter(file[name], rows, file[f"{SUMS}/{name}"])
            )
            for name, spec in specs.items()
        }

    @contextlib.contextmanager
    def _abandoning_on_error(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # h5py has both for a full disk
            # HDF5 may now report success for chunks that it never indexes: no more of this handle.
            self._state = "failed"
            if isinstance(error, _OF_THE_PATH) and error.errno is None:
                raise  # by a check of ours, which says what to do
            kind = type(error) if isinstance(error, OSError) else OSError
            rows = self._committed[0]
            found = f"{rows} rows are committed, and mode='resume' continues after them"
            raise kind(
                getattr(error, "errno", None) or errno.EIO,
                f"Writing failed; {found if rows else 'no rows are committed'}. "
                f"Received: path={str(self.path)!r}, {error}",
            ) from error

    def _commit(self, *, closing: bool = False, complete: bool = False) -> None:
        assert self._file is not None
        self._record.check_in_place(self.path)
        for column in self._columns.values():
            column.commit(self.rows, last=complete)
        # Data, then HDF5's metadata, then the record: what it counts must be there.
        self._file.flush()
        if complete or self._state == "torn":
            self._trim(self._file)
        is_synced = bool(self._fsync) or (closing and self._fsync is not None)
        if is_synced:
            self._record.sync()
        self._write_record(complete=complete, closed=closing and is_synced)
        if is_synced:
            self._record.sync()

    def _trim(self, file: h5py.File) -> None:
        """Takes off rows that were not committed, opening the file anew."""
        if not any(column.exceeds(self.rows) for column in self._columns.values()):
            return
        file.close()
        self._file = file = _open_swmr(self.path)
        self._begin(file, self._specs, self.rows)
        for column in self._columns.values():
            column.trim(self.rows)
        file.flush()

    def _write_record(self, *, complete: bool = False, closed: bool = False) -> None:
        self.seconds = self._seconds_before + time.monotonic() - self._began
        checksums: dict[str, RowChecksums] = {}
        for column in self._columns.values():
            checksums |= column.checksums(self.rows)
        if not self.rows:
            checksums = dict.fromkeys(checksums, RowChecksums(0, 0))
        self._record.write(
            replace(
                self._call_state(),
                complete=complete,
                closed=closed,
                rows_checksum=file_checksum(checksums),
            )
        )
        self._committed = self._counted

    def _call_state(self) -> CallState:
        return CallState(
            rows=self.rows,
            first_row=self.first_row,
            data_rows=self.data_rows,
            first_data_row=self.first_data_row,
            ended=time.time(),
            bytes=self.bytes,
            seconds=self.seconds,
            stalled_seconds=self.stalled_seconds,
            batch_size=self.batch_size,
            unchecked_resumes=self._unchecked_resumes,
        )

    def _close(self, *, complete: bool) -> None:
        if os.getpid() != self._process:
            return  # a forked worker has a copy of this object, and no business with the file
        try:
            if self._file is not None:
                self._end(complete=complete)
        finally:
            self._file = None
            self._state = "ended"
            self._columns = {}
            self._lock.release()

    def _end(self, *, complete: bool) -> None:
        try:
            if self._state in {"writing", "torn"}:
                with self._abandoning_on_error():
                    self._commit(closing=True, complete=complete)
        finally:
            # A handle that has failed, which was told when it happened, may fail to close too.
            failed = self._state == "failed"
            with contextlib.suppress(*((OSError, RuntimeError) if failed else ())):
                self._close_hdf5()

    def _close_hdf5(self) -> None:
        file = self._file
        if not file:  # `_trim` was interrupted between closing it and opening it anew
            return
        if self._fsync is None:
            file.close()
            return
        fd = os.dup(file.id.get_vfd_handle())
        try:
            file.close()  # which clears HDF5's marks of a writer
            os.fsync(fd)
        finally:
            os.close(fd)


def _read_metadata_once(access: h5py.h5p.PropFAID) -> None:
    """Makes HDF5 raise an error for damaged metadata at once.

    By default it reads it up to 100 times in a file that is open for SWMR, and doubles the pause
    each time, for hours. That is for readers beside a writer; nobody else writes to this file. h5py
    has no function for it.
    """
    with contextlib.suppress(OSError, AttributeError):  # where the libraries can't be searched
        set_attempts = ctypes.CDLL(h5py.h5f.__file__).H5Pset_metadata_read_attempts
        set_attempts(ctypes.c_int64(access.id), ctypes.c_uint(1))


def _open_swmr(path: Path) -> h5py.File:
    """Opens for writing so that others can read meanwhile; h5py's `File` has no such mode."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_file_locking(False, True)
    # Without a cache of chunks: each is written once, and at once.
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
