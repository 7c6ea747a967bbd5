"""`kerasext verify`: compare a prediction file with its checksums."""

from __future__ import annotations

import argparse

from kerasext.cli.messages import describe, printable, say
from kerasext.storage import PredictionFile

DESCRIPTION = """\
Reads the whole file and compares it with the checksums that were stored with it.
The exit code is 0 if it is whole, and 1 if it is damaged."""
EXAMPLE = """\
example:
  kerasext verify digits.h5 && cp digits.h5 /archive"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a prediction file")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    try:
        with PredictionFile(args.file) as predictions:
            predictions.verify()
            text = f"{args.file}: {predictions.rows:,} rows are as they were written"
            if not predictions.complete:
                text += "; it is incomplete, and its last rows have no checksums yet"
    except ValueError as error:
        say(f"kerasext verify: {printable(describe(error))}")
        return 1
    print(text)
    return 0
