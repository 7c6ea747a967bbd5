"""What the commands say on stderr, and how text from files is shown."""

from __future__ import annotations

import sys


class InputError(Exception):
    """What the user gave can't be used; the message says why and what can."""


def say(text: str) -> None:
    """Writes a line to stderr: stdout is for what was asked for."""
    print(text, file=sys.stderr, flush=True)


def printable(text: object) -> str:
    """Text without control characters, by which a file could write anywhere on a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def describe(error: BaseException) -> str:
    """What an error says, with its notes."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    is_ours = isinstance(error, InputError | ValueError | TypeError | OSError | ImportError)
    parts = [text if is_ours and text else f"{type(error).__name__}: {text}"]
    return "\n".join([*parts, *getattr(error, "__notes__", [])])
