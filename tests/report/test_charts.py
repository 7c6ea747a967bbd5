import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest

from kerasext.evaluation import CalibrationCurve
from kerasext.report.charts import (
    confidence_histogram,
    reliability_diagram,
    risk_coverage_curve,
    set_sizes,
)

NAN = float("nan")
CURVE = CalibrationCurve(
    np.linspace(0, 1, 4),
    np.array([0, 4, 6]),
    np.array([NAN, 0.5, 0.9]),
    np.array([NAN, 0.4, 0.95]),
)
CHARTS = {
    "histogram": lambda: confidence_histogram(np.array([3, 0, 5])),
    "reliability": lambda: reliability_diagram(CURVE),
    "reliability of both": lambda: reliability_diagram(CURVE, CURVE),
    "risk": lambda: risk_coverage_curve(np.array([0.5, 1]), np.array([0, 0.25])),
    "risk and threshold": lambda: risk_coverage_curve(
        np.array([0.5, 1]), np.array([0, 0.25]), (0.5, 0.0)
    ),
    "sizes": lambda: set_sizes(np.array([3, 10, 4, 0])),
}


def markup(chart):
    """A chart as it stands in the page."""
    return ET.tostring(chart, encoding="unicode", method="html")


@pytest.mark.parametrize("name", CHARTS)
def test_colours_and_text_are_those_of_the_page(name):
    """A chart has no colour of its own, and its text is text in the font of the page."""
    chart = CHARTS[name]()
    text = markup(chart)
    assert "var(--accent)" in text
    assert "#0" not in text.replace(f"#{name.split()[0]}", "")
    labels = list(chart.iter("text"))
    assert any(label.text.strip() for label in labels)
    assert all(label.get("style").endswith("font-family: inherit") for label in labels)


@pytest.mark.parametrize("name", CHARTS)
def test_charts_are_reproducible(name):
    """The same numbers make the same chart, whatever style somebody has set."""
    first = markup(CHARTS[name]())
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert markup(CHARTS[name]()) == first
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("name", CHARTS)
def test_ids_are_of_one_chart(name):
    """Each id, and each reference to one, has the name of the chart."""
    chart = CHARTS[name]()
    ids = {element.get("id") for element in chart.iter() if element.get("id")}
    assert all(name.split()[0] in text.split("-")[0] for text in ids)
    used = {element.get("href") for element in chart.iter("use")}
    assert used <= {f"#{text}" for text in ids}


def test_long_curves_are_short():
    """A curve of many points does not make a large page."""
    coverage = np.linspace(0, 1, 1_000_000)
    assert len(markup(risk_coverage_curve(coverage, coverage**2))) < 60_000


def test_sets_of_any_size():
    """Sizes up to thousands of classes, or none but empty sets, make a small chart."""
    for counts in (np.ones(5001, int), np.array([7, 0, 0]), np.array([0, 9])):
        assert len(markup(set_sizes(counts))) < 300_000


@pytest.mark.parametrize("count", [1, 10, 10**6, 10**12])
def test_large_counts(count):
    """Counts of any size are written short on the axis."""
    chart = confidence_histogram(np.array([count]))
    assert max(len(element.text.strip()) for element in chart.iter("text")) <= len("Predictions")
