"""The error for a damaged file."""


class DamagedFileError(ValueError):
    """A prediction file is damaged, or shards of an index are missing or changed.

    Other `ValueError`s of kerasext are about arguments, such as a file of another kind.
    """
