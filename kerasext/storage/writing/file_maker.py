"""Making the file of a writer, and making it again with wider text."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from kerasext.common import atomic_path, check_replaceable
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.format.layout import (
    PLAIN_OUTPUTS,
    plain_outputs,
)
from kerasext.storage.reading.file_source import FileSource
from kerasext.storage.writing import empty_file
from kerasext.storage.writing.compression import Compression
from kerasext.storage.writing.swmr_file import SwmrFile

Mode = Literal["x", "w", "a", "resume"]

_RAGGED_BLOCK_ROWS = 1024


class FileMaker:
    """Makes the file of a writer. It has its name when it is complete; a kill leaves no other.

    Args:
        path: Path of the file, whose lock the caller holds.
        mode: String. The mode of the writer.
        compression: As `check_compression` takes it.
        durable: Bool. Whether a file that has its name survives a loss of power.

    Attributes:
        attributes: Dict from name to string or number, for the root of the file.
        class_names: Names of the classes, or of those of each head.
        expected_rows: Int. Rows that the file will hold, `None` if unknown.
        side_columns: Frozenset of those of `ids`, `targets` and `row` that are columns and no
            outputs. `None` if that was not said: then all of them are.
    """

    def __init__(
        self,
        path: Path,
        *,
        mode: Mode,
        compression: Compression | Mapping[str, Compression],
        durable: bool,
    ) -> None:
        self._path = path
        self._mode = mode
        self._compression = compression
        self._durable = durable
        self.attributes: dict[str, str | float] = {}
        self.class_names: empty_file.ClassNamesByHead | None = None
        self.expected_rows: int | None = None
        self.side_columns: frozenset[str] | None = None

    def check_target(self, remedy: str) -> None:
        """Checks that the mode allows to write the file at the path.

        Args:
            remedy: String. What to do if `mode="x"` finds a file.

        Raises:
            FileExistsError: If there is a file under `mode="x"`.
            IsADirectoryError: If the path is a folder.
            PermissionError: If the file is not writable.
            ValueError: If the path leads to a device or a pipe.
        """
        received = f"Received: path={str(self._path)!r}"
        if self._path.is_dir():
            raise IsADirectoryError(f"`path` must be a file, not a folder. {received}")
        check_replaceable(self._path)
        if self._path.exists():
            if self._mode == "x":
                raise FileExistsError(f"`mode='x'` writes a new file; {remedy}. {received}")
            if not os.access(self._path, os.W_OK):
                raise PermissionError(f"The file must be writable. {received}")

    def create(self, specs: Mapping[str, Spec]) -> SwmrFile:
        """Makes a file without rows and opens it. Its commit record is yet to be written."""
        file: SwmrFile | None = None
        try:
            with self._hidden_file(specs) as hidden:
                # Opened before it has its name: a reader of an unmarked file would not see it grow.
                file = SwmrFile(hidden, specs, rows=0)
            file.path = self._path
        except BaseException:
            if file is not None:
                with contextlib.suppress(OSError, RuntimeError):  # h5py has both for a full disk
                    file.close()
            raise
        return file

    def rewrite(self, specs: Mapping[str, Spec], state: CallState) -> None:
        """Replaces the file by a new one with the committed rows and with wider text.

        Args:
            specs: The specs of the new file.
            state: `CallState` with the rows to keep, which the new file gets.

        Raises:
            ValueError: If rows are damaged: checksums of the new file would hide that.
        """
        with contextlib.closing(FileSource(self._path)) as source:
            if source.state.closed and source.state.rows == state.rows:
                # Of such a file only the last rows were compared when it was opened for resuming.
                self._check_undamaged(source)
            self.attributes |= source.attributes()
            self.class_names = {head: list(names) for head, names in source.class_names().items()}
            with (
                self._hidden_file(specs) as hidden,
                contextlib.closing(SwmrFile(hidden, specs, rows=0)) as file,
            ):
                for name, spec in specs.items():
                    dtype = spec.text_dtype
                    column = source.column(name)
                    for start in range(0, state.rows, column.chunk_rows):
                        rows = column.read_rows(start, min(start + column.chunk_rows, state.rows))
                        file.append({name: rows if dtype is None else rows.astype(dtype)})
                file.write_rows(state.rows)
                file.write_state(state)

    def _check_undamaged(self, source: FileSource) -> None:
        damage = source.find_damage()
        if damage is not None:
            raise ValueError(
                f"The file must be whole to be rewritten with wider text; pass mode='w' to predict "
                f"again. Received: path={str(self._path)!r}, in which {damage}"
            )

    @contextlib.contextmanager
    def _hidden_file(self, specs: Mapping[str, Spec]) -> Iterator[Path]:
        """Makes a hidden file without rows, which gets its name if the block raises no error."""
        attributes = self.attributes
        if self.side_columns is not None and (plain := plain_outputs(specs, self.side_columns)):
            attributes = {**attributes, PLAIN_OUTPUTS: plain}
        content = empty_file.content_of(
            specs,
            expected_rows=self.expected_rows,
            attributes=attributes,
            class_names=self.class_names,
            compression=self._compression,
        )
        # A fixed name, so that the next writer, which holds the lock, removes what a kill has left.
        hidden = self._path.with_name(f".{self._path.name}.part")
        with atomic_path(self._path, hidden=hidden, durable=self._durable):
            hidden.write_bytes(content)
            yield hidden
            # Programs other than this library take no notice of the lock.
            self.check_target("somebody else has made one meanwhile, so choose another path")
