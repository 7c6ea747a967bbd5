"""The first bytes of an HDF5 file: what they say of a writer, and how to clear that after a kill.

HDF5 marks a file that is open for writing and opens none that is marked. It clears the marks of a
killed writer by a command line tool only (`h5clear -s`).

The superblock, of version 3 in every file of ours, is described in section II.A of the HDF5 file
format specification 3.0.
"""

import os
import struct
from pathlib import Path
from typing import Any, NamedTuple

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# signature, version, size of offsets and of lengths, flags; base, extension, end, root; checksum
_LAYOUT = struct.Struct("<8s4B4QI")
_CHECKSUM = struct.Struct("<I")
_FLAGS, _END = 4, 7
_MASK = 0xFFFFFFFF


class Superblock(NamedTuple):
    """What a file says of itself before anything else is read."""

    is_marked_open: bool
    """Whether a writer has it open, or had when it was killed."""
    is_cut_short: bool
    """Whether it is shorter than it should be."""


def read(path: Path) -> Superblock:
    """Reads the superblock of a file; one of another version says nothing."""
    with path.open("rb") as file:
        fields = _unpack(file.read(_LAYOUT.size))
    if fields is None:
        return Superblock(is_marked_open=False, is_cut_short=False)
    return Superblock(
        is_marked_open=fields[_FLAGS] != 0,
        is_cut_short=path.stat().st_size < fields[_END],
    )


def repair(path: Path) -> None:
    """Clears the marks of a writer, and makes the file as long as it says it is.

    Only for a file whose lock is held: the marks of a live writer must stay.

    Args:
        path: Path of the file.

    Raises:
        ValueError: If the file has no intact superblock of version 3.
    """
    with path.open("r+b") as file:
        fields = _unpack(file.read(_LAYOUT.size))
        if fields is None:
            raise ValueError(
                "The file can't be opened for writing again, for its superblock is damaged. "
                f"Received: path={str(path)!r}"
            )
        size = path.stat().st_size
        if not fields[_FLAGS] and size >= fields[_END]:
            return
        # What lies beyond the end that the file knows of may be data of its last commit.
        fields[_FLAGS], fields[_END] = 0, max(size, fields[_END])
        file.truncate(fields[_END])
        block = _LAYOUT.pack(*fields, 0)[: -_CHECKSUM.size]
        file.seek(0)
        file.write(block + _CHECKSUM.pack(lookup3(block)))
        file.flush()
        os.fsync(file.fileno())


def _unpack(block: bytes) -> list[Any] | None:
    if len(block) < _LAYOUT.size:
        return None
    *fields, checksum = _LAYOUT.unpack(block)
    intact = fields[:2] == [_SIGNATURE, 3] and checksum == lookup3(block[: -_CHECKSUM.size])
    return fields if intact else None


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
