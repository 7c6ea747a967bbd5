"""The prediction files in a folder, which are to be read as one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from kerasext.storage import (
    COORDINATES,
    FINGERPRINT,
    IDS,
    LOCK_SUFFIX,
    PLAIN_OUTPUTS,
    CallState,
    DamagedFileError,
    FileSource,
    RaggedSpec,
    RowOrder,
    ShardedRows,
    ShardFacts,
    Shards,
    Spec,
    can_hold,
    check_shard_name,
    facts_of,
    first_problems,
    is_index,
    open_shard,
)

# What the file of all rows says of itself.
_OWN_ATTRIBUTES = {
    *("format", "format_version", "created", "kerasext_version", "h5py_version", "hdf5_version"),
    COORDINATES,
}


@dataclass
class ShardFolder:
    """What the prediction files in a folder have in common, and the order of their rows.

    Args:
        path: Path of the folder.
        names: List of the names of the files, sorted.
        states: List of their `CallState`.
        facts: List of what `facts_of` says of them.
        specs: Dict from output name to its spec, as wide as the widest text.
        widest: Dict from output name to the number of the first file with such text.
        class_names: Dict from head to the names of its classes.
        attributes: Dict of the attributes that are the same in all files.
        nbytes: Int. Bytes of all rows, before compression.
        ids: List with the ids of each file, empty if they have none.
    """

    path: Path
    names: list[str] = field(default_factory=list)
    states: list[CallState] = field(default_factory=list)
    facts: list[ShardFacts] = field(default_factory=list)
    specs: dict[str, Spec] = field(default_factory=dict)
    widest: dict[str, int] = field(default_factory=dict)
    class_names: dict[str, list[str]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    nbytes: int = 0
    ids: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def read(cls, folder: str | os.PathLike[str], *, with_ids: bool = True) -> ShardFolder:
        """Looks at all files of a folder but hidden ones and indexes, changing none.

        Args:
            folder: String or path-like.
            with_ids: Bool. Whether ids are read; without them there is no order.

        Raises:
            FileNotFoundError: If there is no such folder.
            NotADirectoryError: If it is a file.
            ValueError: If there are no prediction files, one is something else, damaged or
                unfinished, or they can't be of one run.
        """
        shards = cls(Path(folder))
        problems, is_damaged = [], False
        for path in sorted(shards.path.iterdir()):
            if path.name.startswith(".") or (path.is_file() and is_index(path)):
                continue
            try:
                path.name.encode()
                check_shard_name(path.name)
                _check_is_no_lock(path)
                file = open_shard(path)
            except (OSError, ValueError) as error:
                problems.append(f"{path.name!r}: {error}")
                is_damaged |= isinstance(error, DamagedFileError)
                continue
            with contextlib.closing(file):
                shards._add(file, with_ids=with_ids)
        received = f"Received: folder={os.fspath(folder)!r}"
        if problems:
            kind = DamagedFileError if is_damaged else ValueError
            raise kind(
                "A folder of shards must have complete prediction files only; finish the job, or "
                f"move other files away. {received} with {first_problems(problems)}"
            )
        if not shards.names:
            raise ValueError(
                f"A folder of shards must have at least one prediction file. {received}"
            )
        return shards

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(rows for rows, *_ in self.facts)

    @property
    def state(self) -> CallState:
        """All files as one call: written side by side, rows add up, and the slowest one counts."""
        return CallState(
            rows=sum(state.rows for state in self.states),
            data_rows=sum(state.data_rows for state in self.states),
            bytes=sum(state.bytes for state in self.states),
            ended=max(state.ended for state in self.states),
            seconds=max(state.seconds for state in self.states),
            stalled_seconds=max(state.stalled_seconds for state in self.states),
            complete=True,
            closed=True,
        )

    @property
    def ragged(self) -> list[str]:
        """The outputs whose rows differ in shape."""
        return [name for name, spec in self.specs.items() if isinstance(spec, RaggedSpec)]

    def sharded_rows(self, *, sort: bool) -> ShardedRows:
        """The rows of all files in one order.

        Args:
            sort: Bool. Whether they are sorted by id, if there are ids.

        Raises:
            ValueError: If an id stands in two rows.
        """
        shards = Shards(self.path, self.names, self.facts)
        return ShardedRows(self.path, shards, self._order(sort=sort))

    def _order(self, *, sort: bool) -> RowOrder:
        """The order of all rows.

        Args:
            sort: Bool. Whether they are sorted by id, if there are ids.

        Raises:
            ValueError: If an id stands in two rows.
        """
        lengths = np.array([rows for rows, *_ in self.facts], np.int64)
        whole = [(number, 0, rows) for number, rows in enumerate(lengths.tolist()) if rows]
        in_turn = RowOrder(np.array(whole, np.int64).reshape(-1, 3))
        if not self.ids:
            return in_turn
        ids = np.concatenate(self.ids)
        order = np.argsort(ids, kind="stable")
        shard = np.repeat(np.arange(len(lengths)), lengths)
        ordered = ids[order]
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(twice):
            at = int(twice[0])
            self._refuse_twice(ordered[at], *shard[order[at : at + 2]].tolist())
        if not sort or not len(order):
            return in_turn
        is_first = np.ones(len(order), bool)
        is_first[1:] = (np.diff(order) != 1) | (np.diff(shard[order]) != 0)
        starts = np.flatnonzero(is_first)
        first = order[starts]
        offsets = np.cumsum(lengths) - lengths
        rows = np.diff(starts, append=len(order))
        runs = np.stack([shard[first], first - offsets[shard[first]], rows], axis=1)
        return RowOrder(runs.astype(np.int64, copy=False))

    def _add(self, file: FileSource, *, with_ids: bool) -> None:
        columns = {name: file.column(name) for name in file.output_names}
        specs: dict[str, Spec] = {name: column.spec for name, column in columns.items()}
        class_names = {head: list(names) for head, names in file.class_names().items()}
        attributes = {
            name: value
            for name, value in file.attributes().items()
            if name not in _OWN_ATTRIBUTES and np.ndim(value) == 0
        }
        if attributes.get(PLAIN_OUTPUTS) != self.attributes.get(PLAIN_OUTPUTS) and self.names:
            self._refuse(file.path.name, f"has the columns {sorted(file.side_columns)}", "others")
        if not self.names:
            self.specs, self.class_names, self.attributes = specs, class_names, attributes
            self.widest = dict.fromkeys(specs, 0)
        self._check_model(file.path.name, attributes)
        self._widen(file.path.name, specs)
        self._check_class_names(file.path.name, class_names)
        self.attributes = {
            name: value
            for name, value in self.attributes.items()
            if name in attributes and attributes[name] == value
        }
        self.names.append(file.path.name)
        self.states.append(file.state)
        self.facts.append(facts_of(file))
        self.nbytes += sum(column.rows * column.spec.row_bytes for column in file.dense_columns())
        if with_ids and IDS in file.side_columns:
            self.ids.append(file.dense_column(IDS).read_rows(0, file.state.rows))

    def _check_model(self, name: str, attributes: Mapping[str, Any]) -> None:
        ours, theirs = (some.get(FINGERPRINT) for some in (self.attributes, attributes))
        if ours != theirs:
            self._refuse(name, f"is of the model {theirs!r}", f"of {ours!r}")

    def _check_class_names(self, name: str, class_names: Mapping[str, list[str]]) -> None:
        if class_names != self.class_names:
            self._refuse(name, "has other names of classes", "others")

    def _widen(self, name: str, specs: Mapping[str, Spec]) -> None:
        """Makes the specs as wide as the text of one more file."""
        if specs.keys() != self.specs.keys():
            self._refuse(name, f"has the outputs {sorted(specs)}", f"{sorted(self.specs)}")
        for output, theirs in specs.items():
            ours = self.specs[output]
            if can_hold(ours, theirs):
                continue
            if not can_hold(theirs, ours):
                self._refuse(
                    name, f"has output {output!r} of {theirs.description}", f"of {ours.description}"
                )
            self.specs[output], self.widest[output] = theirs, len(self.names)

    def _refuse(self, name: str, theirs: str, ours: str) -> NoReturn:
        first = f", and {self.names[0]!r} {ours}" if self.names else ""
        raise ValueError(
            "Shards must be of one model, with the same outputs, row shapes, dtypes and names of "
            "classes; keep each run in a folder of its own. "
            f"Received: folder={str(self.path)!r}, in which {name!r} {theirs}{first}"
        )

    def _refuse_twice(self, value: np.generic, first: int, second: int) -> NoReturn:
        plain: object = value.item()
        text = plain.decode(errors="replace") if isinstance(plain, bytes) else plain
        raise ValueError(
            "An id must stand in one row of all shards; keep each run in a folder of its own, and "
            "make ids that no two rows share. "
            f"Received: folder={str(self.path)!r}, in which {self.names[first]!r} and "
            f"{self.names[second]!r} have the id {text!r}"
        )


def _check_is_no_lock(path: Path) -> None:
    if path.suffix == LOCK_SUFFIX:
        raise ValueError(
            f"a writer has {path.stem!r} open, or was killed; finish that file, or delete its lock "
            "if it is complete"
        )
