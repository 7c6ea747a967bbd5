"""Prediction files as Parquet files."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from kerasext.storage.exports.arrow_table import ArrowBatches
from kerasext.storage.exports.exported_outputs import ExportedOutputs
from kerasext.storage.exports.optional_package import optional_package


def write_parquet_file(
    path: str | os.PathLike[str],
    exported: ExportedOutputs,
    origin: Mapping[str, Any],
    *,
    source: Path,
    row_group_bytes: int,
) -> None:
    """See `PredictionFile.to_parquet`; `source` is the file that is read."""
    if row_group_bytes < 1:
        raise ValueError(
            f"`row_group_bytes` must be at least 1. Received: row_group_bytes={row_group_bytes}"
        )
    parquet = optional_package("pyarrow.parquet", needed_by="to_parquet")
    batches = ArrowBatches(
        optional_package("pyarrow", needed_by="to_parquet"),
        exported,
        origin,
        # Parquet has had a type for it since 2023, which older readers take for two bytes of text.
        widen_float16=True,
    )
    with (
        _renamed_when_written(_target(path, source)) as file,
        parquet.ParquetWriter(file, batches.schema) as writer,
    ):
        for batch in batches.of(row_group_bytes):
            writer.write_batch(batch, row_group_size=batch.num_rows)
            del batch  # else it is kept while the next one is read


def _target(path: str | os.PathLike[str], source: Path) -> Path:
    # Through a link the file it leads to is written.
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"`path` must not be a folder. Received: path={os.fspath(path)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"The folder of `path` must exist; make it first. Received: path={os.fspath(path)!r}"
        )
    if target.exists() and target.samefile(source):
        raise ValueError(
            "`path` must not be the file that is read; choose another one. "
            f"Received: path={os.fspath(path)!r}"
        )
    return target


@contextlib.contextmanager
def _renamed_when_written(path: Path) -> Iterator[BinaryIO]:
    unfinished = path.with_name(f".{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            yield file
            # Else a loss of power may leave the new name without what it names.
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
