"""A bar that shows how many rows are safe in a file that is being written."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from kerasext.storage import PredictionFile

_SECONDS = 0.5  # between two looks


@contextlib.contextmanager
def progress_bar(
    path: Path, rows: int, console: Console, is_ours: Callable[[], bool]
) -> Iterator[None]:
    """Shows a bar while a file is written, and until the end.

    It looks at the file, of which it so shows what a kill would leave.

    Args:
        path: Path. The file.
        rows: Int. Rows that it will have.
        console: Where to show it.
        is_ours: Callable that tells whether the file is there that is being written, and not one
            that it is going to replace.
    """
    bar = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task("rows", total=rows, start=False)
    ended = threading.Event()

    def look() -> None:
        predictions: PredictionFile | None = None
        first: int | None = None
        while True:
            last = ended.wait(_SECONDS)
            try:
                if predictions is None and is_ours():
                    predictions = PredictionFile(path)
                if predictions is not None:
                    predictions.refresh()
                    if first is None:
                        # What was there before is no measure of the speed.
                        first = predictions.rows
                        bar.reset(task, completed=first, total=rows)
                    bar.update(task, completed=predictions.rows)
            except (OSError, ValueError, ImportError):  # it is not there yet
                predictions = None
            if last:
                if predictions is not None:
                    predictions.close()
                return

    with bar:
        thread = threading.Thread(target=look, name="kerasext-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(
            f"{task.speed:,.0f} rows/s" if task.speed else "? rows/s", "progress.data.speed"
        )
