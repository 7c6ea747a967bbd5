"""Tables for a terminal: by rich if it is installed, else as plain text."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kerasext.cli.messages import printable, show

_STYLES = {"complete": "green", "incomplete": "yellow"}
_GAP = 2  # spaces between columns


class Table(NamedTuple):
    """Rows of cells.

    Args:
        rows: Sequence of sequences of strings. A cell may have several lines.
        header: Sequence of strings, one for each column, or none.
    """

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()


Page = Mapping[str, Table]
"""Tables by title."""


def print_page(page: Page) -> None:
    """Prints tables, each beside its title."""
    if _has_rich():
        from rich.console import Console  # noqa: PLC0415 - may not be installed

        Console().print(_rich_page(page))
        return
    titles = max(map(len, page)) + _GAP
    for title, table in page.items():
        for number, line in enumerate(_plain_lines(table)):
            show((title if number == 0 else "").ljust(titles) + line)


@contextlib.contextmanager
def live_page(page: Page) -> Iterator[Callable[[Page], None] | None]:
    """Shows tables that change, if there is a terminal and rich.

    Yields:
        Function that shows other tables in their place, or `None` if that cannot be.
    """
    if not _has_rich():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - may not be installed
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    if not console.is_terminal:
        yield None
        return
    with Live(_rich_page(page), console=console, auto_refresh=False) as live:
        yield lambda page: live.update(_rich_page(page), refresh=True)


def _has_rich() -> bool:
    try:
        importlib.import_module("rich")
    except ImportError:
        return False
    return True


def _rich_page(page: Page) -> Any:
    from rich.table import Table as RichTable  # noqa: PLC0415 - may not be installed
    from rich.text import Text  # noqa: PLC0415

    def text(cell: str, style: str = "") -> Text:
        # Not a plain string, in which rich would look for markup; and nothing is cut off.
        lines = map(printable, cell.split("\n"))
        return Text("\n".join(lines), style or _STYLES.get(cell, ""), overflow="fold")

    whole = RichTable.grid(padding=(0, _GAP))
    for title, table in page.items():
        columns = max(map(len, [table.header, *table.rows]))
        shown = RichTable(
            *(table.header or [""] * columns),
            box=None,
            padding=(0, _GAP, 0, 0),
            show_header=bool(table.header),
        )
        for row in table.rows:
            shown.add_row(*map(text, row))
        whole.add_row(text(title, "bold"), shown)
    return whole


def _plain_lines(table: Table) -> list[str]:
    rows = [[cell.split("\n") for cell in row] for row in [table.header, *table.rows] if row]
    widths = [
        max((len(line) for row in rows if column < len(row) for line in row[column]), default=0)
        for column in range(max(map(len, rows)))
    ]
    lines = []
    for row in rows:
        for number in range(max(map(len, row))):
            cells = [cell[number] if number < len(cell) else "" for cell in row]
            padded = [c.ljust(width + _GAP) for c, width in zip(cells, widths, strict=False)]
            lines.append("".join(padded).rstrip())
    return lines
