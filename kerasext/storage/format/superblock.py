"""The first bytes of an HDF5 file: what they say of a writer, and how to clear that after a kill.

HDF5 marks a file that is open for writing and opens none that is marked. It clears the marks of a
killed writer by a command line tool only (`h5clear -s`).

The superblock, of version 3 in every file of ours, is described in section II.A of the HDF5 file
format specification 3.0.
"""

from __future__ import annotations

import functools
import os
import struct
from pathlib import Path
from typing import NamedTuple

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# signature, version, size of offsets and of lengths, flags; base, extension, end, root; checksum
_LAYOUT = struct.Struct("<8s4B4QI")
_CHECKSUM = struct.Struct("<I")
_FLAGS, _END = 4, 7
_MASK = 0xFFFFFFFF

SIZE = _LAYOUT.size


class Superblock(NamedTuple):
    """What a file says of itself before anything else is read."""

    is_marked: bool
    """Whether a writer has it open, or had when it was killed."""
    end: int
    """Bytes that it should have."""
    content: bytes

    def closed(self, end: int) -> bytes:
        """The same of a file that no writer has open, of so many bytes."""
        fields = list(_LAYOUT.unpack(self.content))
        fields[_FLAGS], fields[_END] = 0, end
        block = _LAYOUT.pack(*fields)[: -_CHECKSUM.size]
        return block + _CHECKSUM.pack(lookup3(block))


@functools.lru_cache(maxsize=64)
def parse(content: bytes) -> Superblock | None:
    """Reads the first `SIZE` bytes of a file; `None` if they are no intact superblock."""
    if len(content) < SIZE:
        return None
    *fields, checksum = _LAYOUT.unpack(content)
    if fields[:2] != [SIGNATURE, 3] or checksum != lookup3(content[: -_CHECKSUM.size]):
        return None
    return Superblock(fields[_FLAGS] != 0, fields[_END], content)


def repair(path: Path, end: int = 0) -> None:
    """Clears the marks of a writer, and makes the file as long as it says it is.

    Only for a file whose lock is held: the marks of a live writer must stay.

    Args:
        path: Path of the file.
        end: Int. Bytes that the file has at least. After a loss of power it may refer to places
            beyond what it says is its end, where nothing else may come.

    Raises:
        ValueError: If the file has no intact superblock of version 3.
    """
    with path.open("r+b") as file:
        block = parse(file.read(SIZE))
        if block is None:
            raise ValueError(
                "The file can't be opened for writing again, for its superblock is damaged. "
                f"Received: path={str(path)!r}"
            )
        size = path.stat().st_size
        if not block.is_marked and size >= block.end >= end:
            return
        # What lies beyond the end that the file knows of may be data of its last commit.
        end = max(size, block.end, end)
        file.truncate(end)
        file.seek(0)
        file.write(block.closed(end))
        file.flush()
        os.fsync(file.fileno())


def lookup3(data: bytes) -> int:
    """Bob Jenkins's `hashlittle` of 2006, which HDF5 has as the checksum of its metadata.

    Args:
        data: Bytes, a multiple of 4 of them.
    """
    words: list[int] = [word for (word,) in struct.iter_unpack("<I", data)]
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    while len(words) > 3:
        a, b, c = (x + y & _MASK for x, y in zip((a, b, c), words[:3], strict=True))
        del words[:3]
        for shift in (4, 6, 8, 16, 19, 4):
            a = (a - c & _MASK) ^ _rotate(c, shift)
            c = c + b & _MASK
            a, b, c = b, c, a
    words += [0] * (3 - len(words))
    a, b, c = (x + y & _MASK for x, y in zip((a, b, c), words, strict=True))
    for shift in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _rotate(b, shift) & _MASK
        a, b, c = b, c, a
    return b  # where the last `c` has gone


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _MASK
