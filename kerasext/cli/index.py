"""`kerasext index`: make one file that reads as a folder of prediction files."""

from __future__ import annotations

import argparse
from pathlib import Path

from kerasext.cli.messages import say
from kerasext.shards import index_shards
from kerasext.storage import PredictionFile

DESCRIPTION = """\
Makes one file through which PredictionFile reads all prediction files in FOLDER, sorted by
id. It copies only the ids: keep the files beside the index. An older index of that name is
replaced. `kerasext verify` detects files that are missing or changed."""
EXAMPLE = """\
example:
  kerasext index job/ && kerasext info job/index.h5"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a folder of prediction files")
    parser.add_argument(
        "--name", metavar="NAME", default="index.h5", help="name of the index (%(default)s)"
    )
    parser.add_argument(
        "--no-sort",
        action="store_true",
        help="keep the order of the file names instead of sorting by id",
    )
    parser.add_argument(
        "--virtual",
        metavar="NAME",
        help="also make a file of virtual datasets, which h5py and xarray read",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    path = index_shards(args.folder, index=args.name, sort=not args.no_sort, virtual=args.virtual)
    with PredictionFile(path) as predictions:
        say(f"{path}: {predictions.rows:,} rows")
    return 0
