"""What the tests of the report share: files to show, and a look at the page."""

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from kerasext.report import write_report
from kerasext.storage import PredictionFile, PredictionFileWriter

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What stands in a page: its tags with attributes, its text, its tables."""

    def __init__(self, path):
        super().__init__()
        self.path, self.bytes = path, path.read_bytes()
        self.tags, self.texts, self.tables, self._open = [], [], [], []
        self.feed(self.bytes.decode())
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def table(self, *headings):
        """The rows of the table whose headings begin with these."""
        return next(rows[1:] for rows in self.tables if rows[0][: len(headings)] == [*headings])


def outputs_of(probabilities):
    """What a classifier yields for these."""
    unknown = np.isnan(probabilities).any(axis=1)
    return {
        "probabilities": probabilities,
        "labels": np.where(unknown, -1, probabilities.argmax(axis=1)).astype("i4"),
        "confidence": probabilities.max(axis=1),
    }


@pytest.fixture
def outputs():
    """Outputs of a classifier of 4 classes for 200 rows, one of them NaN."""
    probabilities = np.random.default_rng(0).dirichlet(np.full(4, 0.4), 200).astype("f4")
    probabilities[17] = np.nan
    return outputs_of(probabilities)


@pytest.fixture
def report(tmp_path):
    """Writes a file of columns and the report on it; returns the page."""

    def write(
        columns, *, class_names=None, attributes=None, prediction_metadata=None, complete=True, **of
    ):
        path = tmp_path / "predictions.h5"
        attributes = {**(attributes or {})}
        if prediction_metadata is not None:
            attributes["prediction_metadata"] = json.dumps(prediction_metadata)
        ragged = [name for name, rows in columns.items() if not isinstance(rows, np.ndarray)]
        writer = PredictionFileWriter(
            path, mode="w", class_names=class_names, attributes=attributes, ragged=ragged
        )
        writer.append(columns)
        if complete:
            writer.finish()
        writer.close()
        page = tmp_path / "page.html"
        with PredictionFile(path) as predictions:
            write_report(predictions, page, **of)
        return Page(page)

    return write
