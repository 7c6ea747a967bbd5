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
    DenseSpec,
    FileSource,
    PredictionFileWriter,
    RaggedOutput,
    RaggedRows,
    RaggedSpec,
    RowOrder,
    ShardFacts,
    Shards,
    Spec,
    open_shard,
    view_of,
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

    Only the ids, and 24 bytes for each, are in memory at once. Rows are read in the order in which
    they are written: ids in no order cost reading many chunks again and again, which `sort=False`
    spares.

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
        ValueError: As of `index_shards`, but rows may differ in shape, and alternate between files
            as often as they like. If `path` is in `folder`.

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
    order = shards.order(sort=sort)
    if expected_ids is not None:
        check_expected_ids(shards, expected_ids)
    writer = PredictionFileWriter(
        target,
        dtypes={name: _stored(spec) for name, spec in shards.specs.items()},
        attributes=shards.attributes,
        class_names=shards.class_names,
        expected_rows=order.rows,
        ragged=shards.ragged,
    )
    sources = Shards(shards.path, shards.names, shards.facts, _open_unchanged)
    try:
        with contextlib.closing(sources):
            for number, (step, rows) in enumerate(_steps(shards, order, sources)):
                # Of those that were not kept nobody knows where they were.
                missing = 0 if number else shards.data_rows - order.rows
                writer.append(step, data_rows=rows + missing)
                writer.commit()
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
    shards: ShardFolder, order: RowOrder, sources: Shards[FileSource]
) -> Iterator[tuple[dict[str, np.ndarray | RaggedRows], int]]:
    row_bytes = shards.nbytes // max(order.rows, 1)
    length = min(max(_STEP_BYTES // max(row_bytes, 1), 1), _MOST_ROWS)
    for start in range(0, max(order.rows, 1), length):
        wanted = range(start, min(start + length, order.rows))
        places: dict[int, list[np.ndarray]] = {}
        for shard, rows, target in order.pieces(wanted):
            both = np.stack(
                [np.arange(rows.start, rows.stop), np.arange(target.start, target.stop)]
            )
            places.setdefault(shard, []).append(both)
        parts = {shard: np.concatenate(some, axis=1) for shard, some in places.items()}
        step: dict[str, np.ndarray | RaggedRows] = {}
        for name, spec in shards.specs.items():
            if isinstance(spec, RaggedSpec):
                step[name] = _gathered_ragged(spec, parts, sources, len(wanted))
            else:
                step[name] = _gathered(spec, parts, sources, len(wanted))
        yield step, len(wanted)


def _gathered(
    spec: DenseSpec, parts: dict[int, np.ndarray], sources: Shards[FileSource], rows: int
) -> np.ndarray:
    text = f"U{spec.dtype.itemsize}" if spec.dtype.kind == "S" else None
    dtype = np.dtype(text or (spec.dtype if spec.scale is None else np.float32))
    gathered = np.empty((rows, *spec.row_shape), dtype)
    for shard, (wanted, places) in parts.items():
        gathered[places] = DenseOutput(sources[shard], spec.name)[_as_slice(wanted)]
    return gathered


def _gathered_ragged(
    spec: RaggedSpec, parts: dict[int, np.ndarray], sources: Shards[FileSource], rows: int
) -> RaggedRows:
    gathered: list[np.ndarray] = [np.empty(0)] * rows
    for shard, (wanted, places) in parts.items():
        found = RaggedOutput(sources[shard], spec.name)[_as_slice(wanted)]
        for place, row in zip(places.tolist(), found, strict=True):
            gathered[place] = row
    empty = RaggedOutput(sources[0], spec.name).flat(0, 0)
    shapes = np.array([row.shape for row in gathered], np.int64).reshape(rows, spec.axes)
    values = [row.reshape(-1) for row in gathered]
    return RaggedRows(np.concatenate([empty.values, *values]), shapes)


def _as_slice(rows: np.ndarray) -> slice | np.ndarray:
    """The rows as what is read at once, where they follow each other."""
    follow = bool(np.all(np.diff(rows) == 1))
    return slice(int(rows[0]), int(rows[-1]) + 1) if follow else rows


def _stored(spec: Spec) -> np.dtype[Any]:
    return spec.values.dtype if isinstance(spec, RaggedSpec) else spec.dtype


def _open_unchanged(path: Path, facts: ShardFacts) -> FileSource:
    view_of(path, facts).close()
    return open_shard(path)
