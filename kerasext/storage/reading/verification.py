"""Comparing the rows of a file with their checksums."""

from __future__ import annotations

import bisect
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kerasext.storage.format.checksums import RowChecksums, checksum, file_checksum
from kerasext.storage.reading.file_columns import FileColumn, FileRaggedColumn

if TYPE_CHECKING:
    from kerasext.storage.reading.file_source import FileSource


def find_damage(source: FileSource) -> str | None:
    """Reads all rows and compares them with the checksums; returns what is wrong, if anything.

    Raises:
        ValueError: If rows can't be read, or checksums are not of the kind that is written.
    """
    for column in source.dense_columns():
        # The rows after the last full chunk have a checksum of their own only in a complete file.
        # The commit record covers them in any file.
        count = column.rows / column.chunk_rows
        chunks = math.ceil(count) if source.state.complete else math.floor(count)
        if not all(matching_chunks(column, range(chunks))):
            return f"the rows of {column.spec.name!r} are not those that were written"
    if not matches_record(source):
        return "rows of the last commit are not those that were written"
    return None


def matching_chunks(column: FileColumn, chunks: range) -> Iterator[bool]:
    """Whether each of some chunks of a dataset matches its checksum."""
    stored = column.source.checksums(column.spec.name, chunks.stop)
    for number in chunks:
        end = min((number + 1) * column.chunk_rows, column.rows)
        found = checksum(_read(column, number * column.chunk_rows, end))
        yield number < len(stored) and found == stored[number]


def matches_record(source: FileSource) -> bool:
    """Whether the commit record matches the rows after the full chunks of all datasets.

    It covers the checksums of the full chunks, too, and with them all rows.
    """
    found = {}
    try:
        for column in source.dense_columns():
            name, chunk_rows = column.spec.name, column.chunk_rows
            found[name] = RowChecksums(0, 0)
            if source.state.rows:
                full, rest = divmod(column.rows, chunk_rows)
                stored = source.checksums(name, full)
                rows = _read(column, column.rows - rest, column.rows)
                found[name] = RowChecksums(checksum(stored), checksum(rows))
    except ValueError:  # something can't be read
        return False
    return file_checksum(found) == source.state.rows_checksum


def _read(column: FileColumn, start: int, stop: int) -> np.ndarray:
    return column.source.read(column, slice(start, stop))  # which warns of nothing


def sound_rows(source: FileSource) -> int:
    """The number of rows before the first that does not match its checksum.

    Of a file that was closed only the commit record is compared: it covers the rows after the last
    full chunks, on which a writer builds, and the checksums of the others, so that these are found
    by `PredictionFile.verify` at any time. After a kill or a loss of power everything is compared.
    """
    is_sound = matches_record(source)
    rows = source.state.rows
    if is_sound and source.state.closed:
        return rows
    columns = map(source.column, source.output_names)
    sound = min((_sound_rows_of(column, rest=is_sound) for column in columns), default=rows)
    if sound == rows and not is_sound:
        return 0  # each chunk has a checksum that fits, but one that was not committed
    return sound


def _sound_rows_of(column: FileColumn | FileRaggedColumn, *, rest: bool) -> int:
    if isinstance(column, FileColumn):
        return _sound_entries(column, rest=rest)
    splits = column.row_splits
    entries = _sound_entries(splits, rest=rest)
    values = _sound_entries(column.values, rest=rest)
    # Each row ends where the next one begins: the last of those that end among sound values.
    rows = bisect.bisect_right(
        range(entries), values, key=lambda row: int(_read(splits, row, row + 1)[0])
    )
    rows = max(rows - 1, 0)
    if column.row_shapes is not None:
        rows = min(rows, _sound_entries(column.row_shapes, rest=rest))
    return rows


def _sound_entries(column: FileColumn, *, rest: bool) -> int:
    """Entries in leading chunks that match; if all do, `rest` adds those after."""
    chunks = column.rows // column.chunk_rows
    sound = 0
    try:
        for matches in matching_chunks(column, range(chunks)):
            if not matches:
                break
            sound += 1
    except ValueError:  # a chunk can't be read
        pass
    return column.rows if rest and sound == chunks else sound * column.chunk_rows


class DamageWatch:
    """Warns once if rows that are read from a file that was not closed are damaged.

    After a loss of power, rows may be damaged that the commit record counts. Each chunk is compared
    when rows of it are read first.

    Args:
        source: `FileSource` of the file.
    """

    def __init__(self, source: FileSource) -> None:
        self._source = source
        self._looked_at: set[tuple[str, int]] = set()
        self._has_warned = False

    def look(self, column: FileColumn, key: slice) -> None:
        """Compares the chunks that have some of these rows and were not compared before."""
        if self._has_warned or self._source.state.closed:
            return
        rows = range(*key.indices(column.rows))
        if not rows:
            return
        full = column.rows // column.chunk_rows
        first, last = rows[0] // column.chunk_rows, rows[-1] // column.chunk_rows
        for number in range(first, last + 1):
            # The last chunk is compared once, together with those of all outputs.
            chunk = (column.spec.name, number) if number < full else ("", 0)
            if chunk in self._looked_at:
                continue
            if not self._is_sound(column, number, is_full=number < full):
                # A writer that resumes may be replacing the rows.
                if not self._source.has_new_state():
                    self._warn(column)
                return
            self._looked_at.add(chunk)

    def _is_sound(self, column: FileColumn, number: int, *, is_full: bool) -> bool:
        if not is_full:
            return matches_record(self._source)
        try:
            return next(matching_chunks(column, range(number, number + 1)))
        except ValueError:  # its checksum can't be read
            return False

    def _warn(self, column: FileColumn) -> None:
        self._has_warned = True
        warnings.warn(
            "The file was not closed, as after a loss of power, and rows of "
            f"{column.spec.name!r} do not match their checksums; mode='resume' predicts them "
            f"again. Received: path={str(self._source.path)!r}",
            stacklevel=6,
        )
