"""`kerasext info`: show what a prediction file holds."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kerasext.cli.exit_codes import FAILED, SUCCESS
from kerasext.cli.messages import InputError, describe, printable, say
from kerasext.shards.shard_folder import ShardFolder
from kerasext.storage import ClassNames, DamagedFileError, PredictionFile
from kerasext.storage.open_index import is_index

DESCRIPTION = """\
Shows what a prediction file holds: outputs, rows, whether it is complete, where it comes
from and how it went. The file may be one that is being written. Of a folder it shows a line
for each prediction file in it, and what is wrong with others, or if they are of several
runs. The exit code is 1 if a file is damaged."""
EXAMPLE = """\
example:
  kerasext info digits.h5
  kerasext info digits.h5 --follow
  kerasext info digits.h5 --json | jq .rows"""

_SECONDS = 0.5  # between two looks at a file that grows
_MOST_NAMES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a prediction file, or a folder of them"
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="go on until the file is complete; Ctrl-C ends it. Of a writer that was killed the "
        "file stays incomplete",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="write JSON; with --follow an object a line, whenever rows were added",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.file.is_dir():
        if args.follow:
            raise InputError("--follow is for one file, and not for a folder.")
        return _show_folder(args.file, as_json=args.json)
    with PredictionFile(args.file) as predictions:
        if not args.follow:
            if args.json:
                print(json.dumps(_content(predictions), indent=2))
            else:
                Console().print(_table(predictions))
            return SUCCESS
        try:
            _follow(predictions, as_json=args.json)
        except KeyboardInterrupt:
            return SUCCESS
    return SUCCESS


def _show_folder(folder: Path, *, as_json: bool) -> int:
    """Shows the files of a folder; returns the exit code."""
    found = [_state_of(path) for path in sorted(folder.iterdir())]
    states = [state for state, _ in found]
    code = FAILED if any(is_damaged for _, is_damaged in found) else SUCCESS
    if {state["state"] for state in states} in ({"complete"}, {"complete", "index"}):
        _say_if_of_several_runs(folder)
    if as_json:
        print(json.dumps(states, indent=2))
        return code
    table = Table("file", "rows", "state", box=None, padding=(0, 2, 0, 0))
    for state in states:
        rows = "" if state["rows"] is None else f"{state['rows']:,}"
        table.add_row(_text(state["name"]), rows, _text(state["state"]))
    total = sum(state["rows"] or 0 for state in states if state["state"] != "index")
    table.add_row(_text("all but indexes", "bold"), f"{total:,}", "")
    Console().print(table)
    return code


def _say_if_of_several_runs(folder: Path) -> None:
    try:
        ShardFolder.read(folder, with_ids=False)
    except ValueError as error:
        say(f"kerasext info: {describe(error)}")


def _state_of(path: Path) -> tuple[dict[str, Any], bool]:
    """What a file of a folder is, and whether it is damaged."""
    try:
        with PredictionFile(path) as predictions:
            state = "index" if is_index(path) else _state(predictions)
            return {"name": path.name, "rows": predictions.rows, "state": state}, False
    except (OSError, ValueError) as error:
        is_damaged = isinstance(error, DamagedFileError)
        return {"name": path.name, "rows": None, "state": describe(error)}, is_damaged


def _follow(predictions: PredictionFile, *, as_json: bool) -> None:
    console = Console()
    if not as_json and console.is_terminal:
        with Live(_table(predictions), console=console, auto_refresh=False) as live:
            while not predictions.complete:
                time.sleep(_SECONDS)
                predictions.refresh()
                live.update(_table(predictions), refresh=True)
        return
    shown = None
    while True:
        state = (predictions.rows, predictions.complete)
        if state != shown:
            text = json.dumps(_content(predictions)) if as_json else _line(predictions)
            print(text, flush=True)
            shown = state
        if predictions.complete:
            return
        time.sleep(_SECONDS)
        predictions.refresh()


def _line(predictions: PredictionFile) -> str:
    rate = predictions.health["rows_per_second"]
    return f"{predictions.rows:,} rows, {_state(predictions)}, {rate:,.0f} rows/s"


def _state(predictions: PredictionFile) -> str:
    return "complete" if predictions.complete else "incomplete"


def _content(predictions: PredictionFile) -> dict[str, Any]:
    names = predictions.class_names
    by_head = names if isinstance(names, dict) else {"": names} if names is not None else {}
    lists = {head: list(entries) for head, entries in by_head.items()}
    return {
        "path": str(predictions.path),
        "rows": predictions.rows,
        "complete": predictions.complete,
        "outputs": {
            name: {"shape": list(output.shape), "dtype": str(output.dtype)}
            for name, output in predictions.items()
        },
        "class_names": lists.get("", lists) or None,
        "origin": predictions.origin,
        "health": predictions.health,
        "metadata": predictions.metadata,
        "prediction_metadata": predictions.prediction_metadata,
    }


def _table(predictions: PredictionFile) -> Table:
    whole = Table.grid(padding=(0, 2))
    whole.add_row(_text("file", "bold"), _text(predictions.path))
    colour = "green" if predictions.complete else "yellow"
    state = Text.assemble(f"{predictions.rows:,}, ", (_state(predictions), colour))
    whole.add_row(_text("rows", "bold"), state)
    outputs = Table("output", "shape", "dtype", box=None, padding=(0, 2, 0, 0))
    for name, output in predictions.items():
        shape = ", ".join("?" if length is None else f"{length:,}" for length in output.shape)
        outputs.add_row(_text(name), f"({shape})", str(output.dtype))
    whole.add_row(_text("outputs", "bold"), outputs)
    names = predictions.class_names
    if names is not None:
        whole.add_row(_text("class names", "bold"), _names(names))
    for title, values in {
        "origin": predictions.origin,
        "health": {name: round(value, 3) for name, value in predictions.health.items()},
        "model says": {
            name: value
            for name, value in predictions.prediction_metadata.items()
            if name != "class_names"
        },
        "metadata": predictions.metadata,
    }.items():
        if values:
            whole.add_row(_text(title, "bold"), _pairs(values))
    return whole


def _names(names: ClassNames | Mapping[str, ClassNames]) -> Text:
    by_head = names if isinstance(names, Mapping) else {"": names}
    lines = []
    for head, entries in by_head.items():
        shown = ", ".join(map(str, entries[:_MOST_NAMES]))
        more = f", ... ({len(entries):,})" if len(entries) > _MOST_NAMES else ""
        lines.append((f"{head}: " if head else "") + shown + more)
    return Text("\n").join(map(_text, lines))


def _pairs(values: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, float | int) else value
        if isinstance(value, bool | dict | list) or value is None:
            shown = json.dumps(value, ensure_ascii=False)
        table.add_row(_text(name), _text(shown))
    return table


def _text(value: object, style: str = "") -> Text:
    # Not a plain string, in which rich would look for markup; and nothing is cut off.
    return Text(printable(value), style, overflow="fold")
