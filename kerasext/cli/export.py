"""`kerasext export`: write a prediction file as Parquet, CSV or NumPy's npz."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kerasext.cli.messages import InputError, say
from kerasext.cli.options import names
from kerasext.common import atomic_file, export_target
from kerasext.storage import PredictionFile, RaggedOutput, find_outputs

DESCRIPTION = """\
Writes the outputs of a prediction file for other tools. The suffix of OUT sets the format:
  .parquet   a column for each output; in constant memory; needs pyarrow
  .csv       columns such as probabilities/cat; in constant memory. Text that starts like a
             formula gets a leading apostrophe
  .npz       an array for each output, one in memory at a time; for numpy.load. An output
             whose rows differ in shape becomes NAME/values, NAME/row_splits and, if rows
             have two or more axes, NAME/row_shapes
OUT appears under its name when it is complete. A file that is still growing exports its
committed rows."""
EXAMPLE = """\
example:
  kerasext export digits.h5 digits.parquet
  kerasext export digits.h5 digits.csv --outputs ids,labels,confidence"""

_SUFFIXES = (".parquet", ".csv", ".npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a prediction file")
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write")
    parser.add_argument(
        "--outputs", type=names, metavar="A,B", help="outputs or groups to write; default: all"
    )
    parser.add_argument(
        "--raw-cells",
        action="store_true",
        help="write text to .csv unchanged, even if a spreadsheet would run it as a formula",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    suffix = args.out.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"OUT must end in {', '.join(_SUFFIXES)}. Received: {str(args.out)!r}")
    if args.raw_cells and suffix != ".csv":
        raise InputError(f"--raw-cells is for .csv. Received: {str(args.out)!r}")
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{str(args.out)!r} exists; --overwrite replaces it.")
    with PredictionFile(args.file) as predictions:
        if suffix == ".parquet":
            predictions.to_parquet(args.out, outputs=args.outputs)
        elif suffix == ".csv":
            predictions.to_csv(args.out, outputs=args.outputs, raw_cells=args.raw_cells)
        else:
            _write_npz(args.out, predictions, args.outputs)
        note = "" if predictions.complete else f"; {args.file} is incomplete"
        say(f"{args.out}: {predictions.rows:,} rows{note}")
    return 0


def _write_npz(path: Path, predictions: PredictionFile, outputs: Sequence[str] | None) -> None:
    chosen = list(predictions)
    if outputs is not None:
        chosen = list(find_outputs(chosen, outputs, argument="outputs", where="of the file"))
    # Not by `numpy.savez_compressed`, which would take an output called "file" for its argument.
    with (
        atomic_file(export_target(predictions.path, path)) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in chosen:
            for part, values in _arrays(name, predictions):
                with archive.open(f"{part}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


def _arrays(name: str, predictions: PredictionFile) -> Iterator[tuple[str, np.ndarray]]:
    output = predictions[name]
    if not isinstance(output, RaggedOutput):
        yield name, output[:]
        return
    rows = output.flat(0, len(output))
    yield f"{name}/values", rows.values
    yield f"{name}/row_splits", rows.row_splits
    if rows.axes > 1:
        yield f"{name}/row_shapes", rows.row_shapes
