import io

import pytest
from rich.console import Console

from kerasext.callbacks.progress_line import ProgressLine


@pytest.fixture
def line():
    """A line on a terminal of 20 columns, and what was written to it."""
    line = ProgressLine()
    line._console = Console(file=io.StringIO(), force_terminal=True, width=20, color_system=None)
    return line, line._console.file


def test_a_line_is_written_over(line):
    """Each text goes to the beginning of the same line, which is emptied first."""
    line, file = line
    line.show("[one]")
    line.show("two")
    line.end("three")
    assert file.getvalue() == "[one]\r\x1b[2Ktwo\r\x1b[2Kthree\n"


def test_a_long_text_stays_on_its_line(line):
    """It is cut, or the next text would not be written over it."""
    line, file = line
    line.show("x" * 30)
    assert file.getvalue() == "x" * 19 + "…"


def test_the_end_without_a_text(line):
    """After an error the next line is free, once."""
    line, file = line
    line.show("one")
    line.end(None)
    line.end(None)
    assert file.getvalue() == "one\n"


def test_no_terminal(capsys):
    """Where nothing can be written over, only the last text is printed, whole, to stderr."""
    line = ProgressLine()
    line.show("one")
    line.end("x" * 300)
    assert capsys.readouterr() == ("", "x" * 300 + "\n")
