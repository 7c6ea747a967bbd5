"""`kerasext predict`: predict with a saved model into one HDF5 file."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasext.cli import saved_model
from kerasext.cli.file_state import FileState, file_state
from kerasext.cli.inputs import in_memory, split_path
from kerasext.cli.messages import InputError, command_line, printable, say
from kerasext.cli.options import add_import, names, names_or_file, positive
from kerasext.cli.predict_input import PredictInput
from kerasext.cli.wrap_model import KINDS, wrap_model

if TYPE_CHECKING:
    import keras

DESCRIPTION = """\
Predicts every row of INPUT with a saved model into one HDF5 file, in constant memory.

MODEL is a .keras file, loaded in Keras's safe mode, which runs no code from the file. If the
model has custom classes, pass --import with the module that defines them.

INPUT is one of
  images.npy        an array, mapped into memory
  images.npz        one array, or several with the names of the model's inputs
  file.h5:/images   a dataset of an HDF5 file
  photos/           a folder of images and its subfolders, sorted by path; the paths are the
                    ids. Images are resized to the model's input size and converted to its
                    channels (grey, RGB or RGBA), float32 from 0 to 255, as
                    keras.utils.image_dataset_from_directory does. Needs pillow.

The task of a plain model is inferred from its last layer: softmax is a classifier, sigmoid is
binary (one unit) or multilabel (several units), anything else is stored as it is. --as
overrides it. A model with its own predict method is called through it, with all rows in memory.

After Ctrl-C, a kill or an error, run the same command with --resume to continue."""
EXAMPLE = """\
example:
  kerasext predict pets.keras photos/ -o pets.h5 --class-names cat,dog --targets folders
  kerasext predict digits.keras test.h5:/images -o digits.h5 --ids /names --resume
  kerasext predict digits.keras test.npy -o digits.h5 --import my_layers"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a .keras file")
    parser.add_argument("input", metavar="INPUT", help="the rows to predict: see above")
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help="the file to write"
    )
    parser.add_argument(
        "--batch-size",
        metavar="N|auto",
        type=_batch_size,
        default="auto",
        help="rows in a batch; auto, the default, measures a good size on the first rows, and uses "
        "32 for a job of a few seconds",
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--resume",
        action="store_true",
        help="continue OUT after its last row; compare it if it is complete",
    )
    modes.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.add_argument(
        "--ids",
        metavar="FILE|KEY",
        help="an id for each row: a text file with one a line, a .npy file, file.h5:/ids, or the "
        "name of an array of INPUT",
    )
    parser.add_argument(
        "--targets",
        metavar="FILE|KEY|folders",
        help="the target of each row, in the same forms as --ids; or, for images in a folder for "
        "each class, the word folders. Their order is that of --class-names, else that in the "
        "model, else the alphabetical one, as in keras.utils.image_dataset_from_directory",
    )
    parser.add_argument("--as", dest="kind", choices=KINDS, help="the task of a plain model")
    parser.add_argument(
        "--class-names",
        metavar="FILE|A,B",
        type=names_or_file,
        help="names of the classes, in the order of training; in a text file one a line",
    )
    parser.add_argument(
        "--from-logits", action="store_true", help="the model has no softmax or sigmoid at its end"
    )
    parser.add_argument(
        "--outputs", metavar="A,B", type=names, help="outputs or groups to store; default: all"
    )
    parser.add_argument(
        "--image-size",
        metavar="HxW",
        type=_image_size,
        help="height and width of the images, for a model that takes any",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out images that can't be read, and list them. Decodes every image once at "
        "the start; without it, the first image that can't be read ends the job",
    )
    add_import(parser)
    parser.add_argument("--quiet", action="store_true", help="print only warnings and errors")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    before = file_state(args.out)
    _check_paths(args)
    with contextlib.ExitStack() as stack:
        # All that takes no model first: loading Keras takes seconds.
        source = PredictInput(args, stack)
        # Keras and the writer print; stdout is for nobody here.
        stack.enter_context(contextlib.redirect_stdout(io.StringIO() if args.quiet else sys.stderr))
        # Errors that TensorFlow only logs are about devices that it does without.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if args.quiet else "2")
        try:
            model = saved_model.load_model(args.model, args.modules, quiet=args.quiet)
            x = source.rows_for(model)
            model, said = wrap_model(
                model, args.kind, from_logits=args.from_logits, class_names=args.class_names
            )
            source.name_classes(model)
            if not args.quiet:
                say(said)
            if saved_model.has_own_predict(model):  # which takes arrays, and maybe nothing else
                x = in_memory(x)
            _predict(args, model, x, source, before)
        except KeyboardInterrupt:
            _say_how_to_go_on(args, before)
            raise
        except Exception as error:
            from kerasext.inference import UnreadableImageError  # noqa: PLC0415 - needs Keras

            if isinstance(error, UnreadableImageError):
                _say_how_to_go_on(args, before, "--skip-bad")
                raise InputError(printable(error)) from error
            _say_how_to_go_on(args, before, only_if_written=True)
            raise
    return 0


def _predict(
    args: argparse.Namespace, model: keras.Model, x: Any, source: PredictInput, before: FileState
) -> None:
    from kerasext.callbacks import SAME_STEPS  # noqa: PLC0415 - needs Keras
    from kerasext.inference import predict_to_hdf5  # noqa: PLC0415 - needs Keras

    with _progress(args, source.count(x), before):
        predictions = predict_to_hdf5(
            model,
            x,
            args.out,
            batch_size=args.batch_size,
            mode="resume" if args.resume else "w" if args.overwrite else "x",
            ids=source.ids,
            targets=False if source.targets is None else source.targets,
            outputs=args.outputs,
            metadata={"model": args.model.name, "input": source.name},
            verbose=0,
        )
    with predictions:
        health = predictions.health
        if args.quiet:
            return
        if args.resume and before.complete:
            say(f"{args.out} is complete: {SAME_STEPS}.")
        else:
            say(
                f"{args.out}: {predictions.rows:,} rows, "
                f"in {health['seconds']:,.1f} s ({health['rows_per_second']:,.0f} rows/s)"
            )


def _check_paths(args: argparse.Namespace) -> None:
    if args.model.is_dir():
        raise InputError(
            "MODEL must be a .keras file, as model.save('model.keras') makes it. A model that was "
            "exported to a folder can be predicted with in Python: pass keras.Sequential("
            "[keras.Input(row_shape), keras.layers.TFSMLayer(MODEL, call_endpoint='serve')]) to "
            f"kerasext.predict_to_hdf5. Received: the folder {str(args.model)!r}"
        )
    if not args.model.is_file():
        raise InputError(f"There is no model {str(args.model)!r}.")
    if args.model.suffix != ".keras":
        raise InputError(
            "MODEL must be a .keras file, as model.save('model.keras') makes it. "
            f"Received: {str(args.model)!r}"
        )
    if args.out.exists():
        if not (args.resume or args.overwrite):
            raise InputError(
                f"{str(args.out)!r} exists; --resume goes on with it, --overwrite replaces it."
            )
        if any(args.out.samefile(path) for path in (args.model, split_path(args.input)[0])):
            raise InputError(f"OUT must not be what is read. Received: {str(args.out)!r}")
    elif not args.out.parent.is_dir():
        raise InputError(f"There is no folder {str(args.out.parent)!r} to write to.")


@contextlib.contextmanager
def _progress(args: argparse.Namespace, rows: int, before: FileState) -> Iterator[None]:
    from rich.console import Console  # noqa: PLC0415 - readers of files may have no rich

    from kerasext.cli.progress import progress_bar  # noqa: PLC0415

    console = Console(stderr=True)
    if args.quiet or not console.is_terminal:
        yield
        return
    is_ours = functools.partial(_is_ours, args, before)
    with progress_bar(args.out, rows, console, is_ours):
        yield


def _is_ours(args: argparse.Namespace, before: FileState) -> bool:
    """Whether the file at the path is the one that is written, not one to be replaced."""
    return bool(args.resume) or file_state(args.out).identity != before.identity


def _say_how_to_go_on(
    args: argparse.Namespace,
    before: FileState,
    *options: str,
    only_if_written: bool = False,
) -> None:
    rows = file_state(args.out).rows if _is_ours(args, before) else 0
    written = rows - (before.rows if args.resume else 0)
    if only_if_written and written <= 0:
        return
    given = [option for option in args.argv if option not in ("--overwrite", "--resume", *options)]
    if rows:
        say(f"{rows:,} rows are safe in {args.out}.")
        options = (*options, "--resume")
    elif args.overwrite:
        options = (*options, "--overwrite")
    say(f"To go on: {command_line(['kerasext', *given, *options])}")


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else positive(text)


def _image_size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"must be as 224x224, height and width, not {text!r}")
    return int(found[1]), int(found[2])
