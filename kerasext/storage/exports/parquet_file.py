"""Prediction files as Parquet files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasext.common import atomic_file, export_target, optional_package
from kerasext.storage.exports.arrow_table import ArrowBatches
from kerasext.storage.exports.exported_outputs import ExportedOutputs


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
        atomic_file(export_target(source, path)) as file,
        parquet.ParquetWriter(file, batches.schema) as writer,
    ):
        for batch in batches.of(row_group_bytes):
            writer.write_batch(batch, row_group_size=batch.num_rows)
            del batch  # else it is kept while the next one is read
