"""One logical file over the prediction files in a folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kerasext.common import atomic_path
from kerasext.shards.expected_ids import check_expected_ids
from kerasext.shards.shard_folder import ShardFolder
from kerasext.storage import (
    IndexSource,
    check_shard_name,
    is_index,
    open_source,
    write_index,
    write_virtual_file,
)

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

_MOST_VIRTUAL_RUNS = 4096  # with more, HDF5 takes milliseconds to read one row


def index_shards(
    folder: str | os.PathLike[str],
    *,
    index: str = "index.h5",
    sort: bool = True,
    expected_ids: Iterable[Any] | None = None,
    virtual: str | None = None,
) -> Path:
    """Makes one file that reads as all prediction files in a folder, which stay as they are.

    `PredictionFile` reads the index and, through it, the files beside it. The index can be moved
    with its folder. It appears when it is whole, so that it marks a finished job; an older index of
    that name stays until then. A file that is missing or was changed later raises an error.

    Other tools can't read the index. For them, `virtual` makes a second file with virtual datasets,
    which h5py and xarray follow to the files beside it. HDF5 gives fill values, and no error, for a
    file that is missing then: call `verify_index` before. `merge_shards` makes a file without that
    danger.

    Args:
        folder: String or path-like. All files in it must be complete prediction files. Hidden
            files, whose names begin with a dot, and indexes are ignored.
        index: String. The name of the file that is made, in that folder.
        sort: Bool. Whether rows are in the order of their ids. Defaults to `True`; `False`, or
            files without ids, puts file after file, in the order of their names.
        expected_ids: Array, list, range or other iterable of integers or strings. The ids of all
            rows that there must be, in any order, where files may be lost without a trace. Defaults
            to `None`, for whatever there is.
        virtual: String. The name of a second file, with virtual datasets, in that folder. Defaults
            to `None`: no such file.

    Returns:
        Path of the index.

    Raises:
        FileNotFoundError: If there is no such folder.
        NotADirectoryError: If it is a file.
        TypeError: If `expected_ids` are neither integers nor strings.
        ValueError: If there are no files, or one is something else, damaged or unfinished. If two
            are of different models, or differ in outputs, row shapes, dtypes or names of classes,
            or have the same id. If an id of `expected_ids` is missing, or one is there that they
            have not, or the files have no ids. If `index` or `virtual` is no name, or that of a
            file with rows of its own. If `virtual` is given and rows differ in shape, or rows of
            the files alternate in the order of ids more than 4096 times.

    Example:

    ```python
    index_shards("job")  # job/part-000.h5, job/part-001.h5, ...
    with PredictionFile("job/index.h5") as predictions:
        predictions["labels"][:10]
    ```
    """
    target = _target(folder, index, "index")
    virtual_target = None if virtual is None else _target(folder, virtual, "virtual")
    if virtual_target == target:
        raise ValueError(
            "`index` and `virtual` must be two names. "
            f"Received: index={index!r}, virtual={virtual!r}"
        )
    shards = ShardFolder.read(folder)
    rows = shards.sharded_rows(sort=sort)
    if expected_ids is not None:
        check_expected_ids(shards, expected_ids)
    if virtual_target is not None:
        _check_virtual(shards, len(rows.order.runs))
    with contextlib.ExitStack() as files:  # the index appears last: it marks a finished job
        write_index(
            files.enter_context(atomic_path(target)),
            rows,
            shards.specs,
            widest=shards.widest,
            state=shards.state,
            attributes=shards.attributes,
            ids=shards.ids,
        )
        if virtual_target is not None:
            write_virtual_file(
                files.enter_context(atomic_path(virtual_target)),
                rows,
                shards.specs,
                index=index,
                attributes=shards.attributes,
                class_names=shards.class_names,
            )
    return target


def check_index_name(name: str, argument: str = "index") -> str:
    """Returns the name of an index, or raises `ValueError` if it can't be one."""
    try:
        check_shard_name(name)
        is_name = not name.startswith(".")
    except ValueError:
        is_name = False
    if not is_name:
        raise ValueError(
            f"`{argument}` must be the name of a file in the folder, and not begin with a dot. "
            f"Received: {argument}={name!r}"
        )
    return name


def verify_index(path: str | os.PathLike[str]) -> None:
    """Checks that the files of an index are there, and those that it was made of.

    `PredictionFile.verify` compares all rows with their checksums, too.

    Args:
        path: String or path-like. What `index_shards` has returned.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no index, or damaged. If files are missing, changed or unreadable,
            naming them. If there are more files than this process may open at once, because tools
            that follow virtual datasets would read fill values.
    """
    with contextlib.closing(open_source(Path(path))) as source:
        if not isinstance(source, IndexSource):
            raise ValueError(
                "`path` must be what `index_shards` makes; `PredictionFile.verify` is for other "
                f"files. Received: path={os.fspath(path)!r}"
            )
        _check_open_files(len(source.shard_names), source.path)
        source.check_shards()


def _target(folder: str | os.PathLike[str], name: str, argument: str) -> Path:
    target = Path(folder) / check_index_name(name, argument)
    if target.exists() and not is_index(target):
        raise ValueError(
            f"`{argument}` must not be the name of a file with rows of its own; choose another "
            f"one. Received: {argument}={name!r}, folder={os.fspath(folder)!r}"
        )
    return target


def _check_virtual(shards: ShardFolder, runs: int) -> None:
    received = f"Received: folder={str(shards.path)!r}"
    if shards.ragged:
        raise ValueError(
            "HDF5 has no virtual datasets for rows of different shapes; leave out `virtual`, or "
            f"use `merge_shards`. {received} with the outputs {shards.ragged}"
        )
    if runs > _MOST_VIRTUAL_RUNS:
        raise ValueError(
            f"Virtual datasets must have at most {_MOST_VIRTUAL_RUNS} runs of rows that follow "
            "each other in one file; pass `sort=False`, leave out `virtual`, or use "
            f"`merge_shards`. {received} with {runs} runs of rows"
        )


def _check_open_files(shards: int, path: Path) -> None:
    """Raises `ValueError` if HDF5 may not have all shards open at once, as it does."""
    folder = Path("/dev/fd")
    if resource is None or not folder.is_dir():
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    free = most - len(list(folder.iterdir()))
    if most != resource.RLIM_INFINITY and shards > free:
        raise ValueError(
            "HDF5 opens all shards of virtual datasets at once, and reads fill values for those "
            "that the process may not open; raise the limit with `ulimit -n`, copy the rows to one "
            "file with `kerasext.shards.merge_shards`, or read with `PredictionFile`. Received: "
            f"path={str(path)!r} of {shards} shards, with {max(free, 0)} more files to open at most"
        )
