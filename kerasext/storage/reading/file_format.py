"""What a file is: a prediction file, an index of several, or something else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kerasext.storage.format import superblock
from kerasext.storage.format.damage import DamagedFileError
from kerasext.storage.format.layout import (
    FORMAT,
    FORMAT_VERSION,
    INDEX,
    INDEX_FORMAT,
    VIRTUAL_FORMAT,
)

FORMAT_ATTRIBUTES = ("format", "format_version", INDEX)


def check_format(path: Path, attributes: Mapping[str, Any]) -> str:
    """Returns `FORMAT` or `INDEX_FORMAT`.

    Args:
        path: Path of the file.
        attributes: Mapping with those `FORMAT_ATTRIBUTES` that the file has.

    Raises:
        ValueError: If it is a file of another kind or version.
    """
    name, version = attributes.get("format"), attributes.get("format_version", 0)
    received = f"Received: path={str(path)!r}"
    if not isinstance(name, str) or name not in {FORMAT, INDEX_FORMAT, VIRTUAL_FORMAT}:
        raise ValueError(f"The file must be a prediction file of kerasext. {received}")
    if name == VIRTUAL_FORMAT:
        raise ValueError(
            "A file of virtual datasets is for other tools, because HDF5 reads fill values for "
            f"shards that are missing; open the index {attributes.get(INDEX)!r} beside it. "
            f"{received}"
        )
    if np.ndim(version) or version != FORMAT_VERSION:
        is_newer = not np.ndim(version) and version > FORMAT_VERSION
        remedy = "install a newer kerasext" if is_newer else "predict again"
        raise ValueError(
            f"The file must be of format version {FORMAT_VERSION}; {remedy}. "
            f"{received} of version {version}"
        )
    return name


@contextlib.contextmanager
def naming_what_is_no_hdf5(path: Path) -> Iterator[None]:
    """Turns errors of opening into those for a file that is missing, or is no whole HDF5 file."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(
            f"There must be a file to read. Received: path={str(path)!r}"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        kind = DamagedFileError if _begins_as_hdf5(path) else ValueError
        raise kind(
            f"The file must be HDF5, and whole. Received: path={str(path)!r} ({error})"
        ) from error


def _begins_as_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(superblock.SIGNATURE)) == superblock.SIGNATURE
    except OSError:
        return False
