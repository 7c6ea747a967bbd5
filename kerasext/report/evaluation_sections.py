"""The parts of a report that compare what was predicted with targets."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator

import numpy as np

from kerasext.evaluation import Evaluation, SetReport
from kerasext.report.charts import reliability_diagram, risk_coverage_curve, set_sizes
from kerasext.report.labels import label_name
from kerasext.report.markup import Child, captioned, table, tag
from kerasext.report.sections import MOST_CLASSES, bar, figure, percent
from kerasext.storage import ClassNames

_MOST_IN_MATRIX = 30  # classes
_MOST_PAIRS = 20
_LONG_NAME = 6  # characters from which the names of columns are written upwards
_STRONG = 0.6  # share from which a cell is so dark that its text is light


def _reliability(result: Evaluation) -> ET.Element:
    """Whether the model is right as often as it says."""
    found, before = result.calibration_curve, result.uncalibrated
    error = f"{result.expected_calibration_error:.3f}"
    if before is not None:
        error += f", without the calibration {before.expected_calibration_error:.3f}"
    caption = (
        f"How often the model is right (vertical) where it is so sure (horizontal), in "
        f"{len(found.counts)} bins of confidence; a larger dot has more of them. Below the dashed "
        "line it is surer than right. The expected calibration error, the mean difference "
        f"weighted by their number, is {error}."
    )
    return figure(
        reliability_diagram(found, before.calibration_curve if before else None),
        f"Reliability diagram: the expected calibration error is {error}.",
        "Reliability diagram.",
        caption,
    )


def _risk_coverage(result: Evaluation) -> ET.Element:
    """What is gained by leaving out the least confident rows."""
    curve, area = result.risk_coverage, result.area_under_risk_coverage
    caption = (
        "The share that is wrong (vertical) when only the most confident rows are kept, by the "
        "share of rows kept (horizontal). The right end is the whole file; the faster the curve "
        f"falls to the left, the better confidence tells right from wrong. Its area is {area:.4f}."
    )
    found, threshold = result.abstention, None
    if found is not None:
        caption += (
            f" The model keeps {percent(found.coverage)}, of which {percent(found.error_rate)} are "
            f"wrong; at most {percent(found.risk)} were promised."
        )
        if found.by_label is None and found.coverage:  # several thresholds are no point of it
            threshold = found.coverage, found.error_rate
    return figure(
        risk_coverage_curve(curve.coverage, curve.risk, threshold),
        f"Risk-coverage curve: the area under it is {area:.4f}.",
        "Risk-coverage curve.",
        caption,
    )


def evaluated(result: Evaluation, names: ClassNames | None) -> ET.Element:
    """How often, and where, the model is right."""
    matrix = np.asarray(result.confusion_matrix)
    if matrix.ndim == 3:
        content = _by_label(matrix, names)
    elif len(matrix) > _MOST_IN_MATRIX:
        content = _confused_pairs(matrix, names)
    else:
        content = _matrix(matrix, names)
    charts = tag("div", _reliability(result), _risk_coverage(result), class_="columns")
    section = tag("section", tag("h2", "Compared with the targets"), charts)
    if result.prediction_sets is not None:
        parts = (_set_sizes(result.prediction_sets), _coverage(result.prediction_sets, names))
        section.append(tag("div", *parts, class_="columns"))
    section.append(content)
    return section


def _set_sizes(sets: SetReport) -> ET.Element:
    """How many classes the sets have, and how often they are right."""
    caption = (
        f"How many sets have how many classes; the mean is {sets.mean_size:.2f}, and "
        f"{percent(sets.empty_share)} are empty. {percent(sets.coverage)} hold the target; "
        f"{percent(sets.confidence_level)} were promised."
    )
    if sets.expected_interval is not None:
        low, high = map(percent, sets.expected_interval)
        caption += f" From {low} to {high} is no more than chance explains in 95 % of cases."
    alternative = f"Sizes of prediction sets: the mean is {sets.mean_size:.2f}."
    return figure(set_sizes(sets.size_counts), alternative, "Prediction sets.", caption)


def _coverage(sets: SetReport, names: ClassNames | None) -> ET.Element:
    """How often the sets hold the target, by class, against the level that was promised."""
    order = np.argsort(sets.coverage_by_class, kind="stable")  # NaN last
    rows: list[list[Child]] = [
        [
            label_name(place, names),
            f"{sets.class_counts[place]:,}",
            percent(sets.coverage_by_class[place]),
            bar(sets.coverage_by_class[place], mark=sets.confidence_level),
        ]
        for place in order[:MOST_CLASSES].tolist()
    ]
    caption = (
        "How many targets of each class are in their set, the least covered first; the line is "
        f"the promised {percent(sets.confidence_level)}."
    )
    if len(order) > MOST_CLASSES:
        caption += f" These are {MOST_CLASSES} of {len(order):,} classes."
    return table(["Class", "Targets", "Covered", ""], rows, numbers=[1, 2], caption=caption)


def _matrix(matrix: np.ndarray, names: ClassNames | None) -> ET.Element:
    texts = [label_name(label, names) for label in range(len(matrix))]
    columns = tag("tr", tag("th", "Target"))
    for text in texts:
        heading = tag("th", text, scope="col")
        if max(map(len, texts)) > _LONG_NAME:
            heading.set("class", "long")
        columns.append(heading)
    predicted = tag("th", "Predicted", colspan=str(len(texts)), scope="colgroup")
    above = tag("tr", tag("td", class_="corner"), predicted)
    body = tag("tbody")
    for text, counts in zip(texts, matrix.tolist(), strict=True):
        row = tag("tr", tag("th", text, scope="row"))
        for count in counts:
            share = count / max(sum(counts), 1)
            kind = "strong" if share >= _STRONG else "" if count else "none"
            style = f"--share:{share:.3f}"
            row.append(tag("td", f"{count:,}", class_=f"number {kind}".strip(), style=style))
        body.append(row)
    caption = (
        "Confusion matrix: number of rows by target (down) and predicted class (across). Right "
        "ones are on the diagonal; the stronger a cell, the larger its share of its row."
    )
    whole = tag("table", tag("thead", above, columns), body, class_="confusion")
    return captioned(whole, caption)


def _confused_pairs(matrix: np.ndarray, names: ClassNames | None) -> ET.Element:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_PAIRS]
    targets, labels = np.unravel_index(order, wrong.shape)
    totals = matrix.sum(axis=1)
    rows = [
        [
            label_name(target, names),
            label_name(label, names),
            f"{wrong[target, label]:,}",
            percent(wrong[target, label] / totals[target]),
        ]
        for target, label in zip(targets.tolist(), labels.tolist(), strict=True)
        if wrong[target, label]
    ]
    caption = (
        f"The most confused of {len(matrix):,} classes: how many rows of the target were taken for "
        f"the predicted class, and their share of the target's rows. These {len(rows)} pairs have "
        f"{sum(int(wrong[pair]) for pair in zip(targets, labels, strict=True)):,} of "
        f"{int(wrong.sum()):,} errors."
    )
    head = ["Target", "Predicted", "Count", "Share"]
    return table(head, rows, numbers=[2, 3], caption=caption)


def _by_label(matrices: np.ndarray, names: ClassNames | None) -> ET.Element:
    wrong = matrices[:, 0, 1] + matrices[:, 1, 0]
    shown = np.arange(len(matrices))
    caption = "Each label on its own: rows by target and prediction."
    if len(matrices) > _MOST_IN_MATRIX:
        shown = np.argsort(-wrong, kind="stable")[:_MOST_IN_MATRIX]
        caption += f" These are the {len(shown)} with the most errors of {len(matrices):,}."
    caption += (
        " Precision is the share of predicted ones that is right, recall the share of true ones "
        "that is found."
    )

    def cells(label: int) -> Iterator[str]:
        (true_negative, false_positive), (false_negative, true_positive) = matrices[label].tolist()
        yield label_name(label, names)
        for count in (true_positive, false_positive, false_negative, true_negative):
            yield f"{count:,}"
        for other in (false_positive, false_negative):
            found = true_positive + other
            yield percent(true_positive / found if found else np.nan)

    head = ["Label", "Found", "False alarms", "Missed", "Rightly not", "Precision", "Recall"]
    rows = [list(cells(label)) for label in shown.tolist()]
    return table(head, rows, numbers=range(1, 7), caption=caption)
