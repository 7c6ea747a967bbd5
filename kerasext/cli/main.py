"""The command line: its parser, and what becomes of errors."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from kerasext._version import __version__
from kerasext.cli import calibrate, evaluate, export, index, info, merge, predict, report, verify
from kerasext.cli.exit_codes import FAILED, INTERRUPTED, exit_code
from kerasext.cli.messages import describe, say

# What messages of the library are about, and what it is called here.
_CALLED_HERE = {
    "mode='resume'": "--resume",
    "mode='w'": "--overwrite",
    "`path`": "OUT",
    "`kerasext.shards.index_shards`": "`kerasext index`",
    "`kerasext.shards.merge_shards`": "`kerasext merge`",
    "`merge_shards`": "`kerasext merge`",
    "`sort=False`": "--no-sort",
    "`from_logits=True`": "--from-logits",
    **{
        f"`{name}`": f"--{name.replace('_', '-')}"
        for name in (
            *("batch_size", "class_names", "from_logits", "head", "ids", "images"),
            *("outputs", "rows", "targets", "threshold", "title"),
        )
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `kerasext`.

    Args:
        argv: Sequence of strings. The arguments, without the name of the program. Defaults to
            those of the process.

    Returns:
        The exit code: 0 if all went well; 1 if a prediction file is damaged, the disk is full, or
        the model or anything else fails; 2 if what was given can't be used; 130 after Ctrl-C.

    Raises:
        SystemExit: If the arguments are none, with code 2, or after `--help`, with 0.

    Example:

    ```python
    main(["export", "digits.h5", "digits.parquet"])
    ```
    """
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    args.argv = given
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code: int = args.run(args)
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            # Whoever read our output has seen enough; at its exit Python would write the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except Exception as error:  # noqa: BLE001 - said in one message, or whole with --debug
            if args.debug:
                traceback.print_exc()
            say(f"kerasext {args.command}: error: {_called_here(describe(error))}")
            return exit_code(error)
        return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kerasext",
        description="Predict with a Keras model into one HDF5 file, and use that file.",
        epilog="`kerasext COMMAND --help` shows the options and an example.",
    )
    parser.add_argument("--version", action="version", version=f"kerasext {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (
        predict,
        calibrate,
        info,
        export,
        verify,
        evaluate,
        report,
        index,
        merge,
    ):
        name, _, summary = (module.__doc__ or "").partition(": ")
        command = commands.add_parser(
            name.strip("`").removeprefix("kerasext "),
            parents=[common],
            help=summary.strip().rstrip("."),
            description=module.DESCRIPTION,
            epilog=module.EXAMPLE,
            allow_abbrev=False,  # what is said to go on is made of the options given
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _called_here(text: str) -> str:
    """A message of the library, with what its arguments are called here."""
    for name, here in _CALLED_HERE.items():
        text = text.replace(name, here)
    return text


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"kerasext: warning: {_called_here(str(message))}")
