"""The exit codes of all commands."""

from __future__ import annotations

from kerasext.cli.messages import InputError
from kerasext.storage import DamagedFileError

SUCCESS = 0
FAILED = 1
UNUSABLE = 2
INTERRUPTED = 130  # as shells have it: 128 and the number of the signal

# An error has the code of the first class that it is an instance of. `None`: what kerasext itself
# raises is about what was given, the rest comes from the model or from a library.
_CODES: dict[type[Exception], int | None] = {
    InputError: UNUSABLE,
    DamagedFileError: FAILED,
    FileNotFoundError: UNUSABLE,
    FileExistsError: UNUSABLE,
    IsADirectoryError: UNUSABLE,
    NotADirectoryError: UNUSABLE,
    PermissionError: UNUSABLE,
    BlockingIOError: UNUSABLE,  # another writer has the file
    OSError: FAILED,  # such as a full disk
    ValueError: None,
    TypeError: None,
    ImportError: None,
    Exception: FAILED,
}


def exit_code(error: Exception) -> int:
    """The exit code after an error."""
    code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
    if code is None:
        return UNUSABLE if _is_raised_by_kerasext(error) else FAILED
    return code


def _is_raised_by_kerasext(error: Exception) -> bool:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    module = "" if place is None else place.tb_frame.f_globals.get("__name__", "")
    return str(module).partition(".")[0] == "kerasext"
