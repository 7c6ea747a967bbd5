"""What the commands say, and how text from files is shown."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable


class InputError(Exception):
    """What the user gave can't be used; the message says why and what can."""


def say(text: str) -> None:
    """Writes lines to stderr: stdout is for what was asked for."""
    print(_printable_lines(text), file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Writes lines to stdout."""
    print(_printable_lines(text))


def printable(text: object) -> str:
    """Text without control characters, by which a file could write anywhere on a terminal.

    Bytes of a file name that are not UTF-8 are shown as in the ids of images.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def command_line(arguments: Iterable[str]) -> str:
    """A command for a shell, with only printable characters."""
    return " ".join(
        shlex.quote(text) if text.isprintable() else _quoted_bytes(text)
        for text in map(str, arguments)
    )


def describe(error: BaseException) -> str:
    """What an error says, with its notes."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    is_ours = isinstance(error, InputError | ValueError | TypeError | OSError | ImportError)
    parts = [text if is_ours and text else f"{type(error).__name__}: {text}"]
    return "\n".join([*parts, *getattr(error, "__notes__", [])])


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.expandtabs(4).split("\n")))


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python reads a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]


def _quoted_bytes(text: str) -> str:
    # A form that bash, zsh, ksh and the sh of POSIX 2024 read.
    content = text.encode("utf-8", "surrogateescape")
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else "" for byte in content)
    return "$'" + "".join(c or f"\\{b:03o}" for c, b in zip(plain, content, strict=True)) + "'"
