"""What writes the rows of a Ray dataset to prediction files."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow.fs import LocalFileSystem
from ray.data.block import BlockAccessor
from ray.data.datasource import BlockBasedFileDatasink

from kerasext.common import atomic_path, to_json
from kerasext.ray.model_column import MODEL, description_of
from kerasext.ray.plain_columns import plain, text_bytes
from kerasext.ray.stacked_rows import stacked
from kerasext.shards import ShardFolder, check_index_name, index_shards
from kerasext.storage import (
    IDS,
    TARGETS,
    Compression,
    PredictionFileWriter,
    check_compression,
    first_problems,
    is_index,
    to_ids,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_STEP_BYTES = 8 * 1024 * 1024


class HDF5Datasink(BlockBasedFileDatasink):
    """Writes a Ray dataset to a folder of prediction files, for `Dataset.write_datasink`.

    Each task of Ray writes one file, `<job>_<task>.h5`, as `HDF5PredictionWriter` writes it, which
    has that name when it is whole; a task that runs again writes the same file again. When all have
    ended, an index over them is made, `index.h5`, which reads as one file and is the mark of a
    finished job: an older one is removed when the job begins. It is sorted by id. On other
    filesystems than the local one there is no index: copy the folder first
    (`pyarrow.fs.copy_files`), then call `kerasext.shards.index_shards`.

    Args:
        path: String. The folder: on storage that all nodes share, `local://` for the node of the
            driver, or a URI such as `s3://bucket/predictions`.
        ids: String. The column that identifies each row, stored as `ids`; `None` if there is none,
            and then rows are in no order. Defaults to `"id"`.
        targets: String. A column stored as `targets`. Defaults to `None`.
        dtypes: Dict from output name to the dtype it is stored as, as for `HDF5PredictionWriter`;
            strings are as wide as the longest one of a file.
        compression: As for `HDF5PredictionWriter`. Defaults to `"auto"`.
        metadata: Dict of JSON-serializable values to keep in each file.
        index: String, the name of the index; `None` for none. Defaults to `"index.h5"`.
        min_rows_per_file: Int. Rows of a file at least, which Ray gathers for it in memory. Some
            hundred files are read faster than thousands. Defaults to `None`: a file for each block.
        **file_datasink_kwargs: Further arguments of `ray.data.datasource.BlockBasedFileDatasink`:
            `filesystem`, `mode` (what to do if the folder exists; Ray adds to it), and, for other
            filesystems than the local one, `open_stream_args`.

    Raises:
        TypeError: If an argument has the wrong type. While a file is written: if HDF5 has no type
            for a column, or its rows differ in shape.
        ValueError: If an argument is out of range. At the start: if there is anything in the folder
            but prediction files, or, without `ids`, anything at all. While a file is written: if
            there is no column for `ids` or `targets`, a value is missing, or rows are of several
            models. At the end, when all files are there: what `index_shards` refuses, or if rows
            are missing.

    Example:

    ```python
    predictions.write_datasink(HDF5Datasink("predictions", min_rows_per_file=50_000))
    with PredictionFile("predictions/index.h5") as file:
        file["labels"][:10]
    ```
    """

    def __init__(
        self,
        path: str,
        *,
        ids: str | None = "id",
        targets: str | None = None,
        dtypes: Mapping[str, DTypeLike] | None = None,
        compression: Compression | Mapping[str, Compression] = "auto",
        metadata: Mapping[str, Any] | None = None,
        index: str | None = "index.h5",
        min_rows_per_file: int | None = None,
        **file_datasink_kwargs: Any,
    ) -> None:
        super().__init__(
            path, min_rows_per_file=min_rows_per_file, file_format="h5", **file_datasink_kwargs
        )
        if ids is not None and ids == targets:
            raise ValueError(
                "`ids` and `targets` must be two columns. "
                f"Received: ids={ids!r}, targets={targets!r}"
            )
        self._names = {
            column: name for column, name in ((ids, IDS), (targets, TARGETS)) if column is not None
        }
        self._dtypes = {name: np.dtype(dtype) for name, dtype in (dtypes or {}).items()}
        for column, name in self._names.items():
            if column in self._dtypes and column != name:
                raise ValueError(
                    f"`dtypes` must have the names of the file, in which {column!r} is {name!r}. "
                    f"Received: dtypes for {column!r}"
                )
        self._compression = check_compression(compression)
        self._metadata = to_json(metadata or {}, "metadata")
        self._index = None if index is None else check_index_name(index)
        self._started = ""
        self._is_local = isinstance(self.filesystem.unwrap(), LocalFileSystem)
        if self._is_local:
            self.path = str(Path(self.path).absolute())  # tasks may have another working directory

    def on_write_start(self, *args: Any, **kwargs: Any) -> None:
        """Makes the folder, checks what is in it and removes an older index; called by Ray."""
        super().on_write_start(*args, **kwargs)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        is_ignored = self._skip_write  # with `mode="ignore"` and a folder that is there
        if self._index is None or not self._is_local or is_ignored:
            return
        index = Path(self.path) / self._index
        present = [path for path in index.parent.iterdir() if not path.name.startswith(".")]
        own = [path for path in present if path != index]
        strange = [path.name for path in own if path.suffix != ".h5" or not path.is_file()]
        if index in present and not is_index(index):
            strange.append(index.name)
        if strange or (own and IDS not in self._names.values()):
            raise ValueError(
                "The folder must have nothing in it but prediction files of an earlier run of the "
                "same job, and without `ids`, by which rows are told apart, nothing; choose "
                f"another folder. Received: path={self.path!r}, in which there are "
                f"{first_problems(sorted(strange or [path.name for path in own]))}"
            )
        index.unlink(missing_ok=True)

    def open_output_stream(self, path: str) -> Any:
        """Where a file goes: only the path, until the file is whole; called by Ray."""
        return contextlib.nullcontext(path)

    def write_block_to_file(self, block: BlockAccessor, file: str) -> None:
        """Writes the rows of a task; called by Ray.

        Args:
            block: The rows.
            file: What `open_output_stream` has returned.
        """
        table = block.to_arrow()
        if self._is_local:
            self._write_in_place(table, Path(file))
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "predictions.h5"
            with self._opened(table, path, fsync=None) as write:
                write()
            # HDF5 seeks, which no stream can.
            with path.open("rb") as written, super().open_output_stream(file) as stream:
                shutil.copyfileobj(written, stream, _STEP_BYTES)

    def _write_in_place(self, table: pa.Table, path: Path) -> None:
        # A retried attempt has the same hidden name, so it replaces what a killed one has left. If
        # the other attempt still runs, its lock stops this one before anything is touched.
        hidden = path.with_name(f".{path.name}")
        with contextlib.ExitStack() as stack:
            write = stack.enter_context(self._opened(table, hidden, fsync=False))
            stack.enter_context(atomic_path(path, hidden=hidden))
            write()

    @contextlib.contextmanager
    def _opened(
        self, table: pa.Table, path: Path, *, fsync: bool | None
    ) -> Iterator[Callable[[], None]]:
        """Locks a file; yields the function that writes the rows of a table to it."""
        table = self._renamed(table)
        description: dict[str, Any] = {"class_names": None, "attributes": {}}
        if MODEL in table.column_names:
            description = description_of(table[MODEL])
            table = table.drop_columns([MODEL])
        table = plain(table)
        text = text_bytes(table)
        writer = PredictionFileWriter(
            path,
            mode="w",
            # The first step need not have the longest string.
            dtypes={**{name: f"S{width}" for name, (width, _) in text.items()}, **self._dtypes},
            attributes={
                **description["attributes"],
                "started": self._started,
                "metadata": self._metadata,
            },
            class_names=description["class_names"],
            expected_rows=table.num_rows,
            compression=self._compression,
            fsync=fsync,
        )

        def write() -> None:
            row_bytes = table.nbytes / table.num_rows + sum(per_row for _, per_row in text.values())
            with contextlib.closing(writer):  # before anybody renames or removes the file
                for step in _steps(table, max(1, int(_STEP_BYTES / row_bytes))):
                    writer.append(step)
                writer.finish()

        with contextlib.closing(writer):
            yield write

    def on_write_complete(self, write_result: Any) -> None:
        """Makes the index; called by Ray."""
        super().on_write_complete(write_result)
        if self._index is None or not self._is_local:
            return
        if not Path(self.path).exists():  # Ray has removed what it made for nothing
            raise ValueError(
                "A job must have at least one row, for without one there are no outputs to write. "
                f"Received: path={self.path!r}"
            )
        rows = ShardFolder.read(self.path, with_ids=False).rows
        if rows < write_result.num_rows:
            raise ValueError(
                "The folder must be on storage that all nodes share; copy the files of each node "
                "to one folder and call `kerasext.shards.index_shards`. Received: "
                f"path={self.path!r}, in which there are {rows} rows of {write_result.num_rows}"
            )
        index_shards(self.path, index=self._index)

    def _renamed(self, table: pa.Table) -> pa.Table:
        """The table with the columns under the names that they have in the file."""
        for column, name in self._names.items():
            if column not in table.column_names:
                raise ValueError(
                    f"`{name}` must be a column of the dataset; name it in `keep_columns` of "
                    "`KerasPredictor`, or pass `None`. "
                    f"Received: {name}={column!r}, and the columns {table.column_names}"
                )
            if name == IDS and pa.types.is_floating(table[column].type):
                raise TypeError(
                    "`ids` must be integers or strings, and in each row: Ray makes floats of "
                    "integers where one is missing. "
                    f"Received: ids={column!r} of type {table[column].type}"
                )
        renamed = [self._names.get(name, name) for name in table.column_names]
        twice = sorted({name for name in renamed if renamed.count(name) > 1})
        if twice:
            raise ValueError(
                "A file can't have two columns of one name; rename or drop those that are called "
                f"so beside `ids` and `targets`. Received: {twice} twice"
            )
        return table.rename_columns(renamed)


def _steps(table: pa.Table, rows: int) -> Iterator[dict[str, np.ndarray]]:
    """The rows, some at a time: NumPy's strings take far more memory than Arrow's."""
    for first in range(0, table.num_rows, rows):
        columns: Any = BlockAccessor.for_block(table.slice(first, rows)).to_numpy()
        step = {name: stacked(name, column) for name, column in columns.items()}
        if IDS in step:
            step[IDS] = to_ids(step[IDS])
        yield step
