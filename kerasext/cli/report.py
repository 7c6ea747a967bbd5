"""`kerasext report`: make an HTML page about a prediction file."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from kerasext.cli.messages import InputError, say
from kerasext.cli.options import positive
from kerasext.storage import PredictionFile

DESCRIPTION = """\
Makes one self-contained HTML page: counts per class, confidence, the least confident rows
and, if the file has targets, accuracy, calibration and confusion matrix."""
EXAMPLE = """\
example:
  kerasext report digits.h5 -o digits.html --images photos"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a prediction file")
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help="the page to write"
    )
    parser.add_argument("--head", default="", help="which head, if the model has several")
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="folder of the images whose file names are the ids",
    )
    parser.add_argument(
        "--rows", metavar="N", type=positive, default=20, help="rows to show (default: 20)"
    )
    parser.add_argument("--title", help="the page's title")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{str(args.out)!r} exists; --overwrite replaces it.")
    if args.images is not None and not args.images.is_dir():
        raise InputError(f"There is no folder {str(args.images)!r}.")
    # When it is needed: it draws, and the other commands are fast.
    write_report = importlib.import_module("kerasext.report").write_report
    with PredictionFile(args.file) as predictions:
        write_report(
            predictions,
            args.out,
            head=args.head,
            images=args.images,
            rows=args.rows,
            title=args.title,
        )
    say(f"{args.out}")
    return 0
