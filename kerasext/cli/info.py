"""`kerasext info`: show what a prediction file holds."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kerasext.cli.exit_codes import FAILED, SUCCESS
from kerasext.cli.messages import InputError, describe, say
from kerasext.cli.options import positive
from kerasext.cli.tables import Page, Table, live_page, print_page
from kerasext.shards import ShardFolder
from kerasext.storage import ClassNames, DamagedFileError, PredictionFile, is_index, is_virtual_file

DESCRIPTION = """\
Shows the outputs and rows of a prediction file, whether it is complete, its origin and the
statistics of its run. The file may still be growing. For a folder, prints a line for each
prediction file or the error of reading it, and warns if the files belong to several runs.
The exit code is 1 if a file is damaged."""
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
        help="continue until the file is complete; Ctrl-C ends it. A file whose writer was killed "
        "stays incomplete: see --timeout",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=positive,
        help="with --follow: end after so many seconds without a new row",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="write JSON; with --follow an object a line, whenever rows were added",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.timeout is not None and not args.follow:
        raise InputError(f"--timeout is for --follow. Received: --timeout {args.timeout}")
    if args.file.is_dir():
        if args.follow:
            raise InputError("--follow is for one file, and not for a folder.")
        return _show_folder(args.file, as_json=args.json)
    with PredictionFile(args.file) as predictions:
        if not args.follow:
            if args.json:
                print(json.dumps(_content(predictions), indent=2))
            else:
                print_page(_page(predictions))
            return SUCCESS
        try:
            _follow(predictions, args.timeout, as_json=args.json)
        except KeyboardInterrupt:
            return SUCCESS
    return SUCCESS


def _show_folder(folder: Path, *, as_json: bool) -> int:
    """Shows the files of a folder; returns the exit code."""
    found = [_state_of(path) for path in sorted(folder.iterdir())]
    states = [state for state, _ in found]
    code = FAILED if any(is_damaged for _, is_damaged in found) else SUCCESS
    if {state["state"] for state in states} - {"index", "virtual"} == {"complete"}:
        _say_if_of_several_runs(folder)
    if as_json:
        print(json.dumps(states, indent=2))
        return code
    total = sum(state["rows"] or 0 for state in states if state["state"] != "index")
    rows = [
        (state["name"], "" if state["rows"] is None else f"{state['rows']:,}", state["state"])
        for state in states
    ]
    table = Table([*rows, ("all but indexes", f"{total:,}", "")], ("file", "rows", "state"))
    print_page({"files": table})
    return code


def _say_if_of_several_runs(folder: Path) -> None:
    try:
        ShardFolder.read(folder, with_ids=False)
    except ValueError as error:
        say(f"kerasext info: {describe(error)}")


def _state_of(path: Path) -> tuple[dict[str, Any], bool]:
    """What a file of a folder is, and whether it is damaged."""
    if is_virtual_file(path):
        return {"name": path.name, "rows": None, "state": "virtual"}, False
    try:
        with PredictionFile(path) as predictions:
            state = "index" if is_index(path) else _state(predictions)
            return {"name": path.name, "rows": predictions.rows, "state": state}, False
    except (OSError, ValueError, ImportError) as error:
        is_damaged = isinstance(error, DamagedFileError)
        return {"name": path.name, "rows": None, "state": describe(error)}, is_damaged


def _follow(predictions: PredictionFile, timeout: int | None, *, as_json: bool) -> None:
    if not as_json:
        with live_page(_page(predictions)) as update:
            if update:
                for _ in _looks(predictions, timeout):
                    update(_page(predictions))
                return
    shown = None
    for state in _looks(predictions, timeout):
        if state != shown:
            text = json.dumps(_content(predictions)) if as_json else _line(predictions)
            print(text, flush=True)
            shown = state


def _looks(predictions: PredictionFile, timeout: int | None) -> Iterator[tuple[int, bool]]:
    """Yields rows and completeness now and then, until the file is complete or time is out."""
    rows, new_at = -1, 0.0
    while True:
        now = time.monotonic()
        if predictions.rows != rows:
            rows, new_at = predictions.rows, now
        yield rows, predictions.complete
        if predictions.complete or (timeout is not None and now - new_at > timeout):
            return
        time.sleep(_SECONDS)
        predictions.refresh()


def _line(predictions: PredictionFile) -> str:
    rate = predictions.health["rows_per_second"]
    return f"{predictions.rows:,} rows, {_state(predictions)}, {rate:,.0f} rows/s"


def _state(predictions: PredictionFile) -> str:
    return "complete" if predictions.complete else "incomplete"


def _content(predictions: PredictionFile) -> dict[str, Any]:
    lists = {head: list(names) for head, names in _class_names(predictions)}
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


def _page(predictions: PredictionFile) -> Page:
    outputs = []
    for name, output in predictions.items():
        shape = ", ".join("?" if length is None else f"{length:,}" for length in output.shape)
        stored = f"{output.dtype} (stored as {output.stored_dtype})"
        is_same = output.dtype == output.stored_dtype or output.dtype.kind == "U"
        outputs.append((name, f"({shape})", str(output.dtype) if is_same else stored))
    page = {
        "file": Table([(str(predictions.path),)]),
        "rows": Table([(f"{predictions.rows:,}", _state(predictions))]),
        "size": Table([(f"{predictions.path.stat().st_size / 1e6:,.1f} MB",)]),
        "outputs": Table(outputs, ("output", "shape", "dtype")),
    }
    names = _names(predictions)
    if names:
        page["class names"] = Table(names)
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
            page[title] = Table([(str(name), _shown(value)) for name, value in values.items()])
    return page


def _class_names(predictions: PredictionFile) -> Iterator[tuple[str, ClassNames]]:
    """The heads that have names of classes, with these."""
    for head in map(predictions.head, predictions.heads):
        if head.class_names is not None:
            yield head.name, head.class_names


def _names(predictions: PredictionFile) -> list[tuple[str]]:
    lines = []
    for head, names in _class_names(predictions):
        shown = ", ".join(map(str, names[:_MOST_NAMES]))
        more = f", ... ({len(names):,})" if len(names) > _MOST_NAMES else ""
        lines.append(((f"{head}: " if head else "") + shown + more,))
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, bool | dict | list) or value is None:
        return json.dumps(value, ensure_ascii=False)
    return f"{value:,}" if isinstance(value, float | int) else str(value)
