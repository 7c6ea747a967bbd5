"""`kerasext evaluate`: compare a prediction file with its targets."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import numpy as np

from kerasext.cli.options import thresholds
from kerasext.cli.tables import Page, Table, print_page
from kerasext.evaluation import Evaluation, RegressionEvaluation, evaluate
from kerasext.storage import PredictionFile

DESCRIPTION = """\
Prints how good the predictions in a file are: accuracy, calibration, scores of each class and,
if the model has them, coverage of its prediction sets and error rate where it does not abstain.
The file must have targets."""
EXAMPLE = """\
example:
  kerasext evaluate digits.h5
  kerasext evaluate digits.h5 --json | jq .accuracy"""

_MOST_CLASSES = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("file", metavar="FILE", help="a prediction file with targets")
    parser.add_argument("--head", default="", help="which head, if the model has several")
    parser.add_argument(
        "--threshold",
        metavar="P",
        type=thresholds,
        help="of a binary or multi-label head: evaluate the labels of this threshold; one number, "
        "or one for each label, as 0.5,0.2",
    )
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    with PredictionFile(args.file) as predictions:
        result = evaluate(predictions, head=args.head, threshold=args.threshold)
    if args.json:
        print(json.dumps(_as_json(result), indent=2))
    else:
        print_page(_page(result))
    return 0


def _as_json(value: Any) -> Any:
    """Dataclasses as dicts, arrays as lists, NaN as `None`."""
    if dataclasses.is_dataclass(value):
        fields = (field.name for field in dataclasses.fields(value))
        return {name: _as_json(getattr(value, name)) for name in fields}
    if isinstance(value, dict):
        return {name: _as_json(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_as_json(entry) for entry in np.asarray(value).tolist()] if len(value) else []
    return None if isinstance(value, float) and np.isnan(value) else value


def _page(result: Evaluation | RegressionEvaluation) -> Page:
    if isinstance(result, RegressionEvaluation):
        missing = f", {result.missing:,} without prediction or target" if result.missing else ""
        return {
            "rows": Table([(f"{result.rows:,}{missing}",)]),
            "errors": _figures(
                {
                    "mean absolute error": result.mean_absolute_error,
                    "root mean squared error": result.root_mean_squared_error,
                    "R2": result.r2,
                }
            ),
        }
    unlabelled = f", {result.unlabelled:,} without a label" if result.unlabelled else ""
    page = {
        "rows": Table([(f"{result.rows:,}{unlabelled}",)]),
        "labels": _figures(
            {
                "accuracy": result.accuracy,
                "exact match ratio": result.exact_match_ratio,
                "area under risk-coverage curve": result.area_under_risk_coverage,
            }
        ),
        "probabilities": _probabilities(result),
        "classes": _classes(result),
    }
    sets, abstention = result.prediction_sets, result.abstention
    if sets is not None:
        page["prediction sets"] = _figures(
            {
                "coverage": sets.coverage,
                "promised": sets.confidence_level,
                "by chance": sets.expected_interval,
                "mean size": sets.mean_size,
                "share of empty sets": sets.empty_share,
            }
        )
    if abstention is not None:
        page["abstention"] = _figures(
            {
                "share kept": abstention.coverage,
                "error rate of kept": abstention.error_rate,
                "promised": abstention.risk,
            }
        )
    return page


def _figures(values: dict[str, Any]) -> Table:
    """Named numbers, without those that are `None`."""
    return Table([(name, _shown(value)) for name, value in values.items() if value is not None])


def _shown(value: float | tuple[float, ...] | None) -> str:
    if isinstance(value, tuple):
        return " to ".join(map(_shown, value))
    return "" if value is None else f"{value:.4g}"


def _probabilities(result: Evaluation) -> Table:
    """The scores of the probabilities, beside those without the calibration."""
    names = ("expected_calibration_error", "negative_log_likelihood", "brier_score")
    columns = [result] if result.uncalibrated is None else [result, result.uncalibrated]
    rows = [
        (name.replace("_", " "), *(_shown(getattr(of, name)) for of in columns))
        for name in names
        if getattr(result, name) is not None
    ]
    return Table(rows, ("", "calibrated", "without") if len(columns) > 1 else ())


def _classes(result: Evaluation) -> Table:
    scores = ("precision", "recall", "f1-score")
    sets = result.prediction_sets
    rows = []
    for place, (name, of_class) in enumerate(result.class_report.items()):
        row = [name, *(f"{of_class[score]:.4f}" for score in scores), f"{of_class['support']:,}"]
        if sets is not None:
            has_one = place < len(result.class_names)
            row.append(f"{sets.coverage_by_class[place]:.4f}" if has_one else "")
        rows.append(row)
    if len(result.class_names) > _MOST_CLASSES:
        rows = rows[len(result.class_names) :]
    return Table(rows, ("", *scores, "support", *(["coverage"] if sets is not None else [])))
