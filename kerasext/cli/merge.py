"""`kerasext merge`: copy the rows of a folder of prediction files into one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from kerasext.cli.messages import InputError, say
from kerasext.shards import merge_shards
from kerasext.storage import PredictionFile

DESCRIPTION = """\
Copies the rows of all prediction files in FOLDER into one file, sorted by id. Only the ids
are in memory at once. The files must be complete and of one model; they are not changed.

`kerasext index` makes one file that reads all of them without copying."""
EXAMPLE = """\
example:
  kerasext merge job/ -o predictions.h5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a folder of prediction files")
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help="the file to write"
    )
    parser.add_argument(
        "--no-sort",
        action="store_true",
        help="keep the order of the file names instead of sorting by id",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.out.exists():
        raise InputError(f"{str(args.out)!r} exists; choose another name, or remove it.")
    with PredictionFile(merge_shards(args.folder, args.out, sort=not args.no_sort)) as merged:
        say(f"{args.out}: {merged.rows:,} rows")
    return 0
