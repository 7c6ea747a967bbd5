"""Writing an index: the order of the rows of several files, their ids, and no other rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kerasext.storage.columns.dense_spec import DenseSpec
from kerasext.storage.columns.step_specs import Spec
from kerasext.storage.format import commit_record
from kerasext.storage.format.checksums import file_checksum
from kerasext.storage.format.commit_record import CallState
from kerasext.storage.format.layout import (
    IDS,
    INDEX,
    INDEX_FORMAT,
    SHARD_FACTS,
    SHARD_NAMES,
    SHARD_OUTPUTS,
    SHARD_RUNS,
    SHARD_WIDEST,
    SUMS,
    VIRTUAL_FORMAT,
)
from kerasext.storage.format.sealed_table import write_table, write_texts
from kerasext.storage.index.sharded_columns import ShardedRows
from kerasext.storage.writing import empty_file
from kerasext.storage.writing.chunk_writer import ChunkWriter

_BLOCK_ROWS = 65536


def write_index(
    path: Path,
    rows: ShardedRows,
    specs: Mapping[str, Spec],
    *,
    widest: Mapping[str, int],
    state: CallState,
    attributes: Mapping[str, Any],
    ids: Sequence[np.ndarray],
) -> None:
    """Writes an index.

    Args:
        path: Path of the file.
        rows: `ShardedRows`, the shards and the order of their rows.
        specs: Mapping from output name to spec, as wide as the widest text.
        widest: Mapping from output name to the number of a shard that has the widest text.
        state: `CallState` of all shards together.
        attributes: Mapping of the attributes that the shards have in common.
        ids: Sequence with the ids of each shard, empty if they have none.
    """
    own = {IDS: specs[IDS]} if ids else {}
    path.write_bytes(
        empty_file.content_of(
            own,
            expected_rows=rows.order.rows,
            attributes={**attributes, "format": INDEX_FORMAT},
            class_names=None,
            compression="auto",
        )
    )
    with _open_new(path) as file:
        checksums = {}
        if ids:
            column = ChunkWriter(file[IDS], 0, file[f"{SUMS}/{IDS}"])
            for start in range(0, rows.order.rows, _BLOCK_ROWS):
                column.append(_ids(rows, ids, start, file[IDS].dtype.str))
            column.trim(rows.order.rows)
            column.commit(rows.order.rows, last=True)
            checksums = column.checksums(rows.order.rows)
        state = state._replace(rows_checksum=file_checksum(checksums))
        commit_record.find(file)[()] = state.to_record()
        write_texts(file, SHARD_NAMES, list(rows.shards.names))
        write_table(file, SHARD_FACTS, np.array(rows.shards.facts, np.int64))
        write_table(file, SHARD_RUNS, rows.order.runs)
        write_texts(file, SHARD_OUTPUTS, list(specs))
        write_table(file, SHARD_WIDEST, np.array([widest[name] for name in specs], np.int64))


def write_virtual_file(
    path: Path,
    rows: ShardedRows,
    specs: Mapping[str, Spec],
    *,
    index: str,
    attributes: Mapping[str, Any],
    class_names: empty_file.ClassNamesByHead | None,
) -> None:
    """Writes a file of virtual datasets, which other tools follow to the shards.

    Args:
        path: Path of the file.
        rows: `ShardedRows`, the shards and the order of their rows.
        specs: Mapping from output name to spec, as wide as the widest text; none is ragged.
        index: String. Name of the index beside it.
        attributes: Mapping of the attributes that the shards have in common.
        class_names: Names of the classes, or of those of each head.
    """
    # A virtual dataset has rows, and bytes in each of them.
    layouts = {
        name: _layout(spec, rows)
        for name, spec in specs.items()
        if isinstance(spec, DenseSpec) and spec.row_bytes and rows.order.rows
    }
    path.write_bytes(
        empty_file.content_of(
            specs,
            expected_rows=rows.order.rows,
            attributes={**attributes, "format": VIRTUAL_FORMAT, INDEX: index},
            class_names=class_names,
            compression="auto",
            virtual=layouts,
        )
    )
    with _open_new(path) as file:
        for name in specs.keys() - layouts.keys():
            file[name].resize(rows.order.rows, axis=0)


def _open_new(path: Path) -> h5py.File:
    return h5py.File(path, "r+", libver=("v110", "v110"), locking=False)


def _ids(rows: ShardedRows, ids: Sequence[np.ndarray], start: int, dtype: Any) -> np.ndarray:
    """The ids of a block of rows from one on."""
    stop = min(start + _BLOCK_ROWS, rows.order.rows)
    block = np.empty(stop - start, dtype)
    for shard, some, places in rows.order.pieces(start, stop):
        block[places] = ids[shard][some]
    return block


def _layout(spec: DenseSpec, rows: ShardedRows) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout((rows.order.rows, *spec.row_shape), spec.h5_dtype)
    sources = [
        # HDF5 takes a percent sign in a name for the number of a block.
        h5py.VirtualSource(
            name.replace("%", "%%"), spec.name.replace("%", "%%"), shape=(count, *spec.row_shape)
        )
        for name, (count, *_) in zip(rows.shards.names, rows.shards.facts, strict=True)
    ]
    place = 0
    for shard, first, count in rows.order.runs.tolist():
        layout[place : place + count] = sources[shard][first : first + count]
        place += count
    return layout
