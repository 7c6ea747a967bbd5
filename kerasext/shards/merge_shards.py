"""The rows of the prediction files in a folder, copied into one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.shards.expected_ids import check_expected_ids
from kerasext.shards.shard_folder import ShardFolder
from kerasext.storage import (
    DenseOutput,
    PredictionFileWriter,
    RaggedOutput,
    RaggedRows,
    RaggedSpec,
    ShardedRows,
    Spec,
)

_STEP_BYTES = 16 * 1024 * 1024
_MOST_ROWS = 65536


def merge_shards(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    sort: bool = True,
    expected_ids: Iterable[Any] | None = None,
) -> Path:
    """Copies the rows of all prediction files in a folder into one file, in constant memory.

    Memory holds the ids and 24 bytes for each of them, and one block of rows. Rows are read in the
    order in which they are written. If ids are in no order, many chunks are read again and again;
    `sort=False` avoids that.

    Args:
        folder: String or path-like. As for `index_shards`; indexes are left out.
        path: String or path-like. The file to make, in another folder, which must not exist.
        sort: Bool. As for `index_shards`.
        expected_ids: As for `index_shards`; they are in memory, too.

    Returns:
        Path of the file.

    Raises:
        FileExistsError: If the file exists.
        FileNotFoundError: If a folder does not exist.
        NotADirectoryError: If `folder` is a file.
        OSError: If the disk is full, or fails otherwise. Nothing is left under `path` then.
        TypeError: As of `index_shards`.
        ValueError: As of `index_shards`, or if `path` is in `folder`.

    Example:

    ```python
    merge_shards("job", "predictions.h5")
    ```
    """
    target = Path(os.path.realpath(path))
    if target.parent == Path(os.path.realpath(folder)):
        raise ValueError(
            "`path` must not be in the folder of the shards; choose another folder. "
            f"Received: path={os.fspath(path)!r}, folder={os.fspath(folder)!r}"
        )
    shards = ShardFolder.read(folder)
    rows = shards.sharded_rows(sort=sort)
    if expected_ids is not None:
        check_expected_ids(shards, expected_ids)
    writer = PredictionFileWriter(
        target,
        dtypes={name: _stored_dtype(spec) for name, spec in shards.specs.items()},
        attributes=shards.attributes,
        class_names=shards.class_names,
        expected_rows=rows.order.rows,
        ragged=shards.ragged,
    )
    try:
        with contextlib.closing(rows):
            # Rows that were not kept belong to no place among the others: they count at the start.
            left_out = shards.state.data_rows - rows.order.rows
            for step, count in _steps(shards, rows):
                writer.append(step, data_rows=count + left_out)
                writer.commit()
                left_out = 0
        writer.finish()
    except FileExistsError:  # another one, made meanwhile
        writer.close()
        raise
    except BaseException:
        writer.close()
        target.unlink(missing_ok=True)
        raise
    return target


def _steps(
    shards: ShardFolder, rows: ShardedRows
) -> Iterator[tuple[dict[str, np.ndarray | RaggedRows], int]]:
    """The rows in their order, some megabytes at a time."""
    total = rows.order.rows
    length = min(max(_STEP_BYTES // max(shards.nbytes // max(total, 1), 1), 1), _MOST_ROWS)
    outputs: dict[str, Any] = {}
    for name, spec in shards.specs.items():
        kind: Any = RaggedOutput if isinstance(spec, RaggedSpec) else DenseOutput
        outputs[name] = kind(shards.path, name, rows.column(spec))
    for start in range(0, max(total, 1), length):
        stop = min(start + length, total)
        yield (
            {
                name: output.flat(start, stop)
                if isinstance(output, RaggedOutput)
                else output[start:stop]
                for name, output in outputs.items()
            },
            stop - start,
        )


def _stored_dtype(spec: Spec) -> np.dtype[Any]:
    return spec.values.dtype if isinstance(spec, RaggedSpec) else spec.dtype
