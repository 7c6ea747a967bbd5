"""The first bytes of an HDF5 file, which h5py does not show.

The superblock, of version 3 in every file of ours, is described in section II.A of the HDF5 file
format specification 3.0.
"""

import struct
from pathlib import Path
from typing import NamedTuple

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# signature, version, size of offsets and of lengths, flags; base, extension, end, root; checksum
_LAYOUT = struct.Struct("<8s4B4QI")


class Superblock(NamedTuple):
    """What a file says of itself before anything else is read."""

    is_marked_open: bool
    """Whether a writer has it open, or had when it was killed."""
    is_cut_short: bool
    """Whether it is shorter than it should be."""


def read(path: Path) -> Superblock:
    """Reads the superblock of a file; one of another version says nothing."""
    with path.open("rb") as file:
        block = file.read(_LAYOUT.size)
    if len(block) < _LAYOUT.size:
        return Superblock(is_marked_open=False, is_cut_short=False)
    signature, version, _, _, flags, _, _, end, _, _ = _LAYOUT.unpack(block)
    if (signature, version) != (_SIGNATURE, 3):
        return Superblock(is_marked_open=False, is_cut_short=False)
    return Superblock(is_marked_open=flags != 0, is_cut_short=path.stat().st_size < end)
