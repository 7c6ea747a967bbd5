"""The parts of a report that need no targets."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from kerasext.report.charts import confidence_histogram
from kerasext.report.labels import label_name, row_text
from kerasext.report.markup import Child, pairs, short, table, tag
from kerasext.report.row_tally import BINS, RowTally
from kerasext.report.thumbnails import Thumbnails
from kerasext.storage import IDS, ROW, ClassNames, Head, PredictionFile

MOST_CLASSES = 20
"""Of the most frequent ones that are shown."""

_MOST_JSON = 20_000  # characters


def figure(chart: ET.Element, alternative: str, title: str, caption: str) -> ET.Element:
    """A chart with a caption, and a text for those who don't see it."""
    chart.set("role", "img")
    chart.set("aria-label", alternative)
    return tag("figure", chart, tag("figcaption", tag("strong", title), f" {caption}"))


def percent(share: float) -> str:
    """A share, NaN if there is none."""
    return f"{share:.1%}" if np.isfinite(share) else "none"


def bar(share: float, *, mark: float | None = None) -> ET.Element:
    """A bar of the share of a width, and a line at another share."""
    shown = tag("span", class_="bar", aria_hidden="true")
    shown.append(tag("span", style=f"width:{np.nan_to_num(share):.2%}"))
    if mark is not None:
        shown.append(tag("i", style=f"left:{mark:.2%}"))
    return shown


def outputs(predictions: PredictionFile) -> ET.Element:
    """What is stored of each row."""

    def shape(of: tuple[int | None, ...]) -> str:
        return " \N{MULTIPLICATION SIGN} ".join(
            "any" if size is None else f"{size:,}" for size in of
        )

    rows: list[list[Child]] = [
        [tag("code", short(name)), shape(output.shape), _dtype(output.dtype)]
        for name, output in predictions.items()
    ]
    caption = "What is stored, by name; “any” is an axis whose length differs between rows."
    return tag(
        "section",
        tag("h2", "Outputs"),
        table(["Output", "Shape", "Dtype"], rows, numbers=[], caption=caption),
    )


def predicted(tally: RowTally, names: ClassNames | None) -> ET.Element:
    """How often each class was predicted, and how surely."""
    columns = [_classes(tally, names)] if tally.labels else []
    columns += [_confidence(tally)] if tally.confidences else []
    return tag("section", tag("h2", "Predictions"), tag("div", *columns, class_="columns"))


def _classes(tally: RowTally, names: ClassNames | None) -> ET.Element:
    """How often each class was predicted."""
    counts = dict.fromkeys(range(len(names or ())), 0) | dict(tally.counts)
    known = [label for label in counts if label != -1]
    shown = sorted(counts, key=lambda label: (-counts[label], isinstance(label, str), label))
    if len(known) > MOST_CLASSES:
        shown = shown[:MOST_CLASSES]
    else:
        shown = sorted(shown, key=lambda label: (label == -1, -counts[label]))
    largest = max(counts.values(), default=0)

    rows: list[list[Child]] = [
        [
            label_name(label, names),
            f"{counts[label]:,}",
            percent(counts[label] / max(tally.labels, 1)),
            bar(counts[label] / max(largest, 1)),
        ]
        for label in shown
    ]
    of = "rows with the label" if tally.is_multi_label else "predictions of the class"
    caption = f"Number of {of}, and their share of all {tally.labels:,}; the most frequent first."
    if len(known) > MOST_CLASSES:
        rest = sum(counts.values()) - sum(counts[label] for label in shown)
        caption += (
            f" These are the {MOST_CLASSES} most frequent of {len(known):,} classes; the others "
            f"have {rest:,} together."
        )
    if counts.get(-1):
        caption += " “no label” has what the model gave NaN for."
    return table(["Class", "Count", "Share", ""], rows, numbers=[1, 2], caption=caption)


def _confidence(tally: RowTally) -> ET.Element:
    """How confidences are distributed."""
    caption = (
        f"How many of the {tally.confidences:,} predictions are how sure, in {BINS} bins; the "
        f"mean is {tally.mean_confidence:.3f}. A model that is mostly sure has its mass at the "
        "right."
    )
    if tally.unsure:
        caption += f" Left out, as NaN or not in [0, 1]: {tally.unsure:,}."
    half = int(tally.histogram[: BINS // 2].sum())
    alternative = (
        f"Histogram of confidences: {half:,} of {tally.confidences:,} are below 0.5, the mean is "
        f"{tally.mean_confidence:.3f}."
    )
    return figure(
        confidence_histogram(tally.histogram), alternative, "Confidence histogram.", caption
    )


def least_confident(
    predictions: PredictionFile, head: Head, tally: RowTally, thumbnails: Thumbnails | None
) -> ET.Element:
    """The rows that somebody should look at first."""
    rows = tally.least_confident
    columns: dict[str, list[Child]] = {}
    if thumbnails:
        columns["Image"] = [thumbnails.of(int(row)) for row in rows]
    if IDS in predictions.columns:
        columns["Id"] = [short(value) for value in predictions[IDS][rows]]
    else:
        columns["Row"] = [f"{row:,}" for row in rows]
    if ROW in predictions.columns:
        columns["Row in the data"] = [f"{row:,}" for row in predictions[ROW][rows]]
    numbers = [place for place, title in enumerate(columns) if title.startswith("Row")]
    names = head.class_names
    labels = head.labels if tally.has_labels else None
    for title, output in (("Label", labels), ("Target", head.targets)):
        if output is None:
            continue
        values = output[rows]
        if output is head.targets and _are_one_hot(head):
            values = values.argmax(axis=-1)
        columns[title] = [
            row_text(value, names, are_indicators=tally.is_multi_label) for value in values
        ]
    numbers.append(len(columns))
    columns["Confidence"] = [
        "NaN" if np.isnan(value) else f"{value:.4f}" for value in tally.least_confidence
    ]
    caption = "The rows that the model is least sure of, the least sure first; NaN before all."
    if head.confidence is not None and head.confidence.ndim > 1:
        of = "its least sure label" if tally.is_multi_label else "the mean of its positions"
        caption += f" A row is as sure as {of}."
    return tag(
        "section",
        tag("h2", "Least confident rows"),
        table(
            list(columns),
            list(zip(*columns.values(), strict=True)),
            numbers=numbers,
            caption=caption,
        ),
    )


def run(predictions: PredictionFile) -> Iterator[ET.Element]:
    """How the last call went, where the file comes from, and what was said of it."""
    health = predictions.health
    yield tag(
        "section",
        tag("h2", "The run"),
        tag("p", "The last call that wrote to the file.", class_="muted"),
        pairs(
            [
                ("Rows", f"{health['rows']:,}"),
                ("Data before compression", f"{_short_number(health['bytes'] / 1e6)} MB"),
                ("Time", f"{_short_number(health['seconds'])} s"),
                ("Waited for the disk", f"{_short_number(health['stalled_seconds'])} s"),
                ("Speed", f"{health['rows_per_second']:,.0f} rows per second"),
            ]
        ),
    )
    origin = predictions.origin
    section = tag(
        "section",
        tag("h2", "Origin"),
        pairs((name.replace("_", " "), short(value)) for name, value in origin.items()),
    )
    for title, values in (
        ("Metadata", predictions.metadata),
        ("What the model says of its outputs", predictions.prediction_metadata),
    ):
        if values:
            section.append(tag("details", tag("summary", title), tag("pre", _as_json(values))))
    yield section


def _short_number(value: float) -> str:
    return f"{value:,.3f}" if value < 1 else f"{value:,.1f}"


def _dtype(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind == "U" else dtype.name


def _are_one_hot(head: Head) -> bool:
    labels, targets = head.labels, head.targets
    if labels is None or targets is None or labels.ndim != 1:
        return False
    return targets.shape[1:] == (len(head.class_names or ()),)


def _as_json(values: Mapping[str, Any]) -> str:
    return short(json.dumps(values, indent=2, ensure_ascii=False), _MOST_JSON)
