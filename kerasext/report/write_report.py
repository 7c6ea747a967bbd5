"""The page about a prediction file."""

from __future__ import annotations

import importlib.resources
import os
import xml.etree.ElementTree as ET
from datetime import datetime
from typing import Any

from kerasext.common import atomic_file, export_target
from kerasext.evaluation import Evaluation, RegressionEvaluation
from kerasext.report import evaluation_sections, sections
from kerasext.report.markup import document, pairs, short, tag
from kerasext.report.row_tally import RowTally
from kerasext.report.thumbnails import Thumbnails
from kerasext.storage import ClassNames, PredictionFile, opened


def write_report(
    predictions: PredictionFile | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    head: str = "",
    images: Any = None,
    rows: int = 20,
    title: str | None = None,
) -> None:
    """Writes one HTML page that shows what is in a prediction file.

    Counts per class, how sure the model was, the rows that it is least sure of, how the run went
    and where the file comes from; with stored targets also a reliability diagram, a risk-coverage
    curve, the confusion matrix, and size and coverage of prediction sets. The page needs nothing
    beside itself: it has no script, loads nothing and links to nothing. Text of the file is
    escaped. The file is read in blocks, in constant memory. The page appears under its name when it
    is whole, and replaces one that is there.

    Args:
        predictions: `PredictionFile`, open; or string or path-like, the path of one.
        path: String or path-like. The page.
        head: String. The head that the page is about, where there are several. Defaults to `""`,
            for the only head, or outputs that are in none.
        images: Folder that holds the files whose names are the ids, for thumbnails of the least
            confident rows; an image that is not there is named in the page. Or array-like, such as
            an array, a memory map or a dataset of h5py, of shape `(rows, height, width)` or
            `(rows, height, width, channels)` with 1, 3 or 4 channels, one for each row of the
            file, or of the data that `row` counts where not all were kept. uint8 is shown as it
            is, numbers in [0, 1] as shares of white, others stretched from the smallest to the
            largest of their image. Defaults to `None`, for no thumbnails.
        rows: Int. How many of the least confident rows the page shows. Defaults to 20.
        title: String. The heading. Defaults to `None`, for the name of the file.

    Raises:
        FileNotFoundError: If the prediction file, the folder of `path`, or the one of `images` does
            not exist.
        ImportError: If Matplotlib is not installed, which charts need, or Pillow, which `images`
            need.
        IsADirectoryError: If `path` is a folder.
        TypeError: If `images` is neither a folder nor an array.
        ValueError: If `path` is the prediction file, `rows` is negative, the file has no such head,
            or several and none was chosen, `images` has another shape, or too few rows, or is a
            folder and the file has no ids, or the file was closed, or is damaged.

    Example:

    ```python
    write_report("digits.h5", "digits.html", images=test_images)
    ```
    """
    if rows < 0:
        raise ValueError(f"`rows` must not be negative. Received: rows={rows}")
    with opened(predictions) as file:
        target_path = export_target(file.path, path)
        page = _page(file, head, images, rows, title)
    with atomic_file(target_path) as target:
        target.write(page)


def _page(
    predictions: PredictionFile, head: str, images: Any, rows: int, title: str | None
) -> bytes:
    view = predictions.head(head)
    thumbnails = None if images is None else Thumbnails(images, predictions)
    tally = RowTally(predictions, view, rows)
    names, result = view.class_names, tally.evaluation

    title = title or predictions.path.name
    parts = [_header(predictions, title, view.name), _facts(predictions, tally, names)]
    if tally.refused:
        parts.append(tag("p", f"Not compared with the targets: {tally.refused}", class_="warning"))
    if view.stale:
        text = f"Fitted on other weights or settings of the model: {', '.join(view.stale)}."
        parts.append(tag("p", tag("strong", "Stale."), f" {short(text)}", class_="warning"))
    if tally.labels or tally.confidences:
        parts.append(sections.predicted(tally, names))
    if isinstance(result, Evaluation):
        parts.append(evaluation_sections.evaluated(result, names))
    if tally.least_confident.size:
        parts.append(sections.least_confident(predictions, view, tally, thumbnails))
    parts.append(sections.outputs(predictions))
    parts += sections.run(predictions)

    style = importlib.resources.files("kerasext.report").joinpath("page.css").read_text("utf-8")
    return document(title, style, tag("main", *parts))


def _header(predictions: PredictionFile, title: str, head: str) -> ET.Element:
    origin = predictions.origin
    by = f" by model “{short(origin['model_name'])}”" if origin.get("model_name") else ""
    ended = datetime.fromisoformat(origin["ended"])
    about = f"{predictions.path.name}: predictions{by}, {ended:%d %B %Y, %H:%M} UTC"
    header = tag("header", tag("h1", title), tag("p", about, class_="muted"))
    if head:
        header.append(tag("p", f"This page is about the head “{short(head)}”."))
    if not predictions.complete:
        text = (
            " The call that writes this file has not come to its end. This page shows the "
            f"{predictions.rows:,} rows that are in it so far."
        )
        header.append(tag("p", tag("strong", "Incomplete."), text, class_="warning"))
    return header


def _facts(predictions: PredictionFile, tally: RowTally, names: ClassNames | None) -> ET.Element:
    facts = [
        ("Rows", f"{predictions.rows:,}"),
        ("State", "complete" if predictions.complete else "incomplete"),
    ]
    if names is not None:
        facts.append(("Labels" if tally.is_multi_label else "Classes", f"{len(names):,}"))
    if tally.confidences:
        facts.append(("Mean confidence", f"{tally.mean_confidence:.3f}"))
    result = tally.evaluation
    if isinstance(result, RegressionEvaluation):
        facts.append(("Mean absolute error", f"{result.mean_absolute_error:.4g}"))
        facts.append(("Root mean squared error", f"{result.root_mean_squared_error:.4g}"))
        facts.append(("R²", f"{result.r2:.4f}"))
    elif result is not None:
        of_each = " of each label" if tally.is_multi_label else ""
        facts.append((f"Accuracy{of_each}", sections.percent(result.accuracy)))
        facts.append(("Calibration error", f"{result.expected_calibration_error:.3f}"))
        if result.prediction_sets is not None:
            facts.append(("Coverage of sets", sections.percent(result.prediction_sets.coverage)))
        if result.abstention is not None:
            facts.append(("Kept", sections.percent(result.abstention.coverage)))
    shown = pairs(facts)
    shown.set("class", "facts")
    return shown
