"""One logical file over the prediction files in a folder."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from kerasext.common import atomic_path
from kerasext.shards.expected_ids import check_expected_ids
from kerasext.shards.shard_folder import ShardFolder
from kerasext.storage import (
    IDS,
    MOST_RUNS,
    SHARD_CHECKSUM,
    SHARD_FACTS,
    SHARD_HEAPS,
    SHARD_NAMES,
    SHARD_RUNS,
    SHARDS,
    SUMS,
    CallState,
    ChunkWriter,
    DenseSpec,
    IndexSource,
    RowChecksums,
    RowOrder,
    check_name,
    checksum,
    commit_record,
    file_checksum,
    find_heaps,
    is_index,
    new_file,
)

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]


def index_shards(
    folder: str | os.PathLike[str],
    *,
    index: str = "index.h5",
    sort: bool | Literal["auto"] = True,
    expected_ids: Iterable[Any] | None = None,
) -> Path:
    """Makes one file that reads as all prediction files in a folder, which stay as they are.

    The index has virtual datasets, which h5py and other tools follow to the files beside it, by
    their names; the ids are in it themselves. It can be moved with its folder. It appears when it
    is whole, so that it marks a finished job; an older index of that name stays until then.

    HDF5 gives fill values for what it does not find, without an error: `PredictionFile` and
    `verify_index` look for it, other readers don't.

    Args:
        folder: String or path-like. All files in it must be complete prediction files, but hidden
            ones, whose names begin with a dot, and indexes.
        index: String. The name of the file that is made, in that folder.
        sort: Bool, or `"auto"`. Whether rows are in the order of their ids. Defaults to `True`;
            `False`, or files without ids, puts file after file, in the order of their names.
            `"auto"` does so with a warning where ids alternate too often between the files.
        expected_ids: Array, list, range or other iterable of integers or strings. The ids of all
            rows that there must be, in any order, where files may be lost without a trace. Defaults
            to `None`, for whatever there is.

    Returns:
        Path of the index.

    Raises:
        FileNotFoundError: If there is no such folder.
        NotADirectoryError: If it is a file.
        TypeError: If `expected_ids` are neither integers nor strings.
        ValueError: If there are no files, or one is something else, damaged or unfinished. If two
            are of different models, or differ in outputs, row shapes, dtypes or names of classes,
            or have the same id. If an id of `expected_ids` is missing, or one is there that they
            have not, or the files have no ids. If outputs have rows of different shapes, or rows of
            the files alternate in the order of ids more than 4096 times: `merge_shards` is for
            those. If `index` is no name, or that of another file than an index.

    Example:

    ```python
    index_shards("job")  # job/part-000.h5, job/part-001.h5, ...
    with PredictionFile("job/index.h5") as predictions:
        predictions["labels"][:10]
    ```
    """
    target = Path(folder) / check_index_name(index)
    shards = ShardFolder.read(folder)
    if target.exists() and not is_index(target):
        raise ValueError(
            "`index` must not be the name of a file with rows of its own; choose another one. "
            f"Received: index={index!r}, folder={os.fspath(folder)!r}"
        )
    if shards.ragged:
        raise ValueError(
            "HDF5 has no virtual datasets for rows of different shapes; use `merge_shards`. "
            f"Received: folder={os.fspath(folder)!r} with the outputs {shards.ragged}"
        )
    order = shards.order(sort=bool(sort))
    if expected_ids is not None:
        check_expected_ids(shards, expected_ids)
    if sort == "auto" and len(order.runs) > MOST_RUNS:
        warnings.warn(
            f"The rows of {str(target)!r} are file after file, not in the order of their ids, for "
            f"these alternate {len(order.runs):,} times between the files, and an index can have "
            f"{MOST_RUNS:,} runs of rows. `merge_shards` makes one file in the order of the ids.",
            stacklevel=2,
        )
        order = shards.order(sort=False)
    if max(len(order.runs), len(shards.names)) > MOST_RUNS:
        remedy = "use" if len(shards.names) > MOST_RUNS else "pass `sort=False`, or use"
        raise ValueError(
            f"An index must have at most {MOST_RUNS} files and runs of rows that follow each other "
            f"in one of them; {remedy} `merge_shards`. "
            f"Received: {len(order.runs)} runs of rows in {len(shards.names)} files"
        )
    with atomic_path(target) as hidden:
        _write(hidden, shards, order)
    return target


def check_index_name(index: str) -> str:
    """Returns the name of an index, or raises `ValueError` if it can't be one."""
    try:
        check_name(index)
        is_name = not index.startswith(".")
    except ValueError:
        is_name = False
    if not is_name:
        raise ValueError(
            "`index` must be the name of a file in the folder, and not begin with a dot. "
            f"Received: index={index!r}"
        )
    return index


def verify_index(path: str | os.PathLike[str]) -> None:
    """Checks that the files of an index are there, and those that it was made of.

    `PredictionFile.verify` compares all rows with their checksums, too.

    Args:
        path: String or path-like. What `index_shards` has returned.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no index, or damaged. If files are missing, changed or unreadable,
            naming them, or more than this process may open, of which other tools read fill values.
    """
    with contextlib.closing(IndexSource(Path(path))) as file:
        if not file.is_index:
            raise ValueError(
                "`path` must be what `index_shards` makes; `PredictionFile.verify` is for other "
                f"files. Received: path={os.fspath(path)!r}"
            )
        _check_open_files(len(file.shard_names), file.path)
        file.check_shards()


def _check_open_files(shards: int, path: Path) -> None:
    """Raises `ValueError` if HDF5 may not have all shards open at once, as it does."""
    folder = Path("/dev/fd")
    if resource is None or not folder.is_dir():
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    free = most - len(list(folder.iterdir()))
    if most != resource.RLIM_INFINITY and shards > free:
        raise ValueError(
            "HDF5 opens all shards of an index at once, and reads fill values for those that the "
            "process may not open; raise the limit with `ulimit -n`, copy the rows to one file "
            "with `kerasext.shards.merge_shards`, or read with `PredictionFile`. Received: "
            f"path={str(path)!r} of {shards} shards, with {max(free, 0)} more files to open at most"
        )


def _write(path: Path, shards: ShardFolder, order: RowOrder) -> None:
    specs = shards.specs
    content = new_file.image(
        specs,
        expected_rows=order.rows,
        attributes=shards.attributes,
        class_names=shards.class_names,
        compression="auto",
        virtual={
            name: _layout(spec, shards, order)
            for name, spec in specs.items()
            if isinstance(spec, DenseSpec)
            and not (name == IDS and shards.ids)
            and order.rows
            and spec.row_bytes
        },
    )
    path.write_bytes(content)
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        checksums: dict[str, RowChecksums] = {}
        for name in specs:
            if not file[name].is_virtual:
                checksums |= _fill(file, name, shards, order)
        state = replace(_state(shards), rows_checksum=file_checksum(checksums))
        commit_record.find(file)[()] = state.to_record()
    tables = {
        SHARD_NAMES: np.array([name.encode() for name in shards.names]),
        SHARD_FACTS: np.array(shards.facts, np.int64),
        SHARD_RUNS: order.runs,
        SHARD_HEAPS: find_heaps(path),
    }
    with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
        for table, values in tables.items():
            chunks = tuple(max(length, 1) for length in values.shape)
            longest = (None, *values.shape[1:])
            file.create_dataset(table, data=values, chunks=chunks, maxshape=longest)
        file[SHARDS].attrs[SHARD_CHECKSUM] = np.uint32(checksum(tables.values()))


def _layout(spec: DenseSpec, shards: ShardFolder, order: RowOrder) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((order.rows, *spec.row_shape), spec.h5_dtype)
    sources = [
        # HDF5 takes a percent sign in a name for the number of a block.
        h5py.VirtualSource(
            name.replace("%", "%%"), spec.name.replace("%", "%%"), shape=(rows, *spec.row_shape)
        )
        for name, (rows, *_) in zip(shards.names, shards.facts, strict=True)
    ]
    for shard, rows, places in order.pieces(range(order.rows)):
        layout[places] = sources[shard][rows]
    return layout


def _fill(
    file: h5py.File, name: str, shards: ShardFolder, order: RowOrder
) -> dict[str, RowChecksums]:
    dataset = file[name]
    column = ChunkWriter(dataset, 0, file[f"{SUMS}/{name}"])
    if name == IDS and shards.ids:
        for shard, rows, _ in order.pieces(range(order.rows)):
            column.append(shards.ids[shard][rows].astype(dataset.dtype.str))
    else:  # of no bytes
        column.append(np.zeros((order.rows, *dataset.shape[1:]), dataset.dtype.str))
    column.trim(order.rows)
    column.commit(order.rows, last=True)
    return column.checksums(order.rows)


def _state(shards: ShardFolder) -> CallState:
    """The files were written side by side: their rows add up, and the slowest one counts."""
    states = shards.states
    return CallState(
        rows=sum(state.rows for state in states),
        data_rows=sum(state.data_rows for state in states),
        bytes=sum(state.bytes for state in states),
        ended=max(state.ended for state in states),
        seconds=max(state.seconds for state in states),
        stalled_seconds=max(state.stalled_seconds for state in states),
        complete=True,
        closed=True,
    )
