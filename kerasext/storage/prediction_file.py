"""Reading a prediction file."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from h5py._objects import phil

from kerasext.storage import live_files, superblock
from kerasext.storage.class_names import ClassNames
from kerasext.storage.commit_record import CommitRecord
from kerasext.storage.layout import (
    CLASS_NAMES,
    FORMAT,
    FORMAT_VERSION,
    RESERVED,
    SUMS,
    health,
)
from kerasext.storage.stored_output import StoredOutput, check_stored, naming_damage

_FOLLOW_ROWS = 65536
_FOLLOW_SECONDS = 0.02
# HDF5 reads damaged metadata of a file that is written again and again, in case it was torn, and
# doubles its pause each time, from 1 ns on: with its own limit of 100 that never ends, with this
# one after 0.1 s. h5py has no function for it.
_SET_READ_ATTEMPTS = "H5Pset_metadata_read_attempts"
_READ_ATTEMPTS = 26


class PredictionFile(Mapping[str, StoredOutput]):
    """The outputs that a prediction file holds, by name.

    A mapping from output name (`"labels"`, or `"head/labels"` for nested ones) to an array that is
    read when it is indexed. Shows committed rows only. Opening changes nothing in the file.

    Args:
        path: String or path-like. The file.

    Raises:
        FileNotFoundError: If there is no such file.
        BlockingIOError: If this very process is writing it.
        ValueError: If it is not a prediction file, damaged, or of a newer version than this library
            reads.

    Example:

    ```python
    with PredictionFile("digits.h5") as predictions:
        predictions.rows                      # 360
        labels = predictions["labels"][:10]   # array of shape (10,), int32
        predictions.class_names[labels]       # their names
    ```
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._open()

    def _open(self) -> None:
        self._h5file = _open(self.path)
        try:
            with naming_damage(self.path):
                self._commits = CommitRecord(self._h5file)
                self._record = self._commits.read()
                self._outputs = self._read_outputs()
                if superblock.read(self.path).is_cut_short:
                    self._check_chunks()
        except BaseException:
            _close(self._h5file)
            raise

    @property
    def rows(self) -> int:
        """Number of committed rows, the same for every output."""
        return int(self._record["rows"])

    @property
    def first_row(self) -> int:
        """Row at which the rows of the last predict call begin."""
        return int(self._record["first_row"])

    @property
    def complete(self) -> bool:
        """Whether the predict call that wrote the file came to its end."""
        return bool(self._record["complete"])

    @property
    def class_names(self) -> ClassNames | dict[str, ClassNames] | None:
        """Names of the classes: one array-like, or one per head; `None` where none are stored.

        `class_names[labels]` is the array of names of an array of labels.
        """
        by_head: dict[str, ClassNames] = {}
        for name, output in self.items():
            with naming_damage(self.path, f"class names of {name!r}"):
                names = _attribute(output._h5ds, CLASS_NAMES)
                if names is not None:
                    by_head[name.rpartition("/")[0]] = ClassNames.of_attribute(names)
        return by_head.get("", by_head) or None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the user gave as `metadata` when the file was made."""
        return self._json_attribute("metadata")

    @property
    def prediction_metadata(self) -> dict[str, Any]:
        """What the model said of its outputs: task, class names, thresholds and other settings."""
        return self._json_attribute("prediction_metadata")

    @property
    def origin(self) -> dict[str, Any]:
        """Where the file comes from: model name, versions, when it was made."""
        self._check_open()
        with naming_damage(self.path, "attributes"):
            values = {name: _attribute(self._h5file, name) for name in self._h5file.attrs}
        return {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in values.items()
            if name not in {"metadata", "prediction_metadata"}
        }

    @property
    def health(self) -> dict[str, float]:
        """How the last predict call went: see `HDF5PredictionWriter.health`."""
        return health(self._record)

    def refresh(self) -> None:
        """Looks for rows that were committed since, in a file that is being written.

        Outputs taken from the file before keep showing the rows that they had.
        """
        self._check_open()
        with naming_damage(self.path):
            record = self._commits.read()
            if record == self._record:
                return
            if not self._h5file.swmr_mode:  # it was complete, and a writer adds to it
                _close(self._h5file)
                self._open()
                return
            for output in self._outputs.values():
                output.refresh(int(record["rows"]))
            self._record = record
            self._outputs = self._read_outputs()

    def follow(self, *, timeout: float | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Reads the file from its first row on, waiting for more until it is complete.

        Args:
            timeout: Float. Seconds without a new row after which it ends, as it should where the
                writer may have been killed; `complete` tells. Defaults to `None`: never.

        Yields:
            Dict from output name to array of shape `(rows, ...)`, for the rows that were committed
            since the last one.
        """
        row = 0
        new_at = time.monotonic()
        while True:
            self.refresh()
            complete = self.complete  # before the rows: those that it counts are all there
            if self.rows > row:
                batches = (
                    slice(start, min(start + _FOLLOW_ROWS, self.rows))
                    for start in range(row, self.rows, _FOLLOW_ROWS)
                )
                row = self.rows
                for rows in batches:
                    yield {name: output[rows] for name, output in self.items()}
                new_at = time.monotonic()
            elif complete or (timeout is not None and time.monotonic() - new_at > timeout):
                return
            else:
                time.sleep(_FOLLOW_SECONDS)

    def verify(self) -> None:
        """Reads the whole file and compares it with the checksums that were stored with it.

        Every full chunk has a checksum, and the last one too once the file is complete: of a file
        that is being written the last rows are not verified.

        Raises:
            ValueError: If rows differ from those that were written, naming the output.
        """
        self._check_open()
        for name, output in self.items():
            sums = self._h5file.get(f"{SUMS}/{name}")
            if not isinstance(sums, h5py.Dataset) or not output.matches(sums, last=self.complete):
                raise ValueError(
                    f"The file is damaged: the rows of {name!r} are not those that were written. "
                    f"Received: path={str(self.path)!r}"
                )

    def iter_batches(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Reads the file from the first row to the last in constant memory.

        Args:
            rows: Int. Rows in each batch; the last one has what is left.

        Yields:
            Dict from output name to array of shape `(rows, ...)`.

        Raises:
            ValueError: If `rows` is not positive.
        """
        if rows < 1:
            raise ValueError(f"`rows` must be at least 1. Received: rows={rows}")
        return self._batches(rows)

    def _batches(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, self.rows, rows):
            yield {name: output[start : start + rows] for name, output in self.items()}

    def close(self) -> None:
        """Closes the file; safe to call again."""
        _close(self._h5file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> StoredOutput:
        self._check_open()
        try:
            return self._outputs[name]
        except KeyError:
            raise KeyError(
                f"{str(self.path)!r} has the outputs {sorted(self._outputs)}. Received: {name!r}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        if not self._h5file:
            return f"<PredictionFile {str(self.path)!r}: closed>"
        state = "complete" if self.complete else "incomplete"
        lines = [f"<PredictionFile {str(self.path)!r}: {self.rows:,} rows, {state}"]
        width = max(map(len, self), default=0)
        lines += [f"  {name:<{width}}  {out.dtype!s:<8} {out.shape}" for name, out in self.items()]
        names = self.class_names
        if isinstance(names, ClassNames):
            shown = ", ".join(repr(str(name)) for name in names[:4])
            lines.append(f"  {len(names)} classes: {shown}{', ...' if len(names) > 4 else ''}")
        origin = self.origin
        model = origin.get("model_name")
        made = f"  made {origin.get('created')} by kerasext {origin.get('kerasext_version')}"
        lines.append(made + (f" from model {model!r}" if model else ""))
        return "\n".join(lines) + ">"

    def _check_open(self) -> None:
        if not self._h5file:
            raise ValueError(
                f"The file was closed; open it again. Received: path={str(self.path)!r}"
            )

    def _json_attribute(self, name: str) -> dict[str, Any]:
        self._check_open()
        with naming_damage(self.path, name):
            value = json.loads(_attribute(self._h5file, name, "{}"))
            if not isinstance(value, dict):
                raise ValueError(f"must be an object of JSON, not {type(value).__name__}")
        return value

    def _read_outputs(self) -> dict[str, StoredOutput]:
        size = os.fstat(self._h5file.id.get_vfd_handle()).st_size
        outputs: dict[str, StoredOutput] = {}
        for name, dataset in _datasets(self._h5file):
            check_stored(dataset, self.rows, size)
            outputs[name] = StoredOutput(dataset, self.rows)
        return outputs

    def _check_chunks(self) -> None:
        # A disk that is full in a write leaves the file short of its end, and rows that were
        # committed intact; so does a broken copy, where HDF5 would read zeros for what is missing.
        size = self.path.stat().st_size
        for name, output in self.items():
            if self.complete or not output.is_stored_within(size):
                raise ValueError(f"it was cut short, and rows of {name!r} are missing")


def _open(path: Path) -> h5py.File:
    if not path.exists():
        raise FileNotFoundError(f"There must be a file to read. Received: path={str(path)!r}")
    live_files.check_elsewhere(path)
    try:
        file = _open_hdf5(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"The file must be HDF5, and whole. Received: path={str(path)!r} ({error})"
        ) from error
    try:
        _check_format(file, path)
    except BaseException:
        _close(file)
        raise
    return file


def _check_format(file: h5py.File, path: Path) -> None:
    with naming_damage(path):
        name, version = (_attribute(file, key) for key in ("format", "format_version"))
    if not isinstance(name, str) or name != FORMAT:
        raise ValueError(
            f"The file must be a prediction file of kerasext. Received: path={str(path)!r}"
        )
    if np.ndim(version) or version != FORMAT_VERSION:
        raise ValueError(
            f"The file must be of format version {FORMAT_VERSION}; install a newer kerasext. "
            f"Received: path={str(path)!r} of version {version}"
        )


def _open_hdf5(path: Path) -> h5py.File:
    # No lock of HDF5's: it would keep a writer in another process from going on.
    if not any(superblock.read(path)):
        try:
            return h5py.File(path, "r", locking=False)
        except OSError:
            if not any(superblock.read(path)):  # else a writer has just opened it
                raise
    # What is being written, or was when its writer failed, opens in this mode only, and
    # so does what was cut short.
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_file_locking(False, True)
    set_read_attempts = getattr(ctypes.CDLL(h5py.h5p.__file__), _SET_READ_ATTEMPTS, None)
    if set_read_attempts is not None:  # not on Windows
        with phil:
            set_read_attempts(ctypes.c_int64(access.id), ctypes.c_uint(_READ_ATTEMPTS))
    flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
    return h5py.File(h5py.h5f.open(os.fsencode(path), flags, access))


def _datasets(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets of a file other than ours, each once, links to elsewhere not followed."""
    seen = {file}
    groups = [("", file)]
    while groups:
        prefix, group = groups.pop()
        inner = []
        for part in group:
            # h5py has bytes for what is not UTF-8, and takes a slash for a path, through any link.
            if not isinstance(part, str) or "/" in part or part == ".":
                raise ValueError(f"{part!r} is the name of no output and no group")
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                continue
            name, node = prefix + part, group[part]
            if node in seen or name in RESERVED:
                continue
            seen.add(node)
            if isinstance(node, h5py.Dataset):
                yield name, node
            elif isinstance(node, h5py.Group):
                inner.append((name + "/", node))
        groups += reversed(inner)


def _attribute(node: h5py.HLObject, name: str, default: Any = None) -> Any:
    """An attribute of numbers or text."""
    if name not in node.attrs:
        return default
    attribute = node.attrs.get_id(name)
    size = os.fstat(node.file.id.get_vfd_handle()).st_size
    dtype, shape = attribute.dtype, attribute.shape
    is_text = h5py.check_string_dtype(dtype) is not None
    # None is the shape of one that has no value.
    claimed = size + 1 if shape is None else dtype.itemsize * math.prod(shape)
    if not (is_text or dtype.kind in "biufc") or claimed > size:
        raise ValueError(
            f"attribute {name!r} must have text or numbers, and is of type {dtype} and shape "
            f"{shape}"
        )
    value = node.attrs[name]
    if isinstance(value, np.bytes_):
        return value.decode()
    if isinstance(value, str):
        value.encode()  # h5py lets through what is not UTF-8
    return value


def _close(file: h5py.File) -> None:
    # HDF5 can fail to drop damaged metadata, which is of no consequence where nothing was written.
    with contextlib.suppress(OSError, RuntimeError):
        file.close()
