"""`kerasext report`: make a page of HTML that shows what was predicted."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from kerasext.cli.messages import InputError, say
from kerasext.cli.options import positive
from kerasext.storage import PredictionFile

DESCRIPTION = """\
Makes one page of HTML, with everything in it, that shows what was predicted: counts per
class, confidence, the least confident rows and, where targets are stored, how right it was."""
EXAMPLE = """\
example:
  kerasext report digits.h5 -o digits.html --images photos"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a prediction file")
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help="the page to write"
    )
    parser.add_argument("--head", default="", help="the head, of a model with several")
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="folder of the images that the ids name"
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
