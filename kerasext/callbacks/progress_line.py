"""One line on the terminal that is written over."""

from __future__ import annotations

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text


class ProgressLine:
    """A line on stderr that shows the last text it was given.

    It hides no cursor, has no thread and redirects nothing: wherever a program ends, its terminal
    is as it should be. Where stderr is no terminal only the last text of all is printed.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._is_shown = False

    def show(self, text: str) -> None:
        """Writes over the line."""
        if self._console.is_terminal:
            self.clear()
            self._console.print(_one_line(text), end="", no_wrap=True, overflow="ellipsis")
            self._is_shown = True

    def clear(self) -> None:
        """Empties the line, for others to print there."""
        if self._is_shown:
            self._console.control(
                Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))
            )
            self._is_shown = False

    def end(self, text: str | None) -> None:
        """Leaves a last text, or the last one that was shown, and goes to the next line."""
        if text is not None:
            self.clear()
            self._console.print(_one_line(text), soft_wrap=True)
        elif self._is_shown:
            self._console.print()
        self._is_shown = False


def _one_line(text: str) -> Text:
    return Text(text)  # not markup, which names of classes may look like
