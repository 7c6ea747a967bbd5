"""Errors for damaged files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# What h5py raises for damage: the errors of HDF5, and what comes of senseless types and sizes.
_DAMAGE = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


class DamagedFileError(ValueError):
    """A prediction file is damaged, or shards of an index are missing or changed.

    Other `ValueError`s of kerasext are about arguments, such as a file of another kind.
    """


@contextlib.contextmanager
def naming_damage(path: object, part: str = "") -> Iterator[None]:
    """Turns what h5py raises for a damaged file into a `DamagedFileError` that names the file.

    Args:
        path: The file.
        part: String. What is read of it, if that is to be named too.
    """
    try:
        yield
    except DamagedFileError:  # it names the file
        raise
    except _DAMAGE as error:
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise DamagedFileError(
            f"The file is damaged: {part and part + ': '}{reason}. Received: path={str(path)!r}"
        ) from error
