"""`kerasext verify`: compare a prediction file with its checksums."""

from __future__ import annotations

import argparse
from pathlib import Path

from kerasext.cli.exit_codes import FAILED, SUCCESS
from kerasext.cli.messages import describe, say, show
from kerasext.shards import ShardFolder
from kerasext.storage import PredictionFile, is_virtual_file

DESCRIPTION = """\
Compares every row of a file with its checksums. In a folder it verifies all files except
hidden ones; they must be complete and of one run.
The exit code is 0 if all rows match, 1 if not, and 2 if FILE is no prediction file."""
EXAMPLE = """\
example:
  kerasext verify digits.h5 && cp digits.h5 /archive"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a prediction file, or a folder of them"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if not args.file.is_dir():
        show(_verify_file(args.file))
        return SUCCESS
    try:
        show(_verify_folder(args.file))
    except ValueError as error:  # also of a file that is unfinished, or of another kind
        say(f"kerasext verify: error: {describe(error)}")
        return FAILED
    return SUCCESS


def _verify_file(path: Path) -> str:
    with PredictionFile(path) as predictions:
        predictions.verify()
        text = f"{path}: {predictions.rows:,} rows are as they were written"
        if not predictions.complete:
            text += "; it is incomplete"
    return text


def _verify_folder(folder: Path) -> str:
    shards = ShardFolder.read(folder)
    shards.sharded_rows(sort=False)  # refuses ids that are there twice
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and not is_virtual_file(path):
            _verify_file(path)
    return f"{folder}: {shards.rows:,} rows of {len(shards.names)} files are as they were written"
