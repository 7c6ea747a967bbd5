import os
import shutil
import subprocess

import pytest

from kerasext.cli.messages import InputError, command_line, describe, printable, say, show


def test_printable():
    """What could move a terminal's cursor is shown, letters of all languages stay."""
    assert printable("größe 名前 \x1b[2J\n\r\x7f") == "größe 名前 \\x1b[2J\\n\\r\\x7f"


def test_printable_bytes_of_names():
    """A byte of a file name that is not UTF-8 is shown by its number."""
    assert printable(os.fsdecode(b"caf\xe9.png")) == "caf\\xe9.png"


@pytest.mark.parametrize(
    "name", [b"plain.h5", b"two words.h5", "größe.h5".encode(), b"caf\xe9 'a\\b\n\x1b[1m.h5"]
)
def test_command_line(name):
    """A shell takes a command that is shown back to the same arguments."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("bash is not installed")
    line = command_line(["printf", "%s", os.fsdecode(name)])
    assert line.isprintable()
    assert subprocess.run([shell, "-c", line], capture_output=True, check=True).stdout == name


@pytest.mark.parametrize("write", [say, show])
def test_what_is_written(capsys, write):
    """Lines are written without control characters."""
    write("a\x1b[2J\tb\nc\udce9")
    assert "".join(capsys.readouterr()) == "a\\x1b[2J   b\nc\\xe9\n"


def test_describe():
    """Messages meant for users stand alone, others have their type; notes follow."""
    assert describe(InputError("no")) == "no"
    assert describe(ValueError("no")) == "no"
    assert describe(ValueError()) == "ValueError: "
    error = RuntimeError("no")
    error.add_note("in the first rows")
    assert describe(error) == "RuntimeError: no\nin the first rows"
