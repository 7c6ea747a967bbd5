"""`kerasext calibrate`: fit calibration, prediction sets and abstention into a saved model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kerasext.cli import saved_model
from kerasext.cli.messages import InputError, say, show
from kerasext.cli.options import add_import, share
from kerasext.cli.wrap_model import wrap_model
from kerasext.common import atomic_path, export_target
from kerasext.storage import PredictionFile

if TYPE_CHECKING:
    from kerasext.models import PredictionMixin

DESCRIPTION = """\
Fits what makes the confidence of a saved model mean something, and saves the model with it.

MODEL is a .keras file. FILE is a prediction file of this model with targets, of rows that the
model was not trained on, as `kerasext predict MODEL INPUT -o FILE --targets ...` writes it.
From then on predictions of the saved model are calibrated.

With prediction sets or abstention the rows are split at random: one part fits the calibration,
the other one the sets and the threshold."""
EXAMPLE = """\
example:
  kerasext calibrate digits.keras val.h5 -o calibrated.keras
  kerasext calibrate digits.keras val.h5 -o calibrated.keras \\
      --prediction-sets lac --confidence-level 0.9 --abstain-risk 0.05"""

_METHODS = ("auto", "temperature", "vector", "platt", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a .keras file")
    parser.add_argument("file", metavar="FILE", help="a prediction file with targets")
    parser.add_argument(
        "-o", "--out", metavar="OUT", type=Path, required=True, help="the .keras file to write"
    )
    parser.add_argument("--head", default="", help="which head, if the model has several")
    parser.add_argument(
        "--method",
        choices=_METHODS,
        default="auto",
        help="of calibration; auto, the default, is temperature for classes, and platt for yes or "
        "no and several labels",
    )
    parser.add_argument(
        "--prediction-sets", choices=["lac"], help="fit prediction sets by this method"
    )
    parser.add_argument(
        "--confidence-level",
        metavar="P",
        type=share,
        help="how often the set of a row holds the target; default: 0.9",
    )
    parser.add_argument(
        "--class-conditional", action="store_true", help="keep that for the rows of each class"
    )
    parser.add_argument(
        "--abstain-risk",
        metavar="P",
        type=share,
        help="abstain below a confidence, so that at most this share of the other labels is wrong",
    )
    parser.add_argument(
        "--split",
        metavar="P",
        type=share,
        default=0.5,
        help="share of the rows that fit the calibration, if the others fit sets or abstention; "
        "default: 0.5",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the split; default: 0")
    add_import(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    _check(args)
    with PredictionFile(args.file) as predictions:
        target = export_target(predictions.path, args.out)
        model = _model(args, predictions)
        for result in _fit(model, predictions, args):
            show(str(result))
    with atomic_path(target) as hidden:
        # Keras takes no other suffix.
        made = hidden.with_suffix(".keras")
        try:
            model.save(made)
            made.replace(hidden)
        finally:
            made.unlink(missing_ok=True)
    say(f"{args.out}: the model, calibrated")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.out.suffix != ".keras":
        raise InputError(f"OUT must end in .keras. Received: {str(args.out)!r}")
    if args.out.exists() and not args.overwrite:
        raise InputError(f"{str(args.out)!r} exists; --overwrite replaces it.")
    of_sets = {
        "--confidence-level": args.confidence_level is not None,
        "--class-conditional": args.class_conditional,
    }
    given = [name for name, is_given in of_sets.items() if is_given]
    if given and args.prediction_sets is None:
        raise InputError(f"{given[0]} is for --prediction-sets lac, which was not given.")
    if args.method == "none" and args.prediction_sets is None and args.abstain_risk is None:
        raise InputError(
            "--method none fits nothing alone; add --prediction-sets or --abstain-risk."
        )


def _model(args: argparse.Namespace, predictions: PredictionFile) -> PredictionMixin:
    """The model with the mixin and settings that made the file."""
    from kerasext.models import PredictionMixin, PredictionModel  # noqa: PLC0415 - needs Keras

    model = saved_model.load_model(args.model, args.modules)
    if isinstance(model, PredictionMixin):
        return model
    metadata = predictions.prediction_metadata
    task = metadata.get("task")
    if task is None:
        raise InputError(
            f"The file must have probabilities and labels, and {args.file} was stored plain; "
            "`kerasext predict --as` chooses what the model is."
        )
    from_logits, class_names = metadata.get("from_logits"), metadata.get("class_names")
    if isinstance(task, str) and not isinstance(from_logits, dict):
        dressed, _ = wrap_model(model, task, from_logits=bool(from_logits), class_names=class_names)
    else:
        given = {"from_logits": from_logits, "class_names": class_names}
        settings = {name: value for name, value in given.items() if value is not None}
        dressed = PredictionModel.from_model(model, tasks=task, **settings)
    return cast("PredictionMixin", dressed)


def _fit(
    model: PredictionMixin, predictions: PredictionFile, args: argparse.Namespace
) -> list[Any]:
    """Fits what was asked for, and returns the results."""
    order = np.random.default_rng(args.seed).permutation(predictions.rows)
    first = rest = None
    if args.method != "none" and (args.prediction_sets or args.abstain_risk):
        count = round(predictions.rows * args.split)
        first, rest = np.sort(order[:count]), np.sort(order[count:])
    results: list[Any] = []
    if args.method != "none":
        method = None if args.method == "auto" else args.method
        results.append(model.calibrate(predictions, method=method, head=args.head, rows=first))
    if args.prediction_sets:
        results.append(
            model.conformalize(
                predictions,
                confidence_level=args.confidence_level or 0.9,
                method=args.prediction_sets,
                class_conditional=args.class_conditional,
                head=args.head,
                rows=rest,
            )
        )
    if args.abstain_risk:
        results.append(
            model.abstain(predictions, risk=args.abstain_risk, head=args.head, rows=rest)
        )
    return results
