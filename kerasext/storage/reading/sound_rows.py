"""How many rows of a file match their checksums, for a writer that goes on after them."""

from __future__ import annotations

import bisect

from kerasext.storage.format.layout import ROW_SHAPES, ROW_SPLITS, VALUES
from kerasext.storage.reading.file_source import FileSource


def sound_rows(file: FileSource) -> int:
    """The number of rows before the first that does not match its checksum.

    Of a file that was closed only the commit record is compared: it covers the rows after the last
    full chunks, on which a writer builds, and the checksums of the others, so that these are found
    by `PredictionFile.verify` at any time. After a kill or a loss of power everything is compared.

    Args:
        file: The file.
    """
    is_sound = file.matches_rows_checksum()
    rows = file.state.rows
    if is_sound and file.was_closed:
        return rows
    sound = min((_sound_rows_of(file, name, rest=is_sound) for name in file.outputs), default=rows)
    if sound == rows and not is_sound:
        return 0  # each chunk has a checksum that fits, but one that was not committed
    return sound


def _sound_rows_of(file: FileSource, name: str, *, rest: bool) -> int:
    if name not in file.ragged:
        return _sound_entries(file, name, rest=rest)
    splits = f"{name}/{ROW_SPLITS}"
    entries = _sound_entries(file, splits, rest=rest)
    numbers = _sound_entries(file, f"{name}/{VALUES}", rest=rest)
    # Each row ends where the next one begins: the last of those that end among sound numbers.
    rows = bisect.bisect_right(
        range(entries), numbers, key=lambda row: int(file.read(splits, slice(row, row + 1))[0])
    )
    rows = max(rows - 1, 0)
    if f"{name}/{ROW_SHAPES}" in file.datasets:
        rows = min(rows, _sound_entries(file, f"{name}/{ROW_SHAPES}", rest=rest))
    return rows


def _sound_entries(file: FileSource, name: str, *, rest: bool) -> int:
    """Entries of a dataset in leading chunks that match; if all do, `rest` adds those after."""
    length, per_chunk = file.lengths[name], file.datasets[name].chunks[0]
    chunks = length // per_chunk
    sound = 0
    try:
        for matches in file.matching_chunks(name, range(chunks)):
            if not matches:
                break
            sound += 1
    except ValueError:  # a chunk can't be read
        pass
    return length if rest and sound == chunks else sound * per_chunk
